r"""Gradient clipping: a bound on the L2 norm of the gradient."""

from collections.abc import Sequence
from math import inf, isfinite
from typing import Any, TypedDict

import torch
from torch import Tensor

from skreg._utils.flat import joined
from skreg._utils.of_nets import by_net, global_norm
from skreg._utils.rules import Rule, is_number
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["GradientClipping", "GradientClippingTypes"]


class GradientClippingTypes(TypedDict, total=False):
    max_grad_norm: float | None


class GradientClipping(Regularizer):
    r"""Gradient clipping: :math:`g \leftarrow g \min(1, c / \|g\|_2)`.

    The norm is that of the gradients of all parameters of a net together, penalties
    included.

    Parameters
    ----------
    max_grad_norm : float, default=None
        The bound *c*; None sets none.

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
    networks", ICML (2013).
    """

    parameters = {
        "max_grad_norm": Parameter(
            None,
            "float",
            Rule(
                lambda c: c is None or (is_number(c) and isfinite(c) and c > 0),
                "None or a finite number > 0",
                "1 is a common choice, and None clips nothing",
                0.1,
            ),
            "Bound on the L2 norm of the gradient of each net, penalties included; a "
            "longer one is scaled back to it before the step. None sets no bound "
            "(Pascanu et al., 2013).",
        )
    }

    def __init__(self, max_grad_norm: Any = None):
        self.max_grad_norm = max_grad_norm

    @property
    def is_neutral(self) -> bool:
        return self.max_grad_norm is None

    @property
    def stack_key(self):
        return ()

    def gradients(self, evaluate, weights, slopes):
        found = evaluate()
        norm = global_norm(slopes, of_nets=False)
        factor = (self.max_grad_norm / (norm + EPS)).clamp_(max=1.0)
        for slope in joined(slopes, tuple(slopes)):
            slope.mul_(factor)
        return found

    @classmethod
    def stack(cls, members: Sequence["GradientClipping"]) -> "GradientClipping":
        return _GradientClippings(members)


EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


class _GradientClippings(GradientClipping):
    """The bounds of the nets of a stack."""

    def __init__(self, members: Sequence[GradientClipping]):
        bounds = [inf if m.is_neutral else m.max_grad_norm for m in members]
        self.max_grad_norm = torch.tensor(bounds, dtype=torch.float64)

    @property
    def is_neutral(self) -> bool:
        return False

    def gradients(self, evaluate, weights, slopes):
        found = evaluate()
        norm = global_norm(slopes, of_nets=True)
        self.max_grad_norm: Tensor = self.max_grad_norm.to(norm)
        factor = (self.max_grad_norm / (norm + EPS)).clamp_(max=1.0)
        factor.masked_fill_(self.max_grad_norm.isinf(), 1.0)  # also if the norm is
        for slope in slopes.values():
            slope.mul_(by_net(factor, slope))
        return found
