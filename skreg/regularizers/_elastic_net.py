r"""Elastic net: L1 and L2 penalty, :math:`\lambda_1 \sum |w| + \lambda_2 \sum w^2`."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypedDict

from torch import Tensor, nn

from skreg._utils.flat import joined
from skreg._utils.of_nets import by_net
from skreg._utils.rules import Rule, is_bool, is_coefficient
from skreg.penalties import (
    ElasticNetGradient,
    add_elastic_net,
    penalized_parameters,
    soft_threshold,
)
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["ElasticNet", "ElasticNetTypes"]

COEFFICIENT = Rule(
    is_coefficient,
    "a finite number >= 0",
    "use 0 to turn this penalty off",
    0.001,
)


class ElasticNetTypes(TypedDict, total=False):
    lambda1: float
    lambda2: float
    penalize: Literal["all", "weights"] | list[str] | tuple[str, ...]
    proximal: bool


class ElasticNet(Regularizer):
    r"""L1 and L2 penalty: :math:`\lambda_1 \sum |w| + \lambda_2 \sum w^2`.

    Its (sub)gradient is :math:`\lambda_1 \, \mathrm{sign}(w) + 2 \lambda_2 w`, with
    :math:`\mathrm{sign}(0) = 0`. There is no factor 1/2, and no division by the number
    of samples or of parameters.

    A step along the subgradient leaves weights small, but never zero. A proximal step,
    after each step of the optimizer, moves each weight towards zero by
    :math:`\lambda_1` times its step size, and no further: many become exactly zero. The
    step size is that of the optimizer, for each weight its own under Adam; then what
    rests is a minimum of the objective.

    Parameters
    ----------
    lambda1, lambda2 : float, default=0.0
    penalize : {"all", "weights"} or list of str, default="all"
        See :func:`skreg.penalties.penalized_parameters`.
    proximal : bool, default=False
        Whether the L1 penalty acts by proximal steps instead of by its subgradient.

    References
    ----------
    Zou and Hastie, "Regularization and variable selection via the elastic net",
    Journal of the Royal Statistical Society B 67 (2005).

    Yun, Lozano and Yang, "Adaptive proximal gradient methods for structured neural
    networks", NeurIPS 34 (2021).
    """

    parameters = {
        "lambda1": Parameter(
            0.0,
            "float",
            COEFFICIENT,
            "Coefficient of the L1 penalty, the sum of ``|w|``. Not divided by "
            "anything.",
        ),
        "lambda2": Parameter(
            0.0,
            "float",
            COEFFICIENT,
            "Coefficient of the L2 penalty, the sum of ``w ** 2``. No factor 1/2: "
            "under plain SGD, ``lambda2`` is ``weight_decay / 2``.",
        ),
        "penalize": Parameter(
            "all",
            '{"all", "weights"} or list of str',
            Rule(
                lambda value: True,  # the module tells what names there are
                "'all', 'weights' or a list of patterns over the names of parameters",
                "e.g. ['fc1.*']",
                "weights",
            ),
            "What is penalised: all parameters, biases included; all but biases and "
            "normalisation layers; or those whose name matches one of the patterns, "
            'e.g. ``["fc1.*"]``. They are those of `module`; of modules that a '
            "subclass adds, nothing is penalised, and ``param_norm`` leaves them out.",
        ),
        "proximal": Parameter(
            False,
            "bool",
            Rule(
                is_bool,
                "a bool",
                "True makes weights under an L1 penalty exactly zero",
                True,
            ),
            "Let `lambda1` act by a proximal step after each step of the optimizer, "
            "instead of by its subgradient: weights become exactly zero (Yun et al., "
            "2021). For SGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop and Adagrad.",
        ),
    }

    def __init__(self, lambda1=0.0, lambda2=0.0, penalize="all", proximal=False):
        self.lambda1 = lambda1
        self.lambda2 = lambda2
        self.penalize = penalize
        self.proximal = proximal

    @property
    def is_neutral(self) -> bool:
        return self.lambda1 == 0 and self.lambda2 == 0

    def begin(self, module: nn.Module) -> None:
        self.names_ = tuple(penalized_parameters(module, self.penalize))

    def acts_in(self, method: str) -> bool:
        project = getattr(self.project, "__func__", None)
        if method == "project" and project is ElasticNet.project:
            return self.is_proximal
        return super().acts_in(method)

    @property
    def is_proximal(self) -> bool:
        """Whether it takes proximal steps."""
        return bool(self.proximal and self.lambda1 > 0)

    @property
    def proximal_names(self) -> tuple[str, ...]:
        return self.names_ if self.is_proximal else ()

    def add_gradients(self, gradients, weights) -> Tensor | float:
        return self._add(gradients, weights, overwrite=False)

    def write_gradients(self, gradients, weights) -> Tensor | float:
        """Write the gradient of the penalty, whatever `gradients` hold; return it."""
        if len(self.names_) < len(weights):
            gradients.zero_()
            return self.add_gradients(gradients, weights)
        return self._add(gradients, weights, overwrite=True)

    def _add(self, gradients, weights, overwrite):
        names = self.names_
        return add_elastic_net(
            *(joined(gradients, names), joined(weights, names)),
            *(self.of_subgradient, self.lambda2),
            proximal=self.of_steps,
            overwrite=overwrite,
        )

    def project(self, weights, step_sizes) -> None:
        for name in self.proximal_names:
            w = weights[name]
            w.copy_(soft_threshold(w, self.lambda1 * step_sizes[name]))

    @property
    def of_subgradient(self) -> float:
        """The L1 coefficient that acts by its subgradient."""
        return 0.0 if self.is_proximal else self.lambda1

    @property
    def of_steps(self) -> float:
        """The L1 coefficient that acts by proximal steps."""
        return self.lambda1 if self.is_proximal else 0.0

    def coefficient(self, attribute: str, name: str) -> float:
        """Return one of its coefficients, such as "lambda2", for a parameter."""
        return getattr(self, attribute) if name in self.names_ else 0.0

    @classmethod
    def stack(cls, members: Sequence["ElasticNet"]) -> "ElasticNet":
        return _ElasticNets(members)


class _ElasticNets(ElasticNet):
    """The penalties of the nets of a stack."""

    @property
    def is_neutral(self) -> bool:
        return False

    def __init__(self, members):
        self.members = members
        self._is_proximal = any(member.is_proximal for member in members)
        self._coefficients = {}
        self._gradient = None

    @property
    def is_proximal(self) -> bool:
        return self._is_proximal  # asked for at each step

    def acts_in(self, method: str) -> bool:
        return self.is_proximal if method == "project" else super().acts_in(method)

    def write_gradients(self, gradients, weights) -> Tensor | float:
        return self._add(gradients, weights, overwrite=True)

    def _add(self, gradients, weights, overwrite):
        if self._gradient is None:
            of_nets = partial(self._of_nets, weights=weights)
            self._gradient = ElasticNetGradient(
                of_nets("of_subgradient"),
                of_nets("lambda2"),
                of_nets("of_steps") if self.is_proximal else 0.0,
            )
        return self._gradient(gradients.values(), weights.values(), overwrite)

    def project(self, weights, step_sizes) -> None:
        coefficients = self._of_nets("of_steps", weights)
        for (name, w), l1 in zip(weights.items(), coefficients, strict=True):
            if l1 is not None:
                cut = by_net(l1, w) * step_sizes[name]
                w.copy_(soft_threshold(w, cut))

    def _of_nets(self, attribute: str, weights) -> list[Tensor | None]:
        """Return a coefficient for each net, for each parameter; None if all are 0."""
        if attribute not in self._coefficients:
            like = next(iter(weights.values()))
            by_name = [
                [
                    0.0 if member.is_neutral else member.coefficient(attribute, name)
                    for member in self.members
                ]
                for name in weights
            ]
            self._coefficients[attribute] = [
                like.new_tensor(of_nets) if any(of_nets) else None
                for of_nets in by_name
            ]
        return self._coefficients[attribute]
