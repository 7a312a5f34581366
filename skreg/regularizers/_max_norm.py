"""Max-norm: a bound on the L2 norm of the weights that go into each unit."""

from collections.abc import Sequence
from math import inf, isfinite
from typing import TypedDict

import torch
from torch import Tensor, nn

from skreg._utils.rules import Rule, is_number
from skreg.regularizers._base import Parameter, Regularizer
from skreg.regularizers.units import Units, incoming

__all__ = ["MaxNorm", "MaxNormTypes"]


class MaxNormTypes(TypedDict, total=False):
    max_norm: float | None


class MaxNorm(Regularizer):
    r"""Max-norm: :math:`\|w_u\|_2 \le c` for the incoming weights of each unit u.

    After each step, weights beyond the bound are scaled back to it. Units are the
    outputs of linear layers, the output channels of convolutions, and the gates of
    recurrent layers (input and state apart). Biases are free.

    Parameters
    ----------
    max_norm : float, default=None
        The bound c > 0; None sets none.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15 (2014), section 5.1.
    """

    parameters = {
        "max_norm": Parameter(
            None,
            "float",
            Rule(
                lambda c: c is None or (is_number(c) and isfinite(c) and c > 0),
                "None or a finite number > 0",
                "3 or 4 is a good start, and None sets no bound",
                0.5,
            ),
            "Bound on the L2 norm of the weights that go into each unit of linear, "
            "convolutional and recurrent layers; after each step, larger ones are "
            "scaled back to it. None sets no bound (Srivastava et al., 2014).",
        )
    }

    def __init__(self, max_norm=None):
        self.max_norm = max_norm

    @property
    def is_neutral(self) -> bool:
        return self.max_norm is None

    def begin(self, module: nn.Module) -> None:
        self.units_ = list(incoming(module, "max_norm"))
        if not self.units_:
            raise ValueError(
                f"max_norm bounds the weights of linear, convolutional and recurrent "
                f"layers, but {type(module).__name__} has none that are trained; set "
                "max_norm=None."
            )

    def project(self, weights, step_sizes) -> None:
        bound = inf if self.max_norm is None else self.max_norm
        for units in self.units_:
            _shrink(units, weights[units.name], bound)

    @classmethod
    def stack(cls, members: Sequence["MaxNorm"]) -> "MaxNorm":
        return _MaxNorms(members)


class _MaxNorms(MaxNorm):
    """The bounds of the nets of a stack."""

    @property
    def is_neutral(self) -> bool:
        return False

    def __init__(self, members):
        bounds = [inf if m.max_norm is None else m.max_norm for m in members]
        self.units_ = next(m.units_ for m in members if not m.is_neutral)
        self._bounds = torch.tensor(bounds, dtype=torch.float64)

    def project(self, weights, step_sizes) -> None:
        for units in self.units_:
            w = weights[units.name]
            self._bounds = self._bounds.to(w)
            _shrink(units, w, self._bounds.view(-1, *[1] * len(units.shape)))


def _shrink(units: Units, w: Tensor, bound: float | Tensor) -> None:
    """Scale weights, of one net or of a stack, back to the bound."""
    by_unit = units.view(w)
    norm = torch.linalg.vector_norm(by_unit, dim=units.axes, keepdim=True)
    by_unit.mul_(torch.where(norm > bound, bound / norm, 1.0))
