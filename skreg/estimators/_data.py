"""From what users pass as data to batches on the device."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from scipy.sparse import issparse
from skorch.dataset import Dataset
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

# Batch size of batch_size="auto".
AUTO_BATCH_SIZE = 64


class ArrayDataset(Dataset):
    """X and y in memory: arrays for skorch and its callbacks, tensors for training.

    Parameters
    ----------
    X : ndarray of shape (n_samples, ...)
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs), or None
    """

    def __init__(self, X, y=None, length=None):
        super().__init__(X, y, length)
        self._tensors = {}

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return X and y on `device`, moved there once; on a CPU they share memory."""
        if device not in self._tensors:
            y = np.zeros(len(self), dtype=np.int64) if self.y is None else self.y
            self._tensors[device] = (
                _as_tensor(self.X).to(device),
                _as_tensor(y).to(device),
            )
        return self._tensors[device]

    def __getstate__(self):
        return {**self.__dict__, "_tensors": {}}


def _as_tensor(array: np.ndarray) -> Tensor:
    # torch has no read-only tensors, and warns when it shares read-only memory.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class InMemoryBatches:
    """Iterate over an `ArrayDataset` in batches that are already on the device.

    It gathers a batch with one indexing operation, where a DataLoader collates it
    from single samples.

    Parameters
    ----------
    dataset : ArrayDataset
    device : torch.device
    batch_size : int
        One batch holds all samples, unshuffled, if there are no more than this.
    shuffle : bool, default=False
        Draw a new order for each pass, from torch's default generator.
    drop_last : bool, default=False
        Leave out the last batch if it is smaller than the others.
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        device: torch.device,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
    ):
        self.dataset = dataset
        self.device = device
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last

    def __len__(self) -> int:
        n_full, rest = divmod(len(self.dataset), self.batch_size)
        return n_full + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        X, y = self.dataset.tensors(self.device)
        if not self.shuffle or len(X) <= self.batch_size:
            batches = zip(
                X.split(self.batch_size), y.split(self.batch_size), strict=True
            )
        else:
            order = torch.randperm(len(X)).to(self.device)
            batches = ((X[i], y[i]) for i in order.split(self.batch_size))
        for _, batch in zip(range(len(self)), batches, strict=False):
            yield batch


class TargetTransform(torch.utils.data.Dataset):
    """A map-style dataset whose targets go through a function.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Yields pairs (x, y).
    transform : callable
        Maps an ndarray of targets to an ndarray of the same length.
    """

    def __init__(self, dataset, transform: Callable[[np.ndarray], np.ndarray]):
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i):
        x, y = self.dataset[i]
        return x, self.transform(np.asarray([y]))[0]


def is_array_like(X) -> bool:
    """Tell arrays, frames, lists and tensors from Datasets and dicts of inputs."""
    # One kind of sparse matrix is a dict too; it is refused with the other kinds.
    return issparse(X) or not isinstance(X, torch.utils.data.Dataset | Mapping)


def is_in_memory(dataset) -> bool:
    """Tell whether a dataset can be iterated over by `InMemoryBatches`."""
    return isinstance(dataset, ArrayDataset) and isinstance(dataset.X, np.ndarray)


def arrays_of(dataset) -> tuple | None:
    """Return (X, y) if a dataset holds them in memory as arrays, else None."""
    # A subclass may make of its arrays what it likes: only these very classes.
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return tuple(to_numpy(tensor) for tensor in dataset.tensors)
    if type(dataset) in (ArrayDataset, Dataset) and is_array_like(dataset.X):
        return to_numpy(dataset.X), to_numpy(dataset.y)
    return None


def to_numpy(X):
    """Bring a tensor to an ndarray; leave everything else as it is."""
    return X.detach().cpu().numpy() if isinstance(X, Tensor) else X


def targets_of(dataset) -> np.ndarray:
    """Return all targets of a map-style dataset, without loading X if it can.

    torchvision's datasets keep theirs as ``targets``, skorch's as ``y``; any other
    dataset is read once from end to end.
    """
    if isinstance(dataset, Subset):
        return targets_of(dataset.dataset)[np.asarray(dataset.indices)]
    for name in ("targets", "y"):
        if (targets := getattr(dataset, name, None)) is not None:
            return np.asarray(to_numpy(targets))
    return np.asarray([to_numpy(dataset[i][1]) for i in range(len(dataset))])


def materialized(dataset):
    """Turn a subset of an `ArrayDataset`, as a split makes it, into one of its own."""
    if isinstance(dataset, Subset):
        parent, indices = materialized(dataset.dataset), np.asarray(dataset.indices)
        if isinstance(parent, ArrayDataset):
            y = None if parent.y is None else parent.y[indices]
            return ArrayDataset(parent.X[indices], y)
    return dataset
