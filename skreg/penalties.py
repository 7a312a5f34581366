r"""L1 and L2 penalties and the Frobenius norm: pure functions of parameters.

The penalty of a net with parameters :math:`w` is

.. math:: \lambda_1 \sum |w| + \lambda_2 \sum w^2,

with no factor 1/2 and no division by the number of samples or of parameters. Its
(sub)gradient is :math:`\lambda_1 \, \mathrm{sign}(w) + 2 \lambda_2 w`, with
:math:`\mathrm{sign}(0) = 0`.
"""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import reduce
from math import sqrt
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "add_elastic_net",
    "elastic_net",
    "frobenius_norm",
    "group_soft_threshold",
    "l1_penalty",
    "l2_penalty",
    "parameter_norms",
    "penalized_parameters",
    "share_of_zeros",
    "soft_threshold",
    "total_norm",
    "trainable_parameters",
]


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
    return reduce(add, (w.abs().sum() for w in _not_empty(params)))


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
    return reduce(add, (w.square().sum() for w in _not_empty(params)))


def elastic_net(
    params: Sequence[Tensor], lambda1: float = 0.0, lambda2: float = 0.0
) -> Tensor:
    r"""Return ``lambda1 * sum |w| + lambda2 * sum w ** 2`` over `params`.

    Parameters
    ----------
    params : sequence of Tensor
        At least one.
    lambda1, lambda2 : float, default=0.0

    Returns
    -------
    Tensor of shape ()
        Differentiable, also under ``torch.func`` transforms.

    References
    ----------
    Zou and Hastie, "Regularization and variable selection via the elastic net",
    Journal of the Royal Statistical Society B 67 (2005).
    """
    params = _not_empty(params)
    return lambda1 * l1_penalty(params) + lambda2 * l2_penalty(params)


def _not_empty(params: Iterable[Tensor]) -> tuple[Tensor, ...]:
    params = tuple(params)
    if not params:
        raise ValueError(
            "params=() holds no tensor to penalise; pass at least one, e.g. "
            "list(module.parameters())."
        )
    return params


def add_elastic_net(
    gradients: Sequence[Tensor],
    weights: Sequence[Tensor],
    lambda1: float | list[Tensor | None],
    lambda2: float | list[Tensor | None],
    *,
    proximal: float | list[Tensor | None] = 0.0,
    overwrite: bool = False,
) -> Tensor | float:
    """Add ``lambda1 * sign(w) + 2 * lambda2 * w`` to gradients; return the penalty.

    Parameters
    ----------
    gradients : sequence of Tensor
        Changed in place; of the shapes of `weights`.
    weights : sequence of Tensor
        They must not require grad, or grad mode must be off, unless the result is to
        be differentiated.
    lambda1, lambda2 : float, or list of (Tensor of shape (B,) or None)
        Tensors for a stack of B nets, whose weights have an axis of nets in front: one
        coefficient for each of `weights` and each net; None is 0 for all nets.
    proximal : as `lambda1`, default=0.0
        A coefficient of ``sum |w|`` that is part of the penalty and of no gradient, as
        a proximal step sees to it.
    overwrite : bool, default=False
        Write to the gradients, whatever they hold, instead of adding to them.

    Returns
    -------
    Tensor of shape () or (B,), or float
        ``(lambda1 + proximal) * sum |w| + lambda2 * sum w ** 2``; 0.0 if all are the
        number 0. A net whose coefficient is 0 pays nothing for weights that are
        infinite.
    """
    return ElasticNetGradient(lambda1, lambda2, proximal)(gradients, weights, overwrite)


class ElasticNetGradient:
    """The gradient of an elastic net, to be added again and again.

    Parameters
    ----------
    lambda1, lambda2, proximal : as in ``add_elastic_net``
    """

    def __init__(
        self,
        lambda1: float | list[Tensor | None],
        lambda2: float | list[Tensor | None],
        proximal: float | list[Tensor | None] = 0.0,
    ):
        self._given = lambda1, lambda2, proximal
        self._terms: list[list] = []  # of each of the weights
        self._table = None  # coefficients of all terms and nets, and which are 0

    def __call__(
        self,
        gradients: Iterable[Tensor],
        weights: Collection[Tensor],
        overwrite: bool = False,
    ) -> Tensor | float:
        """As ``add_elastic_net``, of weights that have the same shapes each time."""
        if not self._terms:
            self._terms = [self._terms_of(i, w) for i, w in enumerate(weights)]
        sums = []
        for g, w, (l1, l2, by_step) in zip(
            gradients, weights, self._terms, strict=True
        ):
            if l1 is not None:
                sums.append(_add_signs(g, w, l1, overwrite))
            elif overwrite:
                g.zero_()
            if l2 is not None:
                sums.append(_sum_of_squares(w, isinstance(l2, Tensor)))
                _add(g, w, l2, 2)
            if by_step is not None:
                sums.append(_sum_of_magnitudes(w, isinstance(by_step, Tensor)))
        return self._weighted_sum(sums)

    def _terms_of(self, i: int, w: Tensor) -> list:
        """Return the coefficients of a parameter, in shapes that multiply it."""
        given = [c[i] if isinstance(c, list) else c or None for c in self._given]
        return [
            c.view(-1, *[1] * (w.ndim - 1)) if isinstance(c, Tensor) else c
            for c in given
        ]

    def _weighted_sum(self, sums: list[Tensor]) -> Tensor | float:
        if not sums:
            return 0.0
        used = (c for terms in self._terms for c in terms if c is not None)
        if not any(isinstance(c, list) for c in self._given):
            return reduce(add, (c * total for c, total in zip(used, sums, strict=True)))
        if self._table is None:
            table = torch.stack([c.flatten() for c in used])
            self._table = table, table == 0
        table, is_free = self._table
        # What is not penalised costs nothing, even if it is infinite.
        return torch.stack(sums).mul_(table).masked_fill_(is_free, 0).sum(0)


def _add_signs(g: Tensor, w: Tensor, l1: float | Tensor, overwrite: bool) -> Tensor:
    """Add ``l1 * sign(w)`` to a gradient; return sum |w|, or that of each net."""
    if w.requires_grad and torch.is_grad_enabled():
        sign = torch.sign(w)
        _add(g, sign, l1, 1)
        return torch.dot(sign.flatten(), w.flatten())
    sign = g if overwrite else torch.empty_like(w)
    if isinstance(l1, Tensor):
        total = torch.abs(w, out=sign).reshape(len(w), -1).sum(1)
        torch.sign(w, out=sign)
    else:
        torch.sign(w, out=sign)
        total = torch.dot(sign.flatten(), w.flatten())
    if overwrite:
        sign.mul_(l1)
    else:
        _add(g, sign, l1, 1)
    return total


def _sum_of_magnitudes(w: Tensor, of_nets: bool) -> Tensor:
    return w.abs().reshape(len(w), -1).sum(1) if of_nets else w.abs().sum()


def _sum_of_squares(w: Tensor, of_nets: bool) -> Tensor:
    if not of_nets:
        return torch.dot(w.flatten(), w.flatten())
    return torch.linalg.vector_norm(w.reshape(len(w), -1), dim=1).square_()


def _add(g: Tensor, direction: Tensor, coefficient: float | Tensor, factor: int):
    if isinstance(coefficient, Tensor):
        g.addcmul_(direction, coefficient, value=factor)
    else:
        g.add_(direction, alpha=factor * coefficient)


def soft_threshold(w: Tensor, threshold: float | Tensor) -> Tensor:
    r"""Return w moved towards 0 by a threshold, and 0 where it is smaller.

    It is the proximal step of the L1 penalty, :math:`\mathrm{argmin}_z \,
    (z - w)^2 / (2 \eta) + \lambda |z|` with the threshold :math:`\eta \lambda`.

    Parameters
    ----------
    w : Tensor
    threshold : float or Tensor
        Numbers >= 0, of a shape that broadcasts to that of `w`.

    Returns
    -------
    Tensor of the shape of `w`

    References
    ----------
    Daubechies, Defrise and De Mol, "An iterative thresholding algorithm for linear
    inverse problems with a sparsity constraint", Communications on Pure and Applied
    Mathematics 57 (2004).

    Examples
    --------
    >>> import torch
    >>> from skreg.penalties import soft_threshold
    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
    tensor([-2.,  0.,  1.])
    """
    bound: Any = threshold
    return w - w.clamp(-bound, bound)


def group_soft_threshold(
    w: Tensor, threshold: float | Tensor, step_sizes: float | Tensor = 1.0
) -> Tensor:
    r"""Return groups moved towards 0, and 0 where they are small.

    It is the proximal step of the L2 norm of a group, in the metric of step sizes d:

    .. math:: \mathrm{argmin}_z \, \sum_i \frac{(z_i - w_i)^2}{2 d_i} + t \|z\|_2

    With one step size for all it is block soft thresholding,
    :math:`z = w \, (1 - d t / \|w\|)_+`. Else z = 0 if :math:`\|w / d\| \le t`, and
    :math:`z_i = w_i \, \rho / (\rho + t d_i)` if not, where :math:`\rho = \|z\|` is the
    root of :math:`\sum_i w_i^2 / (\rho + t d_i)^2 = 1`, found by Newton's method.

    Parameters
    ----------
    w : Tensor of shape (..., n_groups, size)
    threshold : float or Tensor
        Numbers t >= 0; a tensor broadcasts to shape (..., n_groups, 1).
    step_sizes : float or Tensor, default=1.0
        Numbers d >= 0; a tensor is of the shape of `w`.

    Returns
    -------
    Tensor of the shape of `w`

    References
    ----------
    Yuan and Lin, "Model selection and estimation in regression with grouped variables",
    Journal of the Royal Statistical Society B 68 (2006). Yun, Lozano and Yang,
    "Adaptive proximal gradient methods for structured neural networks", NeurIPS 34
    (2021).

    Examples
    --------
    >>> import torch
    >>> from skreg.penalties import group_soft_threshold
    >>> groups = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    >>> group_soft_threshold(groups, 1.0)
    tensor([[2.4000, 3.2000],
            [0.0000, 0.0000]])
    """
    if not isinstance(step_sizes, Tensor):
        cut = threshold * step_sizes
        norm = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
        return w * torch.where(norm > cut, 1 - cut / norm, 0.0)
    tiny = torch.finfo(w.dtype).tiny
    scale = w.abs().amax(-1, keepdim=True).clamp(min=tiny)  # no square overflows
    sizes, cut = w.abs() / scale, threshold * step_sizes / scale
    is_zero = (sizes / cut.clamp(min=tiny)).square().sum(-1, keepdim=True) <= 1
    rho = _root_of_norm(sizes, cut, is_zero)
    factor = (rho / (rho + cut).clamp(min=tiny)).masked_fill(is_zero, 0.0)
    return torch.where(cut == 0, w, w * factor)


def _root_of_norm(w: Tensor, cut: Tensor, is_zero: Tensor) -> Tensor:
    """Return the root rho of ``sum (w / (rho + cut)) ** 2 = 1`` in each row, w >= 0.

    ``sum(...) ** -0.5`` is concave and rises: Newton's method, begun below its root,
    rises to it. If all cuts are equal, it begins there. Where `is_zero` there is none.
    """
    dtype = torch.finfo(w.dtype)
    norm = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    # Below are what one weight alone gives, and all weights with the largest cut.
    of_one, of_all = (w - cut).amax(-1, True), norm - cut.amax(-1, True)
    rho = torch.maximum(of_one, of_all).clamp_(min=0)
    for _ in range(64):
        rest = (rho + cut).clamp(min=dtype.tiny)
        parts = (w / rest).square_()
        total = parts.sum(-1, keepdim=True)
        slope = (parts / rest).sum(-1, keepdim=True)
        step = total * (total.sqrt() - 1) / slope.clamp(min=dtype.tiny)
        step = step.masked_fill_(is_zero, 0.0)
        rho = rho + step.clamp_(min=0)
        if not bool((step > 4 * dtype.eps * rho).any()):
            break
    return rho


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


def share_of_zeros(params: Iterable[Tensor]) -> float:
    """Return which part of all entries of `params` is exactly zero.

    Parameters
    ----------
    params : iterable of Tensor
        At least one.

    Returns
    -------
    float

    Examples
    --------
    >>> import torch
    >>> from skreg.penalties import share_of_zeros
    >>> share_of_zeros([torch.tensor([1.0, 0.0]), torch.tensor([[0.0], [0.0]])])
    0.75
    """
    params = _not_empty(params)
    n_active = torch.stack([torch.count_nonzero(w.detach()) for w in params]).sum()
    return 1 - float(n_active) / sum(w.numel() for w in params)


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


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient, each once, by name.

    Parameters
    ----------
    module : nn.Module
        The names are those of the original one if it is compiled.
    """
    return {own[0]: w for w, own in _all_names(module).items() if w.requires_grad}


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
