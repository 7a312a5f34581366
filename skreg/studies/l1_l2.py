"""L1 and L2 penalties on few images: the same net with none, either and both."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pandas as pd

from skreg.modules import AnimalNet
from skreg.studies.common import figures
from skreg.studies.common.fitting import Case, fit_all, image_net
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import (
    Quantity,
    best,
    chosen,
    compare,
    curves_frame,
    divergences,
    final,
    mean_table,
    summarize,
)

TITLE = "L1 and L2 penalties"
QUESTION = (
    "A small net learns a handful of images by heart. Do penalties on the size of its "
    "weights keep it from that, and does it then do better on images it has not seen?"
)
NETS = {"none": (0, 0), "L1": (1, 0), "L2": (0, 1), "L1 + L2": (1, 1)}
COLUMNS = {
    "best validation accuracy": best("valid_acc"),
    "final validation accuracy": final("valid_acc"),
    "final training accuracy": final("train_acc"),
    "final norm": final("param_norm"),
}
FULL = {}  # the course's settings are the defaults


def run(
    data,
    *,
    train_sizes: Sequence[int] = (30, 100),
    n_valid: int = 100,
    seeds: Sequence[int] = range(5),
    epochs: int = 150,
    lambda1: float = 1e-3,
    lambda2: float = 1e-3,
    lr: float = 5e-3,
    momentum: float = 0.99,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit the four nets on each number of training images, with each seed.

    Parameters
    ----------
    data : Bunch
        Images, as from `skreg.datasets`.
    train_sizes : sequence of int, default=(30, 100)
        Numbers of training images.
    n_valid : int, default=100
        Number of validation images.
    seeds : sequence of int, default=range(5)
    epochs : int, default=150
    lambda1, lambda2 : float, default=1e-3
        Coefficients in the nets that have them.
    lr, momentum : float, default=5e-3 and 0.99
    device : str, default="auto"
    name : str, default="images"
        What the report calls the data.
    progress : callable, default=iter
        Wraps the sequence of seeds, as `tqdm` does.

    Returns
    -------
    dict
        Plain numbers, strings, lists and dicts.
    """
    net = partial(image_net, AnimalNet, data, lr=lr, momentum=momentum, epochs=epochs)
    train_sizes = [*dict.fromkeys(train_sizes)]
    cases = [
        Case(
            {"training images": n, "penalty": penalty},
            net(device=device, lambda1=l1 * lambda1, lambda2=l2 * lambda2),
            partial(draw_sample, data, n, n_valid),
        )
        for n in train_sizes
        for penalty, (l1, l2) in NETS.items()
    ]
    own = {
        "net": "AnimalNet",
        **counts(seeds, epochs, train_sizes, n_valid),
        "optimizer": optimizer_text(lr, momentum),
        "lambda1": lambda1,
        "lambda2": lambda2,
    }
    return {
        "study": "l1-l2",
        "settings": describe(data, name, device, own),
        "runs": fit_all(cases, seeds, progress),
        "samples": figures.image_samples(data),
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per number of images and net: mean and standard error over seeds."""
    summaries = summarize(result["runs"], COLUMNS)
    return mean_table(summaries, ["training images", "penalty"])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Say what the penalties did, and claim no more than the error bars allow."""
    summaries = summarize(result["runs"], COLUMNS)
    sentences = []
    for n_train, group in summaries.groupby("training images", sort=False):
        for column in ("best validation accuracy", "final norm"):
            none = group.loc[group["penalty"] == "none", column].mean()
            sentences.append(
                f"{n_train} training images, {column} against no penalty "
                f"({Quantity.of(column).text(none)}): "
                f"{compare(group, column, 'penalty', 'none')}."
            )
    return sentences + divergences(result["runs"])


def plot(result: dict) -> dict:
    """Return the figures by name."""
    drawn = {"images": figures.plot_samples(result["samples"])}
    for n in result["settings"]["training images"]:
        runs = chosen(result["runs"], training_images=n)
        drawn[f"accuracy-{n}"] = figures.plot_accuracy(runs, "penalty")
        drawn[f"norms-{n}"] = figures.plot_norms(runs, "penalty")
        drawn[f"layers-{n}"] = figures.plot_norms(runs, "penalty", kind="layers")
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands = figures.bands(result)
    texts = {"images": figures.samples_caption(result)}
    for n in result["settings"]["training images"]:
        texts[f"accuracy-{n}"] = (
            f"{n} training images: accuracy on training (solid) and validation images "
            f"(dashed) after each epoch{bands}. The dotted lines are at the best of "
            "the mean curves; the table has the mean of each seed's best."
        )
        texts[f"norms-{n}"] = (
            f"{n} training images: Frobenius norm of all parameters after each "
            f"epoch{bands}."
        )
        texts[f"layers-{n}"] = (
            f"{n} training images: norm of each parameter at the end; the dashed line "
            "is the norm of all of them."
        )
    return texts
