"""A search that is killed in the middle of a stack goes on there, bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import LRScheduler

from skreg import RegularizedNetClassifier
from skreg.batching.checkpoint import running
from skreg.batching.stacking.epochs import StackEpochs

GRID = {"lambda2": [0, 1e-3, 1e-2], "lambda1": [0, 1e-3]}
KINDS = {
    "adam": {"dropout": 0.2},
    "momentum": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
    "early-stopping": {"early_stopping": True, "patience": 1},
    "averages": {"average": "ema", "early_stopping": True, "patience": 9},
    "schedule": {"callbacks": [("lr", LRScheduler(policy="StepLR", step_size=2))]},
    "cosine": {"lr_schedule": "cosine", "mixup": 0.2, "sam_rho": 0.05},
}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X[:200] / 16).astype("float32"), y[:200]


def net(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 8, "random_state": 0} | params
    return RegularizedNetClassifier(batch_size=32, **params)


def search(digits, checkpoint=None, grid=GRID, **params):
    found = GridSearchCV(net(**params), grid, cv=2, scoring="neg_log_loss", refit=False)
    with joblib.parallel_config("skreg", checkpoint=checkpoint):
        found.fit(*digits)
    return [found.cv_results_[f"split{i}_test_score"] for i in range(2)]


class Killed(BaseException):
    """Stands for the end of a process."""


def counting(patch):
    """Count the epochs of stacks; end training when there are none "left"."""
    patch.setattr(running, "SECONDS", 0.0)
    patch.setattr(running, "MOST_OF_TIME", 1e9)
    run_one, counts = StackEpochs.run_one, {"left": None, "run": 0}

    def counted(self):
        if counts["left"] == 0:
            raise Killed
        if counts["left"] is not None:
            counts["left"] -= 1
        counts["run"] += 1
        return run_one(self)

    patch.setattr(StackEpochs, "run_one", counted)
    return counts


@pytest.fixture
def killed(monkeypatch):
    return counting(monkeypatch)


@pytest.fixture(scope="module")
def killed_once():
    with pytest.MonkeyPatch.context() as patch:
        yield counting(patch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_epochs", [1, 2, 3])
def test_a_search_goes_on_in_the_middle_of_a_stack(
    digits, killed, tmp_path, kind, n_epochs
):
    expected = search(digits, **KINDS[kind])
    n_all, killed["run"] = killed["run"], 0
    for _ in range(2):
        killed["left"] = n_epochs
        with pytest.raises(Killed):
            search(digits, tmp_path, **KINDS[kind])
    killed["left"] = None
    np.testing.assert_array_equal(search(digits, tmp_path, **KINDS[kind]), expected)
    assert killed["run"] == n_all
    assert not list(tmp_path.rglob("running-*"))


@settings(max_examples=10)
@given(st.lists(st.integers(0, 7), max_size=5))
def test_any_number_of_kills_at_any_epoch(
    tmp_path_factory, digits_once, killed_once, kills
):
    folder = tmp_path_factory.mktemp("checkpoint")
    for n_epochs in kills:
        killed_once["left"] = n_epochs
        try:
            search(digits_once[0], folder, early_stopping=True, patience=2)
        except Killed:
            continue
    killed_once["left"] = None
    found = search(digits_once[0], folder, early_stopping=True, patience=2)
    np.testing.assert_array_equal(found, digits_once[1])


@pytest.fixture(scope="module")
def digits_once(digits):
    return digits, search(digits, early_stopping=True, patience=2)


def test_a_fit_that_goes_on_has_the_whole_history(digits, killed, tmp_path):
    def fit():
        nets = [net(lambda2=x) for x in (0, 1e-3, 1e-2)]
        with joblib.parallel_config("skreg", checkpoint=tmp_path):
            return joblib.Parallel()(joblib.delayed(n.fit)(*digits) for n in nets)

    killed["left"] = 3
    with pytest.raises(Killed):
        fit()
    killed["left"] = None
    for one, x in zip(fit(), (0, 1e-3, 1e-2), strict=True):
        alone = net(lambda2=x).fit(*digits)
        assert len(one.history) == 8
        np.testing.assert_allclose(
            one.history[:, "train_loss"], alone.history[:, "train_loss"], rtol=1e-5
        )
        one.partial_fit(*digits)


def test_a_damaged_stack_is_told_and_trained_anew(digits, killed, tmp_path):
    expected = search(digits)
    killed["left"] = 3
    with pytest.raises(Killed):
        search(digits, tmp_path)
    (file,) = tmp_path.rglob("running-*")
    file.write_bytes(file.read_bytes()[:-5])
    killed["left"] = None
    with pytest.warns(UserWarning, match="is damaged"):
        np.testing.assert_array_equal(search(digits, tmp_path), expected)


def test_another_search_takes_nothing_from_a_stack(digits, killed, tmp_path):
    killed["left"] = 3
    with pytest.raises(Killed):
        search(digits, tmp_path)
    killed.update(left=None, run=0)
    other = search(digits, tmp_path, max_epochs=6)
    assert killed["run"] == 6
    np.testing.assert_array_equal(other, search(digits, max_epochs=6))


def test_what_is_drawn_anew_starts_anew(digits, killed, tmp_path):
    params = {"random_state": None, "early_stopping": True, "patience": 99}
    killed["left"] = 4
    with pytest.raises(Killed):
        search(digits, tmp_path, **params)
    killed.update(left=None, run=0)
    search(digits, tmp_path, **params)
    assert killed["run"] == 8


class Several(ClassifierMixin, BaseEstimator):
    """Fits nets in an order that only time decides."""

    order = 0, 1

    def __init__(self, lambda2=0.0):
        self.lambda2 = lambda2

    def fit(self, X, y):
        self.classes_, self.nets_ = np.unique(y), {}
        for seed in self.order:
            made = net(random_state=seed, lambda2=self.lambda2)
            self.nets_[seed] = made.fit(X, y)
        return self

    def predict_proba(self, X):
        return self.nets_[0].predict_proba(X) * 0.9 + 0.1 * self.nets_[1].predict_proba(
            X
        )


def test_fits_of_a_task_that_come_in_another_order_are_not_mixed_up(
    digits, killed, tmp_path, monkeypatch
):
    def scores(checkpoint):
        grid = {"lambda2": [0, 1e-3, 1e-2]}
        found = GridSearchCV(Several(), grid, cv=2, scoring="neg_log_loss", refit=False)
        with joblib.parallel_config("skreg", checkpoint=checkpoint):
            return found.fit(*digits).cv_results_["mean_test_score"]

    expected = scores(None)
    killed["left"] = 3
    with pytest.raises(Killed):
        scores(tmp_path)
    killed["left"] = None
    monkeypatch.setattr(Several, "order", (1, 0))
    np.testing.assert_allclose(scores(tmp_path), expected, rtol=1e-5)


SCRIPT = Path(__file__).with_name("killed_search.py")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_kills_of_a_search_in_processes(tmp_path):
    def run(checkpoint, seconds=None):
        process = subprocess.Popen(
            [sys.executable, SCRIPT, checkpoint, tmp_path / "scores.npy"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "begins\n"
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return None
        finally:
            process.stdout.close()
        assert process.returncode == 0
        return np.load(tmp_path / "scores.npy")

    expected = run("")
    run(tmp_path / "kept", 1.5)
    np.testing.assert_array_equal(run(tmp_path / "kept"), expected)
