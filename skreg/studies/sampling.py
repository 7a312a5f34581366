"""Small training and validation sets drawn from a data set of images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split


class Sample(NamedTuple):
    """Images of shape (n, C, H, W) in [-1, 1], and their labels."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_valid: np.ndarray
    y_valid: np.ndarray


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread.

    On nets this small a second one gains little, and where other programs want the
    processor too, waiting for it at every operation makes a fit ten times slower.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def draw_sample(data, n_train: int, n_valid: int, seed: int) -> Sample:
    """Draw images of all classes in the proportions of the data set.

    Parameters
    ----------
    data : Bunch
        As from `skreg.datasets`, images in [0, 1]. If it has a `split` with "val" in
        it, validation images come from there, else from what training leaves over.
    n_train, n_valid : int
    seed : int

    Returns
    -------
    Sample

    Raises
    ------
    ValueError
        If the data set is too small, or a sample too small to show every class.
    """
    y = data.target
    split = np.asarray(data.get("split", ["train"] * len(y)))
    everything = np.arange(len(y))
    if "val" in split:
        train, _ = _choose(everything[split == "train"], y, n_train, 0, seed)
        valid, _ = _choose(everything[split == "val"], y, n_valid, 0, seed)
    else:
        train, valid = _choose(everything, y, n_train, n_valid, seed)
    return Sample(
        _scaled(data.data[train]), y[train], _scaled(data.data[valid]), y[valid]
    )


def _choose(candidates, y, n_first, n_second, seed):
    """Choose two disjoint stratified subsets of `candidates`."""
    wanted, classes, counts = n_first + n_second, *np.unique(y, return_counts=True)
    if len(candidates) < wanted:
        raise ValueError(
            f"{wanted} images are wanted but the data set offers {len(candidates)}; "
            "use a larger data set, or fewer images for training (--train-sizes) or "
            "validation (--val-size)."
        )
    smallest = min(n for n in (n_first, n_second) if n)
    if smallest < len(classes) or counts.min() < 2:
        raise ValueError(
            f"A sample of {smallest} images cannot show all {len(classes)} classes "
            f"(the rarest has {counts.min()} images); use larger samples or fewer "
            "classes."
        )
    chosen = candidates
    if wanted < len(candidates):
        chosen, _ = train_test_split(
            candidates, train_size=wanted, stratify=y[candidates], random_state=seed
        )
    if not n_second:
        return chosen, None
    return train_test_split(
        chosen, train_size=n_first, stratify=y[chosen], random_state=seed
    )


def _scaled(images: np.ndarray) -> np.ndarray:
    return 2 * images - 1
