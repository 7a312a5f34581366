"""Random changes of training images, drawn for each sample of a batch separately.

Random numbers come from torch's default generator of the batch's device. None are
drawn where there is nothing to decide, so that an augmentation of strength 0 leaves
all else as it would be without it.
"""

from collections.abc import Sequence
from math import isfinite
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "GaussianNoise",
    "RandomFlip",
    "RandomRotation",
    "RandomShift",
    "SampleAugmentation",
    "check_batch",
]


MAX_CHANNELS = 4  # more are taken for a height or a width


class SampleAugmentation(nn.Module):
    """What the augmentations share: they act in training mode alone, like nn.Dropout.

    So they may also be layers of a net. A subclass says in ``augment`` what it does.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` augmented, same shape, dtype and device; `x` is not changed."""
        return self.augment(x) if self.training else x

    def augment(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class RandomFlip(SampleAugmentation):
    """Flip images, each with its own luck.

    Parameters
    ----------
    horizontal : float, default=0.1
        Probability that an image is flipped left to right, in [0, 1].
    vertical : float, default=0.1
        Probability that it is flipped top to bottom, in [0, 1]; the two are
        independent.

    Raises
    ------
    ValueError
        If a parameter is not as above; when called, if `x` is no batch of images of
        shape (n, channels, height, width) or (n, height, width).

    Examples
    --------
    >>> import torch
    >>> from skreg.transforms import RandomFlip
    >>> RandomFlip(horizontal=1.0, vertical=0.0)(torch.tensor([[[[1, 2], [3, 4]]]]))
    tensor([[[[2, 1],
              [4, 3]]]])
    """

    def __init__(self, horizontal: float = 0.1, vertical: float = 0.1):
        super().__init__()
        self.horizontal = _check_probability("horizontal", horizontal)
        self.vertical = _check_probability("vertical", vertical)

    def augment(self, x):
        check_batch(self, x)
        for p, axis in ((self.horizontal, -1), (self.vertical, -2)):
            if p > 0:
                # Of a dtype that is said: others draw other numbers.
                luck = torch.rand(len(x), dtype=torch.float32, device=x.device)
                chosen = luck < p
                x = torch.where(_along(chosen, x), x.flip(axis), x)
        return x

    def extra_repr(self):
        return f"horizontal={self.horizontal}, vertical={self.vertical}"


class RandomShift(SampleAugmentation):
    """Shift images by whole pixels, and fill with zeros.

    Each image moves by a number of pixels drawn uniformly from the integers in
    [-m, m], vertically and horizontally each.

    Parameters
    ----------
    max_shift : int or float
        m, in pixels if it is an int; a float in [0, 1) is a share of height and width,
        rounded to whole pixels, at least one of which stays in sight.

    Raises
    ------
    ValueError
        If `max_shift` is not as above; when called, if it moves images out of sight,
        or if `x` is no batch of images of shape (n, channels, height, width) or
        (n, height, width).

    Examples
    --------
    >>> import torch
    >>> from skreg.transforms import RandomShift
    >>> _ = torch.manual_seed(20)
    >>> RandomShift(1)(torch.tensor([[[1, 2], [3, 4]]]))
    tensor([[[0, 0],
             [1, 2]]])
    """

    def __init__(self, max_shift: int | float):
        super().__init__()
        if not _is_number(max_shift) or not (
            max_shift >= 0 if isinstance(max_shift, Integral) else 0 <= max_shift < 1
        ):
            raise ValueError(
                f"max_shift={max_shift!r} is neither an int >= 0, in pixels, nor a "
                "float in [0, 1), a share of the image; pass e.g. max_shift=2 or "
                "max_shift=0.1."
            )
        self.max_shift = max_shift

    def augment(self, x):
        check_batch(self, x)
        for axis in (-2, -1):
            limit = self._limit(x.shape[axis])
            if limit > 0:
                x = _shift(x, axis, limit)
        return x

    def _limit(self, size: int) -> int:
        if not isinstance(self.max_shift, Integral):
            return min(round(self.max_shift * size), size - 1)
        if self.max_shift >= size:
            raise ValueError(
                f"max_shift={self.max_shift!r} pixels can move images of {size} pixels "
                f"out of sight; pass at most {size - 1}, or a share of the image such "
                "as max_shift=0.1."
            )
        return int(self.max_shift)

    def extra_repr(self):
        return f"max_shift={self.max_shift}"


class RandomRotation(SampleAugmentation):
    """Rotate images about their centre; bilinear, the corners filled with zeros.

    Parameters
    ----------
    degrees : float or pair of float (low, high)
        Each image is rotated by an angle drawn uniformly from [low, high], or from
        [-degrees, degrees]; counter-clockwise where positive.

    Raises
    ------
    ValueError
        If `degrees` is not as above; when called, if `x` is no batch of images of
        shape (n, channels, height, width) or (n, height, width).
    TypeError
        When called, if `x` holds no floating-point numbers.

    Examples
    --------
    >>> import torch
    >>> from skreg.transforms import RandomRotation
    >>> x = torch.tensor([[[1., 2.], [3., 4.]]])
    >>> RandomRotation(degrees=(90, 90))(x).round()
    tensor([[[2., 4.],
             [1., 3.]]])
    """

    def __init__(self, degrees: float | tuple[float, float]):
        super().__init__()
        _check_degrees(degrees)
        self.degrees = degrees

    def augment(self, x):
        check_batch(self, x)
        _check_floating(self, x)
        low, high = _check_degrees(self.degrees)
        if low == high == 0:
            return x
        # Half precision is too coarse for the coordinates of pixels.
        images = x.to(torch.promote_types(x.dtype, torch.float32))
        images = images if x.ndim == 4 else images.unsqueeze(1)
        draws = torch.rand(len(x), dtype=images.dtype, device=x.device)
        angle = torch.deg2rad(low + (high - low) * draws)
        maps = _rotations(angle, *x.shape[-2:])
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)
        rotated = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
        return rotated.view(x.shape).to(x.dtype)

    def extra_repr(self):
        return f"degrees={self.degrees}"


class GaussianNoise(SampleAugmentation):
    """Add independent normal noise to every number.

    Parameters
    ----------
    std : float
        Standard deviation of the noise, at least 0, in the unit of `x`. Nothing is
        clipped.

    Raises
    ------
    ValueError
        If `std` is no finite number >= 0.
    TypeError
        When called, if `x`, of any shape (n, ...), holds no floating-point numbers.

    Examples
    --------
    >>> import torch
    >>> from skreg.transforms import GaussianNoise
    >>> x = torch.zeros(100, 1, 32, 32)
    >>> round(GaussianNoise(std=0.1)(x).std().item(), 2)
    0.1
    """

    def __init__(self, std: float):
        super().__init__()
        if not _is_number(std) or not 0 <= std < float("inf"):
            raise ValueError(
                f"std={std!r} is not a finite number >= 0; pass e.g. std=0.1."
            )
        self.std = std

    def augment(self, x):
        _check_floating(self, x)
        return x + self.std * torch.randn_like(x) if self.std > 0 else x

    def extra_repr(self):
        return f"std={self.std}"


def check_batch(transform, x: Tensor) -> None:
    """Raise a ValueError unless `x` has the shape of a batch of images."""
    if x.ndim not in (3, 4):
        raise ValueError(
            f"{transform!r} takes batches of images, shaped (n, channels, height, "
            f"width) or (n, height, width), got {tuple(x.shape)}; train the net on "
            "images, not on flat rows (skreg.transforms.ImageUnflattener makes them)."
        )
    # Of feature maps in the midst of a net, height and width may both be small.
    if x.ndim == 4 and min(x.shape[1:3]) > MAX_CHANNELS >= x.shape[3]:
        raise ValueError(
            f"{transform!r} takes images with channels first, and {tuple(x.shape)} "
            "looks like channels last; bring them to (n, channels, height, width), "
            "e.g. with X.transpose(0, 3, 1, 2)."
        )


def _check_floating(transform, x: Tensor) -> None:
    if not x.is_floating_point():
        raise TypeError(
            f"{transform!r} takes floating-point images, got {x.dtype}; convert them "
            "with x.float()."
        )


def _shift(x: Tensor, axis: int, limit: int) -> Tensor:
    size = x.shape[axis]
    offset = torch.randint(-limit, limit + 1, (len(x), 1), device=x.device)
    source = torch.arange(size, device=x.device) - offset
    outside = (source < 0) | (source >= size)
    source = _along(source.clamp(0, size - 1), x, axis).expand_as(x)
    return x.gather(axis, source).masked_fill(_along(outside, x, axis), 0)


def _rotations(angle: Tensor, height: int, width: int) -> Tensor:
    """Return a 2 x 3 matrix per angle: where each pixel of the result comes from."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Coordinates run from -1 to 1 along either axis, however long it is.
    entries = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    return torch.stack(entries, dim=1).view(-1, 2, 3)


def _along(values: Tensor, x: Tensor, axis: int = 0) -> Tensor:
    """View values, one (or one row along `axis`) per sample, to broadcast with `x`."""
    shape = [1] * x.ndim
    shape[axis] = -1
    shape[0] = len(x)
    return values.view(shape)


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_probability(name: str, value: float) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(
            f"{name}={value!r} is not a probability in [0, 1]; pass e.g. {name}=0.1, "
            f"or {name}=0 for no such flips."
        )
    return value


def _check_degrees(degrees) -> tuple[float, float]:
    pair = degrees if isinstance(degrees, Sequence) else [degrees, degrees]
    if len(pair) == 2 and all(_is_number(value) and isfinite(value) for value in pair):
        low, high = map(float, pair)
        if not isinstance(degrees, Sequence):
            low = -low
        if low <= high:
            return low, high
    raise ValueError(
        f"degrees={degrees!r} is neither a finite number >= 0 nor a pair (low, high) "
        "of finite numbers with low <= high; pass e.g. degrees=10 or degrees=(-10, 10)."
    )
