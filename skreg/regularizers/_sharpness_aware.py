r"""Sharpness-aware minimisation: the gradient where the loss is worst near by."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from skreg._utils.of_nets import by_net, global_norm
from skreg._utils.rules import Rule, is_coefficient
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["SharpnessAware", "SharpnessAwareTypes"]


class SharpnessAwareTypes(TypedDict, total=False):
    sam_rho: float


class SharpnessAware(Regularizer):
    r"""Sharpness-aware minimisation (SAM): :math:`\nabla L(w + \rho g / \|g\|_2)`.

    Of the objective *L*, penalties included, with :math:`g = \nabla L(w)`. A step takes
    two gradients. Both draw dropout masks, and both move the running statistics of
    batch normalisation.

    Parameters
    ----------
    sam_rho : float, default=0.0
        Radius :math:`\rho`; 0 takes the gradient at w.

    References
    ----------
    Foret et al., "Sharpness-aware minimization for efficiently improving
    generalization", ICLR (2021).
    """

    parameters = {
        "sam_rho": Parameter(
            0.0,
            "float",
            Rule(
                is_coefficient,
                "a finite number >= 0",
                "0.05 is a good start, and 0 turns it off",
                0.05,
            ),
            "Sharpness-aware minimisation: each step follows the gradient at the worst "
            "weights within this distance, to first order. A step takes two gradients. "
            "0 turns it off (Foret et al., 2021).",
        )
    }

    def __init__(self, sam_rho=0.0):
        self.sam_rho = sam_rho

    @property
    def is_neutral(self) -> bool:
        return self.sam_rho == 0

    def gradients(self, evaluate, weights, slopes):
        found = evaluate()
        rho = self.sam_rho
        norm = global_norm(slopes, of_nets=isinstance(rho, Tensor))
        share = rho / norm.clamp_(min=torch.finfo(norm.dtype).tiny)
        kept = [w.clone() for w in weights.values()]
        for name, w in weights.items():
            w.addcmul_(slopes[name], by_net(share, w))
        evaluate()
        torch._foreach_copy_(list(weights.values()), kept)
        return found

    @classmethod
    def stack(cls, members: Sequence["SharpnessAware"]) -> "SharpnessAware":
        return _SharpnessAwares(members)


class _SharpnessAwares(SharpnessAware):
    """The radii of the nets of a stack, of which none is zero."""

    def __init__(self, members: Sequence[SharpnessAware]):
        self.sam_rho = torch.tensor([m.sam_rho for m in members], dtype=torch.float64)

    @property
    def is_neutral(self) -> bool:
        return False

    def gradients(self, evaluate, weights, slopes):
        self.sam_rho = self.sam_rho.to(next(iter(weights.values())))
        return super().gradients(evaluate, weights, slopes)
