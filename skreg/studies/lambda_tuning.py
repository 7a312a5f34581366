"""The strength of a penalty, chosen by cross-validation."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, validation_curve

from skreg.displays import HeatMapDisplay
from skreg.displays.common import mean_and_error
from skreg.modules import AnimalNet
from skreg.studies.common import figures
from skreg.studies.common.fitting import computing, finite, folds, image_net, score
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import describe_differences, judge, mean_table, percent

TITLE = "Tuning the penalty"
QUESTION = (
    "Which lambda is best? Cross-validation answers with training images alone; is its "
    "choice better than no penalty on images that had no part in it?"
)
PARAMETERS = ("lambda1", "lambda2")
FULL = {
    "epochs": 150,
    "n_test": 1000,
    "seeds": range(5),
    "lambda1_range": (0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1),
    "lambda2_range": (0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1),
    "n_folds": 5,
}


def run(
    data,
    *,
    n_train: int = 100,
    n_test: int = 400,
    seeds: Sequence[int] = range(3),
    epochs: int = 40,
    lambda1_range: Sequence[float] = (0, 1e-4, 1e-3, 3e-3),
    lambda2_range: Sequence[float] = (0, 1e-3, 1e-2, 3e-2),
    n_folds: int = 3,
    lr: float = 3e-3,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Cross-validate each lambda on its own, and both in a grid.

    Parameters
    ----------
    data : Bunch
    n_train, n_test : int, default=100 and 400
        Cross-validation divides the training images; the test images decide nothing.
    seeds : sequence of int, default=range(3)
        A seed decides the images, the folds and the initial weights.
    epochs : int, default=40
    lambda1_range, lambda2_range : sequence of float
        Begin with 0, no penalty.
    n_folds : int, default=3
    lr : float, default=3e-3
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    ranges = {"lambda1": [*lambda1_range], "lambda2": [*lambda2_range]}
    net = image_net(AnimalNet, data, lr=lr, epochs=epochs, device=device)
    runs = []
    with computing(seeds, epochs):
        for seed in progress(seeds):
            sample = draw_sample(data, n_train, n_test, seed)
            runs.append(
                {"seed": seed, "curves": {}}
                | _tune(
                    clone(net).set_params(random_state=seed), ranges, n_folds, sample
                )
            )
    own = {
        "net": "AnimalNet",
        **counts(seeds, epochs, n_train, n_test=n_test),
        "folds": n_folds,
        "optimizer": optimizer_text(lr, None),
        **ranges,
    }
    return {
        "study": "lambda-tuning",
        "settings": describe(data, name, device, own),
        "runs": runs,
    }


def _tune(net, ranges, n_folds, sample) -> dict:
    X, y = sample.X_train, sample.y_train
    cv = folds(y, n_folds, net.random_state)
    curves, chosen = {}, {"no penalty": {}}
    for parameter, values in ranges.items():
        train, valid = validation_curve(
            net, X, y, param_name=parameter, param_range=values, cv=cv
        )
        fits = [_fit_all_images(net, {parameter: value}, sample) for value in values]
        curves[parameter] = {
            "train": _means(train),
            "valid": _means(valid),
            "test": [fit["test"] for fit in fits],
            "norm": [fit["norm"] for fit in fits],
        }
        # Of equal scores the larger penalty, which makes the simpler net.
        best = max(zip(curves[parameter]["valid"], values, strict=True))[1]
        chosen[f"best {parameter}"] = {parameter: best}
    search = GridSearchCV(net, ranges, cv=cv, refit=False).fit(X, y)
    grid = search.cv_results_["mean_test_score"]
    chosen["best of both"] = search.best_params_
    return {
        "validation curves": curves,
        # ParameterGrid varies the last name, lambda2, fastest.
        "grid": grid.reshape(*map(len, ranges.values())).tolist(),
        "chosen": {
            name: {"parameters": parameters} | _fit_all_images(net, parameters, sample)
            for name, parameters in chosen.items()
        },
    }


def _fit_all_images(net, parameters, sample) -> dict:
    fitted = clone(net).set_params(**parameters).fit(sample.X_train, sample.y_train)
    return {
        "test": score(fitted, sample.X_valid, sample.y_valid),
        "norm": finite(fitted.history[-1, "param_norm"]),
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per value of each lambda, the other being zero."""
    rows = [
        {
            "penalty": parameter,
            "lambda": f"{value:g}",
            "seed": run["seed"],
            "training accuracy": _part(run, parameter, "train")[i],
            "cross-validated accuracy": _part(run, parameter, "valid")[i],
            "test accuracy": _part(run, parameter, "test")[i],
            "norm": _part(run, parameter, "norm")[i],
        }
        for run in result["runs"]
        for parameter in PARAMETERS
        for i, value in enumerate(result["settings"][parameter])
    ]
    return mean_table(pd.DataFrame(rows), ["penalty", "lambda"])


def curves(result: dict) -> pd.DataFrame:
    """Return every cross-validated score, a row per pair of lambdas and seed."""
    ranges = result["settings"]
    rows = [
        (run["seed"], lambda1, lambda2, score)
        for run in result["runs"]
        for lambda1, line in zip(ranges["lambda1"], run["grid"], strict=True)
        for lambda2, score in zip(ranges["lambda2"], line, strict=True)
    ]
    names = ["seed", "lambda1", "lambda2", "cross-validated accuracy"]
    return pd.DataFrame(rows, columns=names)


def findings(result: dict) -> list[str]:
    """Say whether the values chosen by cross-validation help on the test images."""
    none = _chosen(result, "no penalty", "test")
    tuned = [name for name in result["runs"][0]["chosen"] if name != "no penalty"]
    gains = {name: _chosen(result, name, "test") - none for name in tuned}
    sentences = [
        "Test accuracy of the lambdas that cross-validation chose, against no penalty "
        f"({percent.text(np.nanmean(none))}): {describe_differences(gains, percent)}."
    ]
    for parameter in PARAMETERS:
        picked = [
            run["chosen"][f"best {parameter}"]["parameters"][parameter]
            for run in result["runs"]
        ]
        sentences.append(
            f"Best {parameter} of each seed: {', '.join(f'{v:g}' for v in picked)}."
        )
        norms = _stacked(result, parameter, "norm")
        values = result["settings"][parameter]
        differences = {
            f"{value:g}": norms[:, i] - norms[:, 0]
            for i, value in enumerate(values)
            if value > 0
        }
        lower = [name for name, v in judge(differences).items() if v == "lower"]
        sentences.append(
            f"The norm is lower than without penalty for {parameter} = "
            f"{', '.join(lower) or 'none of the values'}."
        )
    return sentences


def plot(result: dict) -> dict:
    """Return the figures by name."""
    drawn = {}
    for parameter in PARAMETERS:
        values = result["settings"][parameter]
        scores = {
            name: _stacked(result, parameter, part)
            for name, part in (
                ("training", "train"),
                ("cross-validated", "valid"),
                ("test", "test"),
            )
        }
        drawn[f"{parameter}-accuracy"] = figures.plot_against(
            values, scores, xlabel=parameter, ylabel="Accuracy", evenly=True
        )
    norms = {name: _stacked(result, name, "norm") for name in PARAMETERS}
    drawn["norm"] = figures.plot_columns(
        {name: (result["settings"][name], {name: norms[name]}) for name in PARAMETERS},
        ylabel="Frobenius norm",
    )
    grids = np.array([run["grid"] for run in result["runs"]], float)
    mean, error = mean_and_error(grids)
    drawn["grid"] = (
        HeatMapDisplay(
            scores=mean,
            errors=error if len(grids) > 1 else None,
            row_name="lambda1",
            row_values=result["settings"]["lambda1"],
            column_name="lambda2",
            column_values=result["settings"]["lambda2"],
            score_name="Cross-validated accuracy",
        )
        .plot()
        .figure_
    )
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bars = figures.bars(result)
    texts = {
        f"{parameter}-accuracy": f"Accuracy against {parameter}, without the other "
        f"penalty: of cross-validation on its training and validation folds, and of a "
        f"net fitted on all training images on the test images{bars}."
        for parameter in PARAMETERS
    }
    return texts | {
        "norm": "Frobenius norm of all parameters of a net fitted on all training "
        f"images{bars}.",
        "grid": "Cross-validated accuracy of each pair of lambdas, mean over seeds; "
        "the frame is around the best.",
    }


def _part(run: dict, parameter: str, part: str) -> list:
    return run["validation curves"][parameter][part]


def _stacked(result: dict, parameter: str, part: str) -> np.ndarray:
    rows = [_part(run, parameter, part) for run in result["runs"]]
    return np.array(rows, dtype=float)


def _chosen(result: dict, name: str, part: str) -> np.ndarray:
    return np.array([run["chosen"][name][part] for run in result["runs"]], dtype=float)


def _means(scores: np.ndarray) -> list[float | None]:
    """Average over folds; None where a net of a fold diverged."""
    return [finite(value) for value in scores.mean(axis=1)]
