"""Datasets of the user's: their samples, their targets and their dtypes."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from skorch.dataset import Dataset
from torch.utils.data import Subset, TensorDataset

from skreg._utils.arrays import is_array_like, to_numpy
from skreg.estimators._explained import check_same_length
from skreg.training.batches import ArrayDataset

__all__ = [
    "TargetTransform",
    "WithTargets",
    "accepted_dtypes",
    "arrays_of",
    "check_pair",
    "targets_of",
]


class TargetTransform(torch.utils.data.Dataset):
    """A map-style dataset whose targets go through a function.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Yields pairs (x, y).
    transform : callable
        Maps an ndarray of targets to an ndarray of the same length.
    shape : tuple of int
        Of one target, for `transform`.
    """

    def __init__(
        self,
        dataset,
        transform: Callable[[np.ndarray], np.ndarray],
        shape: tuple[int, ...] = (),
    ):
        self.dataset = dataset
        self.transform = transform
        self.shape = shape

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i):
        x, y = self.dataset[i]
        return x, self.transform(np.asarray(to_numpy(y)).reshape(1, *self.shape))[0]


class WithTargets(torch.utils.data.Dataset):
    """A map-style dataset with other targets, or with targets if it had none.

    Parameters
    ----------
    dataset : sequence
        Yields pairs (x, y), or x alone.
    targets : ndarray of shape (n_samples, ...)
    of_pairs : bool, default=True
    """

    def __init__(self, dataset, targets: np.ndarray, of_pairs: bool = True):
        self.dataset = dataset
        self.targets = targets
        self.of_pairs = of_pairs

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i):
        sample = self.dataset[i]
        x = check_pair(self.dataset, sample)[0] if self.of_pairs else sample
        return x, self.targets[i]


def arrays_of(dataset) -> tuple | None:
    """Return (X, y) if a dataset holds them in memory as arrays, else None."""
    # A subclass may make of its arrays what it likes: only these very classes.
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return tuple(to_numpy(tensor) for tensor in dataset.tensors)
    if type(dataset) in (ArrayDataset, Dataset) and is_array_like(dataset.X):
        return to_numpy(dataset.X), to_numpy(dataset.y)
    return None


def accepted_dtypes(X) -> list[type]:
    """Return the dtypes that X may keep; what else it is becomes the first of them.

    That is float64 for numbers of that precision in another form: lists, objects,
    frames, another order of bytes.
    """
    if _precision_of(X) is np.float64:
        return [np.float64, np.float32]
    return [np.float32, np.float64]


def _precision_of(X) -> type:
    if hasattr(X, "columns"):  # a frame; its first row mostly tells, and costs nothing
        first = np.asarray(X[:1])
        return _precision_of(np.asarray(X) if first.dtype == object else first)
    if isinstance(X, np.ndarray) and X.dtype == object:
        X = X.tolist()
    if isinstance(X, list | tuple):
        return np.float64 if _holds_floats(X) else np.float32
    dtype = getattr(X, "dtype", None)
    is_double = isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize > 4
    return np.float64 if is_double else np.float32


def _holds_floats(values) -> bool:
    """Tell whether nested lists hold a float of Python, or other doubles."""
    if isinstance(values, list | tuple):
        return any(map(_holds_floats, values))
    if isinstance(values, float):  # and np.float64
        return True
    return _precision_of(to_numpy(values)) is np.float64


def targets_of(dataset) -> np.ndarray:
    """Return all targets of a map-style dataset, without loading X if it can.

    torchvision's datasets keep theirs as ``targets``, before their
    ``target_transform``, skorch's as ``y``; any other dataset is read once from end to
    end.
    """
    if isinstance(dataset, Subset):
        return targets_of(dataset.dataset)[np.asarray(dataset.indices)]
    for name in ("targets", "y"):
        if (targets := getattr(dataset, name, None)) is not None:
            targets = np.asarray(to_numpy(targets))
            if callable(transform := getattr(dataset, "target_transform", None)):
                return _stacked(transform(target) for target in targets.tolist())
            return targets
    samples = (dataset[i] for i in range(len(dataset)))
    return _stacked(check_pair(dataset, sample)[1] for sample in samples)


def _stacked(targets: Iterable) -> np.ndarray:
    targets = [to_numpy(target) for target in targets]
    check_same_length(targets)
    return np.asarray(targets)


def check_pair(dataset, sample):
    """Return a sample of a dataset, which must be a pair (x, y)."""
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        length = f" of length {len(sample)}" if isinstance(sample, tuple | list) else ""
        raise ValueError(
            f"X={type(dataset).__name__} yields a {type(sample).__name__}{length}; the "
            "samples of a Dataset must be pairs (x, y)."
        )
    return sample
