"""How much memory training data that waits may take."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from skreg._utils.held_data import arrays_in
from skreg._utils.sparse import is_sparse, sparse_parts
from skreg.training.batches import is_mapped

__all__ = ["Ledger", "buffers_of", "memory"]

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use


def memory() -> int:
    """Return the bytes of memory that this process can count on."""
    if not hasattr(os, "sysconf"):  # Windows; a machine that can train has that
        return 8 * 2**30
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text().strip() if _CGROUP.exists() else "max"
    return total if limit == "max" else min(total, int(limit))


def buffers_of(job) -> dict[int, int]:
    """Return the memory that the data of a fit take, in bytes, by their addresses.

    These are X, y, weights, validation data, and what parameters hold. Data of which
    another array is a view count as a whole. Files are not in memory.

    Parameters
    ----------
    job : Job
    """
    fit, net = job.fit, job.net
    holders = [job.X, job.y, fit.fit_params, fit.sample_weight, fit.validation]
    holders += [net.train_split, net.augment, net.callbacks, net.regularizers]
    return dict(_buffer(part) for array in arrays_in(holders) for part in _of(array))


def _of(array) -> tuple:
    return sparse_parts(array) if is_sparse(array) else (array,)


def _buffer(array) -> tuple[int, int]:
    """Return the address and the size of the memory that an array is in."""
    if isinstance(array, torch.Tensor):
        if array.device.type != "cpu" or array.layout != torch.strided:
            return 0, 0
        storage = array.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    if is_mapped(array):
        return 0, 0
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.__array_interface__["data"][0], array.nbytes


class Ledger:
    """The bytes of the data of fits; what several have in common counts once."""

    def __init__(self):
        self.n_bytes = 0
        self._holders = Counter()

    def add(self, buffers: dict[int, int]) -> None:
        """Count the data of a fit, from `buffers_of`."""
        for address, size in buffers.items():
            self.n_bytes += size if self._holders[address] == 0 else 0
            self._holders[address] += 1

    def remove(self, buffers: dict[int, int]) -> None:
        """Count the data of a fit no more."""
        for address, size in buffers.items():
            self._holders[address] -= 1
            if self._holders[address] == 0:
                del self._holders[address]
                self.n_bytes -= size
