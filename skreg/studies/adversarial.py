"""Attacks on regularised nets, and training against them."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from skreg.displays import AttackedImagesDisplay, RobustnessDisplay
from skreg.robustness import pgd, robust_accuracy
from skreg.studies.common import figures
from skreg.studies.common.fitting import fit_all, has_diverged
from skreg.studies.common.regularizers import (
    COURSE,
    FACTOR,
    NONE,
    describe_techniques,
    regularised_cases,
    without_early_stopping,
)
from skreg.studies.common.sampling import draw_sample
from skreg.studies.common.settings import counts, describe, optimizer_text
from skreg.studies.common.tables import (
    by_factor,
    compare,
    curves_frame,
    divergences,
    final,
    mean_table,
    percent,
    summarize,
)

TITLE = "Attacks"
QUESTION = (
    "Changes of an image that nobody would notice can be chosen so that a net gets it "
    "wrong. Does regularisation make nets harder to mislead, or only training on "
    "attacked images (Goodfellow et al., ICLR 2015; Madry et al., ICLR 2018)?"
)
FULL = {"n_train": 1000, "n_test": 1000, "epochs": 200, "steps": 40}
ATTACKS = {
    "FGSM": {"attack": "fgsm", "norm": "linf"},
    "PGD": {"attack": "pgd", "norm": "linf"},
    "PGD, L2": {"attack": "pgd", "norm": "l2"},
}
BOUNDS = (-1, 1)  # black and white
SHOWN = (NONE, "adversarial")
N_SHOWN = 6


def run(
    data,
    *,
    n_train: int = 200,
    n_valid: int = 100,
    n_test: int = 200,
    seeds: Sequence[int] = range(5),
    epochs: int = 60,
    eps: Sequence[float] = (0, 0.02, 0.05, 0.1, 0.2, 0.4),
    reference_eps: float = 0.1,
    steps: int = 10,
    lr: float = 2e-3,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit one net with each kind of regularisation, and attack it.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid, n_test : int, default=200, 100 and 200
        The test images are attacked.
    seeds : sequence of int, default=range(5)
    epochs : int, default=60
    eps : sequence of float, default=(0, 0.02, 0.05, 0.1, 0.2, 0.4)
        Sizes of the attacks in the L-infinity norm; images are in [-1, 1], and 0.1 is
        13 of 255 shades. In the L2 norm they are these times the square root of half
        the number of values of an image, which is the largest L2 norm that would be
        had by changing half of them.
    reference_eps : float, default=0.1
        The one of `eps` that table and sentences are about.
    steps : int, default=10
        Of PGD.
    lr : float, default=2e-3
        Of Adam.
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    sample = partial(draw_sample, data, n_train, n_valid, n_test=n_test)
    cases = regularised_cases(
        data, sample, lr=lr, epochs=epochs, device=device, names=COURSE
    )
    scale = float(np.sqrt(np.prod(data.data.shape[1:]) / 2))
    sizes = {
        label: [float(e) * (scale if attack["norm"] == "l2" else 1) for e in eps]
        for label, attack in ATTACKS.items()
    }
    measure = partial(_attack, sizes=sizes, steps=steps, shown_eps=reference_eps)
    runs = fit_all(cases, seeds, progress, measure)
    pictures = [run.pop("pictures") for run in runs]
    own = {
        **describe_techniques(COURSE),
        **counts(seeds, epochs, n_train, n_valid, n_test),
        "optimizer": optimizer_text(lr, None),
        "attacks": f"FGSM; PGD with {steps} steps from a random start; images stay in "
        "[-1, 1]",
        "sizes in the L-infinity norm": list(eps),
        "sizes in the L2 norm": sizes["PGD, L2"],
        "size in the table": reference_eps,
    }
    return {
        "study": "adversarial",
        "settings": describe(data, name, device, own),
        "sizes": sizes,
        "runs": runs,
        "pictures": {
            run["labels"][FACTOR]: picture
            for run, picture in zip(runs, pictures, strict=True)
            if run["seed"] == seeds[0] and run["labels"][FACTOR] in SHOWN
        },
    }


def _attack(net, sample, *, sizes, steps: int, shown_eps: float) -> dict:
    """Return the accuracy under each attack of each size, and a few pictures."""
    X, y = sample.X_test, sample.y_test
    if has_diverged(net):
        nothing = {name: [None] * len(eps) for name, eps in sizes.items()}
        return {"robust": nothing, "pictures": None}
    robust = {}
    for name, attack in ATTACKS.items():
        options = attack | ({"steps": steps} if attack["attack"] == "pgd" else {})
        accuracies = robust_accuracy(
            net, X, y, eps=sizes[name], bounds=BOUNDS, **options
        )
        robust[name] = accuracies.tolist()
    clean = X[:N_SHOWN]
    attacked = pgd(net, clean, y[:N_SHOWN], eps=shown_eps, steps=steps, bounds=BOUNDS)
    pictures = {
        "clean": _bytes(clean),
        "attacked": _bytes(attacked),
        "says of clean": net.predict(clean).tolist(),
        "says of attacked": net.predict(attacked).tolist(),
    }
    return {"robust": robust, "pictures": pictures}


def table(result: dict) -> pd.DataFrame:
    """Return a row per regulariser."""
    return mean_table(_summaries(result), [FACTOR])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Say who withstands attacks, and claim no more than the error bars allow."""
    summaries = _summaries(result)
    plain = summaries[summaries[FACTOR] == NONE]
    sentences = []
    for column in summaries.columns:
        if "accuracy" in column and "training" not in column:
            sentences.append(
                f"{column[0].upper()}{column[1:]} against no regularisation "
                f"({percent.text(plain[column].mean())}): "
                f"{compare(summaries, column, FACTOR, NONE)}."
            )
    return sentences + divergences(result["runs"])


def plot(result: dict) -> dict:
    """Return the figures by name."""
    drawn, groups = {}, by_factor(result["runs"], FACTOR)
    for key, name in (("fgsm", "FGSM"), ("pgd", "PGD"), ("l2", "PGD, L2")):
        drawn[key] = (
            RobustnessDisplay(
                eps=result["sizes"][name],
                accuracies={
                    label: np.array([run["robust"][name] for run in runs], float)
                    for label, runs in groups.items()
                },
                norm=ATTACKS[name]["norm"],
            )
            .plot()
            .figure_
        )
    classes = result["settings"]["classes"]
    for label, pictures in _drawable(result).items():
        drawn[f"images-{label}"] = (
            AttackedImagesDisplay(
                clean=np.array(pictures["clean"], np.uint8),
                attacked=np.array(pictures["attacked"], np.uint8),
                clean_titles=[classes[k] for k in pictures["says of clean"]],
                attacked_titles=[classes[k] for k in pictures["says of attacked"]],
            )
            .plot()
            .figure_
        )
    runs = without_early_stopping(result["runs"])
    drawn["training"] = figures.plot_accuracy(runs, FACTOR, show_best=False)
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bands, size = figures.bands(result), result["settings"]["size in the table"]
    texts = {
        "pgd": "Share of test images that a net gets right in spite of PGD, by the "
        f"size of the attack in the L-infinity norm{bands}. At size 0 it is the "
        "accuracy.",
        "fgsm": f"The same of FGSM, a single step{bands}.",
        "l2": f"The same of PGD in the L2 norm{bands}.",
    }
    nets = {NONE: "without regularisation", "adversarial": "of adversarial training"}
    for label in _drawable(result):
        texts[f"images-{label}"] = (
            f"Test images, the same after PGD of size {size:g} on a net "
            f"{nets[label]}, and the change; above, what the net takes them for."
        )
    texts["training"] = (
        "Accuracy on training (solid) and validation images (dashed), not attacked, "
        f"after each epoch{bands}. Early stopping is that without regularisation, cut "
        "short."
    )
    return texts


def _drawable(result: dict) -> dict:
    return {label: p for label, p in result["pictures"].items() if p is not None}


def _summaries(result: dict) -> pd.DataFrame:
    settings = result["settings"]
    place = settings["sizes in the L-infinity norm"].index(
        settings["size in the table"]
    )
    columns = {
        "training accuracy": final("train_acc"),
        "test accuracy": lambda run: run["test_acc"],
    }
    for name in ATTACKS:
        size = result["sizes"][name][place]
        columns[f"accuracy under {name} of {size:.2g}"] = _robust(name, place)
    columns["norm"] = lambda run: run["norm"]
    return summarize(result["runs"], columns)


def _robust(name: str, place: int) -> Callable[[dict], float | None]:
    return lambda run: run["robust"][name][place]


def _bytes(images: np.ndarray) -> list:
    return np.uint8(np.round(255 * (np.clip(images, *BOUNDS) + 1) / 2)).tolist()
