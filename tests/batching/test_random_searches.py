"""Random searches give the numbers of the plain run, whatever their nets are like.

``SKREG_RANDOM_SEARCHES=200 pytest tests/batching/test_random_searches.py`` tries more.
"""

import os
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, make_regression
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import LRScheduler
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.transforms import GaussianNoise

N_SEARCHES = int(os.environ.get("SKREG_RANDOM_SEARCHES", "8"))


def with_norm(in_features, out_features):
    return nn.Sequential(
        nn.Linear(in_features, 6),
        nn.LayerNorm(6),
        nn.GELU(),
        nn.Dropout(0.1),
        nn.Linear(6, out_features),
    )


def one_of(rng, *values):
    return values[rng.integers(len(values))]


def random_params(rng, classifies):
    """Draw the parameters that all nets of a search have in common."""
    params = {
        "random_state": int(rng.integers(100)),
        "max_epochs": int(rng.integers(1, 5)),
        "batch_size": one_of(rng, 16, 40, -1),
        "shuffle": bool(rng.integers(2)),
        "penalize": one_of(rng, "all", "weights"),
        "proximal": bool(rng.integers(2)),
        "lr": 10 ** rng.uniform(-3, -1.5),
        "dtype": "float64",
    }
    if rng.random() < 0.3:
        params["module"] = with_norm
    else:
        params["hidden_layer_sizes"] = one_of(rng, (), (7,), (5, 4))
        params["module__activation"] = one_of(rng, "relu", "tanh", "logistic")
    if rng.random() < 0.4:
        params |= {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}
    if rng.random() < 0.3:
        params |= {"early_stopping": True, "patience": int(rng.integers(4))}
    if rng.random() < 0.2:
        params["augment"] = GaussianNoise(0.1)
    if rng.random() < 0.2:
        params["callbacks"] = [LRScheduler("StepLR", step_size=1, gamma=0.5)]
    if classifies and rng.random() < 0.3:
        params["class_weight"] = "balanced"
    return params


def random_grid(rng):
    grid = {
        "lambda1": [0.0, 10 ** rng.uniform(-4, -2)],
        "lambda2": [0.0, 10 ** rng.uniform(-4, -2)],
        "max_norm": [None, rng.uniform(0.3, 2)],
        "lambda_group": [0.0, 10 ** rng.uniform(-3, -1)],
        "lr": [0.001, 0.01],
    }
    kept = rng.permutation(list(grid))[: rng.integers(1, 4)]
    return {name: grid[name] for name in kept}


@pytest.mark.parametrize("seed", range(N_SEARCHES))
def test_a_random_search_gives_the_numbers_of_the_plain_run(seed):
    rng = np.random.default_rng(seed)
    classifies = rng.random() < 0.6
    if classifies:
        X, y = load_iris(return_X_y=True)
        make = RegularizedNetClassifier
    else:
        X, y = make_regression(120, 5, noise=3, random_state=seed)
        make = RegularizedNetRegressor
    order = rng.permutation(len(X))
    X, y = (X[order] - X.mean(axis=0)) / X.std(axis=0), y[order]
    estimator, grid = make(**random_params(rng, classifies)), random_grid(rng)
    weight = {"sample_weight": rng.random(len(X))} if rng.random() < 0.2 else {}

    def search(backend):
        with warnings.catch_warnings(), joblib.parallel_config(backend):
            warnings.simplefilter("ignore")
            scoring = "neg_log_loss" if classifies else "neg_mean_squared_error"
            found = GridSearchCV(
                estimator, grid, cv=3, scoring=scoring, error_score="raise"
            )
            return found.fit(X, y, **weight)

    plain, together = search("sequential"), search("skreg")
    for key in ("split0_test_score", "split1_test_score", "split2_test_score"):
        np.testing.assert_allclose(
            together.cv_results_[key], plain.cv_results_[key], rtol=1e-8, atol=1e-10
        )
    nets = plain.best_estimator_.module_, together.best_estimator_.module_
    for w, v in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(w, v, rtol=1e-8, atol=1e-10)
