"""Transformers of the values of pixels: to a range, to mean 0, to gray."""

from collections.abc import Sequence
from math import isfinite
from numbers import Real

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, OneToOneFeatureMixin
from sklearn.utils import gen_batches

from skreg.transforms._base import FLOATS, ImageTransformer
from skreg.transforms._layout import to_channels_first

__all__ = ["Grayscale", "ImageScaler", "ImageStandardizer"]

# Shares of red, green and blue in the luma of ITU-R BT.601; their sum is 1.
_LUMA = (0.299, 0.587, 0.114)

# Numbers that ImageStandardizer takes to float64 at a time.
_BLOCK = 2**18


class ImageScaler(OneToOneFeatureMixin, ImageTransformer):
    r"""Scale pixels from a known range of values to [-1, 1].

    .. math:: x' = \frac{x - (a + b) / 2}{(b - a) / 2}

    with [a, b] the `value_range`. It learns nothing: it may be used without ``fit``.
    Values outside of the range end up outside of [-1, 1].

    Parameters
    ----------
    value_range : "auto" or pair of float (lowest, highest), default="auto"
        The values that become -1 and 1. "auto" goes by the dtype of each X: (0, 255)
        for uint8, (0, 65535) for uint16 and so on; (0, 1) for all else, as skreg's
        data sets are. Pass (0, 255) for such values in floats or signed integers.

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
    ImageStandardizer : Scale by mean and deviation of the training images.

    Examples
    --------
    >>> import numpy as np
    >>> from skreg.transforms import ImageScaler
    >>> ImageScaler().fit_transform(np.array([[0, 51, 255]], dtype=np.uint8))
    array([[-1. , -0.6,  1. ]], dtype=float32)
    """

    _dtype = "numeric"  # the dtype tells the range; it is converted after

    def __init__(self, value_range="auto"):
        self.value_range = value_range

    def _transform(self, X):
        low, high = self._range_of(X.dtype)
        dtype = X.dtype if X.dtype in FLOATS else np.float32
        scaled = np.subtract(X, (low + high) / 2, dtype=dtype)
        scaled /= (high - low) / 2
        return scaled

    def _range_of(self, dtype: np.dtype) -> tuple[float, float]:
        if isinstance(self.value_range, str) and self.value_range == "auto":
            return (0.0, float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0)
        if not _is_range(self.value_range):
            raise ValueError(
                f"value_range={self.value_range!r} is neither 'auto' nor a pair of "
                "finite numbers (lowest, highest) with lowest < highest; pass e.g. "
                "value_range=(0, 255)."
            )
        low, high = map(float, self.value_range)
        return low, high


class ImageStandardizer(OneToOneFeatureMixin, ImageTransformer):
    """Subtract the mean of each channel and divide by its standard deviation.

    .. math:: x'_{ncij} = (x_{ncij} - m_c) / s_c

    with the mean m and the (biased) standard deviation s over all pixels of all
    images that ``fit`` saw. In a pipeline these are the training fold alone. Where a
    channel is constant, s is taken as 1.

    Parameters
    ----------
    layout : {"auto", "channels_first", "channels_last"}, default="auto"
        Which axis holds the channels. "auto" takes the one of the first and the last
        that has 1 or 3 entries, and raises where both have or neither. Images of shape
        (height, width) have one channel under any layout.
    image_shape : tuple of 2 or 3 int, default=None
        Shape of an image in a flat row, say (3, 32, 32). With None, a row is one
        channel: all columns share one mean and deviation. (For one of each per column
        there is :class:`sklearn.preprocessing.StandardScaler`.)

    Attributes
    ----------
    mean_, scale_ : ndarray of shape (n_channels,), dtype float64
        What is subtracted, and divided by.
    input_shape_, output_shape_ : tuple of int
        Shape of one sample before and after.
    n_features_in_ : int
        ``X.shape[1]``, also of images.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        There if X was a DataFrame with names of type str.

    See Also
    --------
    ImageScaler : Scale from a known range of values, nothing learned.

    Examples
    --------
    >>> from skreg.datasets import load_digit_images
    >>> from skreg.transforms import ImageStandardizer
    >>> X, _ = load_digit_images(return_X_y=True)
    >>> standardizer = ImageStandardizer().fit(X)
    >>> standardizer.mean_.round(3), standardizer.scale_.round(3)
    (array([0.305]), array([0.376]))
    """

    _stateless = False

    def __init__(self, layout="auto", image_shape=None):
        self.layout = layout
        self.image_shape = image_shape

    def _learn(self, X):
        images, _ = to_channels_first(X, self.layout, self.image_shape)
        pixels = (0, 2, 3)
        self.mean_ = images.mean(axis=pixels, dtype=np.float64)
        # Block by block: np.var would copy all images to float64.
        squares = sum(
            np.square(images[block] - _per_channel(self.mean_)).sum(axis=pixels)
            for block in gen_batches(len(images), max(1, _BLOCK // images[0].size))
        )
        deviation = np.sqrt(squares / (images.size // len(self.mean_)))
        # The mean is rounded, so that a constant does not quite deviate by 0.
        constant = images.min(axis=pixels) == images.max(axis=pixels)
        self.scale_ = np.where(constant | (deviation == 0), 1.0, deviation)

    def _transform(self, X):
        images, way_back = to_channels_first(X, self.layout, self.image_shape)
        standardized = images - _per_channel(self.mean_.astype(X.dtype))
        standardized /= _per_channel(self.scale_.astype(X.dtype))
        return way_back(standardized)


class Grayscale(ClassNamePrefixFeaturesOutMixin, ImageTransformer):
    """Turn RGB images into gray ones of one channel.

    .. math:: Y = 0.299 R + 0.587 G + 0.114 B

    which is the luma of ITU-R BT.601 [1]_. Images of one channel are left as they are.
    It learns nothing: it may be used without ``fit``.

    Parameters
    ----------
    layout : {"auto", "channels_first", "channels_last"}, default="auto"
        Which axis holds the channels. "auto" takes the one of the first and the last
        that has 1 or 3 entries, and raises where both have or neither. Images of shape
        (height, width) have one channel under any layout.
    image_shape : tuple of 2 or 3 int, default=None
        Shape of an image in a flat row, say (3, 32, 32). With None, a row is an image
        of one channel, gray already. Rows stay rows.

    Attributes
    ----------
    input_shape_, output_shape_ : tuple of int
        Shape of one sample before and after; the axis of the channels stays, with one
        entry.
    n_features_in_ : int
        ``X.shape[1]``, also of images.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        There if X was a DataFrame with names of type str.

    References
    ----------
    .. [1] Recommendation ITU-R BT.601-7, "Studio encoding parameters of digital
       television for standard 4:3 and wide-screen 16:9 aspect ratios", 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from skreg.transforms import Grayscale
    >>> Grayscale().fit_transform(np.ones((5, 3, 32, 32))).shape
    (5, 1, 32, 32)
    """

    def __init__(self, layout="auto", image_shape=None):
        self.layout = layout
        self.image_shape = image_shape

    def _transform(self, X):
        images, way_back = to_channels_first(X, self.layout, self.image_shape)
        n_channels = images.shape[1]
        if n_channels == 1:
            return X
        if n_channels != 3:
            raise ValueError(
                f"Grayscale got images of {n_channels} channels (layout="
                f"{self.layout!r}); expected 1, or 3 for red, green and blue: select "
                "these, or check layout."
            )
        weights = np.array(_LUMA, dtype=X.dtype)
        return way_back(np.einsum("nchw,c->nhw", images, weights)[:, np.newaxis])


def _per_channel(values: np.ndarray) -> np.ndarray:
    return values[:, np.newaxis, np.newaxis]


def _is_range(pair) -> bool:
    return (
        isinstance(pair, Sequence)
        and len(pair) == 2
        and all(isinstance(value, Real) and isfinite(value) for value in pair)
        and pair[0] < pair[1]
    )
