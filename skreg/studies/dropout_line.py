"""Dropout on ten noisy points of a line, and how predictions change in training."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from skreg._utils.devices import resolve_device
from skreg.datasets import make_noisy_line
from skreg.displays import LearningCurvesDisplay, PredictionEvolutionDisplay
from skreg.estimators import RegularizedNetRegressor
from skreg.modules import ToyNet, ToyNetDropout
from skreg.studies.common import figures
from skreg.studies.common.fitting import computing, curve, has_diverged
from skreg.studies.common.settings import optimizer_text
from skreg.studies.common.tables import (
    best,
    compare,
    curves_frame,
    divergences,
    final,
    mean_table,
    summarize,
)

TITLE = "Dropout on a noisy line"
QUESTION = (
    "A large net can run through every one of ten noisy points. Does dropout keep it "
    "closer to the line that the points come from?"
)
NETS = {"no dropout": ToyNet, "dropout": ToyNetDropout}
CURVES = ("train_loss", "valid_loss", "param_norm")
COLUMNS = {
    "smallest distance from the line": best("valid_loss", min),
    "final distance from the line": final("valid_loss"),
    "final training loss": final("train_loss"),
    "final norm": final("param_norm"),
}
FULL = {"epochs": 10_000, "every": 500, "lr": 1e-4}


def run(
    data=None,
    *,
    n_points: int = 10,
    noise: float = 2.0,
    seeds: Sequence[int] = range(5),
    epochs: int = 600,
    every: int = 30,
    lr: float = 1e-3,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit both nets to points of the line 2 x with noise.

    Parameters
    ----------
    data : Bunch, default=None
        Not used: the study makes its own data.
    n_points : int, default=10
    noise : float, default=2
        Standard deviation; the line rises from -2 to 2.
    seeds : sequence of int, default=range(5)
        A seed decides the noise and the initial weights.
    epochs : int, default=600
    every : int, default=30
        Epochs from one picture of the predictions to the next.
    lr : float, default=1e-3
        Of Adam.
    device, name, progress
        As in every study; the name is not used.

    Returns
    -------
    dict
    """
    line = make_noisy_line(100, noise=0.0)
    runs = []
    with computing(seeds, epochs):
        every = min(every, epochs)
        n_frames = epochs // every
        for seed in progress(seeds):
            points = make_noisy_line(n_points, noise=noise, random_state=seed)
            nets = [
                RegularizedNetRegressor(
                    module,
                    scale_target=False,  # losses in the unit of y
                    optimizer=torch.optim.Adam,
                    lr=lr,
                    max_epochs=every,
                    batch_size=-1,
                    random_state=seed,
                    device=device,
                )
                for module in NETS.values()
            ]
            fits = Parallel()(
                delayed(_fit)(net, points, line, n_frames) for net in nets
            )
            for label, run in zip(NETS, fits, strict=True):
                runs.append({"labels": {"net": label}, "seed": seed} | run)
    return {
        "study": "dropout-line",
        "settings": {
            "data": "made points",
            "nets": "ToyNet, 1-300-500-1, and ToyNetDropout, with 0.4 and 0.2",
            "points": f"{n_points}, y = 2 x + {noise:g} e, e standard normal, x in "
            "[-1, 1]",
            "seeds": list(seeds),
            "epochs": n_frames * every,
            "epochs between pictures": every,
            "optimizer": optimizer_text(lr, None).replace("images", "points"),
            "device": str(resolve_device(device)),
        },
        "line": [line[0][:, 0].tolist(), line[1].tolist()],
        "runs": runs,
    }


def _fit(net, points, line, n_frames: int) -> dict:
    """Train for so many times ``max_epochs``, and predict the line after each."""
    predictions = []
    while len(predictions) < n_frames:
        net.partial_fit(*points, X_val=line[0], y_val=line[1])
        if has_diverged(net):
            break
        predictions.append(net.predict(line[0]).tolist())
    n_epochs = n_frames * net.max_epochs
    nothing = [[None] * len(line[1])] * (n_frames - len(predictions))
    return {
        "diverged": has_diverged(net),
        "curves": {key: curve(net, key, n_epochs) for key in CURVES},
        "predictions": predictions + nothing,
        "points": [points[0][:, 0].tolist(), points[1].tolist()],
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per net."""
    return mean_table(_summaries(result), ["net"])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Say whether dropout stays closer to the line."""
    summaries = _summaries(result)
    sentences = [
        f"{column.capitalize()} against no dropout "
        f"({summaries.loc[summaries['net'] == 'no dropout', column].mean():.2f}): "
        f"{compare(summaries, column, 'net', 'no dropout')}."
        for column in COLUMNS
    ]
    return sentences + divergences(result["runs"])


def plot(result: dict) -> dict:
    """Return the figures by name; the animation is a GIF, in bytes."""
    runs, x = result["runs"], result["line"][0]
    # Of the first seed: others have other points.
    first = [run for run in runs if run["seed"] == runs[0]["seed"]]
    n_frames, every = len(first[0]["predictions"]), _every(result)
    display = PredictionEvolutionDisplay(
        x=x,
        predictions={
            run["labels"]["net"]: np.array(run["predictions"], float) for run in first
        },
        epochs=every * np.arange(1, n_frames + 1),
        points={"train": first[0]["points"]},
        truth=result["line"][1],
    )
    moments = sorted({0, (n_frames - 1) // 3, n_frames - 1})
    loss = LearningCurvesDisplay(
        curves=figures.train_and_valid(runs, "loss", "net"),
        score_name="Mean squared error",
        greater_is_better=False,
    ).plot()
    return {
        "evolution": display.plot(frames=moments).figure_,
        "animation": _gif(display),
        "loss": loss.figure_,
        "norms": figures.plot_norms(runs, "net"),
    }


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands, seed = figures.bands(result), result["runs"][0]["seed"]
    return {
        "evolution": f"Predictions during training, of seed {seed}; truth is the line "
        "without noise.",
        "animation": f"The same every {_every(result)} epochs.",
        "loss": "Loss on the training points, with dropout on (solid), and mean "
        "squared distance from the line without noise, with dropout off "
        f"(dashed){bands}.",
        "norms": f"Frobenius norm of all parameters after each epoch{bands}. The nets "
        "begin with the same weights.",
    }


def _summaries(result: dict) -> pd.DataFrame:
    return summarize(result["runs"], COLUMNS)


def _every(result: dict) -> int:
    return result["settings"]["epochs between pictures"]


def _gif(display) -> bytes:
    with TemporaryDirectory() as folder:
        return display.save(Path(folder) / "line.gif").read_bytes()
