r"""Mixing: training on pairs of samples, inputs and targets alike (mixup, CutMix)."""

from typing import TypedDict

import torch
from torch import Tensor, nn

from skreg._utils.rules import Rule, is_bool, is_coefficient
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["Mixing", "MixingTypes"]


class MixingTypes(TypedDict, total=False):
    mixup: float
    cutmix: float


class Mixing(Regularizer):
    r"""Each sample is mixed with another one of its batch, and so are the targets.

    Mixup mixes all numbers of two inputs; CutMix takes a box of an image, or some of
    the features of a row, from the other one. With the share *s* that the sample has of
    the mixture:

    .. math::
        \tilde x = s x_i + (1 - s) x_j \quad \text{or} \quad
        \tilde x = m \odot x_i + (1 - m) \odot x_j, \; s = \text{mean}(m), \\
        \tilde \ell = s w_i \ell(y_i) + (1 - s) w_j \ell(y_j)

    Losses that are linear in the targets (of classes and labels) are mixed by mixing
    these; numbers are mixed linearly, which for the squared error gives the same
    gradient. If both are on, each batch is mixed in one of the two ways, at random.

    The shares of mixup are from Beta(mixup, mixup), and the larger one is that of the
    sample in whose place the mixture is; as pairs are random, this leaves the
    distribution of mixtures as it is. CutMix draws the share of an image that stays
    from Beta(cutmix, cutmix), and the middle of a box of that size, of the proportions
    of the image, uniformly; what is beyond the border is not cut. Of a row, each
    feature stays with this probability.

    Parameters
    ----------
    mixup, cutmix : float, default=0.0
        alpha; 0 mixes nothing, 1 draws shares uniformly.
    per_sample : bool, default=True
        Mixup draws a share for each sample, or one for each batch.

    References
    ----------
    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR (2018). Yun et al.,
    "CutMix: Regularization strategy to train strong classifiers with localizable
    features", ICCV (2019).
    """

    parameters = {
        "mixup": Parameter(
            0.0,
            "float",
            Rule(
                is_coefficient,
                "a finite number >= 0",
                "0.2 is a good start, and 0 mixes nothing",
                0.2,
            ),
            "Train on mixtures of pairs of samples of a batch, inputs and targets "
            "alike, with shares from Beta(mixup, mixup); ``mixup__per_sample=False`` "
            "draws one share for all pairs of a batch. Inputs must be floating-point "
            "numbers, and classes need nn.CrossEntropyLoss (Zhang et al., 2018).",
        ),
        "cutmix": Parameter(
            0.0,
            "float",
            Rule(
                is_coefficient,
                "a finite number >= 0",
                "1.0 is a good start, and 0 mixes nothing",
                1.0,
            ),
            "Train on images of which a box is that of another one, and on signals of "
            "which a stretch is, or on rows of which some features are; targets are "
            "mixed by the share that stays, from Beta(cutmix, cutmix). The last axes "
            "of X, after samples and channels, are those of the box. If `mixup` is on "
            "as well, each batch takes one of the two at random (Yun et al., 2019).",
        ),
    }
    options = {
        "mixup": {
            "per_sample": Parameter(
                True,
                "bool",
                Rule(is_bool, "a bool", "False draws one share for a batch", False),
                "",
            )
        }
    }

    def __init__(self, mixup=0.0, cutmix=0.0, per_sample=True):
        self.mixup = mixup
        self.cutmix = cutmix
        self.per_sample = per_sample

    @property
    def is_neutral(self) -> bool:
        return self.mixup == 0 and self.cutmix == 0

    @property
    def stack_key(self):
        is_soft = self.data_.targets == "classes" and not self.is_neutral
        return super().stack_key, is_soft

    @property
    def writes_into_batches(self) -> bool:
        return False

    def criterion(self, criterion: nn.Module) -> nn.Module:
        plain = getattr(criterion, "_orig_mod", criterion)
        if self.data_.targets != "classes" or mixes(plain, self.data_.n_outputs):
            return criterion
        name = getattr(plain, "__name__", type(plain).__name__)
        raise ValueError(
            f"{self._settings} makes shares of two classes, whose loss criterion="
            f"{name} does not compute as the shares of two losses. Use criterion="
            "nn.CrossEntropyLoss without weight and ignore_index (class_weight of the "
            f"classifier weighs classes), or {self._off}."
        )

    def weighted_batch(
        self, X: Tensor, y: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if not (isinstance(X, Tensor) and X.is_floating_point()):
            kind = X.dtype if isinstance(X, Tensor) else type(X).__name__
            raise ValueError(
                f"{self._settings} needs inputs in one tensor of floating-point "
                f"numbers; got {kind}. Let the Dataset convert them, or set "
                f"{self._off}."
            )
        cuts = self.cutmix > 0
        if cuts and self.mixup > 0:
            cuts = bool(torch.rand(()) < 0.5)
        partners = torch.randperm(len(X)).to(X.device)
        if cuts:
            X, share = cut(X, X[partners], draw_shares(self.cutmix, len(X)))
        else:
            share = draw_shares(self.mixup, len(X) if self.per_sample else 1)
            share = torch.maximum(share, 1 - share).to(X)
            X = torch.lerp(X[partners], X, _along(share, X))
        n_classes = self.data_.n_outputs if self.data_.targets == "classes" else None
        if n_classes is not None:
            y = nn.functional.one_hot(y.long(), n_classes).to(X)
        return X, *mixed_targets(y, weight, partners, share)

    @property
    def _settings(self) -> str:
        values = {"mixup": self.mixup, "cutmix": self.cutmix}
        return " and ".join(f"{name}={v!r}" for name, v in values.items() if v)

    @property
    def _off(self) -> str:
        values = {"mixup": self.mixup, "cutmix": self.cutmix}
        return " and ".join(f"{name}=0" for name, v in values.items() if v)


def draw_shares(alpha: float, n: int) -> Tensor:
    """Draw shares from Beta(alpha, alpha).

    Returns
    -------
    Tensor of float64 of shape (n,)
        On the CPU, from its default generator.
    """
    # A gamma variable of shape alpha is one of alpha + 1, times a power 1 / alpha of a
    # uniform one. Its logarithm does not underflow for small alpha, where
    # torch.distributions.Beta draws 0.5.
    shape = torch.full((2, n), alpha + 1.0, dtype=torch.float64)
    gamma = torch._standard_gamma(shape).log_()
    uniform = torch.rand(2, n, dtype=torch.float64).neg_().log1p_()
    return torch.sigmoid(gamma[0] - gamma[1] + (uniform[0] - uniform[1]) / alpha)


def cut(X: Tensor, others: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Put parts of other inputs into inputs.

    Parameters
    ----------
    X, others : Tensor of shape (n, n_features) or (n, n_channels, ...)
    share : Tensor of float64 of shape (n,)
        About how much of each input stays.

    Returns
    -------
    X : Tensor
    share : Tensor of shape (n,)
        How much of each has stayed.
    """
    if X.ndim <= 2:
        stays = torch.rand(X.shape) < _along(share, X)
        share = stays.double().reshape(len(X), -1).mean(dim=1)
        return torch.where(stays.to(X.device), X, others), share.to(X)
    sizes = X.shape[2:]
    side, area = (1 - share) ** (1 / len(sizes)), torch.ones_like(share)
    inside = torch.ones((), dtype=torch.bool, device=X.device)
    for axis, size in enumerate(sizes, start=2):
        length = (side * size).long()
        start = torch.randint(size, (len(X),)) - length // 2
        start, stop = start.clamp(min=0), (start + length).clamp(max=size)
        area *= (stop - start) / size
        low, high = (_along(edge.to(X.device), X) for edge in (start, stop))
        place = torch.arange(size, device=X.device)
        place = place.view(-1, *[1] * (X.ndim - 1 - axis))
        inside = inside & (low <= place) & (place < high)
    return torch.where(inside, others, X), (1 - area).to(X)


def mixed_targets(
    y: Tensor, weight: Tensor | None, partners: Tensor, share: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Mix targets, and the weights of samples.

    The loss of a mixture, if it is linear in the targets, is the share of its own loss
    and the rest of that of its partner, each with its own weight.

    Parameters
    ----------
    y : Tensor of shape (n, ...)
    weight : Tensor of shape (n,), or None
    partners : Tensor of int64 of shape (n,)
    share : Tensor of shape (n,) or (1,)

    Returns
    -------
    y, weight : as above
    """
    if weight is not None:
        weight = weight.to(share.device)
        own = share.to(weight) * weight
        total = own + (1 - share.to(weight)) * weight[partners]
        # Where both weights are zero, the targets do not matter.
        share = torch.where(total > 0, own / total, 0.5)
        weight = total
    return torch.lerp(y[partners], y, _along(share.to(y), y)), weight


def mixes(criterion, n_classes: int) -> bool:
    """Return whether the loss of shares of two classes is these shares of two losses.

    Parameters
    ----------
    criterion : nn.Module or callable
        It is tried.
    n_classes : int
    """
    tensors = [*criterion.buffers()] if isinstance(criterion, nn.Module) else []
    like = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    # Probabilities will do as logits, too.
    outputs = torch.arange(1, n_classes + 1).to(like).expand(2, n_classes)
    outputs = outputs / outputs.sum(1, keepdim=True)
    first, second = torch.tensor([[0, 1], [1, n_classes - 1]], device=like.device)
    rows = torch.eye(n_classes).to(like)
    try:
        with torch.no_grad():
            mixed = criterion(outputs, 0.75 * rows[first] + 0.25 * rows[second])
            parts = criterion(outputs, first), criterion(outputs, second)
    except Exception:  # whatever a criterion raises that takes indices alone
        return False
    return torch.allclose(mixed.sum(), 0.75 * parts[0].sum() + 0.25 * parts[1].sum())


def _along(share: Tensor, of: Tensor) -> Tensor:
    """Return shares of samples, for all that a tensor holds of each."""
    return share.view(-1, *[1] * (of.ndim - 1))
