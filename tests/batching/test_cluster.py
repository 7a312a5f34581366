"""Searches on more than this process: a Dask cluster, and Optuna's search."""

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score

from skreg import RegularizedNetClassifier

GRID = {"lambda1": [0, 1e-2], "dropout": [0, 0.5]}


def small(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 5, "random_state": 0} | params
    return RegularizedNetClassifier(**params)


@pytest.mark.slow
def test_dask_cluster_of_two_processes_gives_equal_scores(iris):
    distributed = pytest.importorskip(
        "distributed", reason="the extra 'dask' is not installed"
    )
    alone = GridSearchCV(small(), GRID, cv=3).fit(*iris)
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        search = GridSearchCV(small(), GRID, cv=3).fit(*iris)
    for name, values in alone.cv_results_.items():
        if "score" in name and "time" not in name:
            assert np.array_equal(search.cv_results_[name], values), name


@pytest.mark.filterwarnings("ignore:`optuna.terminator` module:FutureWarning")
def test_optuna_search(iris):
    optuna = pytest.importorskip("optuna", reason="the extra 'test' is not installed")
    integration = pytest.importorskip("optuna_integration")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ranges = {
        "lambda1": optuna.distributions.FloatDistribution(1e-6, 1.0, log=True),
        "dropout": optuna.distributions.FloatDistribution(0, 0.5),
    }
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        search = integration.OptunaSearchCV(
            small(), ranges, cv=3, n_trials=4, random_state=0
        )
    search.fit(*iris)
    best = cross_val_score(small(**search.best_params_), *iris, cv=3).mean()
    assert search.best_score_ == pytest.approx(best)
    assert len(search.trials_) == 4
