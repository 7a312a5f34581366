"""From the results of searches to arrays."""

from numbers import Real

import numpy as np

from skreg.displays.common import mean_and_error

WORD = 30  # characters: the longest label of a value


def read_scores(cv_results, part: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error over the splits of each candidate.

    Parameters
    ----------
    cv_results : dict or DataFrame
    part : {"train", "test"}
    metric : str

    Returns
    -------
    means, errors : ndarray of shape (n_candidates,)
        The errors are NaN where there are fewer than two splits.
    """
    splits = split_scores(cv_results, part, metric)
    # A split that failed makes the mean NaN, as in mean_test_score.
    errors = mean_and_error(splits)[1]
    means = splits.mean(axis=0)
    return means, np.where(np.isnan(means), np.nan, errors)


def split_scores(cv_results, part: str, metric: str) -> np.ndarray:
    """Return the scores in shape (n_splits, n_candidates)."""
    suffix = f"_{part}_{metric}"
    keys = [k for k in cv_results if k.startswith("split") and k.endswith(suffix)]
    if not keys:
        start = f"split0_{part}_"
        known = [k.removeprefix(start) for k in cv_results if k.startswith(start)]
        raise KeyError(
            f"cv_results has no {part} scores of {metric!r}; it has those of {known}. "
            + ("Search with return_train_score=True." if part == "train" else "")
        )
    keys.sort(key=lambda k: int(k.removeprefix("split").partition("_")[0]))
    return np.array([cv_results[k] for k in keys], dtype=float)


def score_words(metric: str) -> str:
    words = metric.replace("_", " ")
    return words[:1].upper() + words[1:]


def distinct(params: list[dict], name: str) -> list:
    """Return the values of a parameter: numbers ascending, else in their order."""
    values = []
    for candidate in params:
        if name in candidate and not any(_same(candidate[name], v) for v in values):
            values.append(candidate[name])
    return sorted(values) if are_numbers(values) else values


def are_numbers(values) -> bool:
    """Return whether all values have a place on an axis: finite numbers, no bools."""
    return all(_is_number(value) and np.isfinite(value) for value in values)


def as_values(values) -> np.ndarray:
    """Return the values of a parameter: floats, or an array of objects of any kind.

    Tuples of one length would otherwise become a second axis.
    """
    values = list(values)
    if are_numbers(values):
        return np.array(values, dtype=float)
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def value_words(values) -> list[str]:
    """Return how the values of a parameter are written on an axis."""
    return [f"{v:g}" if _is_number(v) else _word(v) for v in values]


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _word(value) -> str:
    text = value if isinstance(value, str) else getattr(value, "__name__", None)
    text = text or " ".join(repr(value).split())
    if " at 0x" in text:  # an object that has nothing to say of itself
        text = type(value).__name__
    if len(text) <= WORD:
        return text
    half = (WORD - 3) // 2  # long values differ at the end more often than not
    return f"{text[:half]}...{text[-half:]}"


def index_of(values: list, value) -> int:
    return next(i for i, v in enumerate(values) if _same(v, value))


def _same(a, b) -> bool:
    # Parameters may be arrays or objects: True == 1 but they are two values.
    return type(a) is type(b) and (a is b or bool(np.all(a == b)))
