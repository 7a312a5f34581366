"""Validation data that lie elsewhere than the training data: unscaled ones, mostly.

The samples of one distribution rarely lie outside of the range of others of it, and
hardly ever by more than the width of that range. So data are elsewhere if most numbers
of a feature do, or if most samples hold a number that does. Without the width, several
features must agree, and none of them counts that drifts in the training data already.
If many drift, time has ordered the rows, and later ones lie elsewhere by right. This
looks at no more than a small part of the data.
"""

import warnings
from typing import NamedTuple

import numpy as np

from skreg._utils.arrays import to_numpy
from skreg._utils.sparse import dense_rows, is_sparse

__all__ = ["warn_if_elsewhere", "warn_if_targets_elsewhere"]

LOOKED_AT = 2**15  # numbers of each data set
COLUMNS = 2**12
FEWEST = 10  # samples that tell where data lie
ENOUGH = 30  # samples that tell it without the width of their range
NARROWER = 20  # times, for the training data to be elsewhere
ALL_NARROWER = 8  # times, for the range of all features
RARE_ROWS = 0.05  # share of the samples that may be beyond this range
DRIFTING = 0.25  # share of one half of the training data outside of the other
DRIFTING_FEATURES = 0.25  # share of the features, for rows that time has ordered


class Range(NamedTuple):
    """The smallest and the largest number, of each feature or of all."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray) -> "Range":
        return cls(X.min(axis=0), X.max(axis=0))

    @classmethod
    def of_all(cls, X: np.ndarray, leave_out=0.0) -> "Range":
        """Return the range of all numbers; at each end, rows may be left out."""
        low = np.quantile(X.min(axis=1), leave_out)
        return cls(low, np.quantile(X.max(axis=1), 1 - leave_out))

    @property
    def width(self) -> np.ndarray:
        return self.high - self.low

    def share_outside(self, X: np.ndarray, by=1) -> np.ndarray:
        """Return the share of the rows that are outside, `by` times its width."""
        low, high = self.low - by * self.width, self.high + by * self.width
        return ((low > X) | (high < X)).mean(axis=0)

    def share_of_rows_outside(self, X: np.ndarray) -> float:
        """Return the share of the rows that hold a number outside by its width."""
        low, high = self.low - self.width, self.high + self.width
        return float(((X.min(axis=1) < low) | (X.max(axis=1) > high)).mean())


def warn_if_targets_elsewhere(y: np.ndarray, y_val: np.ndarray) -> None:
    """Warn if the targets of validation data are numbers in other units.

    Parameters
    ----------
    y, y_val : ndarray of shape (n,) or (n, n_outputs)
        As the user knows them.
    """
    parts = [np.asarray(part, dtype=np.float64) for part in (y, y_val)]
    train, valid = (part.reshape(len(part), -1) for part in parts)
    if min(len(train), len(valid)) < FEWEST:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        worst = _feature_elsewhere(train, valid)
    if worst is None:
        return
    seen, seen_val = (
        f"between {part.min():.4g} and {part.max():.4g}"
        for part in (train[:, worst], valid[:, worst])
    )
    warnings.warn(
        f"y_val lies elsewhere than y: y is {seen}, and y_val is {seen_val}. "
        "Validation losses, and early stopping, mean little then. Pass both in the "
        "same unit: a TransformedTargetRegressor transforms y alone, and is not "
        "needed, since scale_target=True standardises both.",
        UserWarning,
        stacklevel=2,
    )


def warn_if_elsewhere(X, X_val, names=None) -> None:
    """Warn if validation data lie far outside of the training data, or around them.

    Parameters
    ----------
    X, X_val : ndarray, Rows or csr_matrix of shape (n, ...)
        Features are looked at one by one, then all as one; of images, all pixels as
        one.
    names : sequence of str, default=None
        Of the features.
    """
    if X.dtype.kind != "f" or min(X.shape[0], X_val.shape[0]) < FEWEST:
        return
    train, columns = _sample(X)
    valid, _ = _sample(X_val)
    name = "what X holds"
    with np.errstate(over="ignore", invalid="ignore"):  # widths of the largest numbers
        worst = _feature_elsewhere(train, valid) if len(X.shape) == 2 else None
        if worst is not None:
            train, valid = train[:, [worst]], valid[:, [worst]]
            name = _name(columns[worst], names)
        elif not _are_rows_elsewhere(train, valid, len(X.shape) > 2):
            return
    seen, seen_val = (
        f"between {part.min():.4g} and {part.max():.4g}" for part in (train, valid)
    )
    warnings.warn(
        "The validation data lie elsewhere than the training data: "
        f"{name} is {seen} in the training data, and "
        f"{seen_val} in the validation data. Validation losses, "
        "and early stopping, mean little then. Prepare both in the same way: the steps "
        "of a Pipeline transform X alone, unless it is told "
        "Pipeline(..., transform_input=['X_val']), with metadata routing.",
        UserWarning,
        stacklevel=2,
    )


def _feature_elsewhere(train: np.ndarray, valid: np.ndarray) -> int | None:
    """Return the feature that lies elsewhere the most, or None."""
    inner, outer = Range.of(train), Range.of(valid)
    varies = inner.width > 0
    share = np.where(varies, inner.share_outside(valid), 0)
    if share.max() > 0.5:
        return int(share.argmax())
    around = (outer.share_outside(train) > 0.5) & (outer.width > 0)
    around &= inner.width > NARROWER * outer.width
    if varies.any() and around.sum() > varies.sum() / 2:
        return int(around.argmax())
    if len(train) < ENOUGH:
        return None
    share = np.where(varies, inner.share_outside(valid, by=0), 0)
    n_agreeing = min(varies.sum(), max(2, varies.sum() / 4))
    if (share > 0.5).sum() < max(1, n_agreeing):
        return None
    drifts = _drifts(train)
    share[drifts] = 0
    is_ordered = drifts[varies].mean() > DRIFTING_FEATURES
    if is_ordered or (share > 0.5).sum() < n_agreeing:
        return None
    return int(share.argmax())


def _drifts(train: np.ndarray) -> np.ndarray:
    """Return for each feature whether the order of the rows tells where it lies."""
    halves = train[: len(train) // 2], train[len(train) // 2 :]
    one, other = map(Range.of, halves)
    first, second = one.share_outside(halves[1], 0), other.share_outside(halves[0], 0)
    return np.maximum(first, second) > DRIFTING


def _are_rows_elsewhere(train: np.ndarray, valid: np.ndarray, alike: bool) -> bool:
    """Return whether most rows of one part hold a number far outside of the other's.

    If features are not `alike`, as pixels are, more rows are needed to tell.
    """
    if not alike and min(len(train), len(valid)) < ENOUGH:
        return False
    inner = Range.of_all(train)
    if inner.width > 0 and inner.share_of_rows_outside(valid) > 0.5:
        return True
    inner, outer = (Range.of_all(part, leave_out=RARE_ROWS) for part in (train, valid))
    is_narrower = inner.width > ALL_NARROWER * outer.width > 0
    return bool(is_narrower and outer.share_of_rows_outside(train) > 0.5)


def _name(column: int, names) -> str:
    return f"feature {column}" if names is None else f"feature {names[column]!r}"


def _sample(X) -> tuple[np.ndarray, np.ndarray]:
    """Return some rows of X, for some features, and which these are."""
    n_rows, n_numbers = X.shape[0], int(np.prod(X.shape[1:]))
    n_columns = min(n_numbers, COLUMNS)
    columns = np.linspace(0, n_numbers - 1, n_columns).astype(int)
    n_looked_at = min(n_rows, max(ENOUGH, LOOKED_AT // n_columns))
    rows = np.linspace(0, n_rows - 1, n_looked_at).astype(int)
    part = dense_rows(X, rows) if is_sparse(X) else to_numpy(X[rows])
    part = part.reshape(len(part), -1).astype(np.float64)  # files hold any numbers
    return part if n_columns == n_numbers else part[:, columns], columns
