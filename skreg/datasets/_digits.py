"""scikit-learn's handwritten digits as images: the data set that needs no network."""

from typing import cast

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.utils import Bunch
from torchvision.transforms.v2 import functional as F

from skreg.datasets._base import as_answer, check_one_of, check_size

__all__ = ["load_digit_images"]

_ABOUT = """\
Images for nets
---------------
`data` holds the digits described below as float32 images of shape
(1797, channels, height, width), gray values 0..16 scaled to [0, 1]; `target` holds
int64 indices into `target_names`.

"""


def load_digit_images(*, size=8, channels=1, return_X_y=False):
    """Load 1797 real images of handwritten digits; needs no network.

    Parameters
    ----------
    size : int or pair of int (height, width), default=8
        Size in pixels. The originals are 8 x 8; any other size is interpolated
        (bilinear, antialiased).
    channels : {1, 3}, default=1
        3 repeats the gray values, for nets that expect colours.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    digits : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (1797, channels, height, width), dtype float32
            In [0, 1].
        target : ndarray of shape (1797,), dtype int64
            Indices into `target_names`.
        target_names : ndarray of shape (10,)
            The digits 0 to 9.
        DESCR : str
            About the data set.
    (data, target) : tuple if ``return_X_y=True``

    Raises
    ------
    ValueError
        If `size` or `channels` is not one of the above.

    Examples
    --------
    >>> from skreg.datasets import load_digit_images
    >>> digits = load_digit_images(size=32, channels=3)
    >>> digits.data.shape, digits.data.dtype
    ((1797, 3, 32, 32), dtype('float32'))
    """
    size = check_size(size)
    check_one_of("channels", channels, (1, 3))
    digits = cast("Bunch", load_digits())
    gray = (digits.images / digits.images.max()).astype(np.float32)[:, np.newaxis]
    bunch = Bunch(
        data=np.repeat(_resize(gray, size), channels, axis=1),
        target=digits.target.astype(np.int64),
        target_names=digits.target_names,
        DESCR=_ABOUT + digits.DESCR,
    )
    return as_answer(bunch, return_X_y)


def _resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize float images of shape (n, channels, h, w) with values in [0, 1]."""
    if images.shape[2:] == size:
        return images
    resized = F.resize(torch.from_numpy(images), list(size), antialias=True)
    # Interpolation weights sum to 1 up to rounding only.
    return resized.clamp_(0, 1).numpy()
