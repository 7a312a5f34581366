"""Lazy modules of torch, whose tensors get their shapes from the first batch."""

from contextlib import contextmanager
from copy import deepcopy
from itertools import chain

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedBuffer, is_lazy

__all__ = ["copied", "holds_lazy_buffers", "is_uninitialized", "without_batch_means"]


def is_uninitialized(module: torch.nn.Module) -> bool:
    """Tell whether a module has tensors without a shape."""
    return any(map(is_lazy, chain(module.parameters(), module.buffers())))


def _lazy_buffers(module: torch.nn.Module) -> list[UninitializedBuffer]:
    return [buffer for buffer in module.buffers() if is_lazy(buffer)]


def holds_lazy_buffers(value) -> bool:
    """Tell whether a parameter of a net is a module that ``deepcopy`` cannot copy."""
    return isinstance(value, torch.nn.Module) and bool(_lazy_buffers(value))


def copied(module: torch.nn.Module) -> torch.nn.Module:
    """Return a deep copy of a module.

    ``deepcopy`` alone fails on buffers without a shape, such as those of
    ``nn.LazyBatchNorm1d``.
    """
    fresh = {
        id(buffer): UninitializedBuffer(
            device=buffer.device, dtype=buffer.dtype, persistent=buffer.persistent
        )
        for buffer in _lazy_buffers(module)
    }
    return deepcopy(module, fresh)


@contextmanager
def without_batch_means(module: torch.nn.Module):
    """Let batch normalisation neither need several samples, nor learn from a trial.

    All other layers stay as they are, so that the numbers they draw stay the same.
    """
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
