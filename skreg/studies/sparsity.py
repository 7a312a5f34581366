"""Weights that are exactly zero: proximal steps, and the group lasso."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from skreg.displays.common import (
    OKABE_ITO,
    WIDTH,
    draw_legend,
    light_grid,
    mean_and_error,
)
from skreg.modules import MLP
from skreg.studies.common import figures
from skreg.studies.common.fitting import Case, fit_all, image_net
from skreg.studies.common.sampling import Sample, draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import (
    answer,
    chosen,
    curves_frame,
    describe_by_verdict,
    divergences,
    final,
    mean_table,
    percent,
    summarize,
    with_interval,
    within_one_error,
)

TITLE = "Weights that are exactly zero"
QUESTION = (
    "Does an L1 penalty make weights exactly zero, by its subgradient or only by "
    "proximal steps, and what does that cost? Does the group lasso find the features "
    "that matter?"
)
SUBGRADIENT, PROXIMAL, GROUPS = "L1, subgradient", "L1, proximal", "group lasso"
PENALTY, LAMBDA = "penalty", "lambda"
N_INFORMATIVE, N_NOISE = 5, 45
MADE = Bunch(target_names=["below", "above"])
# Less than this is nothing: one point of a share of weights, or of features.
MARGIN = 0.01
ZEROS = "share of zeros"
FULL = {"n_train": 1000, "n_valid": 400, "n_test": 1000, "epochs": 200}


def run(
    data,
    *,
    n_train: int = 100,
    n_valid: int = 100,
    n_test: int = 400,
    seeds: Sequence[int] = range(5),
    epochs: int = 100,
    lambda1_range: Sequence[float] = (0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    lambda_group_range: Sequence[float] = (0, 3e-3, 1e-2, 1.5e-2, 2e-2, 2.5e-2, 3e-2),
    n_made: int = 200,
    lr: float = 5e-3,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit nets with L1 in both ways on images, and with the group lasso on made data.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid, n_test : int, default=100, 100 and 400
        Images. The validation images choose a strength, the test images decide nothing.
    seeds : sequence of int, default=range(5)
    epochs : int, default=100
    lambda1_range, lambda_group_range : sequence of float
        In rising order; they begin with 0, no penalty.
    n_made : int, default=200
        Made samples to train on, as many to validate, and as many to test.
    lr : float, default=5e-3
        Of Adam.
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    net = partial(image_net, MLP, lr=lr, epochs=epochs, device=device)
    images = partial(draw_sample, data, n_train, n_valid, n_test=n_test)
    cases = [
        Case(
            {PENALTY: penalty, LAMBDA: float(value)},
            net(data, lambda1=value, penalize="weights", proximal=penalty == PROXIMAL),
            images,
        )
        for penalty in (SUBGRADIENT, PROXIMAL)
        for value in lambda1_range
    ]
    cases += [
        Case(
            {PENALTY: GROUPS, LAMBDA: float(value)},
            net(MADE, lambda_group=value, groups="inputs"),
            partial(make_features, n_made),
        )
        for value in lambda_group_range
    ]
    own = {
        "net": "MLP with one hidden layer of 100",
        **counts(seeds, epochs, n_train, n_valid, n_test),
        "optimizer": optimizer_text(lr, None),
        "lambda1": [*map(float, lambda1_range)],
        "lambda_group": [*map(float, lambda_group_range)],
        "made data": f"{n_made} samples each to train, to validate and to test; "
        f"{N_INFORMATIVE} features that decide the class and {N_NOISE} of noise",
    }
    return {
        "study": "sparsity",
        "settings": describe(data, name, device, own),
        "runs": fit_all(cases, seeds, progress, measure=_measure),
    }


def make_features(n: int, seed: int) -> Sample:
    """Make two classes that the first few of many normal features decide.

    The class is the sign of x1 - x2 + x3 - x4 + x5 with noise of half their size.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3 * n, N_INFORMATIVE + N_NOISE)).astype(np.float32)
    signs = (-1.0) ** np.arange(N_INFORMATIVE)
    score = X[:, :N_INFORMATIVE] @ signs + rng.normal(scale=0.5, size=3 * n)
    y = (score > 0).astype(int)
    parts = [part for k in range(3) for part in (X[k * n :][:n], y[k * n :][:n])]
    return Sample(*parts)


def _measure(net, sample: Sample) -> dict:
    weights = [
        w.detach() for n, w in net.module_.named_parameters() if n.endswith("weight")
    ]
    n_weights = sum(w.numel() for w in weights)
    nonzero = sum(int(w.count_nonzero()) for w in weights)
    return {
        "n_weights": n_weights,
        "nonzero": nonzero,
        "active_inputs": int(net.n_active_inputs_),
        "importances": np.nan_to_num(net.feature_importances_).tolist(),
    }


def table(result: dict) -> pd.DataFrame:
    """Return a row per penalty and strength."""
    summaries = _summaries(result)
    summaries[LAMBDA] = [f"{value:g}" for value in summaries[LAMBDA]]
    return mean_table(summaries, [PENALTY, LAMBDA])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Answer the questions, and claim no more than the seeds show."""
    return [
        exact_zeros(result),
        _cost_of_zeros(result),
        features_found(result),
        _which_features(result),
        *divergences(result["runs"]),
    ]


def exact_zeros(result: dict) -> str:
    """Say whether proximal steps make more exact zeros than the subgradient."""
    question = "Are proximal steps needed for exact zeros?"
    by_steps, by_slope = (_values(result, p, ZEROS) for p in (PROXIMAL, SUBGRADIENT))
    values, differences = _lambdas(result, PROXIMAL), by_steps - by_slope
    strengths = [i for i, value in enumerate(values) if value > 0]
    verdicts = {i: answer(differences[:, i], MARGIN, len(strengths)) for i in strengths}
    clear = [i for i in strengths if verdicts[i] == "higher"]
    place = _about_as_good(result, PROXIMAL)
    if clear:
        place = place if place in clear else clear[-1]
        start = f"Yes, with {len(clear)} of {len(strengths)} values of lambda1."
    elif all(verdict == "alike" for verdict in verdicts.values()):
        start = "No: the shares of zeros are the same to a point."
    else:
        start = f"It cannot be told from {_seeds(result)}."
    return (
        f"{question} {start} With lambda1 = {values[place]:g}, "
        f"{_mean(by_steps[:, place])} of the weights are exactly zero after proximal "
        f"steps, and {_mean(by_slope[:, place])} after steps along the subgradient."
    )


def _cost_of_zeros(result: dict) -> str:
    accuracy = "test accuracy"
    by_steps, by_slope = (_values(result, p, accuracy) for p in (PROXIMAL, SUBGRADIENT))
    values, place = _lambdas(result, PROXIMAL), _about_as_good(result, PROXIMAL)
    nonzero = _values(result, PROXIMAL, "non-zero weights")
    differences = {
        f"lambda1 = {value:g}": by_steps[:, i] - by_slope[:, i]
        for i, value in enumerate(values)
        if value > 0
    }
    cost = by_steps[:, place] - by_steps[:, 0]
    start = {
        "higher": "Nothing: the accuracy is even higher.",
        "lower": "Some accuracy.",
        "alike": "Less than a point of accuracy.",
        "unclear": f"It cannot be told from {_seeds(result)}.",
    }[answer(cost, MARGIN)]
    left, all_weights = (np.mean(nonzero[:, i]) for i in (place, 0))
    return (
        f"What do the zeros cost? {start} With lambda1 = {values[place]:g}, the "
        "strongest within one standard error of the best validation accuracy, "
        f"{left:,.0f} of {all_weights:,.0f} weights are left. Test accuracy "
        f"against no penalty: {with_interval(cost, percent)}. Proximal steps against "
        f"the subgradient: {describe_by_verdict(differences, percent)}."
    )


def features_found(result: dict) -> str:
    """Say whether the group lasso keeps the features that decide the class."""
    informative, noise = _kept(result)
    place, values = _about_as_good(result, GROUPS), _lambdas(result, GROUPS)
    differences = informative[:, place] - noise[:, place]
    verdict = answer(differences, MARGIN)
    start = {
        "higher": "Yes.",
        "alike": "No: it keeps as large a share of the noise.",
        "lower": "No: it rather keeps the noise.",
        "unclear": f"It cannot be told from {_seeds(result)}.",
    }[verdict]
    n_true, n_noise = (
        f"{np.mean(count * shares[:, place]):.1f} of {count}"
        for shares, count in ((informative, N_INFORMATIVE), (noise, N_NOISE))
    )
    exact = np.sum((informative[:, place] == 1) & (noise[:, place] == 0))
    return (
        f"Does the group lasso find the features that matter? {start} With "
        f"lambda_group = {values[place]:g}, chosen by validation accuracy, {n_true} "
        f"informative features survive, and {n_noise} of noise; in {exact} of "
        f"{len(informative)} seeds they are exactly the informative ones."
    )


def _which_features(result: dict) -> str:
    accuracy = _values(result, GROUPS, "test accuracy")
    place = _about_as_good(result, GROUPS)
    rank = [
        set(np.argsort(importances)[-N_INFORMATIVE:]) == {*range(N_INFORMATIVE)}
        for importances in _importances(result, 0)
    ]
    return (
        "Test accuracy with this lambda_group against no penalty: "
        f"{with_interval(accuracy[:, place] - accuracy[:, 0], percent)}. Without "
        f"penalty all features survive; in {sum(rank)} of {len(rank)} seeds the "
        f"{N_INFORMATIVE} most important ones are the informative ones even so."
    )


def plot(result: dict) -> dict:
    """Return the figures by name."""
    lambdas, drawn = _lambdas(result, PROXIMAL), {}
    for column, ylabel in (
        (ZEROS, "Share of weights that are exactly zero"),
        ("test accuracy", "Test accuracy"),
    ):
        drawn[column.replace(" ", "-")] = figures.plot_against(
            lambdas,
            {p: _values(result, p, column) for p in (SUBGRADIENT, PROXIMAL)},
            xlabel="lambda1",
            ylabel=ylabel,
            evenly=True,
            dashed=(SUBGRADIENT,),
        )
    nonzero = _values(result, PROXIMAL, "non-zero weights").mean(axis=0)
    accuracy = _values(result, PROXIMAL, "test accuracy")
    drawn["weights-left"] = figures.plot_against(
        nonzero,
        {PROXIMAL: accuracy},
        xlabel="Non-zero weights after proximal steps",
        ylabel="Test accuracy",
    )
    informative, noise = _kept(result)
    drawn["features"] = figures.plot_against(
        _lambdas(result, GROUPS),
        {
            "share of the informative features": informative,
            "share of the noise": noise,
            "test accuracy": _values(result, GROUPS, "test accuracy"),
        },
        xlabel="lambda_group",
        ylabel="Share that survives; accuracy",
        evenly=True,
    )
    drawn["importances"] = _plot_importances(result)
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bars = figures.bars(result)
    images = (
        f"Images: {{}} against lambda1, by proximal steps and by the subgradient{bars}."
    )
    place = _about_as_good(result, GROUPS)
    strength = _lambdas(result, GROUPS)[place]
    return {
        "share-of-zeros": images.format("share of weights that are exactly zero"),
        "test-accuracy": images.format("accuracy on the test images"),
        "weights-left": "Images: accuracy on the test images against the number "
        f"of weights that proximal steps leave, for each lambda1{bars}.",
        "features": "Made data, group lasso: share of the informative features and of "
        f"the noise that survive, and test accuracy{bars}.",
        "importances": "Made data: L2 norm of the weights that each feature goes "
        f"through, without penalty and with lambda_group = {strength:g}, on scales of "
        f"their own; a point is a seed. The first {N_INFORMATIVE} features decide the "
        "class.",
    }


def _plot_importances(result: dict):
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    place = _about_as_good(result, GROUPS)
    # Each has a scale of its own: penalties shrink what they keep, too.
    _, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6), layout="constrained")
    colors = {"informative": OKABE_ITO[1], "noise": OKABE_ITO[0]}
    for ax, i in zip(axes, (0, place), strict=True):
        rows = _importances(result, i)
        features = np.tile(np.arange(1, rows.shape[1] + 1), (len(rows), 1))
        for kind, part in _parts().items():
            ax.plot(
                features[:, part].ravel(),
                rows[:, part].ravel(),
                "o",
                color=colors[kind],
                ms=3.5,
                alpha=0.6,
                clip_on=False,
                zorder=3,
            )
        ax.set(
            xlabel="Feature", title=f"lambda_group = {_lambdas(result, GROUPS)[i]:g}"
        )
        ax.set_ylim(bottom=0)
        light_grid(ax)
    axes[0].set(ylabel="Importance")
    keys = [
        Line2D([], [], ls="", marker="o", color=color, label=kind)
        for kind, color in colors.items()
    ]
    draw_legend(axes[0], keys, whole_figure=True)
    return axes[0].figure


def _parts() -> dict[str, slice]:
    return {"informative": slice(N_INFORMATIVE), "noise": slice(N_INFORMATIVE, None)}


def _about_as_good(result: dict, penalty: str) -> int:
    """Return the place of the strongest penalty that is about as good as the best."""
    accuracy = _values(result, penalty, "validation accuracy")
    return within_one_error(accuracy) if np.isfinite(accuracy).any() else 0


def _lambdas(result: dict, penalty: str) -> list[float]:
    name = "lambda_group" if penalty == GROUPS else "lambda1"
    return result["settings"][name]


def _values(result: dict, penalty: str, column: str) -> np.ndarray:
    """Return a column of shape (n_seeds, n_lambdas)."""
    summaries = _summaries(result)
    rows = summaries[summaries[PENALTY] == penalty]
    return rows.pivot(index="seed", columns=LAMBDA, values=column).to_numpy()


def _kept(result: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of informative features and of noise that survive."""
    n_lambdas = len(_lambdas(result, GROUPS))
    active = np.stack([_importances(result, i) > 0 for i in range(n_lambdas)], axis=1)
    informative, noise = (active[..., part].mean(axis=-1) for part in _parts().values())
    return informative, noise


def _importances(result: dict, place: int) -> np.ndarray:
    value = _lambdas(result, GROUPS)[place]
    runs = chosen(result["runs"], penalty=GROUPS)
    return np.array([r["importances"] for r in runs if r["labels"][LAMBDA] == value])


def _mean(shares: np.ndarray) -> str:
    mean, error = mean_and_error(shares[:, np.newaxis])
    if not np.isfinite(error[0]):
        return percent.text(mean[0])
    return f"{percent.number(mean[0])} ± {percent.text(error[0])}"


def _seeds(result: dict) -> str:
    n_seeds = len(result["settings"]["seeds"])
    return "one seed" if n_seeds == 1 else f"{n_seeds} seeds"


def _summaries(result: dict) -> pd.DataFrame:
    columns = {
        ZEROS: lambda run: 1 - run["nonzero"] / run["n_weights"],
        "non-zero weights": lambda run: run["nonzero"],
        "active inputs": lambda run: run["active_inputs"],
        "informative inputs": _n_informative,
        "validation accuracy": final("valid_acc"),
        "test accuracy": lambda run: run["test_acc"],
    }
    return summarize(result["runs"], columns)


def _n_informative(run: dict) -> int | None:
    """Return how many informative features survive; of images, nobody knows them."""
    if run["labels"][PENALTY] != GROUPS:
        return None
    return int(np.count_nonzero(run["importances"][:N_INFORMATIVE]))
