"""L1 and L2 penalties on few images: the same net with none, either and both."""

from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from scipy.stats import ttest_1samp

from skreg.callbacks import AccuracyTracker
from skreg.displays import ImageGridDisplay, LearningCurvesDisplay, NormDisplay
from skreg.estimators import RegularizedNetClassifier
from skreg.modules import AnimalNet
from skreg.studies.sampling import draw_sample, one_thread

TITLE = "L1 and L2 penalties"
QUESTION = (
    "A small net learns a handful of images by heart. Do penalties on the size of its "
    "weights keep it from that, and does it then do better on images it has not seen?"
)
NETS = {"none": (0, 0), "L1": (1, 0), "L2": (0, 1), "L1 + L2": (1, 1)}
CURVES = ("train_acc", "valid_acc", "train_loss", "valid_loss", "param_norm")


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

    The settings are those of the course: AnimalNet, full-batch SGD with momentum.
    A seed decides the images, the initial weights, and so everything.

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
        Wraps the sequence of fits, as `tqdm` does.

    Returns
    -------
    dict
        Plain numbers, strings, lists and dicts.
    """
    fits = [(n, seed, net) for n in train_sizes for seed in seeds for net in NETS]
    runs = []
    for n_train, seed, penalty in progress(fits):
        sample = draw_sample(data, n_train, n_valid, seed)
        use_l1, use_l2 = NETS[penalty]
        net = RegularizedNetClassifier(
            AnimalNet,
            lambda1=use_l1 * lambda1,
            lambda2=use_l2 * lambda2,
            optimizer=torch.optim.SGD,
            lr=lr,
            optimizer__momentum=momentum,
            max_epochs=epochs,
            batch_size=-1,
            random_state=seed,
            device=device,
            callbacks=[AccuracyTracker(on_train=True)],
        )
        start = perf_counter()
        X, y, X_val, y_val = sample
        with one_thread():
            net.fit(X, y, X_val=X_val, y_val=y_val)
        runs.append(
            {
                "net": penalty,
                "n_train": n_train,
                "seed": seed,
                "seconds": perf_counter() - start,
                "curves": {key: _padded(net.history[:, key], epochs) for key in CURVES},
                "layer_norms": {
                    layer: _finite(norm)
                    for layer, norm in net.history[-1, "param_norms"].items()
                },
            }
        )
    return {
        "study": "l1-l2",
        "settings": {
            "data": name,
            "net": "AnimalNet",
            "images": len(data.target),
            "shape of an image": list(data.data.shape[1:]),
            "classes": [str(name) for name in data.target_names],
            "training images": list(train_sizes),
            "validation images": n_valid,
            "seeds": list(seeds),
            "epochs": epochs,
            "optimizer": f"SGD on all images at once, {lr=:g}, {momentum=:g}",
            "lambda1": lambda1,
            "lambda2": lambda2,
            "device": str(net.device_),
        },
        "runs": runs,
        "samples": _samples(data),
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per number of images and net: mean and standard error over seeds."""
    summaries = pd.DataFrame([_summary(run) for run in result["runs"]])
    groups = summaries.groupby(["training images", "penalty"], sort=False)
    return groups.agg(["mean", "sem"])


def curves(result: dict) -> pd.DataFrame:
    """Return every curve of every fit, a row per epoch."""
    return pd.concat(
        [
            pd.DataFrame(run["curves"]).assign(
                epoch=range(1, len(run["curves"]["param_norm"]) + 1),
                **{key: run[key] for key in ("n_train", "net", "seed")},
            )
            for run in result["runs"]
        ],
        ignore_index=True,
    )[["n_train", "net", "seed", "epoch", *CURVES]]


def findings(result: dict) -> list[str]:
    """Say what the penalties did, and claim no more than the error bars allow.

    A difference to the net without penalty is taken seed by seed, on the same images
    and initial weights; it counts if a t test at the 5 % level says so.
    """
    summaries = pd.DataFrame([_summary(run) for run in result["runs"]])
    sentences = []
    for n_train in result["settings"]["training images"]:
        chosen = summaries[summaries["training images"] == n_train]
        wide = chosen.assign(seed=_seeds(result, n_train)).pivot(
            index="seed", columns="penalty"
        )
        for column, unit, scale, digits in (
            ("best validation accuracy", " points", 100, 1),
            ("final norm", "", 1, 2),
        ):
            values = scale * wide[column]
            parts = [
                _compare(name, values[name] - values["none"], unit, digits)
                for name in NETS
                if name != "none"
            ]
            sentences.append(
                f"{n_train} training images, {column} against no penalty "
                f"({values['none'].mean():.{digits}f}{' %' if unit else ''}): "
                + "; ".join(parts)
                + "."
            )
    return sentences


def plot(result: dict) -> dict:
    """Return the figures by name."""
    figures = {"images": _plot_samples(result)}
    for n_train in result["settings"]["training images"]:
        runs = [run for run in result["runs"] if run["n_train"] == n_train]

        def stacked(key, runs=runs):
            return {
                name: np.array(
                    [r["curves"][key] for r in runs if r["net"] == name], float
                )
                for name in NETS
            }

        train, valid = stacked("train_acc"), stacked("valid_acc")
        pairs = {name: {"train": train[name], "valid": valid[name]} for name in NETS}
        layers = {
            name: pd.DataFrame(
                [r["layer_norms"] for r in runs if r["net"] == name], dtype=float
            )
            for name in NETS
        }
        accuracy = LearningCurvesDisplay(curves=pairs).plot()
        norms = NormDisplay(
            norms=stacked("param_norm"),
            layer_norms={
                name: {layer: frame[layer].to_numpy() for layer in frame}
                for name, frame in layers.items()
            },
        )
        figures[f"accuracy-{n_train}"] = accuracy.figure_
        figures[f"norms-{n_train}"] = norms.plot(kind="epochs").figure_
        figures[f"layers-{n_train}"] = norms.plot(kind="layers").figure_
    return figures


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    n_seeds = len(result["settings"]["seeds"])
    bands = (
        f"; bands are one standard error over {n_seeds} seeds" if n_seeds > 1 else ""
    )
    texts = {"images": "Images of each class."}
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


def _summary(run: dict) -> dict:
    ends = {key: np.array(run["curves"][key], float)[-1] for key in CURVES}
    valid = np.array(run["curves"]["valid_acc"], float)
    return {
        "training images": run["n_train"],
        "penalty": run["net"],
        "best validation accuracy": np.nanmax(valid),
        "final validation accuracy": ends["valid_acc"],
        "final training accuracy": ends["train_acc"],
        "final norm": ends["param_norm"],
    }


def _seeds(result, n_train) -> list[int]:
    return [run["seed"] for run in result["runs"] if run["n_train"] == n_train]


def _compare(name: str, differences: pd.Series, unit: str, digits: int) -> str:
    mean = round(differences.mean(), digits) + 0.0  # never -0.0
    if len(differences) < 2:
        return f"{name} {mean:+.{digits}f}{unit} (one seed, no error bar)"
    error = differences.sem()
    verdict = "no clear effect"
    # Equal differences have no deviation to test against; zero is no effect.
    if error > 0 and ttest_1samp(differences, 0).pvalue < 0.05:
        verdict = "higher" if mean > 0 else "lower"
    return f"{name} {mean:+.{digits}f} ± {error:.{digits}f}{unit} ({verdict})"


def _finite(value: float) -> float | None:
    """Return None for NaN and infinity, which JSON does not have."""
    return float(value) if isfinite(value) else None


def _padded(values: Sequence[float], n_epochs: int) -> list[float | None]:
    """Fill up the curve of a fit that diverged."""
    return [*map(_finite, values)] + [None] * (n_epochs - len(values))


def _samples(data, n_classes: int = 10, n_images: int = 36) -> dict:
    """Return a few images of the first classes as bytes, small enough for JSON."""
    rows = [np.flatnonzero(data.target == k) for k in range(len(data.target_names))]
    rows = rows[:n_classes]
    n_columns = min(12, max(8, n_images // len(rows)), *map(len, rows))
    chosen = np.concatenate([row[:n_columns] for row in rows])
    return {
        "images": np.uint8(np.round(255 * data.data[chosen])).tolist(),
        "labels": [str(data.target_names[k]) for k in data.target[chosen]],
        "columns": n_columns,
    }


def _plot_samples(result: dict):
    samples = result["samples"]
    images = np.array(samples["images"], np.uint8)
    grid = ImageGridDisplay(images=images, labels=samples["labels"])
    return grid.plot(n_columns=samples["columns"]).figure_
