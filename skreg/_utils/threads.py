"""How many threads torch computes with: one, where a second has too little to do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from time import perf_counter

import torch

__all__ = ["ThreadRace", "threads_for"]

# On matrix products below this a second thread gains nothing, and where other programs
# want the processor too, waiting for it at each of them costs many times the work.
PARALLEL_FLOP = 3e7


@contextmanager
def threads_for(flop: float) -> Iterator[None]:
    """Let the calling thread compute alone if a step is `flop` operations or less.

    Parameters
    ----------
    flop : float
        Floating-point operations of a training step, or of predictions.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1 or flop > PARALLEL_FLOP:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


SECONDS_LOST = 60.0  # in which a race that was lost is not run again
GAIN = 0.9  # of the time, with which more threads pay

_lost_at = -inf


class ThreadRace:
    """All threads or one, whichever takes less time for work such as an epoch.

    On a quiet machine a second thread helps large matrix products. Where other programs
    want the processor, threads wait for each other, which costs many times the work.

    Parameters
    ----------
    flop : float
        Floating-point operations of a training step. Of few, no second thread helps; of
        unknown ones, infinity, all threads work.
    """

    def __init__(self, flop: float):
        self._n = torch.get_num_threads()
        self._races = self._n > 1 and PARALLEL_FLOP < flop < inf
        self._n_at_first = 1 if self._races or flop <= PARALLEL_FLOP else self._n
        self._one = self._all = inf

    def run(self, work: Callable):
        """Do a piece of work, and return what it returns."""
        global _lost_at
        n_threads = self._choice()
        start = perf_counter()
        torch.set_num_threads(n_threads)
        try:
            return work()
        finally:
            torch.set_num_threads(self._n)
            seconds = perf_counter() - start
            if n_threads == 1:
                self._one = seconds
            else:
                self._all = seconds
                if self._races and seconds > self._one:
                    _lost_at = perf_counter()

    def _choice(self) -> int:
        if not self._races or self._one == inf:
            return self._n_at_first
        if self._all == inf:
            return 1 if perf_counter() - _lost_at < SECONDS_LOST else self._n
        return self._n if self._all < GAIN * self._one else 1
