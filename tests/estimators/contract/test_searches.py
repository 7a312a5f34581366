"""Searches give the same scores sequentially, in threads and in processes."""

import joblib
import numpy as np
import pytest
import torch
from contract_nets import equal_weights, small
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    validation_curve,
)

from skreg.transforms import RandomFlip

GRID = {
    "lambda1": [0, 1e-2],
    "dropout": [0, 0.5],
    "optimizer": [torch.optim.Adam, torch.optim.SGD],
}


BACKENDS = [("loky", 2), ("threading", 2)]


@pytest.fixture(scope="module")
def sequential_search(iris):
    return GridSearchCV(small(), GRID, cv=3).fit(*iris)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "n_jobs"), BACKENDS)
def test_grid_search_scores_do_not_depend_on_n_jobs(
    iris, sequential_search, backend, n_jobs
):
    # Arrays of more than a kilobyte reach other processes as read-only memory maps.
    with joblib.parallel_config(backend, n_jobs=n_jobs, max_nbytes="1K"):
        search = GridSearchCV(small(), GRID, cv=3).fit(*iris)
    scores = [
        name for name in search.cv_results_ if "score" in name and "time" not in name
    ]
    for name in scores:
        assert np.array_equal(
            search.cv_results_[name], sequential_search.cv_results_[name]
        )
    assert equal_weights(search.best_estimator_, sequential_search.best_estimator_)


SEARCHES = {
    "randomized": lambda X, y, n_jobs: (
        RandomizedSearchCV(
            small(),
            {"lr": [1e-3, 1e-2, 1e-1], "lambda2": [0, 0.1]},
            n_iter=4,
            cv=2,
            random_state=0,
            n_jobs=n_jobs,
        )
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "halving": lambda X, y, n_jobs: (
        HalvingGridSearchCV(
            small(),
            {"hidden_layer_sizes": [2, 8, (4, 4)]},
            cv=2,
            random_state=0,
            min_resources=40,
            n_jobs=n_jobs,
        )
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "validation_curve": lambda X, y, n_jobs: validation_curve(
        small(), X, y, param_name="lambda1", param_range=[0, 0.1], cv=2, n_jobs=n_jobs
    ),
    "learning_curve": lambda X, y, n_jobs: learning_curve(
        small(),
        X,
        y,
        cv=2,
        train_sizes=[0.5, 1.0],
        shuffle=True,
        random_state=0,
        n_jobs=n_jobs,
    )[1:],
    "cross_val_predict": lambda X, y, n_jobs: cross_val_predict(
        small(), X, y, cv=2, method="predict_proba", n_jobs=n_jobs
    ),
    "cross_validate": lambda X, y, n_jobs: cross_validate(
        small(dropout=0.5),
        X,
        y,
        cv=2,
        scoring=["accuracy", "roc_auc_ovr"],
        n_jobs=n_jobs,
    )["test_roc_auc_ovr"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEARCHES)
def test_searches_do_not_depend_on_n_jobs(iris, kind):
    one = SEARCHES[kind](*iris, 1)
    assert np.isfinite(one).all()
    for backend, n_jobs in BACKENDS:
        with joblib.parallel_config(backend):
            assert np.array_equal(one, SEARCHES[kind](*iris, n_jobs)), backend


@pytest.mark.parametrize(
    "grid",
    [
        {"lambda1": [0, 0.1]},
        {"lambda2": [0, 0.1]},
        {"dropout": [0, 0.5]},
        {"lr": [1e-3, 1e-1]},
        {"optimizer": [torch.optim.Adam, torch.optim.RMSprop]},
        {"hidden_layer_sizes": [4, (8, 8)]},
        {"augment": [None, RandomFlip(0.5, 0.5)]},
    ],
    ids=lambda grid: next(iter(grid)),
)
def test_each_parameter_is_searched_alike_in_threads(images, grid):
    searches = [
        GridSearchCV(small(lr=0.01), grid, cv=2, scoring="neg_log_loss", n_jobs=n_jobs)
        for n_jobs in (1, 2)
    ]
    with joblib.parallel_config("threading"):
        for search in searches:
            search.fit(*images)
    one, two = (search.cv_results_["mean_test_score"] for search in searches)
    assert one[0] != one[1]  # the parameter does something
    assert np.array_equal(one, two)


def test_halving_over_epochs(iris):
    search = HalvingGridSearchCV(
        small(lr=0.02),
        {"lambda2": [0, 10.0, 100.0]},
        resource="max_epochs",
        min_resources=5,
        max_resources=20,
        factor=2,
        cv=2,
        random_state=0,
    ).fit(*iris)
    assert search.best_params_["lambda2"] == 0
    assert set(search.cv_results_["n_resources"]) >= {5, 10}
