"""Augmentation: training images that are a little different in each epoch."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch

from skreg.modules import AnimalNet
from skreg.studies.common import figures
from skreg.studies.common.fitting import Case, fit_all, image_net
from skreg.studies.common.regularizers import OnBlack
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import (
    compare,
    curves_frame,
    divergences,
    mean_table,
    summarize_ends,
)
from skreg.transforms import RandomFlip, RandomRotation, RandomShift

TITLE = "Augmentation"
QUESTION = (
    "Training images that are flipped, shifted or turned at random are never the same "
    "twice. Does that keep a net from learning them by heart, and does it then do "
    "better on images as they are?"
)
NONE = "none"
FULL = {"epochs": 250, "lr": 1e-3, "momentum": 0.99}
N_SHOWN = 8


def run(
    data,
    *,
    n_train: int = 250,
    n_valid: int = 100,
    n_test: int = 400,
    seeds: Sequence[int] = range(5),
    epochs: int = 100,
    flips: float = 0.1,
    shift: float = 0.1,
    degrees: float = 10,
    lr: float = 2e-3,
    momentum: float | None = None,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit the same net without augmentation, with flips, and with shifts and turns.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid, n_test : int, default=250, 100 and 400
        Validation and test images are never augmented.
    seeds : sequence of int, default=range(5)
    epochs : int, default=100
    flips : float, default=0.1
        Probability of a flip, left to right and top to bottom each.
    shift : float, default=0.1
        Largest shift, as a share of height and width.
    degrees : float, default=10
        Largest rotation.
    lr : float, default=2e-3
    momentum : float, default=None
        Of SGD; None is Adam.
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    augmentations = make_augmentations(flips, shift, degrees)
    net = partial(
        image_net,
        AnimalNet,
        data,
        lr=lr,
        momentum=momentum,
        epochs=epochs,
        device=device,
    )
    cases = [
        Case(
            {"augmentation": label},
            net(augment=augment),
            partial(draw_sample, data, n_train, n_valid, n_test=n_test),
        )
        for label, augment in augmentations.items()
    ]
    own = {
        "net": "AnimalNet",
        **counts(seeds, epochs, n_train, n_valid, n_test),
        "optimizer": optimizer_text(lr, momentum),
        "flips": f"left to right and top to bottom, each with probability {flips:g}",
        "shifts and rotations": f"up to {100 * shift:g} % of the image and {degrees:g} "
        "degrees",
    }
    return {
        "study": "augmentation",
        "settings": describe(data, name, device, own),
        "runs": fit_all(cases, seeds, progress),
        "samples": _augmented_samples(data, augmentations),
    }


def make_augmentations(flips: float, shift: float, degrees: float) -> dict:
    """Return what is compared, by name; None changes nothing."""
    moves = OnBlack(RandomShift(shift), RandomRotation(degrees))
    return {NONE: None, "flips": RandomFlip(flips, flips), "shifts, rotations": moves}


def table(result: dict) -> pd.DataFrame:
    """Return a row per augmentation."""
    return mean_table(summarize_ends(result), ["augmentation"])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Say what augmentation did, and claim no more than the error bars allow."""
    summaries = summarize_ends(result)
    sentences = [
        f"{column.capitalize()} against no augmentation: "
        f"{compare(summaries, column, 'augmentation', NONE)}."
        for column in ("final training accuracy", "test accuracy", "final norm")
    ]
    advice = (
        "A flip is a sensible change of a photograph, not of a digit or a letter, "
        "which it makes another sign or none; shifts and small rotations suit both."
    )
    return [*sentences, advice, *divergences(result["runs"])]


def plot(result: dict) -> dict:
    """Return the figures by name."""
    runs = result["runs"]
    return {
        "samples": figures.plot_samples(result["samples"]),
        "accuracy": figures.plot_accuracy(runs, "augmentation"),
        "norms": figures.plot_norms(runs, "augmentation"),
    }


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands = figures.bands(result)
    return {
        "samples": "Training images as they are (first row), and one draw of each "
        "augmentation.",
        "accuracy": "Accuracy on training images as they are, not augmented (solid), "
        f"and on validation images (dashed){bands}.",
        "norms": f"Frobenius norm of all parameters after each epoch{bands}.",
    }


def _augmented_samples(data, augmentations) -> dict:
    """Return a row of images for each augmentation, with every image changed."""
    first = [np.flatnonzero(data.target == k)[:N_SHOWN] for k in np.unique(data.target)]
    order = np.concatenate(first)[:: max(1, sum(map(len, first)) // N_SHOWN)]
    images = torch.as_tensor(2 * data.data[order[:N_SHOWN]] - 1)
    rows, labels = [], []
    for label, augment in augmentations.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            shown = images if augment is None else augment.train()(images)
        rows.append((1 + shown.numpy()) / 2)
        labels += [label] * len(images)
    return figures.as_samples(np.concatenate(rows), labels, len(images))
