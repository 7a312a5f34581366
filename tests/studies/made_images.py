"""Data sets of small made images, for the tests of the studies."""

import numpy as np
from sklearn.utils import Bunch


def made_bunch(n, n_classes, n_valid=0, shape=(1, 4, 4), seed=0):
    """Noise around one image a class; the last are for validation."""
    rng = np.random.default_rng(seed)
    target = np.arange(n) % n_classes
    means = rng.random((n_classes, *shape))
    images = np.clip(means[target] + 0.2 * rng.standard_normal((n, *shape)), 0, 1)
    split = np.array(["train"] * (n - n_valid) + ["val"] * n_valid)
    names = np.array([f"class {k}" for k in range(n_classes)])
    return Bunch(
        data=images.astype(np.float32), target=target, target_names=names, split=split
    )
