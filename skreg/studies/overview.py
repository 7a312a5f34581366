"""All kinds of regularisation side by side."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import pandas as pd
from sklearn.base import clone

from skreg.studies.common import figures
from skreg.studies.common.fitting import Case, fit_all
from skreg.studies.common.regularizers import (
    FACTOR,
    FAMILIES,
    NONE,
    TECHNIQUES,
    describe_techniques,
    regularised_cases,
    without_early_stopping,
)
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import (
    Quantity,
    curves_frame,
    describe_by_verdict,
    differences_to,
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
MEASURES = {
    "test accuracy": "Test accuracy",
    "norm": "Frobenius norm",
    "seconds": "Time of a fit (s)",
}
WORDS = {
    "weights": "Penalties and bounds on weights",
    "data": "Changes of images and labels",
    "training": "Changes of training (early stopping is no regularisation, cut short)",
}
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
    # What is used for the first time is imported, which is no time of a fit.
    fit_all([_of_one_epoch(case) for case in cases], seeds[:1], together=False)
    own = {
        **describe_techniques(),
        **counts(seeds, epochs, n_train, n_valid, n_test),
        "optimizer": optimizer_text(lr, None),
    }
    return {
        "study": "overview",
        "settings": describe(data, name, device, own),
        "runs": fit_all(cases, seeds, progress, together=False),
    }


def _of_one_epoch(case: Case) -> Case:
    return case._replace(net=clone(case.net).set_params(max_epochs=1))


def table(result: dict) -> pd.DataFrame:
    """Return a row per regulariser."""
    return mean_table(_summaries(result), [FACTOR])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Compare each regulariser to none, and claim no more than the error bars allow."""
    summaries = _summaries(result)
    sentences = []
    for column in MEASURES:
        differences = differences_to(summaries, column, FACTOR, NONE)
        text = describe_by_verdict(differences, Quantity.of(column))
        sentences.append(f"{column.capitalize()} against no regularisation: {text}.")
    return sentences + divergences(result["runs"])


def plot(result: dict) -> dict:
    """Return the figures by name."""
    summaries, drawn = _summaries(result), {}
    for column, xlabel in MEASURES.items():
        drawn[column.replace(" ", "-")] = figures.plot_rows(
            figures.columns_of(summaries, FACTOR, column), xlabel=xlabel, reference=NONE
        )
    for family, runs in _families(result).items():
        drawn[f"accuracy-{family}"] = figures.plot_accuracy(
            runs, FACTOR, show_best=False
        )
        drawn[f"norms-{family}"] = figures.plot_norms(runs, FACTOR)
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands, bars = figures.bands(result), figures.bars(result)
    points = f"{bars}; points are seeds. The dotted line is the mean without any."
    texts = {
        "test-accuracy": "Accuracy of the net that a fit returns on the test "
        f"images{points}",
        "norm": f"Frobenius norm of its parameters together{points}",
        "seconds": f"How long a fit takes{points}",
    }
    for family in _families(result):
        texts[f"accuracy-{family}"] = (
            f"{WORDS[family]}: accuracy on training (solid) and validation images "
            f"(dashed) after each epoch{bands}."
        )
        texts[f"norms-{family}"] = (
            f"{WORDS[family]}: Frobenius norm of all parameters after each "
            f"epoch{bands}."
        )
    return texts


def _families(result: dict) -> dict[str, list[dict]]:
    """Return the runs of each family, none first, without those that stop early."""
    runs = without_early_stopping(result["runs"])
    groups = {}
    for family in FAMILIES:
        members = {name for name, one in TECHNIQUES.items() if one.family == family}
        groups[family] = [
            run for run in runs if run["labels"][FACTOR] in members | {NONE}
        ]
    return groups


def _summaries(result: dict) -> pd.DataFrame:
    columns = {
        "training accuracy": final("train_acc"),
        "validation accuracy": lambda run: run["final_valid_acc"],
        "test accuracy": lambda run: run["test_acc"],
        "norm": lambda run: run["norm"],
        "seconds": lambda run: run["seconds"],
    }
    return summarize(result["runs"], columns)
