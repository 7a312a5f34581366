"""Ordinary searches: the backend in one and in several processes, joblib's, and a peer.

All of ``fit`` is timed, without a refit. Contenders are interleaved in one process, and
warmed up; medians. With ``--busy``, two other processes want the processor as well.
Threads are torch's and BLAS's own, as users have them. scikit-learn's MLP has L2 alone
and no dropout: it gets as many candidates.

Usage: python benchmarks/bench_processes.py [--busy] [--repeats N] [--json PATH]
       [--rows digits wide-table regression sizes large cnn] [--without NAME ...]
"""

import argparse
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from time import perf_counter
from typing import NamedTuple

import joblib
import numpy as np
from bench_change import spinning
from measure import machine, small_cnn, write_json
from sklearn.datasets import load_digits, make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

warnings.simplefilter("ignore", ConvergenceWarning)


class Row(NamedTuple):
    """A random search over a net, and one over scikit-learn's MLP of the same size."""

    X: np.ndarray
    y: np.ndarray
    net: object
    space: dict
    peer: object
    peer_space: dict
    n_candidates: int
    cv: int


def _powers(low: float, high: float, n: int = 50) -> np.ndarray:
    return np.logspace(low, high, n)


def digits() -> Row:
    """90 fits of 64-64-10."""
    X, y = load_digits(return_X_y=True)
    net = {"max_epochs": 15, "random_state": 0}
    return Row(
        *((X / 16).astype(np.float32), y),
        RegularizedNetClassifier(hidden_layer_sizes=64, batch_size=64, **net),
        {"lambda1": _powers(-6, -3), "lambda2": _powers(-6, -2)},
        MLPClassifier(64, batch_size=64, max_iter=15, n_iter_no_change=99),
        {"alpha": _powers(-6, -1, 300)},
        *(30, 3),
    )


def wide_table() -> Row:
    """120 fits on few rows, of 128-64, with all that one searches."""
    X, y = make_classification(
        145, 60, n_informative=10, n_classes=3, random_state=0, n_clusters_per_class=1
    )
    net = {"max_epochs": 60, "batch_size": 32, "random_state": 0}
    return Row(
        *(X.astype(np.float32), y),
        RegularizedNetClassifier(hidden_layer_sizes=(128, 64), **net),
        {
            "lr": _powers(-4, -2),
            "dropout": np.linspace(0, 0.5, 20),
            "lambda1": _powers(-6, -3),
            "lambda2": _powers(-6, -2),
        },
        MLPClassifier((128, 64), batch_size=32, max_iter=60, n_iter_no_change=99),
        {"alpha": _powers(-6, -1, 300), "learning_rate_init": _powers(-4, -2)},
        *(40, 3),
    )


def regression() -> Row:
    """60 fits on 1000 rows, over learning rate and L2."""
    X, y = make_regression(1000, 20, noise=5, random_state=0)
    net = {"max_epochs": 30, "batch_size": 64, "random_state": 0}
    return Row(
        *(X.astype(np.float32), y),
        RegularizedNetRegressor(hidden_layer_sizes=64, **net),
        {"lr": _powers(-4, -2), "lambda2": _powers(-6, -2)},
        MLPRegressor(
            hidden_layer_sizes=64, batch_size=64, max_iter=30, n_iter_no_change=99
        ),
        {"alpha": _powers(-6, -1), "learning_rate_init": _powers(-4, -2)},
        *(20, 3),
    )


def sizes() -> Row:
    """96 fits of six sizes on 1500 rows, with early stopping."""
    X, y = make_classification(1500, 30, n_informative=10, n_classes=4, random_state=0)
    net = {"max_epochs": 40, "early_stopping": True, "patience": 10, "random_state": 0}
    several = [(32,), (64,), (128,), (32, 32), (64, 64), (128, 64)]
    return Row(
        *(X.astype(np.float32), y),
        RegularizedNetClassifier(batch_size=64, **net),
        {
            "hidden_layer_sizes": several,
            "lr": _powers(-4, -2),
            "dropout": np.linspace(0, 0.5, 20),
        },
        MLPClassifier(
            batch_size=64, max_iter=40, early_stopping=True, n_iter_no_change=10
        ),
        {"hidden_layer_sizes": several, "learning_rate_init": _powers(-4, -2)},
        *(32, 3),
    )


def large() -> Row:
    """36 fits of 256-256 on 2000 rows."""
    X, y = make_classification(2000, 40, n_informative=10, n_classes=4, random_state=0)
    net = {"max_epochs": 10, "batch_size": 128, "random_state": 0}
    return Row(
        *(X.astype(np.float32), y),
        RegularizedNetClassifier(hidden_layer_sizes=(256, 256), **net),
        {"lr": _powers(-4, -2), "lambda2": _powers(-6, -2)},
        MLPClassifier((256, 256), batch_size=128, max_iter=10, n_iter_no_change=99),
        {"alpha": _powers(-6, -1), "learning_rate_init": _powers(-4, -2)},
        *(12, 3),
    )


def cnn() -> Row:
    """36 fits of a small CNN on images of 8x8."""
    X, y = load_digits(return_X_y=True)
    return Row(
        *((X / 16).astype(np.float32).reshape(-1, 1, 8, 8), y),
        RegularizedNetClassifier(
            small_cnn(1, 8), max_epochs=5, batch_size=64, random_state=0
        ),
        {"lr": _powers(-4, -2), "lambda2": _powers(-6, -2)},
        None,
        {},
        *(12, 3),
    )


ROWS = {
    "digits": digits,
    "wide-table": wide_table,
    "regression": regression,
    "sizes": sizes,
    "large": large,
    "cnn": cnn,
}


def _search(row: Row, estimator, space, n_jobs=None):
    return RandomizedSearchCV(
        estimator,
        space,
        n_iter=row.n_candidates,
        cv=row.cv,
        refit=False,
        random_state=0,
        n_jobs=n_jobs,
    ).fit(row.X, row.y)


def _backend(row: Row, **options):
    with joblib.parallel_config("skreg", **options):
        return _search(row, row.net, row.space)


def _plain(row: Row, n_jobs: int):
    return _search(row, row.net, row.space, n_jobs)


def _peer(row: Row, n_jobs: int):
    return _search(row, row.peer, row.peer_space, n_jobs)


N = joblib.cpu_count()
CONTENDERS: dict[str, Callable] = {
    "backend": _backend,
    f"backend, n_jobs={N}": lambda row: _backend(row, n_jobs=N),
    "n_jobs=1": lambda row: _plain(row, 1),
    f"n_jobs={N}": lambda row: _plain(row, N),
    f"scikit-learn's MLP, n_jobs={N}": lambda row: _peer(row, N),
}


def measured(row: Row, names: list[str], repeats: int) -> dict[str, float]:
    """Return the median seconds of each contender; all nets must score the same."""
    times, scores = {name: [] for name in names}, {}
    for i in range(repeats + 1):  # the first starts processes
        for name in names:
            start = perf_counter()
            found = CONTENDERS[name](row)
            if i:
                times[name].append(perf_counter() - start)
            if not name.startswith("scikit"):
                scores[name] = found.cv_results_["mean_test_score"]
    first, *others = scores.values()
    if any(np.abs(first - other).max() > 0.02 for other in others):
        raise RuntimeError("The contenders found other scores.")
    return {name: median(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--json")
    options = parser.parse_args()
    print(machine("cpu"))
    names = [name for name in CONTENDERS if name not in options.without]
    print(f"\n{'beside two others' if options.busy else 'quiet'}, seconds\n")
    print(f"| search | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    found = []
    for key in options.rows:
        row = ROWS[key]()
        of_row = [n for n in names if row.peer is not None or "scikit" not in n]
        with spinning(2) if options.busy else nullcontext():
            seconds = measured(row, of_row, options.repeats)
        cells = [f"{seconds[name]:.2f}" if name in seconds else "" for name in names]
        print(f"| {ROWS[key].__doc__} | {' | '.join(cells)} |", flush=True)
        found.append({"row": key, "busy": options.busy, "seconds": seconds})
    if options.json:
        write_json(options.json, "cpu", found)


if __name__ == "__main__":
    main()
