"""Fits that wait for each other: all of them arrive, and nothing changes."""

import asyncio
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
import sklearn
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    RandomForestClassifier,
)
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from waiting_fits import small, within

import skreg.batching._backend
from skreg import RegularizedNetClassifier
from skreg.batching._jobs import Job
from skreg.callbacks import StopTraining
from skreg.training.trainer import trainer

GRID = {"lambda1": [0, 1e-3, 1e-2], "lr": [1e-3, 1e-2]}


def scores(results):
    return {k: v for k, v in results.items() if "score" in k and "time" not in k}


def assert_equal_scores(search, reference):
    expected = scores(reference.cv_results_)
    assert expected
    for name, values in expected.items():
        assert np.array_equal(search.cv_results_[name], values, equal_nan=True), name


# -- all fits arrive, and nothing changes ---------------------------------------------


@pytest.mark.parametrize("max_in_flight", [1, 4, 7, 256])
def test_a_search_in_waves_gives_equal_scores(iris, batches, max_in_flight):
    alone = GridSearchCV(small(), GRID, cv=3).fit(*iris)
    with joblib.parallel_config("skreg", max_in_flight=max_in_flight):
        search = GridSearchCV(small(), GRID, cv=3).fit(*iris)
    assert_equal_scores(search, alone)
    assert search.best_params_ == alone.best_params_
    assert sum(batches) == 18
    assert max(batches) == min(max_in_flight, 18)


@pytest.mark.parametrize("n_jobs", [None, -1, 2])
def test_number_of_jobs_of_a_search_does_not_split_the_batch(iris, batches, n_jobs):
    with joblib.parallel_config("skreg"):
        GridSearchCV(small(), GRID, cv=3, n_jobs=n_jobs).fit(*iris)
    assert batches == [18]


def test_one_job_runs_in_the_calling_thread(iris, batches):
    with joblib.parallel_config("skreg"):
        GridSearchCV(small(), GRID, cv=3, n_jobs=1).fit(*iris)
        threads = Parallel(n_jobs=1)([delayed(threading.get_ident)()])
    assert batches == []
    assert threads == [threading.get_ident()]


def test_tasks_that_compute_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)
    with joblib.parallel_config("skreg", n_jobs=2):
        assert sorted(Parallel()(delayed(meeting.wait)() for _ in range(2))) == [0, 1]


def test_by_default_one_task_computes_at_a_time(iris):
    running, most = [], []

    class Watched(LogisticRegression):
        def fit(self, X, y):
            running.append(self)
            time.sleep(1e-3)
            most.append(len(running))
            running.remove(self)
            return super().fit(X, y)

    with joblib.parallel_config("skreg"):
        cross_val_score(Watched(max_iter=500), *iris, cv=10)
    assert most == [1] * 10


META_ESTIMATORS = {
    "cross_validate": lambda X, y: cross_validate(small(), X, y)["test_score"],
    "randomized": lambda X, y: (
        RandomizedSearchCV(small(), GRID, n_iter=3, random_state=0)
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "halving": lambda X, y: (
        HalvingGridSearchCV(small(), GRID, cv=3, random_state=0)
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "validation_curve": lambda X, y: validation_curve(
        small(), X, y, param_name="lr", param_range=[1e-3, 1e-2]
    )[1],
    "learning_curve": lambda X, y: learning_curve(
        small(), X, y, shuffle=True, random_state=0
    )[2],
    "bagging": lambda X, y: (
        BaggingClassifier(small(), n_estimators=6, random_state=0)
        .fit(X, y)
        .predict_proba(X)
    ),
    "one_vs_rest": lambda X, y: OneVsRestClassifier(small()).fit(X, y).predict_proba(X),
    "many fits in each task": lambda X, y: cross_val_score(
        AdaBoostClassifier(small(), n_estimators=3, random_state=0), X, y
    ),
    "parallel inside of tasks": lambda X, y: cross_val_score(
        CalibratedClassifierCV(small(), cv=2), X, y
    ),
    "search inside of tasks": lambda X, y: cross_val_score(
        GridSearchCV(small(), {"lambda1": [0, 1e-2]}, cv=2), X, y, cv=3
    ),
    "three levels": lambda X, y: cross_val_score(
        GridSearchCV(
            OneVsRestClassifier(small()), {"estimator__lambda1": [0, 1e-2]}, cv=2
        ),
        X,
        y,
        cv=2,
    ),
    "pipeline": lambda X, y: cross_val_score(
        make_pipeline(StandardScaler(), small()), X, y
    ),
    "forest inside": lambda X, y: cross_val_score(
        RandomForestClassifier(n_estimators=5, random_state=0), X, y
    ),
}


@pytest.mark.parametrize("name", META_ESTIMATORS)
def test_meta_estimators_give_equal_results(iris, batches, name):
    run = META_ESTIMATORS[name]
    alone = run(*iris)
    assert batches == []
    with joblib.parallel_config("skreg"):
        together = within(120, lambda: run_configured(run, *iris))
    np.testing.assert_array_equal(together, alone)
    if "forest" not in name:
        assert max(batches) >= 3


def run_configured(run, X, y):
    # The configuration of joblib belongs to a thread.
    with joblib.parallel_config("skreg"):
        return run(X, y)


def test_fits_of_all_inner_searches_make_one_batch(iris, batches):
    inner = GridSearchCV(small(), GRID, cv=3)
    with joblib.parallel_config("skreg"):
        cross_val_score(inner, *iris, cv=5)
    assert batches == [90, 5]  # the five refits


def test_mixed_grid_with_other_estimators(iris, batches):
    pipeline = make_pipeline(StandardScaler(), small())
    grid = [
        {"regularizednetclassifier__lambda1": [0, 1e-2]},
        {
            "regularizednetclassifier": [
                LogisticRegression(),
                RandomForestClassifier(n_estimators=5, random_state=0),
            ]
        },
    ]
    alone = GridSearchCV(pipeline, grid, cv=3).fit(*iris)
    with joblib.parallel_config("skreg"):
        search = GridSearchCV(pipeline, grid, cv=3).fit(*iris)
    assert_equal_scores(search, alone)
    assert batches == [6]


def test_generator_of_results(iris, batches):
    with joblib.parallel_config("skreg"):
        results = Parallel(return_as="generator")(delayed(pow)(i, 2) for i in range(5))
        assert list(results) == [0, 1, 4, 9, 16]


def test_no_tasks():
    with joblib.parallel_config("skreg"):
        assert Parallel()([]) == []


def test_tasks_that_are_made_by_a_search(iris, batches):
    def tasks():
        for n_splits in (2, 3):
            yield delayed(len)(cross_val_score(small(), *iris, cv=n_splits))

    with joblib.parallel_config("skreg"):
        assert Parallel()(tasks()) == [2, 3]
    assert batches == [2, 3]


def test_fits_wait_for_each_other_as_far_as_memory_goes(iris, batches, monkeypatch):
    X = iris[0].astype(np.float32)
    fold = (X.nbytes + iris[1].nbytes) * 5 / 6
    monkeypatch.setattr(skreg.batching._backend, "memory", lambda: 8 * 3.5 * fold)
    with joblib.parallel_config("skreg"):
        cross_val_score(small(), X, iris[1], cv=6)
    assert batches[0] == 4
    assert sum(batches) == 6


def test_a_net_that_is_trained_can_go_on_before_the_rest(iris, monkeypatch):
    events = []

    def one_by_one(jobs, **options):
        for job in jobs:
            job.train_alone("a test")  # which lets it go on
            events.append("next")

    def task(i):
        small().fit(*iris)
        events.append(i)

    monkeypatch.setattr(skreg.batching._backend, "train_together", one_by_one)
    with joblib.parallel_config("skreg", max_in_flight=2):
        Parallel()(delayed(task)(i) for i in range(3))
    assert events == [0, "next", 1, "next", 2, "next"]


# -- failures -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
def test_fits_that_fail_get_the_error_score(iris, batches):
    grid = {"lambda1": [0, 1e-2], "lr": [1e-3, -1]}
    with pytest.warns(FitFailedWarning):
        alone = GridSearchCV(small(), grid, cv=3).fit(*iris)
    with joblib.parallel_config("skreg"), pytest.warns(FitFailedWarning) as caught:
        search = GridSearchCV(small(), grid, cv=3).fit(*iris)
    assert_equal_scores(search, alone)
    assert np.isnan(search.cv_results_["mean_test_score"]).sum() == 2
    assert "lr=-1" in str(caught[0].message)


class Failing(RegularizedNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        if self.lambda1 > 0:
            raise ArithmeticError("no loss today")
        return super().get_loss(y_pred, y_true, X=X, training=training)


@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
def test_error_in_training_belongs_to_its_fit(iris, batches):
    net = Failing(max_epochs=1, random_state=0)
    with joblib.parallel_config("skreg"), pytest.warns(FitFailedWarning) as caught:
        search = GridSearchCV(net, {"lambda1": [0, 1]}, cv=3, refit=False).fit(*iris)
    assert "no loss today" in str(caught[0].message)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert batches == [6]


def test_error_that_is_to_be_raised_ends_the_search(iris, batches):
    net = Failing(max_epochs=1, random_state=0)
    search = GridSearchCV(net, {"lambda1": [0, 1]}, cv=3, error_score="raise")
    with joblib.parallel_config("skreg"):
        with pytest.raises(ArithmeticError, match="no loss today"):
            search.fit(*iris)
        assert len(cross_val_score(small(), *iris, cv=3)) == 3
    assert batches == [6, 3]


def test_error_of_the_training_of_a_batch_reaches_its_fits(iris, monkeypatch):
    def broken(jobs, **options):
        raise MemoryError("the batch is too large")

    monkeypatch.setattr(skreg.batching._backend, "train_together", broken)
    with joblib.parallel_config("skreg"), pytest.raises(MemoryError, match="too large"):
        cross_val_score(small(), *iris, error_score="raise")


def test_error_among_inner_tasks_is_the_outer_tasks_to_handle(iris):
    def outer(i):
        try:
            Parallel()(delayed(inner)(i, j) for j in range(3))
        except ArithmeticError as error:
            return str(error)

    def inner(i, j):
        clone(small()).fit(*iris)
        if j == i:
            raise ArithmeticError(f"{i}, {j}")
        return small().fit(*iris)

    with joblib.parallel_config("skreg"):
        results = Parallel()(delayed(outer)(i) for i in range(4))
    assert results == ["0, 0", "1, 1", "2, 2", None]


def test_a_callback_that_stops_training(iris):
    class Stopping(RegularizedNetClassifier):
        def on_epoch_end(self, net, **kwargs):
            super().on_epoch_end(net, **kwargs)
            if len(self.history) == 2:
                raise StopTraining

    net = Stopping(max_epochs=9, random_state=0)
    with joblib.parallel_config("skreg"):
        fits = cross_validate(net, *iris, return_estimator=True)["estimator"]
    assert [len(fit.history) for fit in fits] == [2] * 5


# -- the surroundings of a task -------------------------------------------------------


class Surroundings(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.config_ = sklearn.get_config()["skip_parameter_validation"]
        self.floats_ = np.geterr()["over"]
        self.trainer_ = trainer.get() is not None
        self.classes_ = np.unique(y)
        warnings.warn("a word", RuntimeWarning, stacklevel=1)
        return self

    def predict(self, X):
        return np.zeros(len(X))


def test_configurations_reach_the_tasks_and_warnings_the_caller(iris):
    with (
        joblib.parallel_config("skreg"),
        sklearn.config_context(skip_parameter_validation=True),
        np.errstate(over="raise"),
        pytest.warns(RuntimeWarning, match="a word") as caught,
    ):
        fits = cross_validate(Surroundings(), *iris, return_estimator=True)["estimator"]
    assert [(fit.config_, fit.floats_) for fit in fits] == [(True, "raise")] * 5
    assert len(caught) == 5
    assert all(fit.trainer_ for fit in fits)
    assert trainer.get() is None


def test_filters_of_warnings_belong_to_a_task(iris):
    def task(i):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always" if i % 2 else "ignore")
            small().fit(*iris)
            warnings.warn(f"task {i}", stacklevel=1)
            small().fit(*iris)
        return [str(warning.message) for warning in caught]

    with joblib.parallel_config("skreg"):
        results = Parallel()(delayed(task)(i) for i in range(4))
    assert results == [[], ["task 1"], [], ["task 3"]]


def test_a_job_runs_in_the_surroundings_of_its_fit():
    def surroundings():
        return sklearn.get_config()["assume_finite"], np.geterr()["over"], trainer.get()

    with (
        sklearn.config_context(assume_finite=True),
        np.errstate(over="raise"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        job = Job(None, None, None)
    assert job.run(surroundings) == (True, "raise", None)
    job.run(warnings.warn, "ignored")
    with pytest.warns(UserWarning, match="not"):
        warnings.warn("not ignored", stacklevel=1)


def test_fits_in_threads_of_the_users_own(iris, batches):
    def in_thread(run):
        fitted = []
        run(lambda: fitted.append(small().fit(*iris)))
        return fitted[0].history[-1, "train_loss"]

    def new_thread(function):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()

    def thread_with_the_context(function):
        asyncio.run(asyncio.to_thread(function))

    expected = small().fit(*iris).history[-1, "train_loss"]
    with joblib.parallel_config("skreg"):
        losses = Parallel()(
            delayed(in_thread)(run) for run in [new_thread, thread_with_the_context] * 2
        )
    assert losses == [expected] * 4
    assert batches == []


# -- progress -------------------------------------------------------------------------


def test_joblib_tells_the_progress(iris, capsys):
    with joblib.parallel_config("skreg", verbose=11):
        GridSearchCV(small(), {"lr": [1e-3]}, cv=5).fit(*iris)
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "Done   3 out of   5" in line]
    assert "remaining" in line
    assert "Done   5 out of   5" in lines[-1]


def test_callbacks_of_scikit_learn_see_all_fits_and_epochs(iris):
    pytest.importorskip("sklearn.callback", reason="comes with scikit-learn 1.9")
    begun, ended = [], []

    class Recorder:
        max_propagation_depth = None

        def setup(self, estimator, context):
            pass

        teardown = setup

        def on_fit_task_begin(self, estimator, context, **kwargs):
            begun.append(context.task_name)

        def on_fit_task_end(self, estimator, context, **kwargs):
            ended.append(context.task_name)

    search = GridSearchCV(small(), GRID, cv=3, refit=False)
    with joblib.parallel_config("skreg"):
        search.set_callbacks(Recorder()).fit(*iris)
    for names in (begun, ended):
        assert names.count("fit") == 1 + 18
        assert names.count("epoch") == 36
