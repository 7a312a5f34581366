r"""Backpropagation written out for fully connected nets, of one or of a stack of them.

With :math:`h_0 = x`, layer *i* computes :math:`z_i = h_{i-1} W_i^\top + b_i` and
:math:`h_i = a(z_i)`. From the gradient :math:`\delta_i` of the loss in :math:`z_i`

.. math:: \nabla_{W_i} = \delta_i^\top h_{i-1}, \quad
    \nabla_{b_i} = \sum_n \delta_i, \quad
    \delta_{i-1} = (\delta_i W_i) \odot a'(z_{i-1}).

On small nets autograd's bookkeeping takes longer than the arithmetic: these are the
same matrix products without it. Gradients are *added* to what the gradient tensors
hold, so that a penalty's can be written there first, or replace it.

A stack of B nets has weights of shape (B, out, in), and inputs of shape (B, n, in), or
`Parts` if some of its nets see the same. Nothing mixes the nets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from skreg._utils.hooks import has_hooks
from skreg.modules import FullyConnected, Residual

__all__ = [
    "Backprop",
    "Parts",
    "flat",
    "fully_connected_layers",
    "normalizes",
]

_aten = torch.ops.aten

# From the gradient in the output of an activation and that output to the gradient in
# its input, which overwrites the former.
ACTIVATION_BACKWARD: dict[type, Callable[[Any, Tensor, Tensor], Tensor]] = {
    nn.ReLU: lambda _, d, h: _aten.threshold_backward.grad_input(d, h, 0, grad_input=d),
    nn.LeakyReLU: lambda layer, d, h: _aten.leaky_relu_backward.grad_input(
        d, h, layer.negative_slope, True, grad_input=d
    ),
    nn.Tanh: lambda _, d, h: _aten.tanh_backward.grad_input(d, h, grad_input=d),
    nn.Sigmoid: lambda _, d, h: _aten.sigmoid_backward.grad_input(d, h, grad_input=d),
}

ACTIVATION_FORWARD: dict[type, Callable[[Any, Tensor], Tensor]] = {
    nn.ReLU: lambda _, z: z.relu_(),
    nn.LeakyReLU: lambda layer, z: nn.functional.leaky_relu_(z, layer.negative_slope),
    nn.Tanh: lambda _, z: z.tanh_(),
    nn.Sigmoid: lambda _, z: z.sigmoid_(),
}


WITHOUT_WEIGHTS = {nn.Dropout, *ACTIVATION_FORWARD}


def fully_connected_layers(
    module: nn.Module, sample_shape: Sequence[int]
) -> list[nn.Module] | None:
    """Return the layers of `module` if this file can stand in for its autograd.

    Parameters
    ----------
    module : nn.Module
        A `FullyConnected` net, or an ``nn.Sequential`` of linear layers, batch
        normalisation, dropout, and activations whose slope follows from their output.
    sample_shape : sequence of int
        Shape of one input.

    Returns
    -------
    list of nn.Module or None
        Linear, activation, normalisation and dropout layers, and skip connections, for
        inputs of shape (n, features). None for any other architecture, or with hooks,
        or with frozen or shared weights.
    """
    if isinstance(module, FullyConnected):
        if type(module).forward is not FullyConnected.forward:
            return None
        layers = module.layers()
    elif type(module) is nn.Sequential:
        layers = [layer for layer in module if type(layer) is not nn.Identity]
        if layers and type(layers[0]) is nn.Flatten:
            if (layers[0].start_dim, layers[0].end_dim) != (1, -1):
                return None
            del layers[0]
        elif len(sample_shape) != 1:
            return None
    else:
        return None
    if not layers or type(layers[0]) is not nn.Linear:
        return None
    weights, seen = [], set()
    for layer in flat(layers):
        if type(layer) in WITHOUT_WEIGHTS:
            if getattr(layer, "negative_slope", 0) < 0:
                return None  # the slope does not follow from the output
            continue
        if layer in seen or not (type(layer) is nn.Linear or _is_plain_norm(layer)):
            return None
        seen.add(layer)
        weights += layer._parameters.values()
    weights = [w for w in weights if w is not None]
    plain = (
        sorted(map(id, weights)) == sorted(map(id, module.parameters()))
        and all(w.requires_grad and not has_hooks(w) for w in weights)
        and not any(has_hooks(m) or "forward" in vars(m) for m in module.modules())
    )
    return layers if plain else None


def flat(layers: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """Yield the layers, those inside of skip connections included."""
    for layer in layers:
        if type(layer) is Residual:
            yield from flat(layer.layers)
        else:
            yield layer


def normalizes(layer: nn.Module) -> bool:
    """Return whether a layer of a fully connected net is batch normalisation."""
    return type(layer) is nn.BatchNorm1d


def _is_plain_norm(layer: nn.Module) -> bool:
    return bool(
        normalizes(layer)
        and layer.affine
        and layer.track_running_stats
        and layer.momentum is not None
    )


class Parts(NamedTuple):
    """Inputs of a stack of which neighbours see the same.

    Attributes
    ----------
    parts : list of Tensor of shape (n_s, features)
    nets : list of slice
        The nets that see each of `parts`; together, all nets.
    """

    parts: list[Tensor]
    nets: list[slice]

    @property
    def n(self) -> int:
        """The largest number of samples; the rows of others are filled up."""
        return max(part.shape[0] for part in self.parts)


class Backprop:
    """Forward and backward pass of one net, or of a stack of nets of one shape.

    Parameters
    ----------
    layers : sequence of nn.Module
        From `fully_connected_layers`; of any one net of a stack.
    weights : mapping of nn.Parameter to Tensor
        Values of the parameters of `layers`; with an axis of nets in front for a stack.
    gradients : mapping of nn.Parameter to Tensor
        Where the gradients go; contiguous, of the same shapes.
    draw_mask : callable
        Maps a dropout layer and a tensor to what the tensor is multiplied with, of
        the same shape; or to None for no dropout.
    buffers : mapping of Tensor to Tensor, default=None
        Values of the buffers of `layers`, with an axis of nets in front; None takes
        the buffers themselves.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        weights: Mapping[nn.Parameter, Tensor],
        gradients: Mapping[nn.Parameter, Tensor],
        draw_mask: Callable[[nn.Module, Tensor], Tensor | None],
        buffers: Mapping[Tensor, Tensor] | None = None,
    ):
        self._values = weights, gradients, buffers
        self._draw_mask = draw_mask
        self.steps = self._make_steps(layers)

    def _make_steps(self, layers) -> list:
        weights, gradients, buffers = self._values
        steps = []
        fresh = True  # what comes in was made by a linear layer, and is nobody else's
        for layer in layers:
            if type(layer) is nn.Dropout:
                step = _Dropout(layer, self._draw_mask)
            elif type(layer) is nn.Linear:
                step, fresh = _make_linear(layer, weights, gradients), True
            elif type(layer) is Residual:
                step, fresh = _Residual(self._make_steps(layer.layers)), True
            elif normalizes(layer):
                step, fresh = _BatchNorm(layer, weights, gradients, buffers), True
            else:
                step, fresh = _Activation(layer, in_place=fresh), False
            steps.append(step)
        return steps

    def forward(self, x: Tensor | Parts, training: bool) -> Tensor:
        """Return the outputs, of shape (n, out) or (B, n, out); in training, drop."""
        for step in self.steps:
            x = step.forward(x, training)
        return cast("Tensor", x)  # the first linear layer makes one of parts

    def backward(self, gradient: Tensor, accumulate: bool) -> None:
        """Write the gradients of the weights at the last ``forward``.

        Parameters
        ----------
        gradient : Tensor
            Of the loss in the outputs, of their shape; may be overwritten.
        accumulate : bool
            Add to the gradient tensors, instead of replacing what they hold.
        """
        for step in reversed(self.steps[1:]):
            gradient = step.backward(gradient, accumulate)
        self.steps[0].backward(gradient, accumulate, into_inputs=False)

    def attached(self, x: Tensor) -> Tensor:
        """Return the outputs with a graph that ends at the inputs; nothing is dropped.

        The gradients of the weights stay as they are.

        Parameters
        ----------
        x : Tensor of shape (n, features), or (B, n, features) for a stack
        """
        return _Outputs.apply(x, self)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Return the gradient in the inputs of the last ``forward``.

        Parameters
        ----------
        gradient : Tensor
            Of the loss in the outputs, of their shape; may be overwritten.
        """
        for step in reversed(self.steps):
            gradient = step.input_gradient(gradient)
        return gradient


class _Outputs(torch.autograd.Function):
    """Outputs of a net whose gradient in the inputs is written out."""

    @staticmethod
    def forward(ctx, x, backprop):
        ctx.backprop = backprop
        return backprop.forward(x, training=False)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.backprop.input_gradient(gradient.clone()), None


def _make_linear(layer, weights, gradients):
    weight, bias = weights[layer.weight], weights.get(layer.bias)
    kind = _Linear if weight.ndim == 2 else _StackedLinear
    return kind(weight, bias, gradients[layer.weight], gradients.get(layer.bias))


class _Linear:
    def __init__(self, weight, bias, weight_gradient, bias_gradient):
        self.weight, self.bias = weight, bias
        self.weight_gradient, self.bias_gradient = weight_gradient, bias_gradient

    def forward(self, x, training):
        self.x = x
        if self.bias is None:
            return torch.mm(x, self.weight.t())
        return torch.addmm(self.bias, x, self.weight.t())

    def backward(self, d, accumulate, into_inputs=True):
        if accumulate:
            self.weight_gradient.addmm_(d.t(), self.x)
        else:
            torch.mm(d.t(), self.x, out=self.weight_gradient)
        if self.bias is not None:
            if accumulate:
                self.bias_gradient += d.sum(0)
            else:
                torch.sum(d, 0, out=self.bias_gradient)
        return self.input_gradient(d) if into_inputs else None

    def input_gradient(self, d):
        return torch.mm(d, self.weight)


class _StackedLinear(_Linear):
    """Its results are of shape (B, n, features), the samples last in memory.

    So are its products faster, and the weights of nets that see the same inputs are
    the rows of one matrix, and so are the gradients in their outputs.
    """

    def forward(self, x, training):
        self.x = x
        if isinstance(x, Parts):
            return self._forward_parts(x).mT
        if self.bias is None:
            return torch.bmm(self.weight, x.mT).mT
        return torch.baddbmm(self.bias.unsqueeze(2), self.weight, x.mT).mT

    def _forward_parts(self, x):
        n_nets, n_out, n_in = self.weight.shape
        n = x.n
        equal = all(part.shape[0] == n for part in x.parts)
        fill = self.weight.new_empty if equal else self.weight.new_zeros
        z = fill(n_nets, n_out, n)
        for part, nets in zip(x.parts, x.nets, strict=True):
            weight = self.weight[nets].view(-1, n_in)
            out = z[nets].view(-1, n)[:, : part.shape[0]]
            if self.bias is None:
                torch.mm(weight, part.t(), out=out)
            else:
                torch.addmm(self.bias[nets].view(-1, 1), weight, part.t(), out=out)
        return z

    def backward(self, d, accumulate, into_inputs=True):
        beta = 1 if accumulate else 0
        if isinstance(self.x, Parts):
            self._backward_parts(d.mT, beta)
        else:
            gradient = self.weight_gradient
            torch.baddbmm(gradient, d.mT, self.x, beta=beta, out=gradient)
        if self.bias is not None:
            if accumulate:
                self.bias_gradient += d.sum(1)
            else:
                torch.sum(d, 1, out=self.bias_gradient)
        return self.input_gradient(d) if into_inputs else None

    def input_gradient(self, d):
        return torch.bmm(self.weight.mT, d.mT).mT

    def _backward_parts(self, d, beta):
        n = d.shape[2]
        for part, nets in zip(self.x.parts, self.x.nets, strict=True):
            gradient = self.weight_gradient[nets].view(-1, part.shape[1])
            part_of_d = d[nets].reshape(-1, n)[:, : part.shape[0]]
            torch.addmm(gradient, part_of_d, part, beta=beta, out=gradient)


class _Activation:
    def __init__(self, layer, in_place):
        self.layer = layer
        self.in_place = in_place
        self._forward = ACTIVATION_FORWARD[type(layer)]
        self._backward = ACTIVATION_BACKWARD[type(layer)]

    def forward(self, z, training):
        # An activation before this one needs its output, z, on the way back.
        self.h = self._forward(self.layer, z if self.in_place else z.clone())
        return self.h

    def backward(self, d, accumulate):
        return self.input_gradient(d)

    def input_gradient(self, d):
        return self._backward(self.layer, d, self.h)


class _BatchNorm:
    """Batch normalisation of (n, features), or of a stack's (B, n, features).

    Each feature of each net is a channel of its own.
    """

    def __init__(self, layer, weights, gradients, buffers):
        self.layer = layer
        self.weight, self.bias = weights[layer.weight], weights[layer.bias]
        self.weight_gradient = gradients[layer.weight]
        self.bias_gradient = gradients[layer.bias]
        own = layer.running_mean, layer.running_var, layer.num_batches_tracked
        self.mean, self.var, self.n_batches = (
            own if buffers is None else [buffers[b] for b in own]
        )

    def _options(self):
        return self.weight.flatten(), self.mean.view(-1), self.var.view(-1)

    def _channels(self, x):
        """Return (B, n, f), the samples last in memory, as (1, B * f, n)."""
        return x if x.ndim == 2 else x.mT.reshape(1, -1, x.shape[1])

    def _samples(self, channels):
        if self.weight.ndim == 1:
            return channels
        return channels.view(*self.weight.shape, -1).mT

    def forward(self, x, training):
        self.x, self.training = self._channels(x), training
        weight, mean, var = self._options()
        if training:
            self.n_batches += 1
        y, self.batch_mean, self.batch_scale = _aten.native_batch_norm(
            *(self.x, weight, self.bias.flatten(), mean, var, training),
            *(self.layer.momentum, self.layer.eps),
        )
        return self._samples(y)

    def _gradients(self, d, wanted):
        weight, mean, var = self._options()
        return _aten.native_batch_norm_backward(
            *(self._channels(d), self.x, weight, mean, var),
            *(self.batch_mean, self.batch_scale, self.training, self.layer.eps, wanted),
        )

    def backward(self, d, accumulate):
        d, *found = self._gradients(d, [True, True, True])
        for gradient, part in zip(
            (self.weight_gradient, self.bias_gradient), found, strict=True
        ):
            part = part.view(gradient.shape)
            if accumulate:
                gradient += part
            else:
                gradient.copy_(part)
        return self._samples(d)

    def input_gradient(self, d):
        return self._samples(self._gradients(d, [True, False, False])[0])


class _Residual:
    """Some steps around which a skip connection leads."""

    def __init__(self, steps):
        self.steps = steps

    def forward(self, x, training):
        y = x
        for step in self.steps:
            y = step.forward(y, training)
        return x + y

    def backward(self, d, accumulate):
        inner = d.clone()  # activations overwrite it
        for step in reversed(self.steps):
            inner = step.backward(inner, accumulate)
        return inner.add_(d)

    def input_gradient(self, d):
        inner = d.clone()
        for step in reversed(self.steps):
            inner = step.input_gradient(inner)
        return inner.add_(d)


class _Dropout:
    def __init__(self, layer, draw_mask):
        self.layer = layer
        self.draw_mask = draw_mask

    def forward(self, x, training):
        self.mask = self.draw_mask(self.layer, x) if training else None
        return x if self.mask is None else x * self.mask

    def backward(self, d, accumulate):
        return self.input_gradient(d)

    def input_gradient(self, d):
        return d if self.mask is None else d.mul_(self.mask)
