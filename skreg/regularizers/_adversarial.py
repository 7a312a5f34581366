"""Adversarial training: each batch is attacked before a step is taken on it."""

import warnings
from collections.abc import Callable
from math import inf
from typing import Literal, TypedDict

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

    def perturb(self, X: Tensor, y: Tensor, losses: Callable) -> Tensor:
        if not (isinstance(X, Tensor) and X.is_floating_point()):
            kind = X.dtype if isinstance(X, Tensor) else type(X).__name__
            raise ValueError(
                f"adversarial_eps={self.adversarial_eps!r} needs inputs in one tensor "
                f"of floating-point numbers; got {kind}. Let the Dataset convert them, "
                "or pass adversarial_eps=0."
            )
        if hasattr(self, "has_watched_"):
            return self._attack(X, losses)
        self.has_watched_, watch = True, GradientWatch()
        with watch.watching(losses, len(X)) as watched:
            attacked = self._attack(X, watched)
        if watch.is_blind:
            warnings.warn(
                f"adversarial_eps={self.adversarial_eps!r}: {watch.finding} of the "
                "first batch, so that the attacks find nothing, and training is not "
                "adversarial. Does the module round or detach its inputs?",
                UserWarning,
                stacklevel=2,
            )
        return attacked

    def _attack(self, X: Tensor, losses: Callable) -> Tensor:
        eps, norm = self.adversarial_eps, self.adversarial_norm
        bounds = self.data_.input_range or (-inf, inf)
        if self.adversarial_steps == 1:
            return fgsm(losses, X, eps, norm=norm, bounds=bounds)
        return pgd(
            losses,
            X,
            eps,
            steps=self.adversarial_steps,
            norm=norm,
            bounds=bounds,
            starts=[random_start(X, eps, norm)],
        )
