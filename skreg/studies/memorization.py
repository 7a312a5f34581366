"""Learning random labels by heart, with and without regularisation."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from skreg.modules import MLP
from skreg.studies.common import figures
from skreg.studies.common.fitting import Case, fit_all, image_net
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import (
    chosen,
    compare,
    curves_frame,
    describe_differences,
    divergences,
    final,
    mean_table,
    percent,
    summarize,
)

TITLE = "Memorising random labels"
QUESTION = (
    "A net that fits labels drawn at random has learnt nothing but the images "
    "themselves. Is a small net able to, and does regularisation keep it from that "
    "(Zhang et al., ICLR 2017)?"
)
FRACTIONS = {"true": 0.0, "10 % random": 0.1, "random": 1.0}
FULL = {"epochs": 500}


def run(
    data,
    *,
    n_train: int = 100,
    n_valid: int = 100,
    seeds: Sequence[int] = range(5),
    epochs: int = 150,
    lambda1: float = 1e-3,
    lambda2: float = 1e-2,
    dropout: float = 0.5,
    lr: float = 3e-3,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit nets with four kinds of regularisation to three kinds of labels.

    The labels of the validation images stay true.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid : int, default=100
    seeds : sequence of int, default=range(5)
        A seed decides the images, the random labels and the initial weights.
    epochs : int, default=150
    lambda1, lambda2, dropout : float, default=1e-3, 1e-2 and 0.5
        In the nets that have them.
    lr : float, default=3e-3
        Of Adam, which takes fewer epochs to learn by heart than the course's SGD.
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    regularisers = {
        "none": {},
        "L1": {"lambda1": lambda1},
        "L2": {"lambda2": lambda2},
        "dropout": {"dropout": dropout},
    }
    net = partial(image_net, MLP, data, lr=lr, epochs=epochs, device=device)
    cases = [
        Case(
            {"labels": labels, "regulariser": regulariser},
            net(hidden_layer_sizes=(128, 32), **parameters),
            partial(draw_sample, data, n_train, n_valid, random_labels=fraction),
        )
        for labels, fraction in FRACTIONS.items()
        for regulariser, parameters in regularisers.items()
    ]
    own = {
        "net": "MLP with hidden layers of 128 and 32, as AnimalNet",
        **counts(seeds, epochs, n_train, n_valid),
        "optimizer": optimizer_text(lr, None),
        "lambda1": lambda1,
        "lambda2": lambda2,
        "dropout": dropout,
        "chance": _chance(data),
    }
    return {
        "study": "memorization",
        "settings": describe(data, name, device, own),
        "runs": fit_all(cases, seeds, progress),
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per kind of labels and regulariser."""
    return mean_table(_summaries(result), ["labels", "regulariser"])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Say what was learnt by heart, how fast, and whether anything helped."""
    summaries, chance = _summaries(result), result["settings"]["chance"]
    sentences = []
    for labels in FRACTIONS:
        group = summaries[summaries["labels"] == labels]
        plain = group[group["regulariser"] == "none"]
        reached = plain["epochs to 100 %, where reached"].notna()
        speed = (
            f"{reached.sum()} of {len(plain)} nets without regularisation reach 100 % "
            "training accuracy"
        )
        if reached.any():
            n_epochs = plain["epochs to 100 %, where reached"].mean()
            speed += f", after {n_epochs:.0f} epochs on average"
        valid = plain["final validation accuracy"]
        against = {"validation accuracy against chance": valid - chance}
        sentences.append(
            f"Labels {labels}: {speed}; "
            f"{describe_differences(against, percent)} ({100 * chance:.1f} %)."
        )
    plain = summaries[summaries["regulariser"] == "none"]
    slower = compare(plain, "epochs to 100 %, where reached", "labels", "true")
    sentences.append(f"Epochs to 100 % against true labels: {slower}.")
    larger = compare(plain, "final norm", "labels", "true")
    sentences.append(f"Norm of the weights against true labels: {larger}.")
    for labels in list(FRACTIONS)[1:]:
        group = summaries[summaries["labels"] == labels]
        for column in ("final training accuracy", "final validation accuracy"):
            differences = compare(group, column, "regulariser", "none")
            sentences.append(
                f"Labels {labels}, {column} against no regularisation: {differences}."
            )
    return sentences + divergences(result["runs"])


def plot(result: dict) -> dict:
    """Return the figures by name."""
    runs, chance = result["runs"], {"chance": result["settings"]["chance"]}
    plain = chosen(runs, regulariser="none")
    drawn = {
        "accuracy": figures.plot_accuracy(plain, "labels", show_best=False),
        "norms": figures.plot_norms(plain, "labels"),
        "random": figures.plot_accuracy(
            chosen(runs, labels="random"), "regulariser", show_best=False
        ),
    }
    summaries = _summaries(result)
    for part in ("training", "validation"):
        drawn[part] = figures.plot_bars(
            figures.grouped(
                summaries, "labels", "regulariser", f"final {part} accuracy"
            ),
            ylabel=f"Final {part} accuracy",
            xlabel="Labels of the training images",
            levels=chance,
        )
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands, bars = figures.bands(result), figures.bars(result)
    return {
        "accuracy": "Without regularisation: accuracy on training (solid) and "
        f"validation images (dashed), for each kind of training labels{bands}. "
        "Training accuracy is that on the labels trained on, be they true or not.",
        "norms": "Without regularisation: Frobenius norm of all parameters after each "
        f"epoch{bands}.",
        "random": "Labels all at random: accuracy on training (solid) and validation "
        f"images (dashed) with each regulariser{bands}.",
        "training": f"Accuracy on the training images after the last epoch{bars}; "
        "points are seeds.",
        "validation": f"Accuracy on the validation images after the last epoch{bars}; "
        "points are seeds. Their labels are true.",
    }


def _chance(data) -> float:
    """Return the accuracy of a guess that does not look at the image.

    Labels drawn uniformly from the classes hit one time in so many, however frequent
    the classes are.
    """
    return 1 / len(data.target_names)


def _summaries(result: dict) -> pd.DataFrame:
    columns = {
        "final training accuracy": final("train_acc"),
        "epochs to 100 %, where reached": _epochs_to_100,
        "final validation accuracy": final("valid_acc"),
        "final norm": final("param_norm"),
    }
    return summarize(result["runs"], columns)


def _epochs_to_100(run: dict) -> int | None:
    reached = np.flatnonzero(np.array(run["curves"]["train_acc"], float) == 1)
    return int(reached[0]) + 1 if len(reached) else None
