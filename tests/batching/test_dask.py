"""A search on a Dask cluster: each worker trains its group of fits as one batch."""

import os
import signal
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate

from skreg import RegularizedNetClassifier
from skreg.batching import _cluster
from skreg.batching._tasks import current_task

distributed = pytest.importorskip(
    "distributed", reason="the extra 'dask' is not installed"
)

KILL = signal.SIGTERM if os.name == "nt" else signal.SIGKILL
GRID = {"lambda1": [0, 1e-3, 1e-2], "lr": [1e-3, 1e-2]}


class Traced(RegularizedNetClassifier):
    """Notes who trains it, and lets a worker die."""

    def __init__(self, *, folder=None, deadly=False, **kwargs):
        super().__init__(**kwargs)
        self.folder = folder
        self.deadly = deadly

    def initialize(self):
        if self.folder is not None:
            note = Path(self.folder) / f"{os.getpid()}-{id(self)}"
            note.touch()
            grave = Path(self.folder) / "grave"
            if self.deadly and not grave.exists():
                grave.touch()
                os.kill(os.getpid(), KILL)
        self.in_batch_ = current_task() is not None
        return super().initialize()


def small(**params):
    params = {"hidden_layer_sizes": 4, "max_epochs": 2, "random_state": 0} | params
    return Traced(**params)


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return np.repeat(X, 5, axis=0), np.repeat(y, 5)  # large enough to be sent once


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        yield client


def search(iris, grid=GRID, **params):
    return GridSearchCV(small(**params), grid, cv=3, refit=False).fit(*iris).cv_results_


def assert_equal(results, reference):
    for name in reference:
        if "time" not in name:
            np.testing.assert_array_equal(results[name], reference[name], name)


@pytest.mark.slow
def test_equal_results_from_two_processes(iris, client, tmp_path, monkeypatch):
    sent = []
    scatter = distributed.Client.scatter
    monkeypatch.setattr(
        distributed.Client,
        "scatter",
        lambda self, data, **k: sent.extend(data) or scatter(self, data, **k),
    )
    folder = str(tmp_path)
    with joblib.parallel_config("skreg", cluster=client):
        together = search(iris, folder=folder)
    assert_equal(together, search(iris, folder=folder))
    workers = {int(note.name.split("-")[0]) for note in tmp_path.iterdir()}
    assert len(workers - {os.getpid()}) == 2
    assert sum(data is iris[0] for data in sent) == 1
    assert client.futures == {}


def test_fits_of_a_worker_are_trained_together(iris, client):
    with joblib.parallel_config("skreg", cluster=client):
        fits = cross_validate(small(), *iris, return_estimator=True)["estimator"]
    assert [fit.in_batch_ for fit in fits] == [True] * 5


def test_more_tasks_than_go_out_at_once(client):
    with joblib.parallel_config("skreg", cluster=client, max_in_flight=3):
        assert Parallel()(delayed(pow)(i, 2) for i in range(50)) == [
            i**2 for i in range(50)
        ]


def test_a_worker_that_dies(iris, client, tmp_path):
    grid = GRID | {"deadly": [False, True]}
    with joblib.parallel_config("skreg", cluster=client):
        together = search(iris, grid, folder=str(tmp_path))
    assert (tmp_path / "grave").exists()
    alone = search(iris, grid, folder=str(tmp_path))
    assert_equal(together, alone)
    assert not np.isnan(together["mean_test_score"]).any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
def test_fits_that_fail(iris, client):
    grid = {"lr": [1e-3, -1]}
    with joblib.parallel_config("skreg", cluster=client):
        with pytest.warns(FitFailedWarning):
            together = search(iris, grid)
        with pytest.raises(ValueError, match="lr=-1"):
            cross_val_score(small(lr=-1), *iris, error_score="raise")
    assert np.isnan(together["mean_test_score"]).tolist() == [False, True]


def test_checkpoint_is_on_this_side(iris, client, tmp_path):
    notes, kept = tmp_path / "notes", tmp_path / "kept"
    notes.mkdir()

    def run(grid):
        config = {"cluster": client, "checkpoint": kept, "max_in_flight": 4}
        with joblib.parallel_config("skreg", **config):
            results = search(iris, grid, folder=str(notes))
        n_fits = len(list(notes.iterdir()))
        for note in notes.iterdir():
            note.unlink()
        return results, n_fits

    first, n_first = run(GRID)
    again, n_again = run(GRID)
    longer, n_longer = run(GRID | {"lr": [1e-3, 1e-2, 1e-1]})
    assert (n_first, n_again, n_longer) == (18, 0, 9)
    assert_equal(again, first)
    assert_equal(
        longer, search(iris, GRID | {"lr": [1e-3, 1e-2, 1e-1]}, folder=str(notes))
    )


def test_tasks_that_write_into_memory_stay_here(iris, client):
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(*iris)
    expected = forest.predict_proba(iris[0])
    with joblib.parallel_config("skreg", cluster=client):
        np.testing.assert_array_equal(forest.predict_proba(iris[0]), expected)


class Unpicklable(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def fail(kind):
    raise kind("this", "that")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(OSError, OSError), (Unpicklable, RuntimeError)],
)
def test_errors_tell_where_on_the_worker(client, kind, expected):
    with (
        joblib.parallel_config("skreg", cluster=client),
        pytest.raises(expected, match=r"this.* that") as caught,
    ):
        Parallel()([delayed(fail)(kind)])
    assert 'raise kind("this", "that")' in str(caught.value.__cause__)


def test_cluster_without_workers(monkeypatch):
    monkeypatch.setattr(_cluster, "_PATIENCE", 0.1)
    with (
        distributed.LocalCluster(
            n_workers=0, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config("skreg", cluster=client),
        pytest.raises(TimeoutError, match=r"has had no worker for 0\.1 seconds"),
    ):
        Parallel()([delayed(pow)(2, 3)])


@pytest.mark.parametrize("cluster", ["scheduler:8786", 3])
def test_what_is_no_client(cluster):
    with pytest.raises(ValueError, match=r"must be a dask\.distributed\.Client"):
        joblib.parallel_config("skreg", cluster=cluster)


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "skreg\[dask\]"'):
        joblib.parallel_config("skreg", cluster="scheduler:8786")


def test_data_that_are_lost_are_sent_again(iris, client, monkeypatch):
    """As if all workers that held them had died."""
    submit = distributed.Client.submit
    lost = []

    def lose(client, function, calls, options, *shared, **kwargs):
        if not lost:
            lost.extend(shared)
            client.cancel(shared)
        return submit(client, function, calls, options, *shared, **kwargs)

    monkeypatch.setattr(distributed.Client, "submit", lose)
    with joblib.parallel_config("skreg", cluster=client):
        together = search(iris)
    assert lost
    assert_equal(together, search(iris))


def test_data_that_are_always_lost(iris, client, monkeypatch):
    submit = distributed.Client.submit

    def lose(client, function, calls, options, *shared, **kwargs):
        client.cancel(shared)
        return submit(client, function, calls, options, *shared, **kwargs)

    monkeypatch.setattr(distributed.Client, "submit", lose)
    with (
        joblib.parallel_config("skreg", cluster=client),
        pytest.raises(RuntimeError, match="were lost 3 times"),
    ):
        search(iris)
