"""The range of the training data, within which attacks stay."""

import torch
from torch import Tensor

__all__ = ["SeenRange", "extended", "range_of"]

Range = tuple[float, float]


def range_of(X) -> Range:
    """Return the smallest and the largest number in an array, `Rows` or a matrix."""
    return float(X.min()), float(X.max())


def extended(first: Range | None, second: Range | None) -> Range | None:
    """Return the smallest range that holds both; None is an empty one."""
    if first is None or second is None:
        return first or second
    return min(first[0], second[0]), max(first[1], second[1])


class SeenRange:
    """The range of the batches of a Dataset, which is not read ahead of training."""

    def __init__(self):
        self._low = self._high = None

    def add(self, X) -> None:
        """Look at the inputs of a batch; at those alone that are numbers in a tensor.

        Nothing is fetched from the device.
        """
        if not isinstance(X, Tensor) or X.is_complex() or not X.numel():
            return
        low, high = torch.aminmax(X.detach())
        if self._low is None:
            self._low, self._high = low, high
        else:
            self._low = torch.minimum(self._low, low)
            self._high = torch.maximum(self._high, high)

    def value(self) -> Range | None:
        """Return the range of what was added."""
        if self._low is None:
            return None
        return float(self._low), float(self._high)
