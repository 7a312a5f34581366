r"""Input dropout: features, or channels, of the training samples are dropped."""

from typing import TypedDict

import torch
from torch import Tensor

from skreg._utils.rules import Rule, is_number
from skreg.regularizers._base import Parameter, Regularizer

__all__ = ["InputDropout", "InputDropoutTypes"]


class InputDropoutTypes(TypedDict, total=False):
    input_dropout: float


class InputDropout(Regularizer):
    r"""Input dropout: each feature is zero with probability p, in training alone.

    The others are divided by 1 - p, so that the expected input is the input. Of images
    and signals, whole channels are dropped: second axis of X. For a linear net with the
    squared error, the expected loss has the penalty :math:`p / (1 - p) \sum_j w_j^2
    \operatorname{mean}(x_j^2)` (Srivastava et al., 2014, section 9).

    Parameters
    ----------
    input_dropout : float, default=0.0
        p, in [0, 1); 0 drops nothing.

    References
    ----------
    Srivastava et al., "Dropout: A simple way to prevent neural networks from
    overfitting", JMLR 15 (2014).
    """

    parameters = {
        "input_dropout": Parameter(
            0.0,
            "float",
            Rule(
                lambda p: is_number(p) and 0 <= p < 1,
                "a number in [0, 1)",
                "it is the share of the features that are dropped, 0.2 as a start",
                0.2,
            ),
            "Probability with which each feature of a training sample, or each channel "
            "of an image, is set to zero; what is left is divided by one minus it. 0 "
            "drops nothing (Srivastava et al., 2014).",
        )
    }

    def __init__(self, input_dropout=0.0):
        self.input_dropout = input_dropout

    @property
    def is_neutral(self) -> bool:
        return self.input_dropout == 0

    @property
    def writes_into_batches(self) -> bool:
        return False

    def batch(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if not (isinstance(X, Tensor) and X.is_floating_point()):
            kind = X.dtype if isinstance(X, Tensor) else type(X).__name__
            raise ValueError(
                f"input_dropout={self.input_dropout!r} needs inputs in one tensor of "
                f"floating-point numbers; got {kind}. Let the Dataset convert them, or "
                "set input_dropout=0."
            )
        kept = 1 - self.input_dropout
        # From the generator of the CPU, as all devices have it.
        stays = torch.rand(*X.shape[:2], *[1] * (X.ndim - 2)) < kept
        return X * (stays.to(X) / kept), y
