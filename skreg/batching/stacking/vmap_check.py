"""Whether copies of a module that run as one compute what each of them computes."""

import warnings
from copy import deepcopy
from textwrap import shorten

import torch
from torch import Tensor, nn

from skreg._utils.randomness import (
    borrowed,
    make_generator,
    random_states,
    seeded,
)
from skreg.batching.stacking.signature import attributes
from skreg.batching.stacking.vmap import (
    make_mask,
    mask_shape,
    named_tensors,
    stack_of_copies,
)
from skreg.regularizers.dropout import dropout_layers

__all__ = ["in_a_line", "reason_against_vmap"]


def reason_against_vmap(module: nn.Module, batches: list[Tensor]) -> str | None:
    """Return why copies of a module cannot run as one; None if they can.

    They run, forward and backward, and so does the module; all must agree.

    Parameters
    ----------
    module : nn.Module
        It is not changed.
    batches : list of Tensor of shape (n, ...)
        Inputs, of the sizes that there are in training.
    """
    try:
        module = _with_dropout(module, 0.5 if batches[0].device.type == "cpu" else 0.0)
        for x in batches:
            with seeded(0, x.device), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they come again, in training
                reason = (
                    _side_effect(module, x, training=True)
                    or _side_effect(module, x, training=False)
                    or _disagreement(module, x, shared=True)
                    or _disagreement(module, x, shared=False)
                )
            if reason is not None:
                return reason
    except Exception as error:  # whatever a module of the user's may raise
        return f"vmap cannot run copies of it: {in_a_line(error)}"
    return None


def in_a_line(error: Exception) -> str:
    """Return class and beginning of the message of an error."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {shorten(lines[0], 120).rstrip('.')}"


def _with_dropout(module, p) -> nn.Module:
    """Return a copy whose dropout layers drop, in the same way everywhere.

    On other devices than a CPU, a stack draws other numbers than a single net: there,
    it is compared without.
    """
    module = deepcopy(module)
    for layer in dropout_layers(module):
        layer.p = p
    return module


def _side_effect(module, x, training) -> str | None:
    """Return what a stack would not notice that a module does in ``forward``."""
    module = deepcopy(module).train(training)
    before, tensors, drawn = attributes(module), _identities(module), random_states()
    with torch.no_grad():
        module.train(training)(x.clone())
    after = attributes(module)
    changed = before.keys() ^ after.keys()
    changed |= {name for name in before.keys() & after if before[name] != after[name]}
    if random_states() != drawn:
        return "its module draws from numpy.random or random"
    if changed:
        return f"its module changes its attribute {min(changed)!r} in forward"
    if _identities(module) != tensors:
        return "its module replaces its buffers, instead of changing them"
    return None


def _identities(module) -> dict[str, int]:
    return {name: id(tensor) for name, tensor in named_tensors(module).items()}


def _disagreement(module, x, shared) -> str | None:
    """Return in what two copies under ``vmap`` differ from the module itself.

    If they do not share their inputs, it is the second that gets `x`.
    """
    single, generator = deepcopy(module), make_generator(0)

    def draw_mask(name, z, feature_ndim):
        p = module.get_submodule(name).p
        if p == 0:
            return None
        return make_mask(p, mask_shape(z, feature_ndim), generator, z).unsqueeze(0)

    pair = stack_of_copies(module, 2, draw_mask)
    inputs = x if shared else torch.stack([x.flip(0), x])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of what vmap can do in a slow way only
        outputs = pair.forward(inputs, True, shared)
        direction = torch.randn_like(outputs[1])
        pair.backward(torch.stack([torch.zeros_like(direction), direction]), True)
        evaluated = pair.forward(inputs, False, shared)
    with borrowed(make_generator(0), x.device):
        expected = single.train()(x.clone())
    expected.backward(direction)
    with torch.no_grad():
        expected_evaluated = single.eval()(x.clone())
    parameters, buffers = dict(single.named_parameters()), dict(single.named_buffers())
    theirs = [parameters[name].grad for name in pair.gradients]
    if any(gradient is None for gradient in theirs):
        return "its module has parameters that have no part in its outputs"
    if not _agree([outputs[1], evaluated[1]], [expected, expected_evaluated]):
        return "the outputs of its module are others under vmap"
    if not _agree([stacked[1] for stacked in pair.gradients.values()], theirs):
        return "the gradients of its module are others under vmap"
    mine = [pair.fixed[name][1] for name in buffers]
    if not _agree(mine, [*buffers.values()], scale=1.0):
        return "the buffers of its module are others under vmap"
    return None


def _agree(mine: list[Tensor], theirs: list[Tensor], scale: float = 0.0) -> bool:
    """Tell whether tensors are equal, up to rounding in numbers like the largest.

    Parameters
    ----------
    mine, theirs : list of Tensor
    scale : float, default=0.0
        Of the numbers, if they should all be smaller.
    """
    for tensor in theirs:
        finite = tensor[tensor.isfinite()]
        scale = max(scale, float(finite.abs().max()) if finite.numel() else 0.0)
    return all(
        torch.allclose(a, b, rtol=0.0, atol=_tolerance(b) * scale, equal_nan=True)
        for a, b in zip(mine, theirs, strict=True)
    )


def _tolerance(tensor: Tensor) -> float:
    if not tensor.is_floating_point():
        return 0.0
    eps = torch.finfo(tensor.dtype).eps
    # Accelerators may multiply with ten bits (TF32).
    return max(eps, 0.0 if tensor.device.type == "cpu" else 2**-10) ** 0.5
