"""Containers of X and y that are neither arrays nor Datasets, or are both."""

from collections.abc import Mapping

import numpy as np
from sklearn.utils import _safe_indexing
from skorch.dataset import Dataset
from skorch.helper import SliceDataset
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from skreg._utils.arrays import is_sliced
from skreg._utils.sparse import is_sparse

__all__ = ["plain", "refuse_loader", "refuse_pairs", "slice_parts"]


def plain(X):
    """Return an array for an object that can be one; all else as it is.

    Such an object may say of itself another shape than its array has. What frames
    know, the names of columns, would be lost, and tensors are for others to convert.
    """
    if isinstance(X, np.ndarray | Tensor | Mapping | list | tuple) or is_sparse(X):
        return X
    if is_sliced(X):
        parts = slice_parts(X)
        return X if parts is None else _safe_indexing(parts[X.idx], X.indices_)
    is_frame = any(hasattr(X, name) for name in ("columns", "iloc", "to_frame"))
    if is_frame or not hasattr(X, "__array__") or hasattr(X, "__array_namespace__"):
        return X
    return X if isinstance(X, np.generic) else np.asarray(X)


def slice_parts(X: SliceDataset) -> tuple | None:
    """Return the arrays or tensors that a slice picks one of, if these are all."""
    if type(X) is not SliceDataset:  # a subclass may transform what it picks
        return None
    dataset = X.dataset
    if type(dataset) is TensorDataset:
        parts = dataset.tensors
    elif type(dataset) is Dataset:
        parts = dataset.X, dataset.y
    else:
        return None
    chosen = parts[X.idx] if X.idx < len(parts) else None
    is_array = isinstance(chosen, np.ndarray | Tensor) or is_sparse(chosen)
    return parts if is_array or hasattr(chosen, "iloc") else None


def refuse_pairs(X) -> None:
    """Raise if X is a list of pairs (x, y), which scikit-learn makes of a Dataset."""
    if not (isinstance(X, list) and X and isinstance(X[0], tuple) and len(X[0]) == 2):
        return
    first, second = X[0]
    is_image = type(first).__module__.startswith("PIL.")
    if is_image or np.shape(first) != np.shape(second):
        raise ValueError(
            "X is a list of pairs (x, y): scikit-learn has cut a Dataset into its "
            "samples, which loses what is x and what is y. Pass "
            "skorch.helper.SliceDataset(dataset, 0) as X and SliceDataset(dataset, 1), "
            "or an array of the targets, as y."
        )


def refuse_loader(name: str, X) -> None:
    if isinstance(X, DataLoader):
        raise ValueError(
            f"{name} is a DataLoader, but the net makes its own batches: pass the "
            "loader's dataset, and set batch_size=, shuffle= or "
            "iterator_train__num_workers= of the net."
        )
