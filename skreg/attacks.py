r"""Attacks: the input near a given one on which a net does worst, as tensors.

.. math:: \max_{x'} \ell(x') \quad\text{subject to}\quad
    \lVert x' - x \rVert \le \varepsilon, \quad x' \in [\mathrm{low}, \mathrm{high}]

with the norm L-infinity or L2, for every sample of a batch on its own.
:func:`fgsm` takes one step of length :math:`\varepsilon` uphill, :func:`pgd` several
shorter ones. Both work on any differentiable loss; :mod:`skreg.robustness` attacks
fitted nets, and ``adversarial_eps=`` trains them on attacked batches.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "NORMS",
    "evaluation_mode",
    "fgsm",
    "log_odds_of_any_error",
    "log_odds_of_error",
    "log_odds_with_gradient",
    "pgd",
    "random_start",
]

NORMS = ("linf", "l2")


def fgsm(
    loss: Callable[[Tensor], Tensor],
    X: Tensor,
    eps: float | Tensor,
    *,
    norm: str = "linf",
    bounds: tuple | None = None,
) -> Tensor:
    r"""Take one step of length `eps` in the direction of steepest ascent.

    .. math:: x + \varepsilon \, \mathrm{sign}(\nabla \ell(x))
        \quad\text{or}\quad
        x + \varepsilon \nabla \ell(x) / \lVert \nabla \ell(x) \rVert_2

    Parameters
    ----------
    loss : callable
        Maps inputs like `X` to losses of shape (n_samples,), each of which depends on
        its own sample only.
    X : Tensor of shape (n_samples, ...)
        Floating-point inputs.
    eps : float, or Tensor of shape (n_samples, 1, ...)
        Length of the step, in units of `X`, at least 0; or one for each sample.
    norm : {"linf", "l2"}, default="linf"
        What is meant by length.
    bounds : (low, high), default=None
        Numbers, or tensors of the shape of one sample or of `eps`. What goes beyond is
        clipped, but never further than to the value in `X`. None does not clip.

    Returns
    -------
    Tensor of the shape of X
        Detached.

    References
    ----------
    Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples",
    ICLR (2015).

    Examples
    --------
    >>> import torch
    >>> from skreg.attacks import fgsm
    >>> w = torch.tensor([3.0, -4.0])
    >>> fgsm(lambda x: x @ w, torch.zeros(1, 2), 0.5)
    tensor([[ 0.5000, -0.5000]])
    >>> fgsm(lambda x: x @ w, torch.zeros(1, 2), 0.5, norm="l2")
    tensor([[ 0.3000, -0.4000]])
    """
    X = X.detach()
    _, gradient = _loss_and_gradient(loss, X)
    return _clip(X + eps * _steepest(gradient, norm), X, bounds)


def pgd(
    loss: Callable[[Tensor], Tensor],
    X: Tensor,
    eps: float | Tensor,
    *,
    steps: int,
    step_size: float | Tensor | None = None,
    norm: str = "linf",
    bounds: tuple | None = None,
    starts: Sequence[Tensor | None] = (None,),
) -> Tensor:
    """Climb in `steps` steps, going back into the ball of radius `eps` after each.

    Parameters
    ----------
    loss, X, eps, norm, bounds
        As for :func:`fgsm`.
    steps : int
        Number of gradients, at least 1.
    step_size : float, default=None
        Length of a step; None is ``2.5 * eps / steps``, with which every point of the
        ball can be reached from every other.
    starts : sequence of Tensor of the shape of X, or None, default=(None,)
        Where to begin, as differences to `X`; see :func:`random_start`. None begins at
        `X`. There is one climb for each.

    Returns
    -------
    Tensor of the shape of X
        Of the points that the climbs have visited, that of the highest loss, for each
        sample. Detached.

    References
    ----------
    Madry et al., "Towards deep learning models resistant to adversarial attacks",
    ICLR (2018).
    """
    X = X.detach()
    step_size = 2.5 * eps / steps if step_size is None else step_size
    best, highest = X, None
    for start in starts:
        x = X if start is None else _clip(X + start, X, bounds)
        for _ in range(steps):
            losses, gradient = _loss_and_gradient(loss, x)
            best, highest = _better(best, highest, x, losses)
            x = x + step_size * _steepest(gradient, norm)
            x = _clip(X + _into_ball(x - X, eps, norm), X, bounds)
        with torch.no_grad():
            best, highest = _better(best, highest, x, loss(x))
    return best


def random_start(
    X: Tensor,
    eps: float,
    norm: str = "linf",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw differences to `X` uniformly from the ball of radius `eps`.

    On a CPU, those of the first samples are the same whatever follows them.

    Parameters
    ----------
    X : Tensor of shape (n_samples, ...)
    eps : float
    norm : {"linf", "l2"}, default="linf"
    generator : torch.Generator, default=None
        None is torch's default one of the device of `X`.

    Returns
    -------
    Tensor of the shape of X
    """
    draw = {"generator": generator, "device": X.device, "dtype": X.dtype}
    if norm == "linf":
        return eps * (2 * torch.rand(X.shape, **draw) - 1)
    # All coordinates but two of points that lie uniformly on a sphere fill the ball
    # uniformly. torch draws 16 numbers at a time.
    n, d = len(X), X[0].numel()
    z = torch.randn((n, 16 * ceil((d + 2) / 16)), **draw)[:, : d + 2]
    return eps * torch.nn.functional.normalize(z)[:, :d].reshape(X.shape)


def log_odds_of_error(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`\log((1 - p_y) / p_y)`, with p the softmax of the outputs.

    It grows with the cross-entropy, which is its softplus, and so has the maxima of
    the cross-entropy and the direction of its gradient. But where a net is so sure
    that :math:`p_y` is rounded to 1, the gradient of the cross-entropy loses its
    largest part to rounding, and an attack by it fails; this one stays exact.

    Parameters
    ----------
    outputs : Tensor of shape (n_samples, n_classes)
        Logits or log-probabilities, of at least two classes.
    y : Tensor of shape (n_samples,), dtype int64
        The right classes; or a Tensor of shape (n_samples, n_classes) of their
        shares, by which the values of all classes are weighted.

    Returns
    -------
    Tensor of shape (n_samples,)
    """
    if y.is_floating_point():
        return (y * _log_odds_of_each_error(outputs)).sum(dim=1)
    y = y[:, None]
    others = outputs.scatter(1, y, -torch.inf)
    return others.logsumexp(dim=1) - outputs.gather(1, y)[:, 0]


def _log_odds_of_each_error(outputs: Tensor) -> Tensor:
    """Return `log_odds_of_error` of each class, of the shape of the outputs."""
    log_p = outputs.log_softmax(dim=1)
    likeliest = outputs.argmax(dim=1, keepdim=True)
    # The others have probabilities of at most 1 / 2, which one may be taken from 1.
    rest = torch.log1p(-log_p.exp().scatter(1, likeliest, 0.0))
    log_odds = log_odds_of_error(outputs, likeliest[:, 0])[:, None]
    return (rest - log_p).scatter(1, likeliest, log_odds)


def log_odds_with_gradient(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return what :func:`log_odds_of_error` does, and its gradient in the outputs.

    Parameters
    ----------
    outputs : Tensor of shape (n_samples, n_classes)
    y : Tensor of shape (n_samples,), dtype int64

    Returns
    -------
    losses : Tensor of shape (n_samples,)
    gradient : Tensor of shape (n_samples, n_classes)
    """
    y = y[:, None]
    others = outputs.scatter(1, y, -torch.inf)
    total = others.logsumexp(dim=1, keepdim=True)
    losses = (total - outputs.gather(1, y))[:, 0]
    return losses, others.sub_(total).exp_().scatter_(1, y, -1.0)


def log_odds_of_any_error(outputs: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`\log((1 - p_y) / p_y)`, with p of independent 0/1 targets.

    :math:`p_y = \prod_k \sigma(\pm z_k)` is the probability that all labels are right.
    As :func:`log_odds_of_error`, it is exact where the net is sure of them all.

    Parameters
    ----------
    outputs : Tensor of shape (n_samples, n_labels)
        Logits.
    y : Tensor of shape (n_samples, n_labels)
        Zeros and ones; numbers in between are rounded.

    Returns
    -------
    Tensor of shape (n_samples,)
    """
    first, *others = torch.where(y > 0.5, -outputs, outputs).unbind(dim=1)
    # Of two events with odds a and b of an error, the odds of any are a + b + ab.
    for log_odds in others:
        either = torch.logaddexp(first, log_odds)
        first = torch.logaddexp(either, first + log_odds)
    return first


class GradientWatch:
    """Counts the samples whose loss does not tell an attack where to go.

    Their gradient is zero wherever the attack has looked: a module that rounds its
    inputs, for instance, has steps for a loss.

    Attributes
    ----------
    without : Tensor of bool of shape (n_samples,)
        Which of the samples last watched have no gradient.
    """

    BLIND = 0.9  # share of the samples from which on the attack proves nothing

    def __init__(self):
        self.n_samples = self.n_without = 0

    @contextmanager
    def watching(self, loss: Callable[[Tensor], Tensor], n_samples: int) -> Iterator:
        """Yield the loss of `n_samples` inputs, to attack them with.

        Parameters
        ----------
        loss : callable
            As for :func:`fgsm`.
        n_samples : int
        """
        found = []

        def note(gradient):
            found.append(gradient.flatten(start_dim=1).any(dim=1))

        def watched(x):
            if x.requires_grad:
                x.register_hook(note)
            return loss(x)

        yield watched
        seen = torch.stack(found).any(dim=0) if found else torch.zeros(n_samples) > 0
        self.without = ~seen
        self.n_samples += n_samples
        self.n_without += int(self.without.sum())

    @property
    def is_blind(self) -> bool:
        """Whether there was no gradient for almost all samples."""
        return self.n_without > 0 and self.n_without >= self.BLIND * self.n_samples

    @property
    def finding(self) -> str:
        """What was found, as the beginning of a sentence."""
        return (
            "the gradient of the loss with respect to X is zero for "
            f"{self.n_without} of {self.n_samples} samples"
        )


@contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Turn dropout off and freeze batch statistics; then put the modes back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _loss_and_gradient(loss, x: Tensor) -> tuple[Tensor, Tensor]:
    if hasattr(loss, "with_gradient"):  # written out
        return loss.with_gradient(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        losses = loss(x)
        # Of the inputs only: the gradients of the weights stay as they are. They are
        # None where the inputs have no part in the loss.
        (gradient,) = torch.autograd.grad(losses.sum(), x, allow_unused=True)
    return losses.detach(), torch.zeros_like(x) if gradient is None else gradient


def _steepest(gradient: Tensor, norm: str) -> Tensor:
    """Return the direction of length 1 along which the loss grows most; 0 if none."""
    if norm == "linf":
        return gradient.sign()
    flat = gradient.flatten(start_dim=1)
    # The squares of tiny gradients are zero: bring the largest entry to 1 first.
    tiny = torch.finfo(flat.dtype).tiny
    flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp(min=tiny)
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp(min=tiny)
    return (flat / length).reshape(gradient.shape)


def _into_ball(difference: Tensor, eps: Any, norm: str) -> Tensor:
    if norm == "linf":
        return difference.clamp(-eps, eps)
    length = torch.linalg.vector_norm(difference.flatten(start_dim=1), dim=1)
    length = _per_sample(length, difference)
    return difference * torch.where(length > eps, eps / length, 1.0)


def _clip(x: Tensor, X: Tensor, bounds: tuple | None) -> Tensor:
    if bounds is None:
        return x
    low, high = (torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in bounds)
    return torch.maximum(torch.minimum(x, high.maximum(X)), low.minimum(X))


def _better(
    best: Tensor, highest: Tensor | None, x: Tensor, losses: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the points of higher loss, sample by sample, and their losses."""
    if highest is None:
        return x, losses
    is_better = losses > highest
    points = torch.where(_per_sample(is_better, x), x, best)
    return points, torch.where(is_better, losses, highest)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
