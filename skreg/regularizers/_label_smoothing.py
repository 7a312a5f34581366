r"""Label smoothing: targets that are never quite sure."""

from copy import copy
from typing import TypedDict

from torch import Tensor, nn

from skreg._utils.rules import Rule, is_number
from skreg.losses import loss_of
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["LabelSmoothing", "LabelSmoothingTypes"]


class LabelSmoothingTypes(TypedDict, total=False):
    label_smoothing: float


class LabelSmoothing(Regularizer):
    r"""Label smoothing: a share *s* of each target is spread evenly.

    Of K classes the right one gets the probability :math:`1 - s + s / K`, and each
    other one :math:`s / K`. Of 0/1 matrices, ones become :math:`1 - s / 2` and zeros
    :math:`s / 2`. Losses of validation are those of the targets as they are.

    Parameters
    ----------
    label_smoothing : float, default=0.0
        The share, in [0, 1); 0 leaves the targets as they are.

    References
    ----------
    Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR
    (2016).
    """

    parameters = {
        "label_smoothing": Parameter(
            0.0,
            "float",
            Rule(
                lambda s: is_number(s) and 0 <= s < 1,
                "a number in [0, 1)",
                "0.1 is a good start, and 0 leaves the targets as they are",
                0.1,
            ),
            "Share of each target that is spread evenly over the classes, in training "
            "alone; of 0/1 matrices, ones and zeros move towards 1/2 by this share. "
            "For nn.CrossEntropyLoss, and for the criteria of 0/1 matrices (Szegedy et "
            "al., 2016).",
        )
    }

    def __init__(self, label_smoothing=0.0):
        self.label_smoothing = label_smoothing

    @property
    def is_neutral(self) -> bool:
        return self.label_smoothing == 0

    def criterion(self, criterion: nn.Module) -> nn.Module:
        plain = getattr(criterion, "_orig_mod", criterion)
        targets, loss = self.data_.targets, loss_of(plain)
        if targets == "labels" and loss is not None and loss.targets == "labels":
            return criterion  # the targets of each batch are smoothed
        if targets != "classes" or not isinstance(plain, nn.CrossEntropyLoss):
            raise ValueError(self._refusal(plain))
        if plain.label_smoothing:
            raise ValueError(
                f"label_smoothing={self.label_smoothing!r} and "
                f"criterion__label_smoothing={plain.label_smoothing!r} both smooth the "
                "targets; set only one of them. The parameter label_smoothing leaves "
                "the losses of validation plain."
            )
        smoothed = copy(plain)
        smoothed.label_smoothing = float(self.label_smoothing)
        return smoothed

    def _refusal(self, criterion) -> str:
        name = getattr(criterion, "__name__", type(criterion).__name__)
        targets = self.data_.targets
        what = f"label_smoothing={self.label_smoothing!r}"
        if targets == "numbers":
            return (
                f"{what} smooths classes, but y holds numbers, with criterion={name}; "
                "set label_smoothing=0."
            )
        usual = "CrossEntropyLoss" if targets == "classes" else "BCEWithLogitsLoss"
        return (
            f"{what} cannot smooth the targets of criterion={name}; use criterion="
            f"nn.{usual}, or label_smoothing=0."
        )

    def batch(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return X, y * (1 - self.label_smoothing) + self.label_smoothing / 2

    @property
    def writes_into_batches(self) -> bool:
        return False

    def acts_in(self, method: str) -> bool:
        # Class indices are smoothed by the criterion: nets of a stack share batches.
        if method == "batch":
            data = getattr(self, "data_", None)
            return data is not None and data.targets == "labels"
        return super().acts_in(method)
