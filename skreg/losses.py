r"""Losses: what a criterion means by outputs and targets, and its gradient written out.

One table, ``LOSSES``, holds all that is known about criteria of torch: which targets
they are for, the link from outputs to probabilities or to the mean of y, and a function
that computes loss and gradient without autograd, for one net or for a stack of B nets.

Such a function maps (outputs, targets, scale) to the loss
:math:`\sum_i s_i \, \frac{1}{K} \sum_k \ell(o_{ik}, y_{ik})` and its gradient in the
outputs, with the scale :math:`s_i` = 1 / n, or the weight of the sample divided by n.
The cross-entropy has one term for each sample, and no 1 / K.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from skreg._utils.hooks import has_hooks

__all__ = [
    "Link",
    "Loss",
    "PinballLoss",
    "absolute_error",
    "binary_cross_entropy",
    "cross_entropy",
    "huber",
    "loss_of",
    "loss_with_gradient",
    "pinball",
    "poisson",
    "quantiles_of",
    "squared_error",
]

LossWithGradient = Callable[..., tuple[Tensor, Tensor]]


class Link(NamedTuple):
    """From the outputs of a module to probabilities, and to their logarithms."""

    probabilities: Callable[[Tensor], Tensor]
    log_probabilities: Callable[[Tensor], Tensor]


# The softmax of log-probabilities are the probabilities.
SOFTMAX = Link(partial(torch.softmax, dim=-1), partial(torch.log_softmax, dim=-1))
SIGMOID = Link(torch.sigmoid, nn.functional.logsigmoid)


class Loss(NamedTuple):
    """What a criterion means by outputs and targets.

    Attributes
    ----------
    targets : {"classes", "labels", "numbers"}
        One class per sample, a 0/1 matrix with a column for each label, or numbers.
        Numbers are allowed with all of them, as shares or means.
    link : Link or None
        From outputs to the probabilities of classes or labels, if they are known.
    mean : callable or None
        From outputs to the mean of y, where y are numbers. None if outputs are it.
    target_range : (low, high)
        Of y, where y are numbers.
    function : callable or None
        Loss with gradient, of ``(outputs, targets, scale, **options)``. None if it is
        not written out, or not with the options of the criterion.
    options : tuple of str
        Attributes of the criterion that `function` takes. They are numbers or tuples of
        numbers, or, in a stack whose nets differ in them, tensors of shape (B, 1, 1) or
        (B, 1, n).
    """

    targets: Literal["classes", "labels", "numbers"] = "numbers"
    link: Link | None = None
    mean: Callable[[Tensor], Tensor] | None = None
    target_range: tuple[float, float] = (-inf, inf)
    function: LossWithGradient | None = None
    options: tuple[str, ...] = ()


# -- losses with their gradients ------------------------------------------------------


def cross_entropy(
    outputs: Tensor,
    targets: Tensor,
    scale: float | Tensor,
    label_smoothing: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of logits and classes, and its gradient.

    Parameters
    ----------
    outputs : Tensor of shape (n, n_classes) or (B, n, n_classes)
    targets : Tensor of shape (n,) or (B, n), or (n, n_classes) or (B, n, n_classes)
        Class indices, of int64; or the probabilities of the classes, of the dtype of
        `outputs`, which sum to 1.
    scale : float or Tensor of shape (n,) or (B, n)
    label_smoothing : float or Tensor of shape (B, 1, 1), default=0.0

    Returns
    -------
    loss : Tensor of shape () or (B,)
    gradient : Tensor of the shape of `outputs`
    """
    if not outputs.is_contiguous() and outputs.mT.is_contiguous():
        # As stacks return them: classes are the last axis but one, along which the
        # kernels run faster.
        loss, gradient = _cross_entropy(
            outputs.mT, targets, scale, label_smoothing, axis=-2
        )
        return loss, gradient.mT
    return _cross_entropy(outputs, targets, scale, label_smoothing, axis=-1)


def _cross_entropy(outputs, targets, scale, label_smoothing, axis):
    log_p = torch.log_softmax(outputs, axis)
    n_classes = log_p.shape[axis]
    smooths = isinstance(label_smoothing, Tensor) or label_smoothing > 0
    if targets.is_floating_point():
        wanted = (targets.mT if axis == -2 else targets).expand(log_p.shape)
        wanted = wanted.clone() if smooths else wanted
    else:
        shape = list(log_p.shape)
        del shape[axis]
        wanted = torch.zeros_like(log_p)
        wanted.scatter_(axis, targets.expand(shape).unsqueeze(axis), 1.0)
    if smooths:
        wanted.mul_(1 - label_smoothing).add_(label_smoothing / n_classes)
    loss = _sum_of_products(log_p, wanted, scale, axis).neg_()
    gradient = log_p.exp_().sub_(wanted)
    return loss, gradient.mul_(_per_sample(scale, axis))


def binary_cross_entropy(
    outputs: Tensor, targets: Tensor, scale: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return the binary cross-entropy of logits, and its gradient.

    Parameters
    ----------
    outputs : Tensor of shape (n, n_labels) or (B, n, n_labels)
    targets : Tensor of the dtype of `outputs` and of one of these shapes
        Zeros and ones.
    scale : float or Tensor of shape (n,) or (B, n)

    Returns
    -------
    loss : Tensor of shape () or (B,)
    gradient : Tensor of the shape of `outputs`
    """
    # -log(sigmoid(z)) = softplus(-z), and of a zero softplus(z): no overflow.
    losses = torch.relu(outputs) - outputs * targets
    losses += outputs.abs().neg_().exp_().log1p_()
    return _mean_of_outputs(losses, torch.sigmoid(outputs).sub_(targets), scale)


def squared_error(
    outputs: Tensor, targets: Tensor, scale: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return the squared error, and its gradient.

    Parameters
    ----------
    outputs, targets : Tensor of shape (n, n_outputs) or (B, n, n_outputs)
    scale : float or Tensor of shape (n,) or (B, n)

    Returns
    -------
    loss : Tensor of shape () or (B,)
    gradient : Tensor of the shape of `outputs`
    """
    scale = scale / outputs.shape[-1]
    residual = outputs - targets
    loss = _sum_of_products(residual, residual, scale)
    return loss, residual.mul_(_per_sample(2 * scale))


def absolute_error(
    outputs: Tensor, targets: Tensor, scale: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return the absolute error, and its (sub)gradient, the sign of the residual.

    Parameters
    ----------
    outputs, targets : Tensor of shape (n, n_outputs) or (B, n, n_outputs)
    scale : float or Tensor of shape (n,) or (B, n)

    Returns
    -------
    loss : Tensor of shape () or (B,)
    gradient : Tensor of the shape of `outputs`
    """
    residual = outputs - targets
    return _mean_of_outputs(residual.abs(), residual.sign_(), scale)


def huber(
    outputs: Tensor,
    targets: Tensor,
    scale: float | Tensor,
    delta: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    r"""Return the Huber loss, and its gradient, the residual clipped to +-delta.

    It is :math:`r^2 / 2` for :math:`|r| < \delta`, and
    :math:`\delta (|r| - \delta / 2)` beyond (Huber, 1964).

    Parameters
    ----------
    outputs, targets : Tensor of shape (n, n_outputs) or (B, n, n_outputs)
    scale : float or Tensor of shape (n,) or (B, n)
    delta : float or Tensor of shape (B, 1, 1), default=1.0

    Returns
    -------
    loss : Tensor of shape () or (B,)
    gradient : Tensor of the shape of `outputs`
    """
    residual = outputs - targets
    gradient = residual.clamp(-delta, delta)
    return _mean_of_outputs((residual - gradient / 2) * gradient, gradient, scale)


def pinball(
    outputs: Tensor,
    targets: Tensor,
    scale: float | Tensor,
    quantiles: Sequence[float] | Tensor = (0.5,),
) -> tuple[Tensor, Tensor]:
    r"""Return the pinball loss of quantiles, and its gradient, :math:`1[r < 0] - q`.

    It is :math:`q r` for a residual :math:`r = y - o \ge 0`, and :math:`(q - 1) r` for
    a negative one (Koenker and Bassett, 1978).

    Parameters
    ----------
    outputs, targets : Tensor of shape (n, n_quantiles) or (B, n, n_quantiles)
    scale : float or Tensor of shape (n,) or (B, n)
    quantiles : sequence of n_quantiles floats or Tensor of shape (B, 1, n_quantiles)

    Returns
    -------
    loss : Tensor of shape () or (B,)
    gradient : Tensor of the shape of `outputs`
    """
    q = torch.as_tensor(quantiles, dtype=outputs.dtype, device=outputs.device)
    residual = targets - outputs
    gradient = (residual < 0).to(outputs.dtype) - q
    return _mean_of_outputs(-residual * gradient, gradient, scale)


def poisson(
    outputs: Tensor,
    targets: Tensor,
    scale: float | Tensor,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
) -> tuple[Tensor, Tensor]:
    r"""Return the negative log-likelihood of counts, and its gradient.

    It is :math:`e^o - y o` for outputs *o* that are logarithms of the mean, and
    :math:`o - y \log(o + \epsilon)` for outputs that are the mean.

    Parameters
    ----------
    outputs, targets : Tensor of shape (n, n_outputs) or (B, n, n_outputs)
    scale : float or Tensor of shape (n,) or (B, n)
    log_input : bool, default=True
    full : bool, default=False
        Add Stirling's approximation of :math:`\log y!` where y > 1.
    eps : float, default=1e-8

    Returns
    -------
    loss : Tensor of shape () or (B,)
    gradient : Tensor of the shape of `outputs`
    """
    if log_input:
        means = outputs.exp()
        losses, gradient = means - targets * outputs, means - targets
    else:
        losses = outputs - targets * (outputs + eps).log()
        gradient = 1 - targets / (outputs + eps)
    if full:
        y = targets
        stirling = y * y.log() - y + (2 * torch.pi * y).log() / 2
        losses = losses + stirling.where(y > 1, torch.zeros_like(y))
    return _mean_of_outputs(losses, gradient, scale)


def _mean_of_outputs(losses: Tensor, gradient: Tensor, scale: float | Tensor):
    """Return sum_i scale_i mean_k losses_ik, for each net, and the gradient of it."""
    scale = scale / losses.shape[-1]
    if isinstance(scale, Tensor):
        loss = (losses.sum(-1) * scale).sum(-1)
    else:
        loss = losses.sum((-2, -1)).mul_(scale)
    return loss, gradient.mul_(_per_sample(scale))


def _sum_of_products(
    a: Tensor, b: Tensor, scale: float | Tensor, axis: int = -1
) -> Tensor:
    """Return sum_i scale_i sum_k a_ik b_ik, for each net; k runs along `axis`."""
    if not isinstance(scale, Tensor):  # the sum first: it overflows as torch's does
        if a.ndim == 2:
            return torch.dot(a.flatten(), b.flatten()).mul_(scale)
        return (a * b).sum((-2, -1)).mul_(scale)
    return ((a * b).sum(axis) * scale).sum(-1)


def _per_sample(scale: float | Tensor, axis: int = -1) -> float | Tensor:
    return scale.unsqueeze(axis) if isinstance(scale, Tensor) else scale


# -- criteria that torch has not -------------------------------------------------------


class PinballLoss(nn.Module):
    r"""Pinball loss, also called quantile loss: outputs become quantiles of y given X.

    .. math::
        \ell_q(y, o) = \max\left(q (y - o), \, (q - 1) (y - o)\right)

    The expected loss is smallest where a share *q* of y lies below the output *o*. With
    q = 0.5 it is half the absolute error. For several quantiles it is their mean.

    Parameters
    ----------
    quantiles : float or sequence of float, default=(0.5,)
        Numbers between 0 and 1, without the ends, no two equal. One output for each.
    reduction : {"mean", "sum", "none"}, default="mean"

    Raises
    ------
    ValueError
        If `quantiles` are others.

    Notes
    -----
    Quantiles are learnt each on its own, so that they may cross: the output for 0.9 may
    be below that for 0.8. ``np.sort(predictions, axis=1)`` puts them in order, which
    never increases the loss (Chernozhukov, Fernandez-Val and Galichon, 2010).

    References
    ----------
    Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978).

    Examples
    --------
    >>> import torch
    >>> from skreg.losses import PinballLoss
    >>> loss = PinballLoss(quantiles=(0.1, 0.9))
    >>> loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    tensor(0.5000)
    """

    def __init__(self, quantiles=(0.5,), reduction: str = "mean"):
        super().__init__()
        self.quantiles = _checked_quantiles(quantiles)
        self.reduction = reduction

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of outputs and targets of shape (n, n_quantiles)."""
        q = outputs.new_tensor(self.quantiles)
        residual = targets - outputs
        losses = residual * (q - (residual < 0).to(q.dtype))
        if self.reduction == "none":
            return losses
        return losses.sum() if self.reduction == "sum" else losses.mean()

    def extra_repr(self) -> str:
        return f"quantiles={self.quantiles}"


def _checked_quantiles(given) -> tuple[float, ...]:
    allowed = (
        "a number between 0 and 1, or several different ones, e.g. (0.1, 0.5, 0.9)"
    )
    try:
        quantiles = tuple(float(q) for q in np.atleast_1d(given))
    except (TypeError, ValueError) as error:
        raise ValueError(f"quantiles={given!r} must be {allowed}.") from error
    inside = all(0 < q < 1 for q in quantiles)
    if not quantiles or not inside or len(set(quantiles)) < len(quantiles):
        raise ValueError(f"quantiles={given!r} must be {allowed}.")
    return quantiles


def quantiles_of(criterion, options: Mapping[str, object]) -> tuple[float, ...] | None:
    """Return the quantiles that a criterion makes of outputs; None for other criteria.

    Parameters
    ----------
    criterion : loss class or instance
    options : mapping of str to object
        What the criterion is to be made with, such as ``quantiles``.

    Raises
    ------
    ValueError
        If they are not allowed.
    """
    criterion = getattr(criterion, "_orig_mod", criterion)
    kind = criterion if isinstance(criterion, type) else type(criterion)
    if not issubclass(kind, PinballLoss):
        return None
    given = getattr(criterion, "quantiles", (0.5,))
    return _checked_quantiles(options.get("quantiles", given))


# -- the table ------------------------------------------------------------------------


def _cross_entropy_loss(criterion) -> Loss:
    weighs = _is_set(criterion, "weight") or getattr(criterion, "ignore_index", -1) >= 0
    return Loss(
        *("classes", SOFTMAX, SOFTMAX.probabilities, (0, 1)),
        None if weighs else cross_entropy,
        ("label_smoothing",),
    )


def _bce_with_logits_loss(criterion) -> Loss:
    weighs = _is_set(criterion, "weight") or _is_set(criterion, "pos_weight")
    return Loss(
        *("labels", SIGMOID, SIGMOID.probabilities, (0, 1)),
        None if weighs else binary_cross_entropy,
    )


def _poisson_nll_loss(criterion) -> Loss:
    defaults = {"log_input": True, "full": False, "eps": 1e-8}  # of the class
    options = {name: getattr(criterion, name, v) for name, v in defaults.items()}
    mean = torch.exp if options["log_input"] else None
    return Loss(mean=mean, target_range=(0, inf), function=partial(poisson, **options))


def _kl_div_loss(criterion) -> Loss:
    if getattr(criterion, "log_target", False):
        return Loss(target_range=(-inf, 0))
    return Loss(mean=torch.exp, target_range=(0, 1))


# By the class of the criterion; a function if its options matter.
LOSSES: dict[type, Loss | Callable[[nn.Module | type], Loss]] = {
    nn.CrossEntropyLoss: _cross_entropy_loss,
    nn.NLLLoss: Loss("classes", SOFTMAX),
    nn.MultiMarginLoss: Loss("classes"),
    nn.BCEWithLogitsLoss: _bce_with_logits_loss,
    nn.MultiLabelSoftMarginLoss: Loss(
        "labels", SIGMOID, SIGMOID.probabilities, target_range=(0, 1)
    ),
    nn.BCELoss: Loss("labels", target_range=(0, 1)),
    nn.KLDivLoss: _kl_div_loss,
    nn.PoissonNLLLoss: _poisson_nll_loss,
    nn.MSELoss: Loss(function=squared_error),
    nn.L1Loss: Loss(function=absolute_error),
    nn.HuberLoss: Loss(function=huber, options=("delta",)),
    PinballLoss: Loss(function=pinball, options=("quantiles",)),
}

# Attributes of criteria in which the nets of a stack may differ.
OPTIONS = frozenset({"label_smoothing", "delta", "quantiles"})


def loss_of(criterion) -> Loss | None:
    """Return what is known about a criterion, by its class or that of its base.

    Parameters
    ----------
    criterion : loss class or instance
        One that is compiled is known as the original.

    Returns
    -------
    Loss or None
        None for a criterion of a class that is not in the table.
    """
    criterion = getattr(criterion, "_orig_mod", criterion)
    kind = criterion if isinstance(criterion, type) else type(criterion)
    for base in getattr(kind, "__mro__", ()):
        if base in LOSSES:
            entry = LOSSES[base]
            return entry if isinstance(entry, Loss) else entry(criterion)
    return None


def loss_with_gradient(
    criteria: nn.Module | Sequence[nn.Module], of_numbers: bool = False
) -> LossWithGradient | None:
    """Return the function that stands in for a criterion and its gradient.

    Parameters
    ----------
    criteria : nn.Module or sequence of nn.Module
        That of a net; or those of the B nets of a stack, which may differ in their
        options, such as ``label_smoothing``.
    of_numbers : bool, default=False
        Targets are numbers, not classes.

    Returns
    -------
    callable or None
        Maps (outputs, targets, scale) to the loss and its gradient in the outputs.
        `scale` is what each sample's loss is multiplied with before the sum: 1 / n, or
        the weights of the samples divided by n, as a tensor of shape (n,) or (B, n).
        Targets of shape (n, ...) are those of all nets of a stack.
        The loss is of shape () or, for a stack, (B,). None for a criterion that is not
        in the table, or a subclass, or without ``reduction="mean"``, or with hooks, or
        that weighs classes or labels.
    """
    several = isinstance(criteria, Sequence)
    criteria = list(criteria) if several else [criteria]
    first = criteria[0]
    if type(first) not in LOSSES or has_hooks(first) or first.reduction != "mean":
        return None
    loss = loss_of(first)
    if loss.function is None or (of_numbers and loss.targets == "classes"):
        return None
    options = {}
    for name in loss.options:
        values = [getattr(criterion, name) for criterion in criteria]
        equal = len(set(values)) == 1
        options[name] = values[0] if equal else _of_nets(values)
    if not any(isinstance(value, Tensor) for value in options.values()):
        return partial(loss.function, **options) if options else loss.function
    return _WithTensors(loss.function, options)


class _WithTensors:
    """A loss whose options are tensors, which go where the outputs are."""

    def __init__(self, function: LossWithGradient, options: dict):
        self.function, self.options = function, options

    def __call__(self, outputs, targets, scale):
        for name, value in self.options.items():
            if isinstance(value, Tensor):
                self.options[name] = value.to(outputs)
        return self.function(outputs, targets, scale, **self.options)


def _of_nets(values: list[float] | list[tuple[float, ...]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(len(values), 1, -1)


def _is_set(criterion, name: str) -> bool:
    return getattr(criterion, name, None) is not None
