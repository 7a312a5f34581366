"""Forward and backward pass of a stack of modules of any kind, by ``torch.func.vmap``.

It has the methods of `skreg.backprop.Backprop`, with autograd behind them.
"""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from skreg.batching._signature import attributes
from skreg.estimators._randomness import random_states, seeded

__all__ = ["FEATURE_NDIM", "VmappedModule", "reason_against_vmap"]

# Dropout layers, and how many of the last axes their noise is the same along.
FEATURE_NDIM = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}


class VmappedModule:
    """A stack of modules that differ in their tensors and dropout probabilities.

    Parameters
    ----------
    module : nn.Module
        Any one of them; it is copied.
    weights, gradients : mapping of str to Tensor of shape (B, ...)
        The trainable parameters, and where their gradients go.
    fixed : mapping of str to Tensor of shape (B, ...)
        Frozen parameters and buffers; the latter may be changed by ``forward``.
    draw_noise : callable
        Maps the name of a dropout layer, a tensor of shape (B, n, ...) and the number
        of its last axes that are dropped together to what it is multiplied with; or to
        None.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        fixed: Mapping[str, Tensor],
        draw_noise: Callable[[str, Tensor, int], Tensor | None],
    ):
        self.module = deepcopy(module)
        _replace_dropout(self.module, draw_noise)
        self.gradients = gradients
        self.fixed = dict(fixed)
        # Leaves that share the memory of the weights: the optimizer changes that.
        self.leaves = {
            name: weight.detach().requires_grad_() for name, weight in weights.items()
        }
        for name, leaf in self.leaves.items():
            leaf.grad = gradients[name]

    def forward(self, x: Tensor, training: bool, shared: bool) -> Tensor:
        """Return the outputs, of shape (B, n, ...).

        Parameters
        ----------
        x : Tensor of shape (n, ...) if `shared`, else (B, n, ...)
        training : bool
        shared : bool
        """
        self.module.train(training)
        with torch.set_grad_enabled(training):
            call = vmap(self._call, in_dims=(0, 0, None if shared else 0))
            # A copy: layers that work in place must not write into the data.
            self._outputs = call(self.leaves, self.fixed, x.clone())
        return self._outputs.detach()

    def _call(self, weights, fixed, x):
        return functional_call(self.module, {**weights, **fixed}, (x,))

    def backward(self, gradient: Tensor, accumulate: bool) -> None:
        """As `Backprop.backward`."""
        if not accumulate:
            for tensor in self.gradients.values():
                tensor.zero_()
        self._outputs.backward(gradient)
        del self._outputs


def _replace_dropout(module: nn.Module, draw_noise, prefix: str = "") -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.modules.dropout._DropoutNd):
            layer = _StackedDropout(prefix + name, FEATURE_NDIM[type(child)])
            layer.draw_noise = draw_noise
            setattr(module, name, layer)
        else:
            _replace_dropout(child, draw_noise, f"{prefix}{name}.")


class _StackedDropout(nn.Module):
    def __init__(self, name, feature_ndim):
        super().__init__()
        self.name = name
        self.feature_ndim = feature_ndim

    def forward(self, x):
        return _Noisy.apply(x, self) if self.training else x


class _Noisy(torch.autograd.Function):
    """Multiply the tensors of all nets, which it sees as one, with their noise."""

    @staticmethod
    def forward(x, layer):
        raise RuntimeError("This dropout works under vmap alone.")

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Do nothing: what `vmap` computes is differentiated."""

    @staticmethod
    def vmap(info, in_dims, x, layer):
        if in_dims[0] is None:
            x = x.expand(info.batch_size, *x.shape)
        else:
            x = x.movedim(in_dims[0], 0)
        noise = layer.draw_noise(layer.name, x, layer.feature_ndim)
        return (x if noise is None else x * noise), 0


def reason_against_vmap(module: nn.Module, x: Tensor) -> str | None:
    """Return why copies of a module cannot run as one; None if they can.

    Parameters
    ----------
    module : nn.Module
        It is not changed.
    x : Tensor of shape (n, ...)
        A few samples.
    """
    try:
        for training in (True, False):
            reason = _side_effect(module, x, training)
            if reason is not None:
                return reason
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of what vmap can do in a slow way only
            _run_pair(module, x, shared=True)
            _run_pair(module, torch.stack([x, x]), shared=False)
    except Exception as error:  # whatever a module of the user's may raise
        lines = str(error).splitlines() or [""]
        return f"vmap cannot run copies of it: {type(error).__name__}: {lines[0]}"
    return None


def _run_pair(module, x, shared) -> None:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    stacked = {name: torch.stack([t.detach()] * 2) for name, t in tensors.items()}
    trained = [name for name, w in module.named_parameters() if w.requires_grad]
    weights = {name: stacked.pop(name) for name in trained}
    gradients = {name: torch.zeros_like(w) for name, w in weights.items()}
    pair = VmappedModule(module, weights, gradients, stacked, lambda *args: None)
    outputs = pair.forward(x, training=True, shared=shared)
    pair.backward(torch.zeros_like(outputs), accumulate=True)


def _side_effect(module, x, training) -> str | None:
    """Return what a stack would not notice that ``forward`` does for each module."""
    module = deepcopy(module).train(training)
    before, tensors = attributes(module), _identities(module)
    with seeded(0, x.device), torch.no_grad():
        drawn = random_states()
        module(x.clone())
        draws = random_states() != drawn
    after = attributes(module)
    changed = before.keys() ^ after.keys()
    changed |= {name for name in before.keys() & after if before[name] != after[name]}
    if draws:
        return "its module draws from numpy.random or random"
    if changed:
        return f"its module changes its attribute {min(changed)!r} in forward"
    if _identities(module) != tensors:
        return "its module replaces its buffers, instead of changing them"
    return None


def _identities(module) -> dict[str, int]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: id(tensor) for name, tensor in tensors}
