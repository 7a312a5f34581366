"""The danger of tuning: the best score of a search flatters, the longer the more."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    ParameterSampler,
    ShuffleSplit,
    cross_val_score,
)

from skreg.modules import MLP
from skreg.studies.common import figures
from skreg.studies.common.fitting import computing, folds, image_net
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe
from skreg.studies.common.tables import (
    chosen,
    describe_differences,
    mean_table,
    percent,
)

TITLE = "The danger of tuning"
QUESTION = (
    "A search tries many settings and keeps the one with the best validation score. "
    "How much of that score is luck, and what tells the truth (Cawley and Talbot, "
    "JMLR 2010)?"
)
LABELS = ("true", "permuted")
N_ORDERS = 200  # random orders of the candidates, to average over
FULL = {"n_test": 1000, "seeds": range(20), "epochs": 50, "n_candidates": 64}
PARTS = {
    "best validation accuracy": "best",
    "its test accuracy": "test",
    "nested accuracy": "nested",
}


def run(
    data,
    *,
    n_train: int = 40,
    n_valid: int = 30,
    n_test: int = 400,
    seeds: Sequence[int] = range(8),
    epochs: int = 10,
    n_candidates: int = 16,
    n_folds: int = 3,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Search settings at random, on true labels and on labels that mean nothing.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid, n_test : int, default=40, 30 and 400
        Candidates are fitted on the training images and picked on the validation
        images, which are few, as they are where one tunes; the test images decide
        nothing. Nested cross-validation divides training and validation images.
    seeds : sequence of int, default=range(8)
        A seed decides the images and the candidates.
    epochs : int, default=10
    n_candidates : int, default=16
        Settings to try: penalties, dropout, width, learning rate and initial weights.
    n_folds : int, default=3
        Outer folds of nested cross-validation.
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    net = image_net(MLP, data, lr=1e-2, epochs=epochs, device=device)
    runs = []
    with computing(seeds, epochs):
        for seed in progress(seeds):
            sample = draw_sample(data, n_train, n_valid, seed, n_test)
            samples = {"true": sample, "permuted": _permuted(sample, seed)}
            grid = draw_candidates(n_candidates, seed)
            outcomes = Parallel()(
                delayed(_search)(net, one, grid, n_folds, seed)
                for one in samples.values()
            )
            for labels, outcome in zip(samples, outcomes, strict=True):
                runs.append({"labels": {"labels": labels}, "seed": seed} | outcome)
    own = {
        "net": "MLP with one hidden layer",
        **counts(seeds, epochs, n_train, n_valid, n_test),
        "optimizer": "Adam on all images at once",
        "candidates": f"{n_candidates} drawn at random: lr from 3e-3 to 3e-2, lambda1 "
        "from 1e-6 to 1e-2, lambda2 from 1e-5 to 1e-1, dropout from 0 to 0.6, 32 to "
        "128 hidden units, initial weights",
        "outer folds": n_folds,
    }
    return {
        "study": "tuning-danger",
        "settings": describe(data, name, device, own),
        "runs": runs,
    }


def draw_candidates(n: int, seed: int) -> list[dict]:
    """Draw settings at random, each with initial weights of its own."""
    space = {
        "lr": loguniform(3e-3, 3e-2),
        "lambda1": loguniform(1e-6, 1e-2),
        "lambda2": loguniform(1e-5, 1e-1),
        "dropout": [0.0, 0.2, 0.4, 0.6],
        "hidden_layer_sizes": [(32,), (64,), (128,)],
        "random_state": range(10_000),
    }
    drawn = ParameterSampler(space, n, random_state=seed)
    return [{name: [value] for name, value in one.items()} for one in drawn]


def growth(valid, test, seed: int) -> dict[str, list[float]]:
    """Return the outcome of searches of growing size among the same candidates.

    Parameters
    ----------
    valid, test : sequence of float
        Scores of the candidates on validation and test images.
    seed : int
        Decides the random orders in which they are tried, to average over.

    Returns
    -------
    dict
        ``best``, the mean of the best validation score of the first k candidates, and
        ``test``, that of the test score of the candidate that has it; k from 1 on.
    """
    valid, test = np.asarray(valid, float), np.asarray(test, float)
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(len(valid)) for _ in range(N_ORDERS)])
    scores = valid[orders]
    best = np.maximum.accumulate(scores, axis=1)
    # The first of equal ones, as in a search.
    is_new = np.concatenate(
        [np.ones((N_ORDERS, 1), bool), scores[:, 1:] > best[:, :-1]], axis=1
    )
    place = np.maximum.accumulate(np.where(is_new, np.arange(len(valid)), 0), axis=1)
    picked = np.take_along_axis(test[orders], place, axis=1)
    return {"best": best.mean(axis=0).tolist(), "test": picked.mean(axis=0).tolist()}


def _search(net, sample, grid: list[dict], n_folds: int, seed: int) -> dict:
    n_train, n_valid = len(sample.y_train), len(sample.y_valid)
    X = np.concatenate([sample.X_train, sample.X_valid, sample.X_test])
    y = np.concatenate([sample.y_train, sample.y_valid, sample.y_test])
    train, rest = np.split(np.arange(len(y)), [n_train])

    def on_both(fitted, X, y):
        hits = fitted.predict(X) == y
        return {"valid": hits[:n_valid].mean(), "unseen": hits[n_valid:].mean()}

    search = GridSearchCV(net, grid, cv=[(train, rest)], scoring=on_both, refit=False)
    results = search.fit(X, y).cv_results_
    valid, test = results["mean_test_valid"], results["mean_test_unseen"]
    known = np.arange(n_train + n_valid)
    inner = ShuffleSplit(1, test_size=n_valid / len(known), random_state=seed)
    nested = cross_val_score(
        GridSearchCV(clone(net), grid, cv=inner),
        X[known],
        y[known],
        cv=folds(y[known], n_folds, seed),
    )
    grown = growth(valid, test, seed)
    return {
        "valid": valid.tolist(),
        "test": test.tolist(),
        "growth": grown,
        "nested": float(nested.mean()),
        # What the class with the most images scores as the answer to every question.
        "chance": float(np.bincount(y).max() / len(y)),
    }


def _permuted(sample, seed: int):
    """Permute the labels of all images of a sample together."""
    parts = [sample.y_train, sample.y_valid, sample.y_test]
    labels = np.random.default_rng(seed).permutation(np.concatenate(parts))
    ends = np.cumsum([len(part) for part in parts])[:-1]
    y_train, y_valid, y_test = np.split(labels, ends)
    return sample._replace(y_train=y_train, y_valid=y_valid, y_test=y_test)


def table(result: dict) -> pd.DataFrame:
    """Return a row per kind of labels."""
    rows = [
        {
            "labels": run["labels"]["labels"],
            "seed": run["seed"],
            **{name: _outcome(run, part) for name, part in PARTS.items()},
            "optimism": _outcome(run, "best") - _outcome(run, "test"),
        }
        for run in result["runs"]
    ]
    return mean_table(pd.DataFrame(rows), ["labels"])


def curves(result: dict) -> pd.DataFrame:
    """Return the scores of every candidate."""
    frames = [
        pd.DataFrame(
            {
                "labels": run["labels"]["labels"],
                "seed": run["seed"],
                "candidate": range(len(run["valid"])),
                "validation accuracy": run["valid"],
                "test accuracy": run["test"],
            }
        )
        for run in result["runs"]
    ]
    return pd.concat(frames, ignore_index=True)


def findings(result: dict) -> list[str]:
    """Say how much the best score promises too much, and whether nesting mends it."""
    sentences = []
    for labels in LABELS:
        runs = chosen(result["runs"], labels=labels)
        best, test = _outcomes(runs, "best"), _outcomes(runs, "test")
        n = len(runs[0]["valid"])
        rises = {
            name: _outcomes(runs, part)
            - np.array([run["growth"][part][0] for run in runs])
            for name, part in PARTS.items()
            if part != "nested"
        }
        optimism = {
            f"best of {n}": best - test,
            "nested cross-validation": _outcomes(runs, "nested") - test,
        }
        sentences += [
            f"Labels {labels}, {n} candidates instead of one: "
            f"{describe_differences(rises, percent)}.",
            f"Labels {labels}, score minus test accuracy of the candidate that is "
            f"picked: {describe_differences(optimism, percent)}.",
        ]
    runs = chosen(result["runs"], labels="permuted")
    chance = np.array([run["chance"] for run in runs])
    above = {
        name: _outcomes(runs, part) - chance
        for name, part in PARTS.items()
        if part != "test"
    }
    return [
        *sentences,
        "Labels permuted, where there is nothing to learn, against chance "
        f"({percent.text(chance.mean())}): {describe_differences(above, percent)}.",
    ]


def plot(result: dict) -> dict:
    """Return the figures by name."""
    drawn = {}
    for labels in LABELS:
        runs = chosen(result["runs"], labels=labels)
        sizes = range(1, len(runs[0]["valid"]) + 1)
        scores = {
            "best validation accuracy": [run["growth"]["best"] for run in runs],
            "its test accuracy": [run["growth"]["test"] for run in runs],
        }
        levels = {"nested cross-validation": float(_outcomes(runs, "nested").mean())}
        if labels == "permuted":
            levels["chance"] = float(np.mean([run["chance"] for run in runs]))
        drawn[f"growth-{labels}"] = figures.plot_against(
            sizes,
            scores,
            xlabel="Number of candidates tried",
            ylabel="Accuracy",
            levels=levels,
        )
    drawn["outcomes"] = figures.plot_bars(
        {
            f"{labels} labels": {
                name: _outcomes(chosen(result["runs"], labels=labels), part)
                for name, part in PARTS.items()
            }
            for labels in LABELS
        },
        ylabel="Accuracy",
    )
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bars = figures.bars(result)
    growth_text = (
        "best validation accuracy of a search by its size, and test accuracy of the "
        f"candidate it picks, averaged over random orders of the candidates{bars}."
    )
    return {
        "growth-true": f"True labels: {growth_text}",
        "growth-permuted": f"Permuted labels: {growth_text} There is nothing to learn.",
        "outcomes": f"Outcome of the whole search{bars}; points are seeds.",
    }


def _outcome(run: dict, part: str) -> float:
    return run["nested"] if part == "nested" else run["growth"][part][-1]


def _outcomes(runs: Sequence[dict], part: str) -> np.ndarray:
    return np.array([_outcome(run, part) for run in runs])
