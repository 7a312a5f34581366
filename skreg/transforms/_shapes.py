"""Transformers of the shape of images: their size, to rows and back."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from sklearn.base import ClassNamePrefixFeaturesOutMixin

from skreg.transforms._base import ImageTransformer
from skreg.transforms._layout import (
    are_positive_ints,
    sample_shape,
    to_channels_first,
)

__all__ = ["ImageFlattener", "ImageResizer", "ImageUnflattener"]


class ImageResizer(ClassNamePrefixFeaturesOutMixin, ImageTransformer):
    """Resize images by bilinear interpolation, antialiased.

    It learns nothing: it may be used without ``fit``.

    Parameters
    ----------
    size : int or pair of int (height, width), default=32
        Size in pixels; an int stands for a square.
    layout : {"auto", "channels_first", "channels_last"}, default="auto"
        Which axis holds the channels. "auto" takes the one of the first and the last
        that has 1 or 3 entries, and raises where both have or neither. Images of shape
        (height, width) have one channel under any layout.
    image_shape : tuple of 2 or 3 int, default=None
        Shape of an image in a flat row, say (3, 64, 64). With None, a row is an image
        of height 1. Rows stay rows.

    Attributes
    ----------
    input_shape_, output_shape_ : tuple of int
        Shape of one sample before and after.
    n_features_in_ : int
        ``X.shape[1]``, also of images.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        There if X was a DataFrame with names of type str.

    Examples
    --------
    >>> import numpy as np
    >>> from skreg.transforms import ImageResizer
    >>> ImageResizer(size=(16, 24)).fit_transform(np.zeros((5, 3, 32, 32))).shape
    (5, 3, 16, 24)
    """

    def __init__(self, size=32, layout="auto", image_shape=None):
        self.size = size
        self.layout = layout
        self.image_shape = image_shape

    def _transform(self, X):
        size = _check_size(self.size)
        if min(X.strides) < 0 or not X.flags.writeable:
            X = X.copy()  # torch has no negative strides and no read-only memory
        images, way_back = to_channels_first(X, self.layout, self.image_shape)
        resized = F.interpolate(
            torch.from_numpy(images), size=size, mode="bilinear", antialias=True
        )
        return way_back(resized.numpy())


class ImageFlattener(ClassNamePrefixFeaturesOutMixin, ImageTransformer):
    """Turn images into flat rows, for estimators that know rows only.

    Values keep the order in which the array holds them (C order). Rows are left as they
    are. It learns nothing: it may be used without ``fit``.

    Attributes
    ----------
    input_shape_, output_shape_ : tuple of int
        Shape of one sample before and after.
    n_features_in_ : int
        ``X.shape[1]``, also of images.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        There if X was a DataFrame with names of type str.

    See Also
    --------
    ImageUnflattener : The way back.

    Examples
    --------
    >>> import numpy as np
    >>> from skreg.transforms import ImageFlattener
    >>> ImageFlattener().fit_transform(np.zeros((5, 3, 32, 32))).shape
    (5, 3072)
    """

    def _transform(self, X):
        return X.reshape(len(X), -1)


class ImageUnflattener(ClassNamePrefixFeaturesOutMixin, ImageTransformer):
    """Turn flat rows into images, say the rows of a DataFrame for a convolutional net.

    It learns nothing: it may be used without ``fit``.

    Parameters
    ----------
    image_shape : tuple of 2 or 3 int, default=None
        Shape of an image, in the order in which the rows hold its values: (height,
        width), (channels, height, width) or (height, width, channels). With None, a
        row becomes an image of shape (1, features). Images of this shape are left as
        they are.

    Attributes
    ----------
    input_shape_, output_shape_ : tuple of int
        Shape of one sample before and after.
    n_features_in_ : int
        ``X.shape[1]``, also of images.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        There if X was a DataFrame with names of type str.

    See Also
    --------
    ImageFlattener : The way back.

    Examples
    --------
    >>> import numpy as np
    >>> from skreg.transforms import ImageUnflattener
    >>> ImageUnflattener((3, 32, 32)).fit_transform(np.zeros((5, 3072))).shape
    (5, 3, 32, 32)
    """

    def __init__(self, image_shape=None):
        self.image_shape = image_shape

    def _transform(self, X):
        return X.reshape(len(X), *sample_shape(X, self.image_shape))


def _check_size(size) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not are_positive_ints(pair):
        raise ValueError(
            f"size={size!r} is neither a positive int nor a pair (height, width) of "
            "positive ints, in pixels; pass e.g. size=32."
        )
    return int(pair[0]), int(pair[1])
