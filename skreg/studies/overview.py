"""All kinds of regularisation side by side."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pandas as pd

from skreg.studies.common import figures
from skreg.studies.common.fitting import fit_all
from skreg.studies.common.regularizers import (
    DESCRIPTION,
    FACTOR,
    NONE,
    regularised_cases,
    without_early_stopping,
)
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import (
    compare,
    curves_frame,
    divergences,
    final,
    mean_table,
    summarize,
)

TITLE = "All regularisers side by side"
QUESTION = (
    "The same net on the same images with each kind of regularisation: which does "
    "better on images it has not seen, how large are its weights, and what does it "
    "cost?"
)
FULL = {"n_train": 1000, "n_valid": 400, "n_test": 1000, "epochs": 300}


def run(
    data,
    *,
    n_train: int = 100,
    n_valid: int = 100,
    n_test: int = 400,
    seeds: Sequence[int] = range(5),
    epochs: int = 100,
    lr: float = 2e-3,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit one net with each kind of regularisation.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid, n_test : int, default=100, 100 and 400
        Early stopping looks at the validation images; the test images decide nothing.
    seeds : sequence of int, default=range(5)
    epochs : int, default=100
    lr : float, default=2e-3
        Of Adam.
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    sample = partial(draw_sample, data, n_train, n_valid, n_test=n_test)
    cases = regularised_cases(data, sample, lr=lr, epochs=epochs, device=device)
    own = {
        **DESCRIPTION,
        **counts(seeds, epochs, n_train, n_valid, n_test),
        "optimizer": optimizer_text(lr, None),
    }
    return {
        "study": "overview",
        "settings": describe(data, name, device, own),
        "runs": fit_all(cases, seeds, progress, together=False),
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per regulariser."""
    return mean_table(_summaries(result), [FACTOR])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Compare each regulariser to none, and claim no more than the error bars allow."""
    summaries = _summaries(result)
    sentences = [
        f"{column.capitalize()} against no regularisation: "
        f"{compare(summaries, column, FACTOR, NONE)}."
        for column in ("test accuracy", "norm", "seconds")
    ]
    return sentences + divergences(result["runs"])


def plot(result: dict) -> dict:
    """Return the figures by name."""
    runs, summaries = without_early_stopping(result["runs"]), _summaries(result)
    drawn = {
        "accuracy": figures.plot_accuracy(runs, FACTOR, show_best=False),
        "norms": figures.plot_norms(runs, FACTOR),
    }
    for column, ylabel in (
        ("test accuracy", "Test accuracy"),
        ("norm", "Frobenius norm"),
        ("seconds", "Time of a fit (s)"),
    ):
        bars = figures.grouped(summaries, FACTOR, FACTOR, column)
        drawn[column.replace(" ", "-")] = figures.plot_bars(
            {name: {"": values[name]} for name, values in bars.items()}, ylabel=ylabel
        )
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands, bars = figures.bands(result), figures.bars(result)
    return {
        "test-accuracy": "Accuracy of the net that a fit returns on the test "
        f"images{bars}; points are seeds.",
        "norm": f"Frobenius norm of its parameters together{bars}; points are seeds.",
        "seconds": f"How long a fit takes{bars}; points are seeds.",
        "accuracy": "Accuracy on training (solid) and validation images (dashed) after "
        f"each epoch{bands}. Early stopping is that without regularisation, cut short.",
        "norms": f"Frobenius norm of all parameters after each epoch{bands}.",
    }


def _summaries(result: dict) -> pd.DataFrame:
    columns = {
        "training accuracy": final("train_acc"),
        "validation accuracy": lambda run: run["final_valid_acc"],
        "test accuracy": lambda run: run["test_acc"],
        "norm": lambda run: run["norm"],
        "seconds": lambda run: run["seconds"],
    }
    return summarize(result["runs"], columns)
