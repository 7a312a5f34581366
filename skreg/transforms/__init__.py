"""Images on their way to a net: preprocessing for pipelines, augmentation for training.

Preprocessing is done by scikit-learn transformers, ``fit`` on the training fold alone;
augmentation by modules that change a batch of training images at random, each image
by random numbers of its own.
"""

from skreg.transforms._adapter import as_augmentation, is_sample_augmentation
from skreg.transforms._augmentation import (
    GaussianNoise,
    RandomFlip,
    RandomRotation,
    RandomShift,
)
from skreg.transforms._shapes import ImageFlattener, ImageResizer, ImageUnflattener
from skreg.transforms._values import Grayscale, ImageScaler, ImageStandardizer

__all__ = [
    "GaussianNoise",
    "Grayscale",
    "ImageFlattener",
    "ImageResizer",
    "ImageScaler",
    "ImageStandardizer",
    "ImageUnflattener",
    "RandomFlip",
    "RandomRotation",
    "RandomShift",
    "as_augmentation",
    "is_sample_augmentation",
]
