r"""The objective that training minimises: data loss + penalty, defined once.

.. math:: \mathrm{objective} = \mathrm{loss}(\hat y, y)
    + \lambda_1 \sum |w| + \lambda_2 \sum w^2

A single fit calls :func:`penalized_objective`, or where the gradient is written out
:func:`penalize_into`; a stack of fits calls :func:`stacked_penalty`. Validation
and test losses never do.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from skreg.penalties import (
    Coefficient,
    StackedElasticNet,
    elastic_net,
    elastic_net_into,
)

__all__ = [
    "Objective",
    "penalize_into",
    "penalized_objective",
    "stacked_penalty",
]


class Objective(NamedTuple):
    """The value to minimise and the part of it that is penalty.

    Attributes
    ----------
    value : Tensor of shape ()
        Loss plus penalty; differentiable.
    penalty : Tensor of shape () or float
        The penalty alone, detached; 0.0 when both coefficients are zero.
    """

    value: Tensor
    penalty: Tensor | float


def penalized_objective(
    loss: Tensor,
    params: Sequence[Tensor],
    lambda1: Coefficient = 0.0,
    lambda2: Coefficient = 0.0,
) -> Objective:
    """Add the L1 and L2 penalties of `params` to a data loss.

    Parameters
    ----------
    loss : Tensor of shape ()
        Data loss of a batch, usually a mean over its samples.
    params : sequence of Tensor
        The penalised parameters.
    lambda1 : float or Tensor of shape (), default=0.0
        Coefficient of the sum of absolute values.
    lambda2 : float or Tensor of shape (), default=0.0
        Coefficient of the sum of squares.

    Returns
    -------
    Objective
        With both coefficients zero (as numbers), `value` is `loss` itself, so that no
        penalty and a zero penalty are equal bit for bit.

    Examples
    --------
    >>> import torch
    >>> from skreg.objective import penalized_objective
    >>> w = torch.tensor([1.0, -2.0])
    >>> penalized_objective(torch.tensor(1.0), [w], lambda1=0.1, lambda2=0.01)
    Objective(value=tensor(1.3500), penalty=tensor(0.3500))
    """
    if not params or (_is_zero(lambda1) and _is_zero(lambda2)):
        return Objective(loss, 0.0)
    penalty = elastic_net(params, lambda1, lambda2)
    return Objective(loss + penalty, penalty.detach())


def penalize_into(
    gradient: Sequence[Tensor],
    params: Sequence[Tensor],
    lambda1: float = 0.0,
    lambda2: float = 0.0,
) -> Tensor | None:
    """Write the gradient of the penalty into `gradient`, without autograd.

    Parameters
    ----------
    gradient : sequence of Tensor
        Overwritten, if there is a penalty; of the shapes of `params`.
    params : sequence of Tensor
        The penalised parameters.
    lambda1, lambda2 : float, default=0.0

    Returns
    -------
    Tensor of shape () or None
        The penalty; None, and nothing written, if there is none.
    """
    if not params or (_is_zero(lambda1) and _is_zero(lambda2)):
        return None
    return elastic_net_into(gradient, params, lambda1, lambda2)


def stacked_penalty(
    gradients: Sequence[Tensor],
    params: Sequence[Tensor],
    lambda1: Tensor | None,
    lambda2: Tensor | None,
) -> Callable[[], Tensor] | None:
    """Return what :func:`penalize_into` is for B nets, to be called at each step.

    Parameters
    ----------
    gradients : sequence of Tensor of shape (B, ...)
        Overwritten at each call.
    params : sequence of Tensor of shape (B, ...)
        At least one.
    lambda1, lambda2 : Tensor of shape (n_params, B) or None
        Coefficients for each of `params`: zero for the nets that do not penalise it,
        None if no net has such a penalty.

    Returns
    -------
    callable or None
        Returns the penalties, of shape (B,); None if no net has one.
    """
    if lambda1 is None and lambda2 is None:
        return None
    return StackedElasticNet(gradients, params, lambda1, lambda2)


def _is_zero(coefficient: Coefficient) -> bool:
    return not isinstance(coefficient, Tensor) and coefficient == 0
