"""Max-norm: a bound on the L2 norm of the weights that go into each unit."""

from collections.abc import Iterator, Sequence
from math import inf, isfinite
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from skreg._utils.rules import Rule, is_number
from skreg.penalties import trainable_parameters
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["MaxNorm", "MaxNormTypes"]

LAYERS = nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase


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
        self.units_ = list(_units(module))

    def project(self, weights, step_sizes) -> None:
        bound = inf if self.max_norm is None else self.max_norm
        for units in self.units_:
            units.shrink(weights[units.name], bound)

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
            units.shrink(w, self._bounds.view(-1, *[1] * len(units.shape)))


class _Units(NamedTuple):
    """A parameter that holds the incoming weights of some units.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Shape in which the weights of a unit lie along `axes`.
    axes : tuple of int
        Counted from the end.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def shrink(self, w: Tensor, bound: float | Tensor) -> None:
        """Scale weights, of one net or of a stack, back to the bound."""
        stacked = isinstance(bound, Tensor)
        by_unit = w.view(len(w), *self.shape) if stacked else w.view(self.shape)
        norm = torch.linalg.vector_norm(by_unit, dim=self.axes, keepdim=True)
        by_unit.mul_((bound / norm).clamp_(max=1.0))


def _units(module: nn.Module) -> Iterator[_Units]:
    """Yield the parameters of a module that have incoming weights of units."""
    names = {w: name for name, w in trainable_parameters(module).items()}
    found = False
    for layer in module.modules():
        if isinstance(layer, LAYERS) and is_parametrized(layer):
            raise ValueError(
                f"max_norm cannot bound the weights of a {type(layer).__name__} that "
                "are computed from others (torch.nn.utils.parametrize); remove the "
                "parametrization, or set max_norm=None."
            )
        own = layer.parameters(recurse=False) if isinstance(layer, LAYERS) else ()
        for w in own:
            if w.ndim > 1 and w in names:
                found = True
                yield _units_of(names.pop(w), layer, w)
    if not found:
        raise ValueError(
            f"max_norm bounds the weights of linear, convolutional and recurrent "
            f"layers, but {type(module).__name__} has none that are trained; set "
            "max_norm=None."
        )


def _units_of(name: str, layer: nn.Module, w: Tensor) -> _Units:
    if not (isinstance(layer, nn.modules.conv._ConvNd) and layer.transposed):
        return _Units(name, tuple(w.shape), tuple(range(1 - w.ndim, 0)))
    # The outputs of a group of a transposed convolution are its second axis.
    n_inputs, n_outputs, *kernel = w.shape
    shape = layer.groups, n_inputs // layer.groups, n_outputs, *kernel
    n = len(kernel)
    return _Units(name, shape, (-2 - n, *range(-n, 0)))
