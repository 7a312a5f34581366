"""Norms and factors of one net, or of each net of a stack."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from skreg._utils.flat import joined

__all__ = ["by_net", "global_norm"]


def global_norm(tensors: Mapping[str, Tensor], of_nets: bool) -> Tensor:
    """Return the L2 norm of all tensors together.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    of_nets : bool
        They are those of a stack, and have an axis of B nets in front.

    Returns
    -------
    Tensor of shape () or (B,)
    """
    parts: Iterable[Tensor] = joined(tensors, tuple(tensors))
    if of_nets:
        norms = [torch.linalg.vector_norm(t.reshape(len(t), -1), dim=1) for t in parts]
    else:
        norms = [torch.linalg.vector_norm(t) for t in parts]
    if len(norms) == 1:
        return norms[0]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)


def by_net(values: Tensor, like: Tensor) -> Tensor:
    """Return a number for each net in the shape that multiplies a tensor of theirs.

    Parameters
    ----------
    values : Tensor of shape () or (B,)
    like : Tensor of any shape, or of shape (B, ...)
    """
    return values.view(-1, *[1] * (like.ndim - 1)) if values.ndim else values
