"""The fits of a study: every case with every seed, and what is kept of each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite, nan
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold

from skreg.callbacks import AccuracyTracker
from skreg.estimators import RegularizedNetClassifier
from skreg.studies.common.sampling import Sample, one_thread

CURVES = ("train_acc", "valid_acc", "train_loss", "valid_loss", "param_norm")


class Case(NamedTuple):
    """One of the nets that a study compares, on one kind of data.

    Parameters
    ----------
    labels : dict
        What tells the case from the others; the last entry is the net's name.
    net : RegularizedNetClassifier
        Not fitted.
    sample : callable
        From a seed to the images to fit and validate on.
    """

    labels: dict[str, object]
    net: RegularizedNetClassifier
    sample: Callable[[int], Sample]


@contextmanager
def computing(seeds: Sequence[int], *epochs: int) -> Iterator[None]:
    """Say where fits and searches compute: the one place to change that.

    Raises
    ------
    ValueError
        If there are no seeds, equal ones, or no epochs.
    """
    if not seeds or len({*seeds}) < len(seeds):
        raise ValueError(f"seeds={[*seeds]} must be different integers, at least one.")
    if min(epochs) < 1:
        raise ValueError(f"epochs={min(epochs)} must be a positive integer.")
    with one_thread(), parallel_config("skreg"):
        yield


def image_net(module, data, *, lr, epochs, device, momentum=None, **params):
    """Return a net that takes a step on all training images at once.

    Parameters
    ----------
    module : nn.Module class
    data : Bunch
        Whose classes the net tells apart, also if a small sample shows fewer.
    lr : float
    epochs : int
    device : str
    momentum : float, default=None
        Of SGD, with which the course trains; None is Adam, which takes fewer epochs.
    **params
        More parameters of the classifier, or others in place of these.

    Returns
    -------
    RegularizedNetClassifier
    """
    if momentum is None:
        optimizer = {"optimizer": torch.optim.Adam}
    else:
        optimizer = {"optimizer": torch.optim.SGD, "optimizer__momentum": momentum}
    defaults = {
        "lr": lr,
        "max_epochs": epochs,
        "device": device,
        "batch_size": -1,
        "classes": np.arange(len(data.target_names)),
    }
    return RegularizedNetClassifier(module, **defaults | optimizer | params)


def fit_all(
    cases: Sequence[Case],
    seeds: Sequence[int],
    progress: Callable[[Sequence], Iterable] = iter,
    measure: Callable[..., dict] | None = None,
    together: bool = True,
) -> list[dict]:
    """Fit every case with every seed, which decides images, weights, everything.

    Parameters
    ----------
    cases : sequence of Case
    seeds : sequence of int
    progress : callable, default=iter
        Wraps the sequence of seeds, as `tqdm` does.
    measure : callable, default=None
        From a fitted net and its sample to more that is kept, as plain data.
    together : bool, default=True
        Train the nets of a seed as one program; False lets each have the time it takes.

    Returns
    -------
    list of dict
        One a fit, of plain numbers, strings, lists and dicts: ``labels``, ``seed``,
        ``seconds`` (with the time of all that train together), ``diverged``, ``curves``
        (of `CURVES`, None after the end of a fit that stopped early), ``layer_norms``
        at the end, ``norm`` of the net that the fit returned, and, if there is a test
        set, ``test_acc`` and ``final_valid_acc`` of that net; with early stopping
        ``best_epoch``.
    """
    runs = []
    with computing(seeds, *(case.net.max_epochs for case in cases)):
        for seed in progress(seeds):
            fits = [delayed(_fit)(case, seed, measure) for case in cases]
            runs += Parallel(n_jobs=None if together else 1)(fits)
    return runs


def _fit(case: Case, seed: int, measure) -> dict:
    sample = case.sample(seed)
    net = clone(case.net).set_params(random_state=seed)
    net.set_params(callbacks=[AccuracyTracker(on_train=True), *(net.callbacks or [])])
    start = perf_counter()
    net.fit(sample.X_train, sample.y_train, X_val=sample.X_valid, y_val=sample.y_valid)
    run = {
        "labels": case.labels,
        "seed": seed,
        "seconds": perf_counter() - start,
        "diverged": has_diverged(net),
        "curves": {key: curve(net, key) for key in CURVES},
        "layer_norms": {
            layer: finite(norm)
            for layer, norm in net.history[-1, "param_norms"].items()
        },
    }
    if net.early_stopping:
        run["best_epoch"] = int(net.best_epoch_)
    returned = run.get("best_epoch", len(net.history))
    run["norm"] = run["curves"]["param_norm"][returned - 1]
    if sample.X_test is not None:
        run["test_acc"] = score(net, sample.X_test, sample.y_test)
        run["final_valid_acc"] = score(net, sample.X_valid, sample.y_valid)
    return run | (measure(net, sample) if measure else {})


def folds(y: np.ndarray, n_folds: int, seed: int):
    """Return a cross-validator; stratified, if every class has an image a fold."""
    if len(y) < n_folds:
        raise ValueError(
            f"{len(y)} training images cannot be cut into {n_folds} folds; use a "
            "larger data set."
        )
    stratified = np.unique(y, return_counts=True)[1].min() >= n_folds
    kind = StratifiedKFold if stratified else KFold
    return kind(n_folds, shuffle=True, random_state=seed)


def has_diverged(net) -> bool:
    """Tell whether training ended because loss or weights were no longer finite."""
    last = net.history[-1]
    return not (isfinite(last["train_loss"]) and isfinite(last["param_norm"]))


def score(net, X, y) -> float | None:
    """Return the accuracy; None for a net whose training diverged."""
    return None if has_diverged(net) else float(net.score(X, y))


def finite(value: float) -> float | None:
    """Return None for NaN and infinity, which JSON does not have."""
    return float(value) if isfinite(value) else None


def curve(net, key: str, n_epochs: int | None = None) -> list[float | None]:
    """Return what the history holds of each epoch; None is ``max_epochs`` of them.

    None stands for what is not finite, and for the epochs after the end of a fit that
    diverged or stopped early.
    """
    values = [finite(epoch.get(key, nan)) for epoch in net.history]
    return values + [None] * ((n_epochs or net.max_epochs) - len(values))
