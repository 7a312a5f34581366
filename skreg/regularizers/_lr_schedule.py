r"""Schedules of the learning rate over a fit, with a value of its own for each step."""

from math import cos, pi
from typing import Any, Literal, TypedDict

from skreg._utils.rules import Rule
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["LearningRateSchedule", "LearningRateScheduleTypes"]

N_CYCLES = 3  # of restarts, each twice as long as the one before
# One cycle: share of the steps in which the rate rises, its first and its last factor.
WARM_UP, FIRST, LAST = 0.3, 1 / 25, 1 / 25e4
MOMENTUM = 0.95, 0.85  # in the beginning and the end, and at the top


class LearningRateScheduleTypes(TypedDict, total=False):
    lr_schedule: Literal["cosine", "linear", "one_cycle", "cosine_restarts"] | None


def cosine(step: int, n_steps: int) -> float:
    """Return the factor of half a cosine, from 1 to 0."""
    return _half_cosine(1.0, 0.0, step / n_steps)


def linear(step: int, n_steps: int) -> float:
    """Return the factor of a straight line, from 1 to 0."""
    return 1.0 - step / n_steps


def one_cycle(step: int, n_steps: int) -> float:
    """Return the factor that rises to 1 in 30 % of the steps, and falls to almost 0."""
    return _rise_and_fall(step, n_steps, FIRST, 1.0, LAST)


def cosine_restarts(step: int, n_steps: int) -> float:
    """Return the factor of three half cosines from 1 to 0, of lengths 1 : 2 : 4."""
    n_parts = 2**N_CYCLES - 1
    place, length = step * n_parts, n_steps  # in parts of a step: no rounding
    while place >= length and length < 2 ** (N_CYCLES - 1) * n_steps:
        place, length = place - length, 2 * length
    return _half_cosine(1.0, 0.0, place / length)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + cos(pi * share))


def _rise_and_fall(step, n_steps, first: float, top: float, last: float) -> float:
    n_rising, n_all = WARM_UP * n_steps - 1, n_steps - 1
    if step <= n_rising and n_rising > 0:
        return _half_cosine(first, top, step / n_rising)
    return _half_cosine(top, last, (step - n_rising) / (n_all - n_rising))


SCHEDULES = {
    "cosine": cosine,
    "linear": linear,
    "one_cycle": one_cycle,
    "cosine_restarts": cosine_restarts,
}


class LearningRateSchedule(Regularizer):
    r"""Schedule of the learning rate: a factor of `lr` for each step of the fit.

    With *t* steps taken of *T*, "cosine" is :math:`(1 + \cos(\pi t / T)) / 2`, "linear"
    is :math:`1 - t / T`, "cosine_restarts" are three cosines of lengths 1 : 2 : 4, and
    "one_cycle" rises from 1/25 to 1 in 30 % of the steps and falls to 1/250,000, each
    time as half a cosine. One cycle also moves the momentum of SGD, or the first beta
    of Adam, from 0.95 to 0.85 and back.

    Parameters
    ----------
    lr_schedule : {"cosine", "linear", "one_cycle", "cosine_restarts"}, default=None

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR
    (2017). Smith and Topin, "Super-convergence: very fast training of neural networks
    using large learning rates" (2019).
    """

    parameters = {
        "lr_schedule": Parameter(
            None,
            '{"cosine", "linear", "one_cycle", "cosine_restarts"}',
            Rule(
                lambda name: (
                    name is None or (isinstance(name, str) and name in SCHEDULES)
                ),
                "None, 'cosine', 'linear', 'one_cycle' or 'cosine_restarts'",
                "None keeps lr; a skorch LRScheduler in callbacks knows others",
                "cosine",
            ),
            "Schedule of the learning rate over the steps of ``max_epochs`` epochs: "
            'half a cosine from `lr` to 0 ("cosine"), three of lengths 1 : 2 : 4 '
            '("cosine_restarts"; Loshchilov and Hutter, 2017), a straight line '
            '("linear"), or a rise to `lr` and a fall ("one_cycle"; Smith and Topin, '
            "2019). Each fit, and each ``partial_fit``, begins anew. None keeps `lr`.",
        )
    }

    def __init__(self, lr_schedule: Any = None):
        self.lr_schedule = lr_schedule

    @property
    def is_neutral(self) -> bool:
        return self.lr_schedule is None

    @property
    def stack_key(self):
        return self.lr_schedule

    def schedule(self, options: dict[str, Any], step: int, n_steps: int):
        found = {"lr": options["lr"] * SCHEDULES[self.lr_schedule](step, n_steps)}
        if self.lr_schedule != "one_cycle":
            return found
        low, high = MOMENTUM[::-1]
        momentum = _rise_and_fall(step, n_steps, high, low, high)
        if options.get("momentum"):
            found["momentum"] = momentum
        elif "betas" in options:
            found["betas"] = (momentum, *options["betas"][1:])
        return found

    @classmethod
    def stack(cls, members):
        return members[0]
