"""Dropout on images: the course's two nets, and how much dropout is best."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pandas as pd

from skreg.modules import AnimalNetDropout, BigAnimalNet
from skreg.studies.common import figures
from skreg.studies.common.fitting import Case, fit_all, image_net
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import (
    chosen,
    compare,
    curves_frame,
    divergences,
    mean_table,
    summarize_ends,
)

TITLE = "Dropout on images"
QUESTION = (
    "A net whose units drop out at random in training cannot rely on any one of them. "
    "Does it do better on images it has not seen, and how many units should drop out?"
)
BIG, DROPOUT = "BigAnimalNet", "AnimalNetDropout"
FULL = {
    "epochs": 200,
    "p": (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "lr": 5e-3,
    "momentum": 0.9,
}


def run(
    data,
    *,
    n_train: int = 100,
    n_valid: int = 100,
    n_test: int = 400,
    seeds: Sequence[int] = range(5),
    epochs: int = 100,
    p: Sequence[float] = (0, 0.2, 0.5, 0.8),
    lr: float = 2e-3,
    momentum: float | None = None,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit the course's nets with and without dropout, and one net with each p.

    The two nets of the course differ in their widths too; in the sweep, dropout is the
    only difference.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid, n_test : int, default=100, 100 and 400
    seeds : sequence of int, default=range(5)
    epochs : int, default=100
    p : sequence of float, default=(0, 0.2, 0.5, 0.8)
        Probabilities of dropping a unit, for both hidden layers of AnimalNetDropout.
    lr : float, default=2e-3
    momentum : float, default=None
        Of SGD; None is Adam.
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    net = partial(
        image_net, data=data, lr=lr, momentum=momentum, epochs=epochs, device=device
    )
    nets = {
        ("course", BIG): net(BigAnimalNet),
        ("course", DROPOUT): net(AnimalNetDropout),
    }
    nets |= {("sweep", f"p = {q:g}"): net(AnimalNetDropout, dropout=q) for q in p}
    cases = [
        Case(
            {"part": part, "net": label},
            one,
            partial(draw_sample, data, n_train, n_valid, n_test=n_test),
        )
        for (part, label), one in nets.items()
    ]
    own = {
        "nets": "BigAnimalNet without dropout; AnimalNetDropout, which is wider, with "
        "0.5 and 0.3, and in the sweep with p in both hidden layers",
        **counts(seeds, epochs, n_train, n_valid, n_test),
        "p": list(p),
        "optimizer": optimizer_text(lr, momentum),
    }
    return {
        "study": "dropout-images",
        "settings": describe(data, name, device, own),
        "runs": fit_all(cases, seeds, progress),
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per net."""
    return mean_table(summarize_ends(result).drop(columns="part"), ["net"])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Say what dropout did, and claim no more than the error bars allow."""
    summaries = summarize_ends(result)
    sentences = []
    for _, group in summaries.groupby("part", sort=False):
        reference = group["net"].iloc[0]
        for column in ("final training accuracy", "test accuracy", "final norm"):
            sentences.append(
                f"{column.capitalize()} against {reference}: "
                f"{compare(group, column, 'net', reference)}."
            )
    return sentences + divergences(result["runs"])


def plot(result: dict) -> dict:
    """Return the figures by name."""
    drawn = {}
    for part in ("course", "sweep"):
        runs = chosen(result["runs"], part=part)
        drawn[f"accuracy-{part}"] = figures.plot_accuracy(runs, "net")
        drawn[f"norms-{part}"] = figures.plot_norms(runs, "net")
    sweep = summarize_ends(result)
    sweep = sweep[sweep["part"] == "sweep"]
    columns = {"training": "final training accuracy", "test": "test accuracy"}
    drawn["sweep"] = figures.plot_against(
        result["settings"]["p"],
        {
            name: sweep.pivot(index="seed", columns="net", values=column)[
                sweep["net"].unique()
            ].to_numpy()
            for name, column in columns.items()
        },
        xlabel="Dropout probability p",
        ylabel="Accuracy after the last epoch",
    )
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands, bars = figures.bands(result), figures.bars(result)
    texts = {}
    for part, nets in (
        ("course", "The course's nets"),
        ("sweep", "AnimalNetDropout with probability p in both hidden layers"),
    ):
        texts[f"accuracy-{part}"] = (
            f"{nets}: accuracy, with dropout off, on training (solid) and validation "
            f"images (dashed) after each epoch{bands}."
        )
        texts[f"norms-{part}"] = (
            f"{nets}: Frobenius norm of all parameters after each epoch{bands}."
        )
    texts["sweep"] = f"Accuracy on training and test images against p{bars}."
    return texts
