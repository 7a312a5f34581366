"""Which technique has the largest effect, and whether one net can have them all."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from sklearn.model_selection import RandomizedSearchCV

from skreg.modules import MLP
from skreg.studies.common import figures
from skreg.studies.common.fitting import (
    Case,
    computing,
    finite,
    fit_all,
    folds,
    image_net,
)
from skreg.studies.common.regularizers import (
    FACTOR,
    LAYERS,
    NONE,
    TECHNIQUES,
    all_together,
    describe_techniques,
    ingredients,
    regularised_cases,
    search_space,
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
    interval,
    judge,
    mean_table,
    percent,
    summarize,
    with_interval,
)

TITLE = "Cocktails of regularisers"
QUESTION = (
    "Which technique alone has the largest effect, and can all be applied to one "
    "network? Is a cocktail that a search has mixed better (Kadra et al., NeurIPS "
    "2021)?"
)
ALL, WEAK, SEARCHED = "all together", "all, a tenth as strong", "searched cocktail"
# What early stopping watches within cross-validation, of the images to train on.
HELD_OUT = 0.2
MIXED = {ALL: 1.0, WEAK: 0.1}
FULL = {
    "n_train": 1000,
    "n_valid": 400,
    "n_test": 1000,
    "seeds": range(10),
    "epochs": 100,
    "n_candidates": 40,
    "n_folds": 5,
}


def run(
    data,
    *,
    n_train: int = 100,
    n_valid: int = 100,
    n_test: int = 400,
    seeds: Sequence[int] = range(8),
    epochs: int = 50,
    n_candidates: int = 10,
    n_folds: int = 3,
    lr: float = 3e-3,
    device: str = "auto",
    name: str = "images",
    progress: Callable[[Sequence], Iterable] = iter,
) -> dict:
    """Fit nets with none, each and all of the techniques, and with a searched cocktail.

    Parameters
    ----------
    data : Bunch
    n_train, n_valid, n_test : int, default=100, 100 and 400
        Cross-validation mixes the cocktail, and divides the training images. Early
        stopping looks at the validation images; within cross-validation, at a fifth of
        the training images instead, or it is left out if these do not show all classes.
        The test images decide nothing.
    seeds : sequence of int, default=range(8)
        A seed decides the images, the folds, the candidates and the initial weights.
    epochs : int, default=50
    n_candidates : int, default=10
        Cocktails that a search tries.
    n_folds : int, default=3
    lr : float, default=3e-3
        Of Adam.
    device, name, progress
        As in every study.

    Returns
    -------
    dict
    """
    sample = partial(draw_sample, data, n_train, n_valid, n_test=n_test)
    cases = regularised_cases(data, sample, lr=lr, epochs=epochs, device=device)
    net = partial(image_net, MLP, data, lr=lr, epochs=epochs, device=device)
    net = partial(net, hidden_layer_sizes=LAYERS)
    cases += [
        Case({FACTOR: label}, net(**all_together(share)), sample)
        for label, share in MIXED.items()
    ]
    watching = TECHNIQUES["early stopping"].parameters | {"early_stopping": False}
    base = net(**watching)
    runs = []
    for seed in progress(seeds):
        with computing(seeds, epochs):
            found = _search(base, sample(seed), n_candidates, n_folds, seed)
        best = found.best_params_
        searched = Case({FACTOR: SEARCHED}, net(**watching | best), sample)
        fits = fit_all([*cases, searched], [seed])
        fits[-1] |= {
            "ingredients": ingredients(best),
            "cross-validated accuracy": finite(found.best_score_),
        }
        runs += fits
    own = {
        **describe_techniques(),
        ALL: "all of them, at the same strengths; each batch takes mixup or CutMix",
        WEAK: "the same, with a tenth of each strength and ten times each bound",
        SEARCHED: f"the best of {n_candidates} in cross-validation of the training "
        f"images with {n_folds} folds; each technique is on with probability 1/3, "
        "with a strength drawn at random",
        **counts(seeds, epochs, n_train, n_valid, n_test),
        "optimizer": optimizer_text(lr, None),
    }
    return {
        "study": "cocktail",
        "settings": describe(data, name, device, own),
        "runs": runs,
    }


def _search(net, sample, n_candidates: int, n_folds: int, seed: int):
    space, y = search_space(), sample.y_train
    n_watched = int(HELD_OUT * len(y) * (n_folds - 1) / n_folds)
    if n_watched < len(np.unique(y)):
        del space["early_stopping"]
    search = RandomizedSearchCV(
        net.set_params(random_state=seed, validation_fraction=HELD_OUT),
        space,
        n_iter=n_candidates,
        cv=folds(y, n_folds, seed),
        random_state=seed,
        refit=False,
    )
    return search.fit(sample.X_train, y)


def table(result: dict) -> pd.DataFrame:
    """Return a row per net."""
    summaries = _summaries(result)
    plain = summaries[summaries[FACTOR] == NONE].set_index("seed")["test accuracy"]
    place = list(summaries).index("test accuracy") + 1
    difference = summaries["test accuracy"] - summaries["seed"].map(plain)
    summaries.insert(place, "test accuracy against none", difference)
    return mean_table(summaries, [FACTOR])


curves = curves_frame


def findings(result: dict) -> list[str]:
    """Answer the questions, and claim no more than the seeds show."""
    gains = _differences(result)
    alone = {name: values for name, values in gains.items() if name in TECHNIQUES}
    differences = describe_by_verdict(alone, percent)
    return [
        largest_effect(alone),
        _all_together(result, gains),
        searched_is_better(gains[SEARCHED]),
        _what_is_in(result),
        _on_the_norm(result),
        f"Test accuracy, each technique alone against none: {differences}.",
        *divergences(result["runs"]),
    ]


def largest_effect(differences: Mapping[str, np.ndarray]) -> str:
    """Say which technique changes the test accuracy most, if that can be told.

    Parameters
    ----------
    differences : mapping of str to ndarray of shape (n_seeds,)
        Of each technique to none, seed by seed; NaN for fits that diverged.
    """
    kept = {name: v for name, v in differences.items() if np.isfinite(v).any()}
    question = "Which technique alone has the largest effect?"
    if not kept:
        return f"{question} It cannot be told: no fit came to an end."
    sizes = {name: abs(np.nanmean(values)) for name, values in kept.items()}
    top = max(sizes, key=sizes.get)
    measured = f"{top}: {with_interval(kept[top], percent)}"
    if max(np.isfinite(v).sum() for v in kept.values()) < 2:
        return (
            f"{question} It cannot be told from one seed. In this one it is {measured}."
        )
    verdicts = judge({n: v[np.isfinite(v)] for n, v in kept.items()})
    clear = [name for name in kept if verdicts[name] != "no clear effect"]
    if not clear:
        return (
            f"{question} It cannot be told: of {len(kept)} comparisons with no "
            "regularisation, none shows a clear difference of test accuracy. The "
            f"largest mean difference is that of {measured}, an interval that takes "
            "no account of the number of comparisons."
        )
    first = max(clear, key=sizes.get)
    does = "better" if verdicts[first] == "higher" else "worse"
    text = (
        f"{question} It is {first}, which makes the net {does}: "
        f"{with_interval(kept[first], percent)} of test accuracy."
    )
    rivals = _rivals(first, kept)
    if not rivals:
        text += " Every other effect is clearly smaller."
    elif len(rivals) == len(kept) - 1:
        text += " But no other effect is clearly smaller."
    else:
        text += f" These cannot be told from it in size: {', '.join(rivals)}."
    gains = [name for name in clear if verdicts[name] == "higher"]
    if does == "worse" and gains:
        best = max(gains, key=sizes.get)
        text += f" The largest gain is that of {best}: "
        text += f"{with_interval(kept[best], percent)}."
    elif does == "worse":
        text += " No technique alone is clearly better than none."
    return text


def _rivals(first: str, differences: Mapping[str, np.ndarray]) -> list[str]:
    """Return the techniques whose effect is not clearly smaller than the first's."""
    sizes = {n: np.sign(np.nanmean(v)) * v for n, v in differences.items()}
    leads = {n: sizes[first] - size for n, size in sizes.items() if n != first}
    verdicts = judge({n: lead[np.isfinite(lead)] for n, lead in leads.items()})
    return [name for name, verdict in verdicts.items() if verdict != "higher"]


def _all_together(result: dict, gains: Mapping[str, np.ndarray]) -> str:
    question = "Can all be applied to one network?"
    texts = {name: _what_it_does(gains[name]) for name in MIXED}
    n_failed = {name: sum(r["diverged"] for r in _runs(result, name)) for name in MIXED}
    texts |= {
        name: f"{n} of {len(_runs(result, name))} fits diverge"
        for name, n in n_failed.items()
        if n
    }
    start = "Yes" if min(n_failed.values()) == 0 else "Not at these strengths"
    return (
        f"{question} {start}: all {len(TECHNIQUES)} act in one net. Strengths add up, "
        f"though. At the strengths that each has alone, {texts[ALL]}; at a tenth of "
        f"them, {texts[WEAK]}."
    )


def searched_is_better(gain: np.ndarray) -> str:
    """Say whether the searched cocktail is better than none, of the same seeds."""
    low, high = interval(gain)
    start = "It cannot be told"
    start = "Yes" if low > 0 else "No" if high < 0 else start
    return (
        f"Is a searched cocktail better than none? {start}: test accuracy "
        f"{with_interval(gain, percent)}."
    )


def _what_it_does(gain: np.ndarray) -> str:
    low, high = interval(gain, len(MIXED))
    verdict = "clearly higher than" if low > 0 else "not clearly different from that"
    verdict = "clearly lower than" if high < 0 else verdict
    return f"test accuracy is {verdict} without any: {with_interval(gain, percent)}"


def _what_is_in(result: dict) -> str:
    runs = _runs(result, SEARCHED)
    shares = _times_chosen(result)
    chosen = sorted((n for n in shares if shares[n]), key=lambda n: -shares[n])
    words = ", ".join(f"{name} ({shares[name]})" for name in chosen) or "none"
    promised = np.array([run["cross-validated accuracy"] for run in runs], float)
    tested = np.array([run["test_acc"] for run in runs], float)
    return (
        "Techniques in the cocktails that were chosen, and in how many of "
        f"{len(runs)}: {words}. Their mean test accuracy is "
        f"{percent.text(_mean(tested))}; cross-validation, with fewer images to train "
        f"on, has promised {percent.text(_mean(promised))}."
    )


def _on_the_norm(result: dict) -> str:
    differences = differences_to(_summaries(result), "norm", FACTOR, NONE)
    alone = {n: v[np.isfinite(v)] for n, v in differences.items() if n in TECHNIQUES}
    text = describe_by_verdict(alone, Quantity.of("norm"))
    return f"Norm of the weights, each technique alone against none: {text}."


def _mean(values: np.ndarray) -> float:
    """Return the mean of what is finite, NaN if nothing is."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else np.nan


def plot(result: dict) -> dict:
    """Return the figures by name."""
    summaries, together = _summaries(result), (*MIXED, SEARCHED)
    gains = _ordered(_differences(result))
    points = {name: 100 * values for name, values in gains.items()}
    drawn = {
        "differences": figures.plot_rows(
            points,
            xlabel="Test accuracy against none (points)",
            level=0.0,
            spread=interval,
            marked=together,
            scale_of=[name for name in points if name != ALL],
        )
    }
    drawn["norm"] = figures.plot_rows(
        figures.columns_of(summaries, FACTOR, "norm"),
        xlabel="Frobenius norm",
        reference=NONE,
        marked=together,
    )
    drawn["chosen"] = figures.plot_counts(
        _times_chosen(result),
        total=len(result["settings"]["seeds"]),
        xlabel="Searches whose best cocktail has it",
    )
    return drawn


def captions(result: dict) -> dict[str, str]:
    """Return what each figure of `plot` shows, in the order to show them."""
    bars = figures.bars(result)
    n_seeds = len(result["settings"]["seeds"])
    spread = "; bars are 95 % intervals" if n_seeds > 1 else ""
    return {
        "differences": "Test accuracy against the net without regularisation of the "
        f"same seed{spread}; points are seeds. Orange: several techniques at once.",
        "norm": f"Frobenius norm of all parameters of the returned net{bars}; points "
        "are seeds. The dotted line is the mean without regularisation.",
        "chosen": f"In how many of {n_seeds} searches a technique is in the best "
        "cocktail. About a third would be luck alone.",
    }


def _ordered(gains: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Put the largest gain first; what is several techniques at once comes last."""
    means = {
        name: -np.nanmean(values) if np.isfinite(values).any() else np.inf
        for name, values in gains.items()
    }
    order = sorted(gains, key=lambda name: (name not in TECHNIQUES, means[name]))
    return {name: gains[name] for name in order}


def _times_chosen(result: dict) -> dict[str, int]:
    found = [run["ingredients"] for run in _runs(result, SEARCHED)]
    return {name: sum(name in one for one in found) for name in TECHNIQUES}


def _runs(result: dict, name: str) -> list[dict]:
    return [run for run in result["runs"] if run["labels"][FACTOR] == name]


def _differences(result: dict) -> dict[str, np.ndarray]:
    """Return test accuracy minus that of none, seed by seed, of each other net."""
    return differences_to(_summaries(result), "test accuracy", FACTOR, NONE)


def _summaries(result: dict) -> pd.DataFrame:
    columns = {
        "training accuracy": final("train_acc"),
        "validation accuracy": lambda run: run["final_valid_acc"],
        "test accuracy": lambda run: run["test_acc"],
        "norm": lambda run: run["norm"],
    }
    return summarize(result["runs"], columns)
