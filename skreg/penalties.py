r"""L1 and L2 penalties and the Frobenius norm: pure functions of parameters.

The penalty of a net with parameters :math:`w` is

.. math:: \lambda_1 \sum |w| + \lambda_2 \sum w^2,

with no factor 1/2 and no division by the number of samples or of parameters. Its
(sub)gradient is :math:`\lambda_1 \, \mathrm{sign}(w) + 2 \lambda_2 w`, with
:math:`\mathrm{sign}(0) = 0`.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "StackedElasticNet",
    "elastic_net",
    "elastic_net_into",
    "frobenius_norm",
    "l1_penalty",
    "l2_penalty",
    "parameter_norms",
    "penalized_parameters",
]

Coefficient = float | Tensor


def l1_penalty(params: Iterable[Tensor]) -> Tensor:
    """Return the sum of absolute values of all entries of `params`.

    Parameters
    ----------
    params : iterable of Tensor

    Returns
    -------
    Tensor of shape ()

    Examples
    --------
    >>> import torch
    >>> from skreg.penalties import l1_penalty
    >>> l1_penalty([torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])])
    tensor(6.)
    """
    return sum(w.abs().sum() for w in _not_empty(params))


def l2_penalty(params: Iterable[Tensor]) -> Tensor:
    """Return the sum of squares of all entries of `params`.

    Parameters
    ----------
    params : iterable of Tensor

    Returns
    -------
    Tensor of shape ()

    Examples
    --------
    >>> import torch
    >>> from skreg.penalties import l2_penalty
    >>> l2_penalty([torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])])
    tensor(14.)
    """
    return sum(w.square().sum() for w in _not_empty(params))


def elastic_net(
    params: Sequence[Tensor], lambda1: Coefficient = 0.0, lambda2: Coefficient = 0.0
) -> Tensor:
    r"""Return ``lambda1 * sum |w| + lambda2 * sum w ** 2`` over `params`.

    Parameters
    ----------
    params : sequence of Tensor
        At least one.
    lambda1, lambda2 : float or Tensor of shape (), default=0.0
        Plain numbers take a fused path with an analytic gradient. Tensors may differ
        between the nets of a ``torch.func.vmap``, and may require grad.

    Returns
    -------
    Tensor of shape ()

    References
    ----------
    Zou and Hastie, "Regularization and variable selection via the elastic net",
    Journal of the Royal Statistical Society B 67 (2005).
    """
    params = _not_empty(params)
    transformed = torch._C._are_functorch_transforms_active()  # vmap, grad, ...
    if transformed or isinstance(lambda1, Tensor) or isinstance(lambda2, Tensor):
        return lambda1 * l1_penalty(params) + lambda2 * l2_penalty(params)
    return _ElasticNet.apply(float(lambda1), float(lambda2), *params)


def _not_empty(params: Iterable[Tensor]) -> tuple[Tensor, ...]:
    params = tuple(params)
    if not params:
        raise ValueError(
            "params=() holds no tensor to penalise; pass at least one, e.g. "
            "list(module.parameters())."
        )
    return params


class _ElasticNet(torch.autograd.Function):
    """Value and gradient in one sweep over the parameters.

    Autograd over ``w.abs().sum()`` and ``(w ** 2).sum()`` keeps and revisits a
    temporary for each operation; on a small net that doubles the time of a training
    step. Here sum |w| is the dot product of w with its sign, which the gradient
    needs anyway.
    """

    @staticmethod
    def forward(ctx: Any, lambda1: float, lambda2: float, *params: Tensor) -> Tensor:
        gradient = [torch.empty_like(w) for w in params]
        value = elastic_net_into(gradient, params, lambda1, lambda2)
        if any(ctx.needs_input_grad):
            ctx.lambdas = lambda1, lambda2
            ctx.save_for_backward(*params)
            ctx.gradient = gradient
        return value

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor):
        lambda1, lambda2 = ctx.lambdas
        if torch.is_grad_enabled():  # someone wants to differentiate the gradient
            weights = ctx.saved_tensors
            slopes = (lambda1 * w.sign() + 2 * lambda2 * w for w in weights)
            return None, None, *(grad_output * slope for slope in slopes)
        # Handed over rather than kept: autograd adds the gradient of the data loss to
        # a tensor in place if nobody else holds it. A second backward makes it anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = [torch.empty_like(w) for w in ctx.saved_tensors]
            elastic_net_into(gradient, ctx.saved_tensors, lambda1, lambda2)
        # Asking a CUDA tensor for its value would make the host wait for the device.
        if grad_output.device.type != "cpu" or grad_output != 1:
            torch._foreach_mul_(gradient, grad_output)
        return None, None, *gradient


def elastic_net_into(
    gradient: Sequence[Tensor],
    params: Sequence[Tensor],
    lambda1: float,
    lambda2: float,
) -> Tensor:
    """Write ``lambda1 * sign(w) + 2 * lambda2 * w`` into `gradient`; return the value.

    Parameters
    ----------
    gradient : sequence of Tensor
        Overwritten; of the shapes of `params`.
    params : sequence of Tensor
        At least one. They must not require grad, or grad mode must be off.
    lambda1, lambda2 : float

    Returns
    -------
    Tensor of shape ()
        ``lambda1 * sum |w| + lambda2 * sum w ** 2``
    """
    value = 0.0
    for g, w in zip(gradient, params, strict=True):
        if lambda1:
            torch.sign(w, out=g)
            value = value + torch.dot(g.flatten(), w.flatten()).mul_(lambda1)
            g.mul_(lambda1)
            if lambda2:
                g.add_(w, alpha=2 * lambda2)
        else:
            torch.mul(w, 2 * lambda2, out=g)
        if lambda2:
            value = value + torch.dot(w.flatten(), w.flatten()).mul_(lambda2)
    return value if isinstance(value, Tensor) else params[0].new_zeros(())


class StackedElasticNet:
    """`elastic_net_into` for B nets with coefficients of their own, to be called often.

    A call writes the gradients of the penalties at the present weights into
    `gradients`, and returns the penalties, of shape (B,).

    Parameters
    ----------
    gradients : sequence of Tensor of shape (B, ...)
        Contiguous, of the shapes of `params`.
    params : sequence of Tensor of shape (B, ...)
        At least one; contiguous.
    lambda1, lambda2 : Tensor of shape (n_params, B) or None
        Coefficients for each of `params`. None is zero for all nets.
    """

    def __init__(
        self,
        gradients: Sequence[Tensor],
        params: Sequence[Tensor],
        lambda1: Tensor | None,
        lambda2: Tensor | None,
    ):
        self._gradients, self._params = list(gradients), list(params)
        self._flat_gradients = [g.view(len(g), -1) for g in gradients]
        self._flat_params = [w.view(len(w), -1) for w in params]
        self._sums = params[0].new_empty(len(params), len(params[0]))
        self._sum_of_each = list(self._sums)
        self._lambda1, self._lambda2 = lambda1, lambda2
        self._lambda1_of_each = self._one_each(lambda1)
        self._lambda2_of_each = self._one_each(lambda2)

    def _one_each(self, coefficients):
        """Return coefficients in the shapes that multiply the parameters."""
        if coefficients is None:
            return []
        return [
            row.view(-1, *[1] * (w.ndim - 1))
            for row, w in zip(coefficients, self._params, strict=True)
        ]

    def __call__(self) -> Tensor:
        value = self._l1()
        if self._lambda2 is None:
            return value
        for g, w, row, out, factor in zip(
            *(self._gradients, self._params, self._flat_params, self._sum_of_each),
            self._lambda2_of_each,
            strict=True,
        ):
            g.addcmul_(w, factor, value=2)
            torch.linalg.vector_norm(row, dim=1, out=out)
        return value + self._weighted(self._lambda2, self._sums.square_())

    def _l1(self):
        if self._lambda1 is None:
            torch._foreach_zero_(self._gradients)
            return self._sums.new_zeros(self._sums.shape[1])
        for w, g, row, out, factor in zip(
            *(self._params, self._gradients, self._flat_gradients, self._sum_of_each),
            self._lambda1_of_each,
            strict=True,
        ):
            torch.abs(w, out=g)
            torch.sum(row, 1, out=out)
            torch.sign(w, out=g).mul_(factor)
        return self._weighted(self._lambda1, self._sums)

    @staticmethod
    def _weighted(coefficients, sums):
        # What is not penalised costs nothing, even if it is infinite.
        return sums.mul_(coefficients).masked_fill_(coefficients == 0, 0).sum(0)


def parameter_norms(params: Iterable[Tensor]) -> list[float]:
    """Return the Frobenius norm of each tensor.

    One fused call and one transfer from the device, however many tensors there are.

    Parameters
    ----------
    params : iterable of Tensor

    Returns
    -------
    list of float
    """
    params = [w.detach() for w in params]
    if not params:
        return []
    return torch.stack(torch._foreach_norm(params)).tolist()


def frobenius_norm(module: nn.Module) -> float:
    """Return sqrt(sum of squares of all parameters) of `module`.

    Parameters
    ----------
    module : nn.Module

    Returns
    -------
    float

    Examples
    --------
    >>> import torch
    >>> from skreg.penalties import frobenius_norm
    >>> layer = torch.nn.Linear(2, 1)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> _ = torch.nn.init.constant_(layer.bias, 1.0)
    >>> round(frobenius_norm(layer), 4)
    3.0
    """
    return total_norm(parameter_norms(module.parameters()))


def total_norm(norms: Iterable[float]) -> float:
    """Return the norm of the whole from the norms of its parts."""
    return sqrt(sum(norm * norm for norm in norms))


NORMALIZATION_LAYERS = (
    nn.modules.batchnorm._NormBase,  # all batch and instance normalisations
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


def penalized_parameters(
    module: nn.Module, penalize: str | Sequence[str] = "all"
) -> dict[str, nn.Parameter]:
    """Return the trainable parameters that a penalty covers, by name.

    Parameters
    ----------
    module : nn.Module
    penalize : {"all", "weights"} or sequence of str, default="all"
        "all" takes every parameter, biases included; "weights" leaves out biases and
        the parameters of normalisation layers; a sequence of patterns takes the
        parameters whose name matches one of them, e.g. ``["fc1.*", "*.weight"]``
        (`fnmatch` rules). Tied weights, which have several names, count once, and
        match by any of them.

    Returns
    -------
    dict of str to nn.Parameter
        By the names, and in the order, of ``module.named_parameters()``. Frozen
        parameters (``requires_grad=False``) are left out: no penalty can shrink them.

    Raises
    ------
    ValueError
        If `penalize` is none of these, or a pattern matches no parameter.

    Examples
    --------
    >>> from skreg.modules import MLP
    >>> from skreg.penalties import penalized_parameters
    >>> list(penalized_parameters(MLP(4, 3), "weights"))
    ['fc1.weight', 'fc2.weight']
    """
    names = _all_names(module)
    if isinstance(penalize, str):
        if penalize == "all":
            chosen = set(names)
        elif penalize == "weights":
            chosen = set(names) - _biases_and_normalization(module)
        else:
            raise ValueError(
                f"penalize={penalize!r} must be 'all', 'weights' or a list of name "
                f"patterns; for a single pattern write penalize=[{penalize!r}]."
            )
    else:
        matching = _matching([name for own in names.values() for name in own], penalize)
        chosen = {w for w, own in names.items() if not matching.isdisjoint(own)}
    return {own[0]: w for w, own in names.items() if w in chosen and w.requires_grad}


def _all_names(module: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Return each parameter of `module` with its names: tied weights have several."""
    names = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        # A compiled module keeps the original one under this prefix.
        names.setdefault(parameter, []).append(name.removeprefix("_orig_mod."))
    return names


def _biases_and_normalization(module: nn.Module) -> set[nn.Parameter]:
    return {
        parameter
        for child in module.modules()
        for name, parameter in child.named_parameters(
            recurse=False, remove_duplicate=False
        )
        if "bias" in name or isinstance(child, NORMALIZATION_LAYERS)
    }


def _matching(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    names = list(names)
    try:
        patterns = list(patterns)
        matches = {
            pattern: {name for name in names if fnmatchcase(name, pattern)}
            for pattern in patterns
        }
    except TypeError:
        raise ValueError(
            f"penalize={patterns!r} must be 'all', 'weights' or a list of patterns "
            "(strings) over parameter names."
        ) from None
    unknown = [pattern for pattern, found in matches.items() if not found]
    if unknown or not patterns:
        raise ValueError(
            f"penalize={patterns!r}: {unknown or 'an empty list'} matches no "
            f"parameter; the parameters of this module are {names}. To turn the "
            "penalties off, set lambda1=0 and lambda2=0."
        )
    return set().union(*matches.values())
