"""What user code sees of the targets while ``fit`` runs: the labels and units of y.

The module trains on encoded targets, which only batches hold. Datasets are shown with
the targets decoded, and what user code makes of these, such as subsets, is brought back
to what they were made from.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.callbacks.scoring import ScoringBase
from skorch.dataset import Dataset as SkorchDataset
from torch import Tensor
from torch.utils.data import Dataset, Subset

from skreg._utils.arrays import to_numpy
from skreg.training.batches import Batch, WeightedDataset

__all__ = [
    "DecodedDataset",
    "ExactInverse",
    "Labels",
    "Message",
    "Targets",
    "without_decoding",
]

OWN_CALLBACKS = "skreg.callbacks"  # the module whose callbacks count encoded targets
# What torch and NumPy share, in all versions of torch.
TENSOR_DTYPES = "bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64"


class DecodedDataset(Dataset):
    """A dataset whose targets are shown decoded; all else is the dataset's.

    Parameters
    ----------
    encoded : torch.utils.data.Dataset
        Yields pairs (x, y).
    make_decoder : callable
        Returns a function from an ndarray of encoded targets to one of targets.
    """

    def __init__(self, encoded: Dataset, make_decoder: Callable[[], Callable]):
        self.encoded = encoded
        self._make_decoder = make_decoder

    @cached_property
    def decode(self) -> Callable[[np.ndarray], np.ndarray]:
        """The decoder, made when it is first needed."""
        return self._make_decoder()

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, i):
        x, y = self.encoded[i]
        return x, self.decode(np.asarray([to_numpy(y)]))[0]

    def __getattr__(self, name: str):
        if name.startswith("__") or name in ("encoded", "_make_decoder"):
            raise AttributeError(name)
        return getattr(self.encoded, name)

    def __getstate__(self):
        return {"encoded": self.encoded, "decode": self.decode}

    @cached_property
    def y(self) -> np.ndarray:
        """All targets, decoded once."""
        return self.decode(np.asarray(to_numpy(self.encoded.y)))


class _DecodedArrays(DecodedDataset, SkorchDataset):
    """The same of a dataset of skorch's, which it tells by their class."""


def without_decoding(dataset):
    """Return what a `DecodedDataset`, or a subset of one, was made from."""
    if isinstance(dataset, DecodedDataset):
        return dataset.encoded
    if isinstance(dataset, Subset):
        parent = without_decoding(dataset.dataset)
        if parent is not dataset.dataset:
            return Subset(parent, dataset.indices)
    return dataset


class Targets:
    """The targets of a fit, as the user knows them and as the module does.

    Parameters
    ----------
    make_decoder : callable
        Maps a list of pairs (encoded targets, targets), both ndarrays, to a function
        from encoded targets to targets.
    is_encoded : callable
        Tells whether a tensor of a batch's targets can be decoded.
    """

    def __init__(self, make_decoder: Callable, is_encoded: Callable[[Tensor], bool]):
        self._make_decoder = make_decoder
        self._is_encoded = is_encoded
        self._pairs = []
        self._decoder = None
        self._shown, self._encoded = {}, {}  # by the address of the other

    def add(self, prepared) -> None:
        """Take note of data, a `Prepared`, that were encoded."""
        self._pairs.append((prepared.y, prepared.own_y))
        self._decoder = None
        if isinstance(prepared.own_X, Dataset):
            self._remember(prepared.X, prepared.own_X)

    @property
    def of_training(self) -> np.ndarray:
        """The targets that were added first, as the user knows them."""
        return self._pairs[0][1]

    def _remember(self, encoded, shown) -> None:
        # Both are kept, so that no other object gets their addresses.
        self._shown[id(encoded)] = shown, encoded
        self._encoded[id(shown)] = encoded, shown

    def decoder(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from encoded targets to those that the user knows."""
        if self._decoder is None:
            self._decoder = self._make_decoder(self._pairs)
        return self._decoder

    def own(self, y: np.ndarray) -> np.ndarray:
        """Return the targets that were encoded as `y`."""
        for encoded, own in self._pairs:
            if encoded is y:
                return own
        return self.decoder()(y)

    def shown(self, X):
        """Return data for the eyes of the user: datasets with their own targets."""
        if not isinstance(X, Dataset):
            return X
        if id(X) not in self._shown:
            self._remember(X, self._as_shown(X))
        return self._shown[id(X)][0]

    def _as_shown(self, dataset):
        if isinstance(dataset, WeightedDataset):
            return self.shown(dataset.dataset)
        if isinstance(dataset, Subset):
            return Subset(self.shown(dataset.dataset), dataset.indices)
        is_skorch = isinstance(dataset, SkorchDataset)
        return (_DecodedArrays if is_skorch else DecodedDataset)(dataset, self.decoder)

    def encoded(self, dataset):
        """Return the dataset that was shown so, or its subset; None if none was."""
        if id(dataset) in self._encoded:
            return self._encoded[id(dataset)][0]
        if isinstance(dataset, Subset):
            parent = self.encoded(dataset.dataset)
            return None if parent is None else Subset(parent, dataset.indices)
        return None

    def decoded_batch(self, batch):
        """Return a batch with its targets decoded, if they are encoded."""
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            return batch
        X, y = batch
        if not (isinstance(y, Tensor) and self._is_encoded(y)):
            return batch
        y = _as_tensor(self.decoder()(to_numpy(y)))
        return Batch(X, y, getattr(batch, "weight", None))


class Message:
    """The arguments of a hook, for those who are told.

    Parameters
    ----------
    targets : Targets or None
        None while no fit runs, so that nothing is known about datasets and batches.
    hook : str
        Such as "on_epoch_end".
    arguments : dict
        With encoded targets.
    """

    def __init__(self, targets: Targets | None, hook: str, arguments: dict):
        self.targets = targets
        self.hook = hook
        self.arguments = arguments

    def to(self, callback) -> dict:
        """Return the arguments for a callback, or for the net itself.

        Batches are what the module trains on, but for skorch's scoring callbacks,
        which collect the targets of batches.
        """
        if self.targets is None or _counts_encoded(callback):
            return self.arguments
        if "batch" not in self.arguments:
            return self._shown
        scores = isinstance(callback, ScoringBase) and (
            getattr(type(callback), self.hook) is not getattr(Callback, self.hook)
        )
        return self._decoded if scores else self.arguments

    @cached_property
    def _shown(self) -> dict:
        return {name: self.targets.shown(v) for name, v in self.arguments.items()}

    @cached_property
    def _decoded(self) -> dict:
        batch = self.targets.decoded_batch(self.arguments["batch"])
        return {**self.arguments, "batch": batch}


def _counts_encoded(callback) -> bool:
    """Return whether a callback is one of ours, which evaluates no scorer."""
    own = type(callback).__module__ == OWN_CALLBACKS
    return own and getattr(callback, "scorer_", None) is None


def _as_tensor(targets: np.ndarray):
    return torch.from_numpy(targets) if targets.dtype in TENSOR_DTYPES else targets


class Labels:
    """Maps class indices to labels.

    Parameters
    ----------
    labels : ndarray of shape (n_classes,)
    """

    def __init__(self, labels: np.ndarray):
        self.labels = labels

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        return self.labels[indices]


class ExactInverse:
    """Maps encoded numbers to the very numbers that they come from.

    Rounding makes small negative numbers of zeros, which some metrics refuse.

    Parameters
    ----------
    pairs : list of (ndarray of shape (n, n_outputs), ndarray with n rows)
        Encoded numbers and the original ones.
    mean, scale : ndarray of shape (n_outputs,)
        For numbers that no pair holds.
    step : int, default=1
        Number of neighbouring columns that are the same, of which the first counts.
    """

    def __init__(self, pairs, mean: np.ndarray, scale: np.ndarray, step: int = 1):
        self.mean, self.scale, self.step = mean[::step], scale[::step], step
        self.ndim = pairs[0][1].ndim
        encoded = np.concatenate([pair[0][:, ::step] for pair in pairs])
        own = np.concatenate([pair[1].reshape(len(pair[1]), -1) for pair in pairs])
        self.tables = []
        for column, originals in zip(encoded.T, own.T, strict=True):
            values, first = np.unique(column, return_index=True)
            self.tables.append((values, originals[first]))

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        numbers = numbers[:, :: self.step]
        columns = zip(numbers.T, self.tables, self.mean, self.scale, strict=True)
        found = np.stack([_looked_up(*column) for column in columns], axis=1)
        return found.ravel() if self.ndim == 1 else found


def _looked_up(numbers, table, mean, scale) -> np.ndarray:
    encoded, own = table
    places = np.searchsorted(encoded, numbers).clip(max=len(encoded) - 1)
    known = encoded[places] == numbers
    return (
        own[places]
        if known.all()
        else np.where(known, own[places], numbers * scale + mean)
    )
