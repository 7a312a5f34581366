"""Adversarial training: each batch is attacked before a step is taken on it."""

import warnings
from collections.abc import Callable, Sequence
from math import inf
from typing import Literal, TypedDict

import torch
from torch import Tensor

from skreg._utils.rules import Rule, is_coefficient, is_integer
from skreg.attacks import NORMS, GradientWatch, fgsm, pgd, random_start
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["AdversarialTraining", "AdversarialTypes"]


class AdversarialTypes(TypedDict, total=False):
    adversarial_eps: float
    adversarial_norm: Literal["linf", "l2"]
    adversarial_steps: int


class AdversarialTraining(Regularizer):
    """Adversarial training: a step is taken on attacked inputs, and on them alone.

    The attack sees the weights as they are, with dropout off and with the running
    statistics of batch normalisation, which it does not change.

    Parameters
    ----------
    adversarial_eps : float, default=0.0
        Distance, in units of X; 0 attacks nothing.
    adversarial_norm : {"linf", "l2"}, default="linf"
    adversarial_steps : int, default=1
        One is FGSM, several are PGD from a random start.

    References
    ----------
    Madry et al., "Towards deep learning models resistant to adversarial attacks",
    ICLR (2018).
    """

    parameters = {
        "adversarial_eps": Parameter(
            0.0,
            "float",
            Rule(
                is_coefficient,
                "a finite number >= 0",
                "it is a distance in units of X, and 0 trains on X as it is",
                0.1,
            ),
            "Above 0, each training batch (after `augment`) is replaced by the worst "
            "inputs that an attack finds within this distance of it, in units of X and "
            "within the range of the training data; the losses of training in the "
            "history are of these. What is validated, scored or predicted is never "
            "attacked. See :mod:`skreg.robustness`.",
        ),
        "adversarial_norm": Parameter(
            "linf",
            '{"linf", "l2"}',
            Rule(
                lambda norm: isinstance(norm, str) and norm in NORMS,
                "'linf' or 'l2'",
                "'linf' bounds the change of every number of a sample, 'l2' their "
                "length",
                "l2",
            ),
            "What `adversarial_eps` bounds: the change of each number of a sample, or "
            "the Euclidean length of the changes of all.",
        ),
        "adversarial_steps": Parameter(
            1,
            "int",
            Rule(
                lambda n: is_integer(n) and n > 0,
                "a positive integer",
                "1 is FGSM, more are PGD",
                2,
            ),
            "Gradients a batch: 1 is the fast gradient sign method of Goodfellow et "
            "al. (2015), more are projected gradient descent from a random start "
            "(Madry et al., 2018). One makes an epoch take two to four times as long.",
        ),
    }
    looks_at_input_range = True

    def __init__(
        self, adversarial_eps=0.0, adversarial_norm="linf", adversarial_steps=1
    ):
        self.adversarial_eps = adversarial_eps
        self.adversarial_norm = adversarial_norm
        self.adversarial_steps = adversarial_steps

    @property
    def is_neutral(self) -> bool:
        return self.adversarial_eps == 0

    @property
    def stack_key(self):
        return self.adversarial_norm, self.adversarial_steps

    def draw(self, X: Tensor) -> Tensor | None:
        self._check(X)
        if self.adversarial_steps == 1:
            return None
        return random_start(X, 1.0, self.adversarial_norm)

    def _check(self, X) -> None:
        if isinstance(X, Tensor) and X.is_floating_point():
            return
        kind = X.dtype if isinstance(X, Tensor) else type(X).__name__
        raise ValueError(
            f"adversarial_eps={self.adversarial_eps!r} needs inputs in one tensor of "
            f"floating-point numbers; got {kind}. Let the Dataset convert them, or "
            "pass adversarial_eps=0."
        )

    def perturb(self, X, y, losses, drawn) -> Tensor:
        if hasattr(self, "has_watched_"):
            return self._attack(X, losses, drawn)
        self.has_watched_, watch = True, GradientWatch()
        with watch.watching(losses, len(X)) as watched:
            attacked = self._attack(X, watched, drawn)
        if watch.is_blind:
            warnings.warn(
                f"adversarial_eps={self.adversarial_eps!r}: {watch.finding} of the "
                "first batch, so that the attacks find nothing, and training is not "
                "adversarial. Does the module round or detach its inputs?",
                UserWarning,
                stacklevel=2,
            )
        return attacked

    def _attack(self, X: Tensor, losses: Callable, drawn: Tensor | None) -> Tensor:
        if not hasattr(self, "bounds_"):
            low, high = self.data_.input_range or (-inf, inf)
            self.bounds_ = X.new_tensor(low), X.new_tensor(high)
        bounds = self.bounds_
        return self._attacked(X, losses, drawn, self.adversarial_eps, bounds)

    def _attacked(self, X, losses, drawn, eps, bounds) -> Tensor:
        options = {"norm": self.adversarial_norm, "bounds": bounds}
        if self.adversarial_steps == 1:
            return fgsm(losses, X, eps, **options)
        steps = self.adversarial_steps
        return pgd(losses, X, eps, steps=steps, starts=[eps * drawn], **options)

    @classmethod
    def stack(cls, members: Sequence["AdversarialTraining"]) -> "AdversarialTraining":
        return _AttacksOfNets(members)


class _AttacksOfNets(AdversarialTraining):
    """The attacks on the nets of a stack, each with its distance and its range."""

    def __init__(self, members: Sequence[AdversarialTraining]):
        first = members[0]
        super().__init__(1.0, first.adversarial_norm, first.adversarial_steps)
        ranges = [member.data_.input_range or (-inf, inf) for member in members]
        eps = [member.adversarial_eps for member in members]
        self.numbers = torch.tensor(
            [eps, *zip(*ranges, strict=True)], dtype=torch.float64
        )
        # Nets that go on when others have ended were watched before.
        self.has_watched = all(
            member.is_neutral or hasattr(member, "has_watched_") for member in members
        )

    @property
    def is_neutral(self) -> bool:
        return False

    def perturb(self, X, y, losses, drawn) -> Tensor:
        n = len(X) // self.numbers.shape[1]
        eps, low, high = self.numbers.to(X).repeat_interleave(n, dim=1)
        eps, low, high = (t.view(-1, *[1] * (X.ndim - 1)) for t in (eps, low, high))
        if self.has_watched:
            return self._attacked(X, losses, drawn, eps, (low, high))
        # Who is blind is warned alone.
        watch = GradientWatch()
        with watch.watching(losses, len(X)) as watched:
            attacked = self._attacked(X, watched, drawn, eps, (low, high))
        share = watch.without.view(-1, n).double().mean(dim=1)
        if (share[self.numbers[0].to(share.device) > 0] >= watch.BLIND).any():
            raise RuntimeError(watch.finding)
        self.has_watched = True
        return attacked

    def unstack(self, members: Sequence[AdversarialTraining]) -> None:
        if self.has_watched:
            for member in members:
                member.has_watched_ = True
