"""The learning rate: three of the course, and the one that a range test suggests."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import log10

import numpy as np
import pandas as pd

from skreg.displays.common import light_grid, mean_and_error, new_axes
from skreg.modules import AnimalNet
from skreg.selection import lr_range_test
from skreg.studies.common import figures
from skreg.studies.common.fitting import Case, computing, fit_all, image_net
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import (
    compare,
    curves_frame,
    divergences,
    mean_table,
    summarize_ends,
)

TITLE = "The learning rate"
QUESTION = (
    "Too small a learning rate takes too long, too large a one never settles. Which is "
    "right, and does a test of a few steps find it (Smith, WACV 2017)?"
)
FULL = {"n_train": 11_700, "n_valid": 2_930}


def run(
    data,
    *,
    n_train: int = 1_000,
    n_valid: int = 400,
    seeds: Sequence[int] = range(5),
    epochs: int = 20,
    rates: Sequence[float] = (5e-4, 1e-3, 5e-3),
    momentum: float = 0.9,
    batch_size: int = 128,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit with each learning rate, and with the one that range tests suggest.

    A range test looks at training images only; the suggestion is the geometric mean
    over the seeds, rounded to one digit.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid : int, default=1000 and 400
    seeds : sequence of int, default=range(5)
    epochs : int, default=20
    rates : sequence of float, default=(5e-4, 1e-3, 5e-3)
    momentum : float, default=0.9
    batch_size : int, default=128
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    net = partial(
        image_net,
        AnimalNet,
        data,
        epochs=epochs,
        momentum=momentum,
        batch_size=batch_size,
        device=device,
    )
    sample = partial(draw_sample, data, n_train, n_valid)
    tests = []
    with computing(seeds, epochs):
        for seed in seeds:
            X, y = sample(seed)[:2]
            test = lr_range_test(net(lr=rates[0], random_state=seed), X, y)
            tests.append({"seed": seed} | test._asdict())
    suggested = _suggestion(tests)
    tried = {f"{rate:g}": rate for rate in rates}
    if suggested is not None and suggested not in rates:
        tried[f"{suggested:g}, suggested"] = suggested
    cases = [
        Case({"learning rate": label}, net(lr=rate), sample)
        for label, rate in tried.items()
    ]
    own = {
        "net": "AnimalNet",
        **counts(seeds, epochs, n_train, n_valid),
        "optimizer": optimizer_text(rates[0], momentum, batch_size).replace(
            f"lr={rates[0]:g}", "learning rates as in the table"
        ),
        "suggested learning rate": suggested,
    }
    return {
        "study": "learning-rate",
        "settings": describe(data, name, device, own),
        "range tests": tests,
        "runs": fit_all(cases, seeds, progress),
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per learning rate."""
    return mean_table(summarize_ends(result), ["learning rate"])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Say what the rates did, and how good the suggested one is."""
    summaries = summarize_ends(result)
    suggestions = [t["suggestion"] for t in result["range tests"]]
    found = [rate for rate in suggestions if rate is not None]
    sentences = ["In no range test the loss fell; there is no suggestion."]
    reference = summaries["learning rate"].iloc[0]
    if found:
        suggested = result["settings"]["suggested learning rate"]
        reference = next(
            label
            for label in summaries["learning rate"]
            if float(label.split(",")[0]) == suggested
        )
        sentences = [
            f"Range tests with {len(suggestions)} seeds suggest {min(found):.2g} to "
            f"{max(found):.2g}; tried is {suggested:g}."
        ]
    for column in ("final validation accuracy", "final norm"):
        sentences.append(
            f"{column.capitalize()} against a learning rate of {reference}: "
            f"{compare(summaries, column, 'learning rate', reference)}."
        )
    return sentences + divergences(result["runs"])


def plot(result: dict) -> dict:
    """Return the figures by name."""
    runs = result["runs"]
    return {
        "range-test": _plot_range_tests(result),
        "accuracy": figures.plot_accuracy(runs, "learning rate", show_best=False),
        "norms": figures.plot_norms(runs, "learning rate"),
    }


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands = figures.bands(result)
    return {
        "range-test": "Range tests: smoothed training loss while the learning rate "
        "grows from step to step. Thin lines are seeds, the thick one is their mean "
        "while all of them run; dots are where a seed's loss is smallest. The dashed "
        "line is the suggestion, a tenth of that.",
        "accuracy": "Accuracy on training (solid) and validation images (dashed) after "
        f"each epoch{bands}.",
        "norms": f"Frobenius norm of all parameters after each epoch{bands}.",
    }


def _suggestion(tests: Sequence[dict]) -> float | None:
    found = [test["suggestion"] for test in tests if test["suggestion"] is not None]
    if not found:
        return None
    return round_to_one_digit(float(np.exp(np.mean(np.log(found)))))


def _plot_range_tests(result: dict):
    ax, tests = new_axes()[0], result["range tests"]
    suggested = result["settings"]["suggested learning rate"]
    if suggested is not None:
        ax.axvline(suggested, color="#D55E00", linestyle="--", linewidth=1.2)
    for test in tests:
        ax.plot(test["rates"], test["losses"], color="#0072B2", lw=0.8, alpha=0.5)
        place = int(np.argmin(test["losses"]))
        ax.plot(test["rates"][place], test["losses"][place], "o", color="#D55E00")
    shortest = min(tests, key=lambda test: len(test["losses"]))["rates"]
    losses = np.array([test["losses"][: len(shortest)] for test in tests])
    ax.plot(shortest, mean_and_error(losses)[0], color="#0072B2", lw=2)
    ax.set(xscale="log", xlabel="Learning rate", ylabel="Training loss, smoothed")
    light_grid(ax)
    return ax.figure


def round_to_one_digit(rate: float) -> float:
    """Return a rate that reads well: 0.0123 becomes 0.01."""
    return round(rate, -int(np.floor(log10(rate))))
