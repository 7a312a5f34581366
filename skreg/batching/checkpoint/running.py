"""Stacks that run, on disk every few seconds: a search that is killed loses no more.

Sums of floating-point numbers depend on the company of a net by a rounding. So a stack
is kept as a whole, in one file, and goes on as a whole.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from time import perf_counter
from zlib import crc32

import numpy as np

from skreg._utils.arrays import to_numpy
from skreg._utils.held_data import arrays_in
from skreg._utils.sparse import is_sparse, sparse_parts
from skreg.batching._pickles import portable_error
from skreg.batching.stacking.progress import FitProgress

__all__ = ["Place", "Places", "StackSaves", "announce", "places", "resume"]

SECONDS = 5.0  # between two saves
MOST_OF_TIME = 0.05  # that saves may take
_PLAIN = bool, int, float, str, type(None)


class Places:
    """Names for the fits of a task.

    Parameters
    ----------
    checkpoint : Checkpoint
    key : str
        Of the task.
    """

    def __init__(self, checkpoint, key: str):
        self.checkpoint, self.key, self.n_fits = checkpoint, key, 0

    def next(self) -> "Place":
        """Return the place of the fit that begins."""
        self.n_fits += 1
        return Place(self.checkpoint, f"{self.key}-{self.n_fits}")


# Those of the task at hand; None without a checkpoint.
places = ContextVar("places", default=None)


class Place:
    """The name of a fit, and the checkpoint that it is kept in while it runs."""

    def __init__(self, checkpoint, key: str):
        self.checkpoint, self.key = checkpoint, key


class _Saved:
    """A fit as it is kept: its progress, and how it has ended, if it has."""

    def __init__(self, candidate):
        self.progress, self.identity = FitProgress(candidate), candidate.identity
        self.has_ended = candidate.has_ended
        self.error = portable_error(candidate.job.error)


def resume(candidate) -> None:
    """Let a fit go on where it was when its process was killed.

    Parameters
    ----------
    candidate : StackableFit
        Its ``company`` becomes that of the stack it was in.
    """
    place = candidate.job.place
    if place is None:
        return
    candidate.identity = _identity(candidate)
    found = place.checkpoint.running_fit(place.key)
    if found is None:
        return
    company, saved = found
    place.checkpoint.stacks.add(company[0])
    if saved is not None and saved.identity != candidate.identity:
        return  # drawn anew, or another fit of the task, whose order is that of time
    candidate.company = company
    if saved is None:
        return
    candidate.beginning = FitProgress(candidate)
    saved.progress.restore(candidate)
    candidate.has_ended, candidate.job.error = saved.has_ended, saved.error
    candidate.fit.looks = False


def _identity(candidate) -> tuple:
    """Return what tells a fit from the other fits of its task, and from other draws.

    Seed, data, weights at first, options of the optimizer, plain parameters.
    """
    numbers = [*candidate.tensors.values()]
    for dataset in (candidate.train, candidate.valid):
        numbers += [] if dataset is None else arrays_in([dataset])
    parameters = candidate.net.get_params(deep=False)
    plain = {k: v for k, v in parameters.items() if isinstance(v, _PLAIN)}
    options = sorted(candidate.options().items())
    return candidate.seed, repr(sorted(plain.items())), repr(options), _sum_of(numbers)


def _sum_of(arrays) -> list[int]:
    """Return a checksum of each of some arrays and tensors."""
    parts = []
    for array in arrays:
        parts += sparse_parts(array) if is_sparse(array) else [array]
    return [
        crc32(np.ascontiguousarray(to_numpy(part)).view(np.uint8).data)
        for part in parts
        if getattr(part, "size", 1)
    ]


def announce(candidates: Sequence) -> None:
    """Note on disk which fits are a stack, so that it is the same one if it is killed.

    Parameters
    ----------
    candidates : sequence of StackableFit
    """
    if any(c.job.place is None or c.company is not None for c in candidates):
        return
    keys = [c.job.place.key for c in candidates]
    name = hashlib.sha256(repr(keys).encode()).hexdigest()[:40]
    for place, candidate in enumerate(candidates):
        candidate.company = name, place
    checkpoint = candidates[0].job.place.checkpoint
    checkpoint.stacks.add(name)
    checkpoint.save_stack(
        name, {c.job.place.key: (c.company, None) for c in candidates}
    )


class StackSaves:
    """Tells when it is time to save a stack, and saves it.

    Parameters
    ----------
    candidates : sequence of StackableFit
        All of the stack, also those that end before the others.
    is_time : callable
        Tells whether to pause for another reason, from the number of epochs.
    """

    def __init__(self, candidates: Sequence, is_time: Callable[[int], bool]):
        self._candidates = [c for c in candidates if c.company is not None]
        self._is_time = is_time
        self._interval, self._last = SECONDS, perf_counter()
        self.pauses = False

    def __call__(self, n_epochs: int) -> bool:
        """Return whether training is to pause, to save or for another reason."""
        self.pauses = self._is_time(n_epochs)
        is_due = perf_counter() - self._last > self._interval
        return self.pauses or (is_due and bool(self._candidates))

    def save(self) -> None:
        """Save the fits, which are in no stack at the moment."""
        if not self._candidates:
            return
        start = perf_counter()
        first = self._candidates[0]
        content = {c.job.place.key: (c.company, _Saved(c)) for c in self._candidates}
        first.job.place.checkpoint.save_stack(first.company[0], content)
        self._last = perf_counter()
        self._interval = max(SECONDS, (self._last - start) / MOST_OF_TIME)
