"""Forward and backward pass of a stack of modules of any kind, by ``torch.func.vmap``.

It has the methods of `skreg.backprop.Backprop`, with autograd behind them.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from skreg.regularizers.dropout import is_dropout

__all__ = [
    "FEATURE_NDIM",
    "VmappedModule",
    "make_mask",
    "mask_shape",
    "named_tensors",
    "stack_of_copies",
]

# Dropout layers, and how many of the last axes their mask is the same along.
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
    draw_mask : callable
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
        draw_mask: Callable[[str, Tensor, int], Tensor | None],
    ):
        self.module = deepcopy(module)
        self._anchor = _Anchor()
        _replace_dropout(self.module, draw_mask, self._anchor)
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

    def attached_to(self, x: Tensor) -> Tensor:
        """Return the outputs with a graph that ends at the inputs; nothing is dropped.

        Parameters
        ----------
        x : Tensor of shape (B, n, ...)
        """
        self.module.eval()
        weights = {name: leaf.detach() for name, leaf in self.leaves.items()}
        call = vmap(self._call, in_dims=(0, 0, 0))
        return call(weights, self.fixed, x.clone())

    def attached(self) -> Tensor:
        """Return the outputs of the last batch with their graph."""
        return self._outputs

    def _call(self, weights, fixed, x):
        # So that dropout of inputs that all nets share is seen to differ by net.
        self._anchor.value = next(iter(weights.values())).new_zeros(())
        return functional_call(self.module, {**weights, **fixed}, (x,))

    def backward(self, gradient: Tensor, accumulate: bool) -> None:
        """As `Backprop.backward`."""
        if not accumulate:
            for tensor in self.gradients.values():
                tensor.zero_()
        self._outputs.backward(gradient.reshape(self._outputs.shape))
        del self._outputs


class _Anchor:
    """Holds a tensor that each net has one of."""


def _replace_dropout(module: nn.Module, draw_mask, anchor) -> None:
    stacked = {
        layer: _StackedDropout(name, FEATURE_NDIM[type(layer)], draw_mask, anchor)
        for name, layer in module.named_modules()
        if is_dropout(layer)
    }
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if layer in stacked:
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, stacked[layer])


class _StackedDropout(nn.Module):
    def __init__(self, name, feature_ndim, draw_mask, anchor):
        super().__init__()
        self.name, self.feature_ndim = name, feature_ndim
        self.draw_mask, self.anchor = draw_mask, anchor

    def forward(self, x):
        return _Masked.apply(x, self.anchor.value, self) if self.training else x


class _Masked(torch.autograd.Function):
    """Multiply the tensors of all nets, which it sees as one, with their mask."""

    @staticmethod
    def forward(x, anchor, layer):
        raise RuntimeError("This dropout works under vmap alone.")

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Do nothing: what `vmap` computes is differentiated."""

    @staticmethod
    def vmap(info, in_dims, x, anchor, layer):
        if in_dims[0] is None:
            x = x.expand(info.batch_size, *x.shape)
        else:
            x = x.movedim(in_dims[0], 0)
        mask = layer.draw_mask(layer.name, x, layer.feature_ndim)
        return (x if mask is None else x * mask), 0


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers, also those that ``state_dict`` leaves out."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def stack_of_copies(module: nn.Module, n_copies: int, draw_mask) -> VmappedModule:
    """Return `n_copies` of a module, with gradients of zero."""
    fixed = {
        name: torch.stack([tensor.detach()] * n_copies)
        for name, tensor in named_tensors(module).items()
    }
    trained = [name for name, w in module.named_parameters() if w.requires_grad]
    weights = {name: fixed.pop(name) for name in trained}
    gradients = {name: torch.zeros_like(w) for name, w in weights.items()}
    return VmappedModule(module, weights, gradients, fixed, draw_mask)


def mask_shape(x: Tensor, feature_ndim: int) -> tuple[int, ...]:
    """Return the shape of what multiplies x, of shape (B, n, ...), but for B."""
    shape = x.shape[1:]
    return (*shape[:-feature_ndim], *[1] * feature_ndim) if feature_ndim else (*shape,)


def make_mask(p: float, shape, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return what dropout multiplies with, as torch draws it from `generator`."""
    mask = torch.empty(shape, dtype=like.dtype, device=like.device)
    if p == 0:
        return mask.fill_(1)
    if p == 1:
        return mask.zero_()
    return mask.bernoulli_(1 - p, generator=generator).div_(1 - p)
