"""Splits off validation data: the last part, whole groups; what a split leaves out."""

import warnings
from math import ceil

import numpy as np
from sklearn.model_selection import GroupShuffleSplit
from torch.utils.data import Subset

__all__ = ["check_classes", "last_part", "random_groups", "warn_if_unused"]

DRAWS = 20  # of groups, until all classes are left to train on


def last_part(n_samples: int, fraction: float, groups=None) -> tuple:
    """Return the indices of the training data, and of the last part, held out.

    Parameters
    ----------
    n_samples : int
    fraction : float
        Share of the samples that is held out, or of the groups.
    groups : array-like of shape (n_samples,), default=None
        Whole groups are held out, the last ones; each group must come after those
        before it.
    """
    order = np.arange(n_samples)
    places = order
    if groups is not None:
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        places = np.argsort(np.argsort(first))[inverse]  # groups by their first sample
        if (np.diff(places) < 0).any():
            raise ValueError(
                "with holdout='last' the samples of a group must follow each other, "
                "and here they do not: sort the samples by group and time, or use "
                "holdout='random'"
            )
    n_parts = places[-1] + 1
    n_held_out = ceil(fraction * n_parts)
    if n_held_out >= n_parts:
        raise ValueError("the last part would be all of them")
    return np.split(order, [np.searchsorted(places, n_parts - n_held_out)])


def random_groups(groups, fraction: float, seed: int, labels=None) -> tuple:
    """Return the indices of the training data, and of random groups, held out.

    Parameters
    ----------
    groups : array-like of shape (n_samples,)
    fraction : float
        Share of the groups that is held out.
    seed : int
    labels : ndarray of shape (n_samples,), default=None
        Groups are drawn again until the training data hold all of these.
    """
    splitter = GroupShuffleSplit(DRAWS, test_size=fraction, random_state=seed)
    classes = np.unique([] if labels is None else labels)
    for train, valid in splitter.split(np.arange(len(groups)), groups=groups):
        if labels is None or len(np.unique(labels[train])) == len(classes):
            return train, valid
    raise ValueError(
        f"in {DRAWS} draws of whole groups, the rest of them lacked a class each time: "
        "too few groups hold it"
    )


def check_classes(train: np.ndarray, valid: np.ndarray) -> None:
    """Raise if training data lack a class, and warn if the last part does.

    Parameters
    ----------
    train, valid : ndarray of shape (n,)
        Labels.
    """
    missing = np.setdiff1d(valid, train)
    if len(missing):
        raise ValueError(
            f"all samples of the classes {missing.tolist()} are in the last part, and "
            "none is left to train on; if y is sorted by class, use holdout='random'"
        )
    missing = np.setdiff1d(train, valid)
    if len(missing):
        warnings.warn(
            f"The last {len(valid)} samples, which holdout='last' holds out, hold none "
            f"of the classes {missing.tolist()}: early stopping does not see how the "
            "net does on these. If the order of the samples means nothing, use "
            "holdout='random', else a larger validation_fraction, or X_val and y_val.",
            UserWarning,
            stacklevel=2,
        )


def warn_if_unused(split, dataset, train, valid) -> None:
    """Warn if a split has left samples in neither part.

    Parameters
    ----------
    split : callable
        For the message.
    dataset : sequence
        What was split.
    train, valid : what it returned; only subsets of `dataset` are looked at
    """
    # What validates nothing chooses samples to train on, and leaves out the others.
    parts = train, valid
    if not all(isinstance(p, Subset) and p.dataset is dataset for p in parts):
        return
    used = np.zeros(len(dataset), dtype=bool)
    for part in parts:
        used[np.asarray(part.indices)] = True
    n_unused = len(used) - np.count_nonzero(used)
    if n_unused:
        cv = getattr(split, "cv", None)
        name = type(split).__name__ if cv is None else f"{type(split).__name__}({cv})"
        warnings.warn(
            f"train_split={name} trains on {len(train)} of {len(dataset)} samples and "
            f"validates on {len(valid)}; {n_unused} are in "
            "neither part. Only the first split of a cross-validation generator is "
            "used. To hold out the last part of ordered data, leave train_split=None, "
            "with early_stopping=True and holdout='last'.",
            UserWarning,
            stacklevel=2,
        )
