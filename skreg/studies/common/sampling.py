"""Small training, validation and test sets drawn from a data set of images."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from skreg.datasets import randomize_labels

# What the parts of a sample are called in sentences.
WORDS = {"train": "training", "valid": "validation", "test": "test"}


class Sample(NamedTuple):
    """Images of shape (n, C, H, W) in [-1, 1], and their labels."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_valid: np.ndarray
    y_valid: np.ndarray
    X_test: np.ndarray | None = None
    y_test: np.ndarray | None = None


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


def draw_sample(
    data,
    n_train: int,
    n_valid: int,
    seed: int,
    n_test: int = 0,
    random_labels: float = 0.0,
) -> Sample:
    """Draw images of all classes in the proportions of the data set.

    Parameters
    ----------
    data : Bunch
        As from `skreg.datasets`, images in [0, 1]. If it has a `split` whose "val"
        holds enough images, validation and test images come from there, else from
        what training leaves over.
    n_train, n_valid : int
    seed : int
    n_test : int, default=0
        With 0, there is no test set.
    random_labels : float, default=0
        Share of the training labels drawn at random; all others stay true.

    Returns
    -------
    Sample
        Its parts have no image in common.

    Raises
    ------
    ValueError
        If the data set is too small, or a sample too small to show every class.
    """
    n_held_out = n_valid + n_test
    y, rng = data.target, np.random.default_rng(seed)
    _check_sizes(y, n_train, n_valid, n_test)
    train, valid = _pools(data, n_train, n_held_out)
    train = _stratified_order(train, y, rng)
    # Of one pool, what comes after the training images; of two, the beginning.
    held_out = train[n_train:] if valid is None else _stratified_order(valid, y, rng)
    parts = [train[:n_train], held_out[:n_valid]]
    parts += [held_out[n_valid:n_held_out]] if n_test else []
    arrays = [array for part in parts for array in (_scaled(data.data[part]), y[part])]
    sample = Sample(*arrays)
    y_train = randomize_labels(sample.y_train, random_labels, random_state=seed)
    return sample._replace(y_train=y_train)


def choose_sizes(
    data, wanted: Mapping[str, int], fixed: Collection[str] = ()
) -> dict[str, int]:
    """Return sizes of samples, as wanted or as near as the data set allows.

    No size is smaller than the number of classes. Where there are too few images, all
    sizes that are not fixed shrink in proportion.

    Parameters
    ----------
    data : Bunch
    wanted : mapping of str to int
        Part to its size.
    fixed : collection of str, default=()
        The parts whose sizes stay as they are.

    Returns
    -------
    dict of str to int

    Raises
    ------
    ValueError
        If not even the smallest sizes can be had.
    """
    n_classes = len(data.target_names)
    free = {part: max(n, n_classes) for part, n in wanted.items() if part not in fixed}
    sizes = {**wanted, **free}
    least = {part: n_classes if part in free else n for part, n in wanted.items()}
    if sum(least.values()) > len(data.target):
        raise _too_small(least, len(data.target))
    excess = sum(sizes.values()) - len(data.target)
    if excess <= 0:
        return sizes
    kept = 1 - excess / sum(n - n_classes for n in free.values())
    shrunk = {part: n_classes + int(kept * (n - n_classes)) for part, n in free.items()}
    return sizes | shrunk


def _pools(data, n_train: int, n_held_out: int):
    """Return the indices to train on, and those to hold out if they lie apart."""
    everything = np.arange(len(data.target))
    split = np.asarray(data.get("split", ["train"] * len(everything)))
    train, valid = everything[split == "train"], everything[split == "val"]
    if n_held_out <= len(valid) and n_train <= len(train):
        return train, valid
    enough = n_train + n_held_out <= len(train)
    return (train if enough else everything), None


def _stratified_order(indices: np.ndarray, y: np.ndarray, rng) -> np.ndarray:
    """Shuffle so that every beginning has the classes in proportion, to one image.

    The members of a class, in random order, are spread evenly over the whole.
    """
    place = np.empty(len(indices))
    for label in np.unique(y[indices]):
        members = rng.permutation(np.flatnonzero(y[indices] == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Where places are equal, chance decides, not the order of the classes.
    return indices[np.lexsort((rng.random(len(indices)), place))]


def _check_sizes(y: np.ndarray, n_train: int, n_valid: int, n_test: int) -> None:
    wanted = n_train + n_valid + n_test
    if wanted > len(y):
        parts = {"train": n_train, "valid": n_valid, "test": n_test}
        raise _too_small(parts, len(y))
    n_classes = len(np.unique(y))
    smallest = min(n for n in (n_train, n_valid, n_test) if n)
    if smallest < n_classes:
        raise ValueError(
            f"A sample of {smallest} images cannot show all {n_classes} classes; use "
            "larger samples or fewer classes."
        )


def _too_small(wanted: Mapping[str, int], offered: int) -> ValueError:
    parts = ", ".join(f"{n} for {WORDS[part]}" for part, n in wanted.items() if n)
    return ValueError(
        f"At least {sum(wanted.values())} images are wanted ({parts}), but the data "
        f"set offers {offered}; use a larger data set, or fewer images for training "
        "(--train-sizes) or validation (--val-size)."
    )


def _scaled(images: np.ndarray) -> np.ndarray:
    return 2 * images - 1
