"""Images of noise, and the transforms that are tested on them."""

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skreg import RegularizedNetClassifier
from skreg.transforms import (
    GaussianNoise,
    Grayscale,
    ImageFlattener,
    ImageResizer,
    ImageScaler,
    ImageStandardizer,
    ImageUnflattener,
    RandomFlip,
    RandomRotation,
    RandomShift,
)

TRANSFORMERS = [
    Grayscale(),
    ImageFlattener(),
    ImageResizer(),
    ImageScaler(),
    ImageStandardizer(),
    ImageUnflattener(),
]
STATELESS = [t for t in TRANSFORMERS if not isinstance(t, ImageStandardizer)]
AUGMENTATIONS = [
    RandomFlip(0.5, 0.5),
    RandomShift(2),
    RandomRotation(30),
    GaussianNoise(0.5),
]


def name_of(value):
    return type(value).__name__


def random_images(shape=(6, 3, 5, 7), dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 256, size=shape).astype(dtype)
    return rng.uniform(size=shape).astype(dtype)


def channels_last(images):
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def batches_of_images(dtype=np.float64, **limits):
    """Arrays of shape (n, channels, height, width), values in [0, 1]."""
    shapes = hnp.array_shapes(min_dims=4, max_dims=4, max_side=6)
    width = 8 * np.dtype(dtype).itemsize
    return hnp.arrays(dtype, shapes, elements=st.floats(0, 1, width=width, **limits))


def tiny_net():
    return RegularizedNetClassifier(
        hidden_layer_sizes=4, max_epochs=1, random_state=0, device="cpu"
    )


def images_3d_and_4d(n=5, height=6, width=8, dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.rand(n, 3, height, width, dtype=dtype)
    return [x, x[:, 0]]
