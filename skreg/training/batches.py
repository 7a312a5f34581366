"""Batches: from arrays in memory, in files or sparse, to tensors on the device."""

import mmap
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from skorch.dataset import Dataset
from torch import Tensor
from torch.utils.data import Subset

from skreg._utils.sparse import dense_rows, is_sparse

__all__ = [
    "ArrayDataset",
    "Batch",
    "GatheredBatches",
    "InMemoryBatches",
    "Rows",
    "WeightedBatches",
    "WeightedDataset",
    "as_tensor",
    "is_gathered",
    "is_in_memory",
    "is_mapped",
    "is_sparse_dataset",
    "is_weighted",
    "materialized",
    "mean_weight",
    "present",
    "sent_ahead",
    "take_rows",
    "weight_of",
    "with_weight",
]

GATHERED_BYTES = 2**19
COPIED_BYTES = 2**26  # of larger arrays, on a CPU, parts are not copied


class Batch(tuple):
    """A pair (X, y), as skorch unpacks it, that knows the weights of its samples."""

    weight: Tensor | None

    def __new__(cls, X, y, weight=None):
        batch = super().__new__(cls, (X, y))
        batch.weight = weight
        return batch

    def __getnewargs__(self):  # a callback may keep a batch, and be pickled
        return *self, self.weight


class ArrayDataset(Dataset):
    """X and y in memory: arrays for skorch and its callbacks, tensors for training.

    Parameters
    ----------
    X : ndarray of shape (n_samples, ...), csr_matrix or Rows
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs), or None

    Attributes
    ----------
    weight : ndarray of shape (n_samples,) or None
        Weights of the samples.
    """

    def __init__(self, X, y=None, length=None):
        super().__init__(X, y, length)
        self.weight = None
        self._tensors = {}

    @property
    def targets(self) -> np.ndarray:
        """y, or zeros if there is none."""
        return np.zeros(len(self), dtype=np.int64) if self.y is None else self.y

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return X, y, weight on `device`, moved once; on a CPU they share memory."""
        if device not in self._tensors:
            self._tensors[device] = tuple(
                None if array is None else as_tensor(array).to(device)
                for array in (self.X, self.targets, self.weight)
            )
        return self._tensors[device]

    def part(self, rows: slice, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return X and y of some rows on `device`; of a sparse X, these as dense."""
        if is_sparse(self.X):
            X = as_tensor(dense_rows(self.X, rows)).to(device)
            return X, self._targets_on(device)[rows]
        X, y, _ = self.tensors(device)
        return X[rows], y[rows]

    def _targets_on(self, device: torch.device) -> Tensor:
        if device not in self._tensors:
            self._tensors[device] = as_tensor(self.targets).to(device)
        return self._tensors[device]

    def __getstate__(self):
        return {**self.__dict__, "_tensors": {}}


def as_tensor(array: np.ndarray) -> Tensor:
    """Return a tensor that shares the memory of an array."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        # torch has no read-only tensors, and warns; but nobody writes into the data,
        # and a memory map may be larger than the memory.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def sent_ahead(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on `device`, without waiting for that."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


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
        Draw a new order for each pass.
    drop_last : bool, default=False
        Leave out the last batch if it is smaller than the others.
    writable : bool, default=False
        Whoever takes the batches may write into them: none shares memory with the data.
    merge_last : bool, default=False
        A last batch of one sample joins the batch before it.

    Attributes
    ----------
    generator : torch.Generator or None
        Where orders are drawn from; None is torch's default generator.
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        device: torch.device,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        writable: bool = False,
        merge_last: bool = False,
    ):
        self.dataset = dataset
        self.device = device
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.writable = writable
        self.merge_last = merge_last
        self.generator = None

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __iter__(self) -> Iterator[Batch]:
        return self.in_order(self.draw_order())

    def draw_order(self) -> Tensor | None:
        """Return an order of the samples for a pass; None is that of the data."""
        n = len(self.dataset)
        if not (self.shuffle and n > self.batch_size):
            return None
        return torch.randperm(n, generator=self.generator)

    @property
    def edges(self) -> list[int]:
        """Where the batches of a pass begin, and where the last one ends."""
        n, size = len(self.dataset), self.batch_size
        end = n - n % size if self.drop_last else n
        edges = [*range(0, end, size), end]
        if self.merge_last and end % size == 1 and len(edges) > 2:
            del edges[-2]
        return edges

    def in_order(self, order: Tensor | None) -> Iterator[Batch]:
        """Yield the batches of a pass.

        Parameters
        ----------
        order : Tensor of shape (n_samples,) or None
            From ``draw_order``.
        """
        X, y, weight = self.dataset.tensors(self.device)
        edges = self.edges
        if order is None:
            for batch in _batches(X, y, weight, edges):
                if self.writable:
                    batch = Batch(*(part.clone() for part in batch), batch.weight)
                yield batch
            return
        order = sent_ahead(order, self.device)
        # Several batches are gathered at once, as many as fit into the cache.
        n_bytes = max(1, X[:1].nbytes)
        together = max(1, GATHERED_BYTES // (n_bytes * self.batch_size))
        for first in range(0, len(edges) - 1, together):
            of_block = edges[first : first + together + 1]
            start, end = of_block[0], of_block[-1]
            block = (
                None if tensor is None else tensor.index_select(0, order[start:end])
                for tensor in (X, y, weight)
            )
            yield from _batches(*block, edges=[edge - start for edge in of_block])


class GatheredBatches(InMemoryBatches):
    """The same batches of data of which memory holds one batch at a time.

    X may be an array in a file, a sparse matrix, or `Rows`; parameters are as for
    `InMemoryBatches`.

    Attributes
    ----------
    convert_integers : callable or None
        Maps an ndarray of integers to one in the dtype that the module takes; None
        makes floating-point numbers of them.
    """

    convert_integers = None

    def in_order(self, order: Tensor | None) -> Iterator[Batch]:
        """As `InMemoryBatches.in_order`."""
        for start, end in pairwise(self.edges):
            pick = slice(start, end)
            yield self._gather(pick if order is None else order[pick].numpy())

    def _gather(self, pick) -> Batch:
        data = self.dataset
        X, y = self._take(data.X, pick), self._take(data.targets, pick)
        weight = None if data.weight is None else self._take(data.weight, pick)
        if self.convert_integers is None or X.dtype.kind == "f":
            X = _floating(X)
        else:
            X = self.convert_integers(X)
        return Batch(
            *(None if p is None else _on_device(p, self.device) for p in (X, y, weight))
        )

    def _take(self, array, pick) -> np.ndarray:
        if is_sparse(array):
            return dense_rows(array, pick)
        part = array[pick]
        return np.array(part) if self.writable and isinstance(pick, slice) else part


def _on_device(array: np.ndarray, device: torch.device) -> Tensor:
    return as_tensor(np.ascontiguousarray(array)).to(device)


def _floating(X: np.ndarray) -> np.ndarray:
    """Convert what a file may hold; small integers are exact as float32."""
    if X.dtype.kind == "f":
        return X.astype(X.dtype.newbyteorder("="), copy=False)
    return X.astype(np.float32 if X.itemsize <= 2 else np.float64)


def _batches(X, y, weight, edges: Sequence[int]) -> Iterator[Batch]:
    """Cut samples at `edges` into batches, which share their memory."""
    for start, end in pairwise(edges):
        part = slice(start, end)
        yield Batch(X[part], y[part], None if weight is None else weight[part])


class WeightedDataset(torch.utils.data.Dataset):
    """A map-style dataset whose samples are (x, (y, weight))."""

    def __init__(self, dataset, weight: np.ndarray):
        self.dataset = dataset
        self.weight = weight

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i):
        x, y = self.dataset[i]
        return x, (y, self.weight[i])


class WeightedBatches:
    """Make batches with weights of what a loader collates from `WeightedDataset`."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for X, (y, weight) in self.loader:
            yield Batch(X, y, weight)


def with_weight(dataset, weight: np.ndarray | None):
    """Give the samples of a dataset their weights."""
    if weight is None:
        return dataset
    if not (is_in_memory(dataset) or is_gathered(dataset)):
        return WeightedDataset(dataset, weight)
    dataset.weight = weight
    return dataset


def weight_of(dataset) -> np.ndarray | None:
    """Return the weights of a dataset's samples, if they have some."""
    if isinstance(dataset, Subset):
        weight = weight_of(dataset.dataset)
        return None if weight is None else weight[np.asarray(dataset.indices)]
    return getattr(dataset, "weight", None)


def mean_weight(dataset) -> float | None:
    """Return the mean weight of samples; None if they have none, or all are zero."""
    weight = weight_of(dataset)
    return None if weight is None or not weight.any() else float(weight.mean())


def is_weighted(dataset) -> bool:
    """Tell whether a dataset, or the one it is a subset of, is a `WeightedDataset`."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return isinstance(dataset, WeightedDataset)


class Rows:
    """Some rows of an array, which are copied only as they are asked for.

    Parameters
    ----------
    array : ndarray of shape (n, ...)
    indices : ndarray of int of shape (n_rows,)
    """

    def __init__(self, array: np.ndarray, indices: np.ndarray):
        self.array, self.indices = array, indices
        self.dtype, self.itemsize = array.dtype, array.itemsize
        self.ndim, self.shape = array.ndim, (len(indices), *array.shape[1:])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key) -> np.ndarray:
        return self.array[self.indices[key]]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def _parts(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), 256):
            yield self[start : start + 256]

    def min(self):
        """Return the smallest number."""
        return min(part.min() for part in self._parts())

    def max(self):
        """Return the largest number."""
        return max(part.max() for part in self._parts())


def take_rows(X, indices, device: torch.device | None = None):
    """Return the rows of an array; those of a large one, or of a file, as `Rows`.

    Parameters
    ----------
    X : ndarray, csr_matrix or Rows of shape (n, ...)
    indices : ndarray of int
    device : torch.device, default=None
        To another device than a CPU, the rows of what is in memory are moved at once.
    """
    if isinstance(X, Rows):
        return Rows(X.array, X.indices[indices])
    if is_sparse(X):
        return X[indices]
    on_cpu = device is None or device.type == "cpu"
    if is_mapped(X) or (on_cpu and X.nbytes > COPIED_BYTES):
        return Rows(X, indices)
    return X[indices]


def is_mapped(X) -> bool:
    """Tell whether an array lies in a file (``np.memmap``), or is a view of one."""
    while isinstance(X, np.ndarray):
        if isinstance(X, np.memmap):
            return isinstance(X.base, np.ndarray | mmap.mmap)
        X = X.base
    return isinstance(X, mmap.mmap)


def is_in_memory(dataset) -> bool:
    """Tell whether a dataset can be iterated over by `InMemoryBatches`."""
    return (
        isinstance(dataset, ArrayDataset)
        and isinstance(dataset.X, np.ndarray)
        and not is_mapped(dataset.X)
    )


def is_gathered(dataset) -> bool:
    """Tell whether a dataset is one for `GatheredBatches`."""
    return isinstance(dataset, ArrayDataset) and (
        isinstance(dataset.X, Rows) or is_sparse(dataset.X) or is_mapped(dataset.X)
    )


def is_sparse_dataset(dataset) -> bool:
    """Tell whether X of a dataset is a sparse matrix in memory."""
    return isinstance(dataset, ArrayDataset) and is_sparse(dataset.X)


def materialized(dataset, device: torch.device):
    """Turn a subset of an `ArrayDataset`, as a split makes it, into one of its own."""
    if isinstance(dataset, Subset):
        parent = materialized(dataset.dataset, device)
        indices = np.asarray(dataset.indices)
        if is_in_memory(parent) or is_gathered(parent):
            y, weight = (
                None if array is None else array[indices]
                for array in (parent.y, parent.weight)
            )
            return with_weight(
                ArrayDataset(take_rows(parent.X, indices, device), y), weight
            )
    return dataset


def present(dataset, device: torch.device):
    """Return the samples of a dataset whose weights are not zero, if there are any.

    Equal weights that are left are none.
    """
    if dataset is None:
        return None
    weight = weight_of(dataset)
    if weight is None or weight.all() or not weight.any():
        return dataset
    rows = cast("Sequence[int]", np.flatnonzero(weight))
    rest = materialized(Subset(dataset, rows), device)
    left = weight[rows]
    if isinstance(rest, ArrayDataset) and left.min() == left.max():
        rest.weight = None
    return rest
