"""Validation data that lie elsewhere than the training data: unscaled ones, mostly.

The samples of one distribution rarely lie outside of the range of others of it, and
hardly ever by more than the width of that range. So data are elsewhere if most numbers
of a feature do. This looks at no more than a small part of the data.
"""

import warnings
from typing import NamedTuple

import numpy as np

from skreg.estimators._sparse import dense_rows, is_sparse

__all__ = ["warn_if_elsewhere"]

LOOKED_AT = 2**15  # numbers of each data set
COLUMNS = 2**12
FEWEST = 10  # samples that tell where data lie
NARROWER = 20  # times, for the training data to be elsewhere


class Range(NamedTuple):
    """The smallest and the largest number of each feature."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray) -> "Range":
        return cls(X.min(axis=0), X.max(axis=0))

    @property
    def width(self) -> np.ndarray:
        return self.high - self.low

    def share_outside(self, X: np.ndarray) -> np.ndarray:
        """Return the share of the rows that are outside, by more than its width."""
        low, high = self.low - self.width, self.high + self.width
        return ((low > X) | (high < X)).mean(axis=0)


def warn_if_elsewhere(X, X_val, names=None) -> None:
    """Warn if validation data lie far outside of the training data, or around them.

    Parameters
    ----------
    X, X_val : ndarray, Rows or csr_matrix of shape (n, ...)
        Features are looked at one by one; of images, all pixels as one.
    names : sequence of str, default=None
        Of the features.
    """
    if X.dtype.kind != "f" or min(X.shape[0], X_val.shape[0]) < FEWEST:
        return
    train, columns = _sample(X)
    valid, _ = _sample(X_val)
    inner, outer = Range.of(train), Range.of(valid)
    with np.errstate(over="ignore"):
        varies = inner.width > 0
        share = np.where(varies, inner.share_outside(valid), 0)
        around = (outer.share_outside(train) > 0.5) & (outer.width > 0)
        around &= inner.width > NARROWER * outer.width
    worst = int(share.argmax())
    if share[worst] <= 0.5:
        if not varies.any() or around.sum() <= varies.sum() / 2:
            return
        worst = int(around.argmax())
    seen, seen_val = (
        f"between {part.low[worst]:.4g} and {part.high[worst]:.4g}"
        for part in (inner, outer)
    )
    warnings.warn(
        "The validation data lie elsewhere than the training data: "
        f"{_name(X, columns[worst], names)} is {seen} in the training data, and "
        f"{seen_val} in the validation data. Validation losses, "
        "and early stopping, mean little then. Prepare both in the same way: the steps "
        "of a Pipeline transform X alone, unless it is told "
        "Pipeline(..., transform_input=['X_val']), with metadata routing.",
        UserWarning,
        stacklevel=2,
    )


def _name(X, column: int, names) -> str:
    if len(X.shape) > 2:
        return "what X holds"
    return f"feature {column}" if names is None else f"feature {names[column]!r}"


def _sample(X) -> tuple[np.ndarray, np.ndarray]:
    """Return some rows of X, for some features, and which these are."""
    n_rows, n_numbers = X.shape[0], int(np.prod(X.shape[1:]))
    n_columns = min(n_numbers, COLUMNS)
    columns = np.linspace(0, n_numbers - 1, n_columns).astype(int)
    n_looked_at = min(n_rows, max(2 * FEWEST, LOOKED_AT // n_columns))
    rows = np.linspace(0, n_rows - 1, n_looked_at).astype(int)
    part = dense_rows(X, rows) if is_sparse(X) else np.asarray(X[rows])
    part = part.reshape(len(part), -1).astype(np.float64)  # files hold any numbers
    part = part if n_columns == n_numbers else part[:, columns]
    return (part, columns) if len(X.shape) == 2 else (part.reshape(-1, 1), columns)
