"""Targets with several labels per sample, as 0/1 matrices with a column per label."""

import numpy as np
from scipy.sparse import issparse

__all__ = ["Indicators", "as_indicators", "is_matrix"]


def is_matrix(y) -> bool:
    """Tell whether targets have more than one column."""
    shape = y.shape if hasattr(y, "shape") else np.shape(y)
    return len(shape) == 2 and shape[1] > 1


def as_indicators(y) -> np.ndarray:
    """Return a matrix of zeros and ones as int64.

    Parameters
    ----------
    y : array-like or sparse matrix of shape (n_samples, n_labels)

    Raises
    ------
    ValueError
        If it holds other values.
    """
    y = y.toarray() if issparse(y) else np.asarray(y)
    if y.dtype == object and all(isinstance(v, (int, float)) for v in y.flat):
        y = y.astype(float)
    if y.dtype.kind not in "biuf" or not ((y == 0) | (y == 1)).all():
        raise ValueError(
            f"y has shape {y.shape} and holds other values than 0 and 1. It must be "
            "one class per sample, of shape (n_samples,), or any number of labels per "
            "sample, a matrix of zeros and ones of shape (n_samples, n_labels). For "
            "several targets with classes of their own use "
            "sklearn.multioutput.MultiOutputClassifier."
        )
    return y.astype(np.int64)


class Indicators:
    """Maps the numbers that are trained on to zeros and ones as integers."""

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        return numbers.astype(np.int64)
