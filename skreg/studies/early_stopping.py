"""Early stopping on validation accuracy, with true and with partly random labels."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pandas as pd

from skreg.displays.common import net_styles
from skreg.modules import AnimalNet
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
    mean_table,
    percent,
    summarize,
)

TITLE = "Early stopping"
QUESTION = (
    "Training that stops when validation accuracy no longer rises saves epochs. Does "
    "it cost accuracy on images that nobody has looked at, or does it gain some?"
)
FULL = {"epochs": 500, "n_test": 1000}
NEVER = "no stopping"
# The rule of the course: a new best has a strictly greater validation accuracy.
STOPPING = {"early_stopping": True, "monitor": "valid_acc"}


def run(
    data,
    *,
    n_train: int = 100,
    n_valid: int = 100,
    n_test: int = 400,
    seeds: Sequence[int] = range(5),
    epochs: int = 150,
    patiences: Sequence[int] = (5, 20),
    noise: float = 0.25,
    lr: float = 3e-3,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit with and without early stopping, to true and to partly random labels.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid, n_test : int, default=100, 100 and 400
        Early stopping looks at the validation images; accuracy is compared on the
        test images, which decide nothing.
    seeds : sequence of int, default=range(5)
    epochs : int, default=150
    patiences : sequence of int, default=(5, 20)
        Epochs without a new best that are tolerated.
    noise : float, default=0.25
        Share of the training labels drawn at random in the second half of the fits.
        Labels of validation and test images stay true.
    lr : float, default=3e-3
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    stopping = {NEVER: {}} | {
        f"patience {p}": STOPPING | {"patience": p} for p in patiences
    }
    net = partial(image_net, AnimalNet, data, lr=lr, epochs=epochs, device=device)
    sample = partial(draw_sample, data, n_train, n_valid, n_test=n_test)
    cases = [
        Case(
            {"labels": labels, "stopping": stop},
            net(**parameters),
            partial(sample, random_labels=fraction),
        )
        for labels, fraction in (("true", 0.0), (f"{100 * noise:g} % random", noise))
        for stop, parameters in stopping.items()
    ]
    own = {
        "net": "AnimalNet",
        **counts(seeds, epochs, n_train, n_valid, n_test),
        "patience": list(patiences),
        "optimizer": optimizer_text(lr, None),
    }
    return {
        "study": "early-stopping",
        "settings": describe(data, name, device, own),
        "runs": fit_all(cases, seeds, progress),
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per kind of labels and way to stop."""
    return mean_table(_summaries(result), ["labels", "stopping"])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Say what stopping saves and costs, and by how much the best epoch flatters."""
    sentences = []
    for labels, group in _summaries(result).groupby("labels", sort=False):
        for column in ("epochs trained", "test accuracy", "norm"):
            differences = compare(group, column, "stopping", NEVER)
            sentences.append(
                f"Labels {labels}, {column} against {NEVER}: {differences}."
            )
        optimism = {
            name: rows["validation accuracy"] - rows["test accuracy"]
            for name, rows in group.groupby("stopping", sort=False)
        }
        sentences.append(
            f"Labels {labels}, validation accuracy minus test accuracy of the net that "
            "is kept (a net picked for its validation accuracy tends to look better "
            f"than it is): {describe_differences(optimism, percent)}."
        )
    return sentences + divergences(result["runs"])


def plot(result: dict) -> dict:
    """Return the figures by name."""
    plain = chosen(result["runs"], stopping=NEVER)
    accuracy = figures.plot_accuracy(plain, "labels", show_best=False)
    _mark_kept(accuracy.axes[0], result)
    drawn, summaries = {"accuracy": accuracy}, _summaries(result)
    for column in ("test accuracy", "epochs trained"):
        drawn[column.replace(" ", "-")] = figures.plot_bars(
            figures.grouped(summaries, "labels", "stopping", column),
            ylabel=column.capitalize(),
            xlabel="Labels of the training images",
        )
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands, bars = figures.bands(result), figures.bars(result)
    return {
        "accuracy": "Without early stopping: accuracy on training (solid) and "
        f"validation images (dashed){bands}. A star is the net that early stopping "
        f"with {_longest(result)} keeps of one seed.",
        "test-accuracy": "Accuracy on the test images of the net that is kept, that of "
        f"the best epoch with early stopping, else of the last{bars}; points are "
        "seeds.",
        "epochs-trained": f"Epochs until training stops{bars}; points are seeds.",
    }


def _longest(result: dict) -> str:
    return f"patience {max(result['settings']['patience'])}"


def _mark_kept(ax, result: dict) -> None:
    """Draw a star, in the colour of the labels, where each seed's kept net is."""
    runs = chosen(result["runs"], stopping=_longest(result))
    styles = net_styles(dict.fromkeys(run["labels"]["labels"] for run in runs))
    for run in runs:
        ax.plot(
            run["best_epoch"],
            run["curves"]["valid_acc"][run["best_epoch"] - 1],
            marker="*",
            markersize=11,
            markerfacecolor=styles[run["labels"]["labels"]].color,
            markeredgecolor="white",
            zorder=5,
        )


def _summaries(result: dict) -> pd.DataFrame:
    columns = {
        "epochs trained": _n_epochs,
        "epoch that is kept": lambda run: run.get("best_epoch", _n_epochs(run)),
        "validation accuracy": lambda run: run["final_valid_acc"],
        "test accuracy": lambda run: run["test_acc"],
        "norm": lambda run: run["norm"],
    }
    return summarize(result["runs"], columns)


def _n_epochs(run: dict) -> int:
    return sum(value is not None for value in run["curves"]["param_norm"])
