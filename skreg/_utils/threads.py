"""How many threads torch computes with: one, where a second has too little to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["threads_for"]

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
