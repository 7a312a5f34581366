r"""Averaged weights: a moving mean (EMA), or that of the last epochs (SWA)."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from skreg._utils.of_nets import by_net
from skreg._utils.rules import Rule, is_number
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["Average", "AverageTypes"]

KINDS = {"ema": 0.0, "swa": 0.75}  # and where they start


class AverageTypes(TypedDict, total=False):
    average: Literal["ema", "swa"] | None


class Average(Regularizer):
    r"""Averaged weights are validated, kept and predict; training goes on beside.

    The exponential moving average follows :math:`m \leftarrow d m + (1 - d) w` after
    each step; it begins as a copy of the weights after the first one. Stochastic weight
    averaging is the plain mean of the weights at the ends of epochs.

    Parameters
    ----------
    kind : {"ema", "swa"}, default=None
    decay : float, default=0.99
        The *d* of "ema", of each step.
    start : float, default=None
        Share of the epochs after which averaging begins; None is 0 for "ema" and 0.75
        for "swa". Before, the weights themselves are validated.

    References
    ----------
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM
    Journal on Control and Optimization 30 (1992). Izmailov et al., "Averaging weights
    leads to wider optima and better generalization", UAI (2018).
    """

    parameters = {
        "average": Parameter(
            None,
            '{"ema", "swa"}',
            Rule(
                lambda kind: kind is None or (isinstance(kind, str) and kind in KINDS),
                "None, 'ema' or 'swa'",
                "'ema' is a moving mean of steps, 'swa' the mean of the last epochs",
                "ema",
            ),
            "Averaged weights are what is validated, kept and predicts: a moving mean "
            'over steps ("ema"; ``average__decay=0.99``) or the mean over the ends of '
            'the last epochs ("swa"; Izmailov et al., 2018). ``average__start`` is the '
            "share of the epochs after which it begins, 0 and 0.75. None averages "
            "nothing.",
        )
    }
    options = {
        "average": {
            "decay": Parameter(
                0.99,
                "float",
                Rule(
                    lambda d: is_number(d) and 0 <= d < 1,
                    "a number in [0, 1)",
                    "0.99 remembers about 100 steps",
                    0.9,
                ),
                "",
            ),
            "start": Parameter(
                None,
                "float",
                Rule(
                    lambda s: s is None or (is_number(s) and 0 <= s < 1),
                    "None or a number in [0, 1)",
                    "it is the share of max_epochs after which averaging begins",
                    0.5,
                ),
                "",
            ),
        }
    }

    def __init__(self, kind: Any = None, decay=0.99, start=None):
        self.kind = kind
        self.decay = decay
        self.start = start

    @classmethod
    def of(cls, parameters, options):
        return cls(parameters["average"], **options["average"])

    @property
    def is_neutral(self) -> bool:
        return self.kind is None

    @property
    def stack_key(self):
        return self.kind, self.start

    def begin(self, module: nn.Module) -> None:
        if not hasattr(self, "mean_"):
            self.mean_: dict[str, Tensor] = {}
            self.n_averaged_ = 0
        self.has_statistics_ = any(
            getattr(layer, "running_mean", None) is not None
            for layer in module.modules()
        )

    def begin_epoch(self, epoch: int, n_epochs: int, n_batches: int) -> None:
        start = KINDS[self.kind] if self.start is None else self.start
        self.has_started_ = epoch >= ceil(start * n_epochs)
        self.n_left_ = n_batches

    def average(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        self.n_left_ -= 1
        if not self.has_started_ or (self.kind == "swa" and self.n_left_ > 0):
            return None
        self.n_averaged_ += 1
        if not self.mean_:
            self.mean_ = {name: w.clone() for name, w in weights.items()}
        elif self.kind == "swa":
            self._move(weights, 1 / self.n_averaged_)
        else:
            self._move(weights, 1 - self.decay)
        return self.mean_

    def _move(self, weights: Mapping[str, Tensor], share: float) -> None:
        """Move the mean by a share of the way to the weights."""
        torch._foreach_lerp_(list(self.mean_.values()), list(weights.values()), share)

    def reason_against_stack(self) -> str | None:
        if self.has_statistics_:
            return "average needs statistics of its own for batch normalisation"
        return None

    @classmethod
    def stack(cls, members: Sequence["Average"]) -> "Average":
        return _Averages(members)


class _Averages(Average):
    """The averages of the nets of a stack, which began at the same time."""

    def __init__(self, members: Sequence[Average]):
        first = members[0]
        decays = [member.decay for member in members]
        super().__init__(first.kind, first.decay, first.start)
        self.decays = torch.tensor(decays, dtype=torch.float64)
        self.differ = len(set(decays)) > 1
        self.n_averaged_ = first.n_averaged_
        self.mean_ = {
            name: torch.stack([member.mean_[name] for member in members])
            for name in first.mean_
        }

    def _move(self, weights, share) -> None:
        if self.kind == "swa" or not self.differ:
            super()._move(weights, share)
            return
        for name, mean in self.mean_.items():
            self.decays = self.decays.to(mean)
            mean.lerp_(weights[name], by_net(1 - self.decays, mean))

    def unstack(self, members: Sequence[Average]) -> None:
        for i, member in enumerate(members):
            member.n_averaged_ = self.n_averaged_
            member.mean_ = {name: mean[i].clone() for name, mean in self.mean_.items()}
