"""Batch normalisation: batches of one sample, and statistics of averaged weights."""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

__all__ = [
    "MergingBatchSampler",
    "has_batch_norm",
    "needs_several_samples",
    "renew_statistics",
    "running_statistics",
]


def has_batch_norm(module: torch.nn.Module) -> bool:
    """Return whether a module has layers of batch normalisation."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


def needs_several_samples(module: torch.nn.Module, forward: Callable) -> bool:
    """Return whether a module cannot be trained on a batch of one sample.

    Of one image, batch normalisation has the pixels to take the mean of; of one row
    of numbers it has nothing. So the module is tried.

    Parameters
    ----------
    module : nn.Module
        It is not changed.
    forward : callable
        Calls a copy of the module on a batch of one sample.
    """
    module = deepcopy(getattr(module, "_orig_mod", module)).train()  # not compiled
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.register_forward_pre_hook(_look, with_kwargs=True)
    try:
        with torch.no_grad():
            forward(module)
    except _OneValueError:
        return True
    return False


def running_statistics(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the buffers of layers that keep statistics of batches, by name."""
    return {
        name: buffer
        for layer_name, layer in module.named_modules()
        if getattr(layer, "running_mean", None) is not None
        for name, buffer in layer.named_buffers(prefix=layer_name, recurse=False)
    }


@torch.no_grad()
def renew_statistics(module: torch.nn.Module, inputs: Iterable, forward) -> None:
    """Compute the statistics of batch normalisation for the weights that there are.

    Each is the mean over the batches, as in ``torch.optim.swa_utils.update_bn``;
    dropout is off.

    Parameters
    ----------
    module : nn.Module
    inputs : iterable
        Those of the batches.
    forward : callable
        Calls the module.
    """
    layers = [m for m in module.modules() if hasattr(m, "reset_running_stats")]
    modes = [(layer, layer.training, layer.momentum) for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
            layer.momentum = None
        for X in inputs:
            forward(X)
    finally:
        for layer, training, momentum in modes:
            layer.training, layer.momentum = training, momentum


class _OneValueError(Exception):
    """A layer has one value of each channel to take mean and variance of."""


def _look(layer: _BatchNorm, args: tuple, kwargs: dict) -> None:
    x = args[0] if args else kwargs["input"]
    takes_mean_of_batch = layer.training or layer.running_mean is None
    if takes_mean_of_batch and x.numel() == x.shape[1]:
        raise _OneValueError


class MergingBatchSampler(BatchSampler):
    """Batches of indices; a lone last one joins the batch before it.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
    batch_size : int
        At least 2.
    shuffle : bool, default=False
    generator : torch.Generator, default=None
        Where orders are drawn from; None is torch's default generator.
    sampler : Sampler, default=None
        Yields the indices; None makes one of `shuffle`.
    """

    def __init__(
        self, dataset, batch_size, shuffle=False, generator=None, sampler=None
    ):
        if sampler is None:
            sampler = (
                RandomSampler(dataset, generator=generator)
                if shuffle
                else SequentialSampler(dataset)
            )
        super().__init__(sampler, batch_size, drop_last=False)

    def __len__(self) -> int:
        n = len(self.sampler)
        return super().__len__() - (n % self.batch_size == 1 < n)

    def __iter__(self) -> Iterator[list[int]]:
        before = None
        for batch in super().__iter__():
            if before is not None:
                if len(batch) == 1:
                    batch = before + batch
                else:
                    yield before
            before = batch
        if before is not None:
            yield before
