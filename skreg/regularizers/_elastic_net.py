r"""Elastic net: L1 and L2 penalty, :math:`\lambda_1 \sum |w| + \lambda_2 \sum w^2`."""

from collections.abc import Sequence
from typing import Literal, TypedDict

from torch import Tensor, nn

from skreg._utils.flat import joined
from skreg._utils.rules import Rule, is_coefficient
from skreg.penalties import add_elastic_net, penalized_parameters
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


class ElasticNet(Regularizer):
    r"""L1 and L2 penalty: :math:`\lambda_1 \sum |w| + \lambda_2 \sum w^2`.

    Its (sub)gradient is :math:`\lambda_1 \, \mathrm{sign}(w) + 2 \lambda_2 w`, with
    :math:`\mathrm{sign}(0) = 0`. There is no factor 1/2, and no division by the number
    of samples or of parameters.

    Parameters
    ----------
    lambda1, lambda2 : float, default=0.0
    penalize : {"all", "weights"} or list of str, default="all"
        See :func:`skreg.penalties.penalized_parameters`.

    References
    ----------
    Zou and Hastie, "Regularization and variable selection via the elastic net",
    Journal of the Royal Statistical Society B 67 (2005).
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
    }

    def __init__(self, lambda1=0.0, lambda2=0.0, penalize="all"):
        self.lambda1 = lambda1
        self.lambda2 = lambda2
        self.penalize = penalize

    @property
    def is_neutral(self) -> bool:
        return self.lambda1 == 0 and self.lambda2 == 0

    def begin(self, module: nn.Module) -> None:
        self.names_ = tuple(penalized_parameters(module, self.penalize))

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
            *(self.lambda1, self.lambda2),
            overwrite=overwrite,
        )

    def coefficient(self, attribute: str, name: str) -> float:
        """Return `lambda1` or `lambda2` for a parameter of the module."""
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
        self._coefficients = None

    def write_gradients(self, gradients, weights) -> Tensor | float:
        return self._add(gradients, weights, overwrite=True)

    def _add(self, gradients, weights, overwrite):
        if self._coefficients is None:
            self._coefficients = [
                self._coefficient(name, weights) for name in ("lambda1", "lambda2")
            ]
        tensors = list(gradients.values()), list(weights.values())
        return add_elastic_net(*tensors, *self._coefficients, overwrite=overwrite)

    def _coefficient(self, attribute: str, weights) -> list[Tensor | None]:
        """Return a coefficient for each net, for each parameter; None if all are 0."""
        like = next(iter(weights.values()))
        found = []
        for name in weights:
            of_nets = [
                0.0 if member.is_neutral else member.coefficient(attribute, name)
                for member in self.members
            ]
            found.append(like.new_tensor(of_nets) if any(of_nets) else None)
        return found
