"""
Augmentation, different for each image
======================================

Digits that are shifted and turned a little are the same digits; flipped ones are not.
"""

import torch

from skreg.datasets import load_digit_images
from skreg.displays import ImageGridDisplay
from skreg.transforms import RandomFlip, RandomRotation, RandomShift

images = torch.from_numpy(load_digit_images().data[:10])
torch.manual_seed(0)
rows = {
    "as they are": images,
    "shifted": RandomShift(1)(images),
    "turned": RandomRotation(15)(images),
    "flipped": RandomFlip(0.5, 0.5)(images),
}
ImageGridDisplay(
    images=torch.cat(list(rows.values())).clamp(0, 1).numpy(),
    labels=[name for name in rows for _ in range(10)],
).plot(n_columns=10)
