"""Where an array keeps the channels of its images, and which shape its rows had."""

from collections.abc import Callable, Sequence
from math import prod
from numbers import Integral

import numpy as np

__all__ = ["are_positive_ints", "check_images", "sample_shape", "to_channels_first"]

LAYOUTS = ("auto", "channels_first", "channels_last")

# Numbers of channels by which layout="auto" knows an axis: gray and RGB. More of them
# would make more shapes ambiguous.
_KNOWN_CHANNELS = (1, 3)


def check_images(X: np.ndarray) -> None:
    """Raise a ValueError unless `X` has the shape of rows or images with pixels."""
    if not 2 <= X.ndim <= 4 or 0 in X.shape:
        raise ValueError(
            f"X has shape {X.shape}; expected flat rows (n, features) or images "
            "(n, height, width), (n, channels, height, width) or "
            "(n, height, width, channels), of at least one pixel; reshape X."
        )


def sample_shape(X: np.ndarray, image_shape) -> tuple[int, ...]:
    """Return the shape of one image; rows of unknown `image_shape` have height 1."""
    if image_shape is not None:
        image_shape = _check_image_shape(image_shape)
    if X.ndim == 2:
        shape = (1, X.shape[1]) if image_shape is None else image_shape
        if prod(shape) != X.shape[1]:
            raise ValueError(
                f"image_shape={shape} has {prod(shape)} values, but the rows of X have "
                f"{X.shape[1]}; pass the shape of the images that were flattened."
            )
        return shape
    if image_shape not in (None, X.shape[1:]):
        raise ValueError(
            f"image_shape={image_shape}, but X holds images of shape {X.shape[1:]}; "
            "leave image_shape=None: it is for flat rows."
        )
    return X.shape[1:]


def to_channels_first(
    X: np.ndarray, layout: str, image_shape
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return `X` as (n, channels, height, width), a view of it, and the way back.

    The way back is a function that brings images of the same number, of any channels
    and size, to the form of `X`.
    """
    if layout not in LAYOUTS:
        raise ValueError(
            f"layout={layout!r} is not one of {', '.join(map(repr, LAYOUTS))}; pass "
            "e.g. layout='channels_first'."
        )
    shape = sample_shape(X, image_shape)
    no_channels = len(shape) == 2
    if no_channels:
        shape = (1, *shape)
    channels_last = not no_channels and _is_channels_last(shape, layout)

    def way_back(images: np.ndarray) -> np.ndarray:
        if channels_last:
            images = np.moveaxis(images, 1, -1)
        if X.ndim == 2:
            return images.reshape(len(images), -1)
        return images[:, 0] if no_channels else images

    images = X.reshape(len(X), *shape)
    return (np.moveaxis(images, -1, 1) if channels_last else images), way_back


def are_positive_ints(values) -> bool:
    """Tell whether all `values` are ints of at least 1; a bool is none."""
    return all(
        isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
        for value in values
    )


def _check_image_shape(image_shape) -> tuple[int, ...]:
    if (
        not isinstance(image_shape, Sequence)
        or len(image_shape) not in (2, 3)
        or not are_positive_ints(image_shape)
    ):
        raise ValueError(
            f"image_shape={image_shape!r} is neither None nor (height, width), "
            "(channels, height, width) or (height, width, channels) in positive ints; "
            "pass e.g. image_shape=(3, 32, 32)."
        )
    return tuple(map(int, image_shape))


def _is_channels_last(shape: tuple[int, ...], layout: str) -> bool:
    if layout != "auto":
        return layout == "channels_last"
    first, last = (shape[axis] in _KNOWN_CHANNELS for axis in (0, -1))
    if first == last:
        raise ValueError(
            f"layout='auto' cannot tell which axis of images of shape {shape} holds "
            f"the channels: {'both' if first else 'neither'} of the first and the last "
            "have 1 or 3 entries; pass layout='channels_first' or "
            "layout='channels_last'."
        )
    return last
