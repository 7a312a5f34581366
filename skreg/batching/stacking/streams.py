"""The samples that the nets of a stack see, step by step.

A stream is a sequence of batches: of one data set, in the order that one seed gives.
The fits of a grid with the same ``random_state`` and fold see the same stream, and it
is made once for all of them. The random numbers of a stream are those of a single fit:
the order comes first from a generator with the seed of the epoch, then augmentation
and dropout, batch by batch.
"""

from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from skreg._utils.randomness import borrowed, epoch_seed, make_generator
from skreg._utils.sparse import is_sparse, sparse_parts
from skreg.batching.stacking.stackable import StackableFit
from skreg.batching.stacking.vmap import make_mask, mask_shape
from skreg.training.batches import ArrayDataset, mean_weight

__all__ = ["DataPool", "Evaluation", "Samples", "Stream", "Streams"]


class DataPool:
    """Data sets in memory, of which equal ones become one.

    scikit-learn gives each fit its own copy of its fold.
    """

    def __init__(self):
        self._known = {}
        self._unique = {}
        self._places = {}  # of unique data sets, in the order in which they were seen

    def unique(self, dataset: ArrayDataset) -> ArrayDataset:
        """Return the first data set seen that holds the same numbers."""
        if id(dataset) in self._unique:
            return self._unique[id(dataset)][1]
        arrays = _arrays(dataset)
        key = tuple(
            None if a is None else (a.shape, a.dtype, a[:1].tobytes(), a[-1:].tobytes())
            for a in arrays
        )
        key = dataset.X.shape, key
        for other in self._known.setdefault(key, []):
            if all(map(_equal, arrays, _arrays(other))):
                break
        else:
            other = dataset
            self._known[key].append(dataset)
            self._places[id(dataset)] = len(self._places)
        self._unique[id(dataset)] = dataset, other  # both kept: ids stay theirs
        return other

    def _place(self, dataset: ArrayDataset) -> int:
        return self._places[id(self.unique(dataset))]

    def place_key(self, candidate: StackableFit) -> str:
        """Return what sorts nets so that those with the same stream are neighbours."""
        return repr(self.stream_key(candidate))

    def stream_key(self, candidate: StackableFit) -> tuple:
        """Return what two nets must have in common to see the same stream.

        It holds no address: stacks are sorted by it, and sums of floating-point
        numbers depend on the order of the nets by a rounding.
        """
        batches, net = candidate.batches, candidate.net
        key = (
            *(self._place(candidate.train), candidate.seed, len(net.history)),
            *(batches.shuffle, batches.drop_last, candidate.fit.mean_weight),
        )
        regularizers = candidate.regularizers
        if not (regularizers.changes_batches or regularizers.perturbs):
            return key
        # Dropout draws from the generator that augmentation draws from.
        return (*key, *regularizers.batch_key(), *candidate.dropout.values())


def _arrays(dataset: ArrayDataset) -> tuple[np.ndarray | None, ...]:
    X = sparse_parts(dataset.X) if is_sparse(dataset.X) else (dataset.X,)
    return *X, dataset.y, dataset.weight


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b or np.array_equal(a, b)


@dataclass
class Samples:
    """A batch for each net of a stack.

    Attributes
    ----------
    parts : list of Tensor of shape (n_s, ...)
        The inputs of each stream.
    nets : list of slice
        The nets of each stream.
    y : Tensor of shape (n, ...) if there is one stream, else (B, n, ...)
    scale : float, or Tensor of shape (n,) or (B, n)
        What the losses of samples are multiplied with; 0 fills up smaller batches.
    sizes : list of int
        Number of samples of each net.
    X : Tensor of shape (B, n, ...), default=None
        Inputs that each net has of its own, in place of `parts`.
    drawn : list of list of (Tensor of shape (n_s, ...) or None)
        Of each stream, what ``draw`` of regularisers has returned.
    """

    parts: list[Tensor]
    nets: list[slice]
    y: Tensor
    scale: float | Tensor
    sizes: list[int]
    X: Tensor | None = None
    drawn: list[list[Tensor | None]] = field(default_factory=list)

    @property
    def shared(self) -> bool:
        """Whether all nets see the same."""
        return self.X is None and len(self.parts) == 1

    def stacked(self) -> Tensor:
        """Return the inputs, of shape (n, ...) if shared, else (B, n, ...)."""
        return self.parts[0] if self.shared else self.by_net()

    def by_net(self) -> Tensor:
        """Return the inputs, of shape (B, n, ...)."""
        return self._by_net(self.parts) if self.X is None else self.X

    def drawn_by_net(self) -> list[Tensor | None]:
        """Return what was drawn, of shape (B, n, ...)."""
        found = []
        for of_streams in zip(*self.drawn, strict=True):
            pairs = zip(of_streams, self.parts, strict=True)
            parts = [torch.zeros_like(X) if d is None else d for d, X in pairs]
            nothing = all(d is None for d in of_streams)
            found.append(None if nothing else self._by_net(parts))
        return found

    def _by_net(self, parts) -> Tensor:
        first = parts[0]
        X = first.new_zeros(len(self.sizes), max(self.sizes), *first.shape[1:])
        for part, nets in zip(parts, self.nets, strict=True):
            X[nets, : len(part)] = part
        return X


@dataclass
class Stream:
    """The batches of nets that see the same.

    Attributes
    ----------
    dataset : ArrayDataset
    representative : StackableFit
        Any of its nets.
    nets : slice
        Their places in the stack, which are neighbours.
    """

    dataset: ArrayDataset
    representative: StackableFit
    nets: slice
    drawn: list = field(default_factory=list)  # for the batch at hand

    @cached_property
    def regularizers(self):
        """A copy of those of the representative, of which batches are asked."""
        return deepcopy(self.representative.regularizers)

    @property
    def _device(self) -> torch.device:
        return self.representative.net.device_

    def begin_epoch(self, epoch: int) -> None:
        """Draw the order of the samples.

        Parameters
        ----------
        epoch : int
            Counted from 1.
        """
        seed, device = epoch_seed(self.representative.seed, epoch), self._device
        self.generator = make_generator(seed)
        self._of_device = None if device.type == "cpu" else make_generator(seed, device)
        batches = copy(self.representative.batches)
        batches.dataset, batches.generator = self.dataset, self.generator
        self._batches = batches.in_order(batches.draw_order())

    def next_batch(self) -> tuple[Tensor, Tensor, float | Tensor]:
        """Return X, y and the scale of the losses of the next batch of the epoch."""
        batch = next(self._batches)
        (X, y), weight = batch, batch.weight
        if weight is not None:
            weight = weight / self.representative.fit.mean_weight
        X = self.representative.fit.to_device(X)
        if self.regularizers.changes_batches:
            with self._borrowed(), torch.no_grad():
                X, y, weight = self.regularizers.batch(X, y, weight)
        if not self.regularizers.perturbs:
            self.drawn = [None] * len(self.regularizers.members)
        else:
            with self._borrowed():
                self.drawn = self.regularizers.draw(X)
        if weight is None:
            return X, y, 1 / X.shape[0]
        return X, y, weight.to(X) / len(X)

    def _borrowed(self):
        """Return a context in which torch draws what a single fit would draw."""
        return borrowed(self.generator, self._device, self._of_device)


class Streams:
    """The streams of a stack, and its dropout mask.

    Parameters
    ----------
    candidates : sequence of StackableFit
        In the order of the stack; those that see the same stream are neighbours.
    pool : DataPool
    """

    def __init__(self, candidates: Sequence[StackableFit], pool: DataPool):
        self.candidates = candidates
        self.streams, start = [], 0
        for _, members in groupby(candidates, pool.stream_key):
            members = list(members)
            nets = slice(start, start + len(members))
            dataset = pool.unique(members[0].train)
            self.streams.append(Stream(dataset, members[0], nets))
            start = nets.stop
        self._gather = Gather([s.nets for s in self.streams], candidates[0].net.device_)
        self.masks = [
            mask
            for stream in self.streams
            for mask in _dropout_masks(stream, candidates)
        ]

    def begin_epoch(self) -> None:
        for stream in self.streams:
            stream.begin_epoch(len(stream.representative.net.history))
        for mask in self.masks:
            mask.begin_epoch()

    def next_batch(self) -> Samples:
        """Return the next batch of the epoch, of all nets."""
        batches = [stream.next_batch() for stream in self.streams]
        self._sizes = [X.shape[0] for X, _, _ in batches]
        samples = self._gather(batches)
        samples.drawn = [stream.drawn for stream in self.streams]
        return samples

    def draw_mask(self, name: str, x: Tensor, feature_ndim: int = 0) -> Tensor | None:
        """Return what dropout multiplies with; None if it drops nothing.

        Parameters
        ----------
        name : str
            Of the dropout layer.
        x : Tensor of shape (B, n, ...)
        feature_ndim : int, default=0
            Number of last axes whose entries are dropped together.

        Returns
        -------
        Tensor of shape (B, n, ...), (1, n, ...) or None
        """
        if all(mask.dropout[name] == 0 for mask in self.masks):
            return None
        n_all, *shape = mask_shape(x, feature_ndim)
        if len(self.masks) == 1:
            return self.masks[0].draw(name, (n_all, *shape), x).unsqueeze(0)
        padded = len(set(self._sizes)) > 1
        stacked = x.new_ones(len(self.candidates), n_all, *shape)
        for mask in self.masks:
            n = self._sizes[self.streams.index(mask.stream)] if padded else n_all
            stacked[mask.nets, :n] = mask.draw(name, (n, *shape), x)
        return stacked


class Evaluation:
    """The data sets that the nets of a stack are evaluated on, one for each net.

    Parameters
    ----------
    candidates : sequence of StackableFit
    datasets : sequence of ArrayDataset
    batch_size : int
    pool : DataPool
    """

    def __init__(self, candidates, datasets, batch_size: int, pool: DataPool):
        self.fit, self.net = candidates[0].fit, candidates[0].net
        self.batch_size = batch_size
        self.datasets, self.nets, start = [], [], 0
        for _, group in groupby(map(pool.unique, datasets), id):
            group = list(group)
            self.datasets.append(group[0])
            self.nets.append(slice(start, start + len(group)))
            start += len(group)
        self._gather = Gather(self.nets, self.net.device_)

        # As a single fit weighs them.
        self._weights = [
            None if mean is None else torch.from_numpy(dataset.weight / mean)
            for dataset, mean in zip(
                self.datasets, map(mean_weight, self.datasets), strict=True
            )
        ]

    def __iter__(self):
        """Yield the batches; those of a smaller data set are empty in the end."""
        longest = max(map(len, self.datasets))
        for start in range(0, longest, self.batch_size):
            part = slice(start, start + self.batch_size)
            batches = [
                self._batch(dataset, part, weight)
                for dataset, weight in zip(self.datasets, self._weights, strict=True)
            ]
            yield self._gather(batches)

    def _batch(self, dataset, part, weight):
        X, y = dataset.part(part, self.net.device_)
        X, n = self.fit.to_device(X), max(1, X.shape[0])
        if weight is None:
            return X, y, 1 / n
        return X, y, weight[part].to(X.device, self.net.dtype_) / n


@dataclass(eq=False)
class _DropoutMask:
    """The dropout of those nets of a stream that drop with the same probabilities."""

    stream: Stream
    dropout: dict[str, float]
    nets: list[int] = field(default_factory=list)
    alone: bool = False  # the only one of its stream

    def begin_epoch(self) -> None:
        net = self.stream.representative.net
        if net.device_.type != "cpu":
            seed = epoch_seed(net.seed_, len(net.history))
            self.generator = make_generator(seed, net.device_)
        elif self.alone:  # augmentation and dropout take turns
            self.generator = self.stream.generator
        else:
            self.generator = self.stream.generator.clone_state()

    def draw(self, name, shape, like) -> Tensor:
        return make_mask(self.dropout[name], shape, self.generator, like)


def _dropout_masks(stream, candidates) -> list[_DropoutMask]:
    masks = {}
    for row in range(stream.nets.start, stream.nets.stop):
        dropout = candidates[row].dropout
        mask = masks.setdefault(tuple(dropout.values()), _DropoutMask(stream, dropout))
        mask.nets.append(row)
    for mask in masks.values():
        mask.alone = len(masks) == 1
    return list(masks.values())


class Gather:
    """Puts the batches of streams together.

    Parameters
    ----------
    nets : list of slice
        The nets of each stream.
    device : torch.device
    """

    def __init__(self, nets: list[slice], device: torch.device):
        self.nets = nets
        counts = [places.stop - places.start for places in nets]
        self.counts = counts
        stream_of_net = np.repeat(np.arange(len(nets)), counts)
        self.stream_of_net = torch.from_numpy(stream_of_net).to(device)

    def __call__(self, batches: list[tuple]) -> Samples:
        """Return (X, y, scale) of each stream as one."""
        parts = [X for X, _, _ in batches]
        lengths = [len(part) for part in parts]
        sizes = np.repeat(lengths, self.counts).tolist()
        _, y, scale = batches[0]
        if len(batches) > 1:
            y, scale = self._of_all(batches, lengths)
        return Samples(parts, self.nets, y, scale, sizes)

    def _of_all(self, batches, lengths):
        """Return targets and scales for each net, filled up with zeros."""
        parts, targets, scales = zip(*batches, strict=True)
        X, n = parts[0], max(lengths)
        if min(lengths) == n:
            y = torch.stack(targets)
        else:
            y = targets[0].new_zeros(len(batches), n, *targets[0].shape[1:])
            for row, target in zip(y, targets, strict=True):
                row[: len(target)] = target
        y = y.index_select(0, self.stream_of_net)
        weighted = any(isinstance(scale, Tensor) for scale in scales)
        if min(lengths) == n and not weighted:
            return y, scales[0]
        scale = X.new_zeros(len(batches), n, dtype=_float_dtype(X))
        for row, length, value in zip(scale, lengths, scales, strict=True):
            row[:length] = value
        return y, scale.index_select(0, self.stream_of_net)


def _float_dtype(X: Tensor) -> torch.dtype:
    return X.dtype if X.is_floating_point() else torch.get_default_dtype()
