"""Arrays: what is one, and how a tensor becomes one."""

from collections.abc import Mapping

import torch
from skorch.helper import SliceDataset
from torch import Tensor
from torch.utils.data import Dataset

from skreg._utils.sparse import from_torch, is_sparse

__all__ = ["is_array_like", "is_sliced", "to_numpy"]


def to_numpy(X):
    """Bring a tensor to an ndarray; leave everything else as it is.

    A sparse one becomes a sparse matrix.
    """
    if not isinstance(X, Tensor):
        return X
    X = X.detach().cpu()
    if X.layout != torch.strided:
        return from_torch(X)
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()  # NumPy has none


def is_array_like(X) -> bool:
    """Tell arrays, frames, lists and tensors from Datasets and dicts of inputs."""
    # One kind of sparse matrix is a dict too.
    is_dataset = isinstance(X, Dataset | Mapping) or is_sliced(X)
    return is_sparse(X) or not is_dataset


def is_sliced(X) -> bool:
    """Tell whether X is what skorch cuts out of a Dataset for scikit-learn."""
    return isinstance(X, SliceDataset)
