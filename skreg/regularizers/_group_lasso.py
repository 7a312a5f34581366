r"""Group lasso: :math:`\lambda \sum_g \sqrt{p_g} \, \|w_g\|_2` over inputs or units."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from skreg._utils.rules import Rule, is_coefficient
from skreg.penalties import group_soft_threshold
from skreg.regularizers._base import Parameter, Regularizer
from skreg.regularizers.units import Units, hidden_units, inputs

__all__ = ["GroupLasso", "GroupLassoTypes"]

GROUPS = "inputs", "units"


class GroupLassoTypes(TypedDict, total=False):
    lambda_group: float
    groups: Literal["inputs", "units"]


class GroupLasso(Regularizer):
    r"""Group lasso: whole inputs or units are kept, or become exactly zero.

    The penalty is :math:`\lambda \sum_g \sqrt{p_g} \, \|w_g\|_2`, where :math:`p_g` is
    the number of weights of group g. It acts by proximal steps: after each step of the
    optimizer, a group is shrunk towards zero in the optimizer's own metric, and is zero
    if it is small; see :func:`skreg.penalties.group_soft_threshold`.

    Parameters
    ----------
    lambda_group : float, default=0.0
    groups : {"inputs", "units"}, default="inputs"
        "inputs" are the features that the first layer, if it is linear, gets, or the
        channels, if it is a convolution: a group are the weights that an input goes
        through. "units" are those of the hidden layers: a group are the weights that go
        into a unit, and its bias. The output layer has none. Layers count in the order
        in which the module holds them.

    References
    ----------
    Yuan and Lin, "Model selection and estimation in regression with grouped variables",
    Journal of the Royal Statistical Society B 68 (2006).

    Scardapane et al., "Group sparse regularization for deep neural networks",
    Neurocomputing 241 (2017).
    """

    parameters = {
        "lambda_group": Parameter(
            0.0,
            "float",
            Rule(
                is_coefficient,
                "a finite number >= 0",
                "use 0 to turn the group lasso off",
                0.01,
            ),
            "Coefficient of the group lasso, the sum over `groups` of the L2 norm of "
            "their weights times the root of their number. It acts by proximal steps, "
            "which make whole groups exactly zero (Yuan and Lin, 2006); see `proximal` "
            "for the optimizers.",
        ),
        "groups": Parameter(
            "inputs",
            '{"inputs", "units"}',
            Rule(
                lambda groups: isinstance(groups, str) and groups in GROUPS,
                "'inputs' or 'units'",
                "'inputs' selects features, 'units' hidden units",
                "units",
            ),
            "What `lambda_group` keeps or leaves out: the inputs of the first layer "
            "(features, or channels of a convolution), or the units of the hidden "
            "layers with their biases.",
        ),
    }

    def __init__(self, lambda_group=0.0, groups="inputs"):
        self.lambda_group = lambda_group
        self.groups = groups

    @property
    def is_neutral(self) -> bool:
        return self.lambda_group == 0

    def begin(self, module: nn.Module) -> None:
        name, data = f"lambda_group={self.lambda_group!r}", getattr(self, "data_", None)
        if self.groups == "units":
            n_outputs = data.n_outputs if data else None
            self.blocks_ = hidden_units(module, name, n_outputs)
            return
        shape = data.input_shape if data else None
        self.blocks_ = [(inputs(module, name, shape),)]

    @property
    def proximal_names(self) -> tuple[str, ...]:
        return tuple(units.name for block in self.blocks_ for units in block)

    def add_gradients(self, gradients, weights) -> Tensor | float:
        """Return the penalty: its gradient is left to the proximal step."""
        norms = sum(_norms(block, weights) for block in self.blocks_)
        return self.lambda_group * norms

    def project(self, weights, step_sizes) -> None:
        for block in self.blocks_:
            _shrink(block, weights, self.lambda_group, step_sizes)

    @classmethod
    def stack(cls, members: Sequence["GroupLasso"]) -> "GroupLasso":
        return _GroupLassos(members)


class _GroupLassos(GroupLasso):
    """The group lassos of the nets of a stack, whose groups may be of both kinds."""

    @property
    def is_neutral(self) -> bool:
        return False

    def __init__(self, members):
        self.kinds_ = []
        for groups in GROUPS:
            own = [not m.is_neutral and m.groups == groups for m in members]
            if any(own):
                strengths = [
                    float(m.lambda_group) if mine else 0.0
                    for m, mine in zip(members, own, strict=True)
                ]
                blocks = members[own.index(True)].blocks_
                of_nets = torch.tensor(strengths, dtype=torch.float64)
                self.kinds_.append((blocks, of_nets))

    def add_gradients(self, gradients, weights) -> Tensor | float:
        value = 0.0
        for blocks, strengths in self._kinds(weights):
            norms = sum(_norms(block, weights) for block in blocks)
            # A net without this penalty pays nothing, even if its weights are infinite.
            paid = (strengths * norms).masked_fill_(strengths == 0, 0.0)
            value = value + paid
        return value

    def project(self, weights, step_sizes) -> None:
        for blocks, strengths in self._kinds(weights):
            for block in blocks:
                _shrink(block, weights, strengths.view(-1, 1, 1), step_sizes)

    def _kinds(self, weights):
        """Return blocks of groups and the strengths of the nets, like the weights."""
        like = next(iter(weights.values()))
        self.kinds_ = [(blocks, s.to(like)) for blocks, s in self.kinds_]
        return self.kinds_


def _norms(block: tuple[Units, ...], weights: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the norms of groups, times the roots of their sizes."""
    rows = _rows(block, weights)
    norms = torch.linalg.vector_norm(rows, dim=-1)
    return norms.sum(-1) * sqrt(rows.shape[-1])


def _shrink(block, weights, strength: float | Tensor, step_sizes) -> None:
    """Take the proximal step of some groups."""
    sizes = {units.name: step_sizes[units.name] for units in block}
    first = sizes[block[0].name]
    if not all(isinstance(size, float) and size == first for size in sizes.values()):
        full = {name: weights[name].new_ones(()) * size for name, size in sizes.items()}
        full = {name: s.expand_as(weights[name]) for name, s in full.items()}
        first = _rows(block, full)
    rows = _rows(block, weights)
    size = rows.shape[-1]
    shrunk = group_soft_threshold(rows, strength * sqrt(size), first)
    parts = shrunk.split([units.size for units in block], -1)
    for units, part in zip(block, parts, strict=True):
        units.write_rows(weights[units.name], part)


def _rows(block: tuple[Units, ...], weights: Mapping[str, Tensor]) -> Tensor:
    """Return groups as the rows of a tensor of shape (n, size), or (B, n, size)."""
    rows = [units.rows(weights[units.name]) for units in block]
    return torch.cat(rows, -1) if len(rows) > 1 else rows[0]
