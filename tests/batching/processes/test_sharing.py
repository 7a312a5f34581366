"""Stacks in several processes: the nets are those of one process, whatever happens."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.batching.processes import sharing
from skreg.batching.processes import workers as _workers
from skreg.batching.processes.parcels import Parcels, opened
from skreg.batching.processes.sharing import StackSharing
from skreg.batching.stacking import engine as _engine
from skreg.batching.stacking.streams import DataPool
from skreg.regularizers import Regularizer

GRID = {"lambda2": [0, 1e-4, 1e-3, 1e-2], "lambda1": [0, 1e-4, 1e-3, 1e-2]}
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def net(cls=RegularizedNetClassifier, **params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 4, "random_state": 0} | params
    return cls(**params)


def search(data, estimator=None, grid=GRID, **options):
    found = GridSearchCV(estimator or net(), grid, cv=2, refit=False)
    with joblib.parallel_config("skreg", **options):
        return found.fit(*data).cv_results_["mean_test_score"]


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2)),
            nn.Linear(4 * 36, 10),
        )

    def forward(self, X):
        return self.layers(X)


KINDS = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "early-stopping": {"early_stopping": True, "patience": 2, "max_epochs": 12},
    "ema": {"average": "ema", "lr_schedule": "cosine"},
    "sam": {"sam_rho": 0.05, "max_grad_norm": 1.0, "mixup": 0.2},
    "momentum": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.05},
    "proximal": {"proximal": True, "lambda_group": 1e-3},
    "attacked": {"adversarial_eps": 0.05},
}


def fitted(data, nets, **options):
    def fit(estimator):
        return estimator.fit(*data)

    with joblib.parallel_config("skreg", **options):
        return Parallel()(delayed(fit)(clone(each)) for each in nets)


def assert_same(mine, theirs):
    for one, other in zip(mine, theirs, strict=True):
        for w, v in zip(
            one.module_.parameters(), other.module_.parameters(), strict=True
        ):
            torch.testing.assert_close(w, v, rtol=1e-8, atol=1e-10)
        assert len(one.history) == len(other.history)
        for row, expected in zip(one.history, other.history, strict=True):
            assert row.keys() == expected.keys()
            assert row["train_loss"] == pytest.approx(expected["train_loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_nets_are_those_that_train_alone(digits, sent, kind):
    data = digits[0].astype("float64"), digits[1]
    params = {"lambda2": 1e-3} | KINDS[kind]
    nets = [net(lambda1=l1, **params) for l1 in np.linspace(0, 1e-3, 16)]
    together = fitted(data, nets, n_jobs=2)
    assert len(sent) == 1
    assert {each.training_path_ for each in together} == {"stack"}
    assert_same(together, [clone(each).fit(*data) for each in nets])
    for each in together:  # what a fit can go on with has come back
        each.partial_fit(*data)
    assert {len(each.history) for each in together[:1]} != {4}


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_large_nets_go_on_in_another_process(digits, sent, long, monkeypatch, kind):
    def is_worth_more(self, n_epochs):
        return n_epochs == 2

    monkeypatch.setattr(sharing._Foresight, "is_worth_more", is_worth_more)
    data = digits[0].astype("float64"), digits[1]
    params = KINDS["momentum"] if kind == "sgd" else {"average": "ema"}
    nets = [
        net(hidden_layer_sizes=256, lambda2=x, **params)
        for x in np.linspace(0, 1e-2, 16)
    ]
    together = fitted(data, nets)
    assert sent
    assert max(sent) > 8 * 256 * 74 * 8 * 2  # weights and state of the optimizer
    assert_same(together, [clone(each).fit(*data) for each in nets])


def test_convolutions_regressions_and_sparse_data(digits, sent, stacks):
    X, y = digits
    images = X.reshape(-1, 1, 8, 8).astype("float64")
    nets = [net(module=Convolutional, lambda2=x) for x in np.linspace(0, 1e-3, 16)]
    assert_same(
        fitted((images, y), nets, n_jobs=2),
        [clone(each).fit(images, y) for each in nets],
    )
    nets = [net(RegularizedNetRegressor, lambda2=x) for x in np.linspace(0, 1e-3, 16)]
    weighted = [partial(each.fit, sample_weight=np.arange(len(y)) + 1) for each in nets]
    data = csr_matrix(X.astype("float64")), y * 1.0
    with joblib.parallel_config("skreg", n_jobs=2):
        together = Parallel()(delayed(fit)(*data) for fit in weighted)
    assert len(sent) == 2
    assert_same(
        together,
        [clone(each).fit(*data, sample_weight=np.arange(len(y)) + 1) for each in nets],
    )


def test_scores_do_not_depend_on_the_number_of_processes(digits, sent, long):
    alone = GridSearchCV(net(), GRID, cv=2, refit=False).fit(*digits)
    expected = alone.cv_results_["mean_test_score"]
    for options in ({}, {"n_jobs": 2}):
        np.testing.assert_array_equal(search(digits, **options), expected)
    assert len(sent) >= 2


def test_short_searches_stay_in_the_process(digits, sent):
    search(digits)
    assert not sent


def test_a_process_that_computes_in_one_thread_stays_alone(digits, sent, monkeypatch):
    monkeypatch.setattr(sharing, "SHORT_WORK", 0.0)
    monkeypatch.setattr(sharing, "START_SECONDS", -10.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    search(digits)
    assert not sent


def test_long_searches_go_to_other_processes_by_themselves(digits, sent, long):
    many = GRID | {"lr": [1e-3, 1e-2]}
    search(digits, net(max_epochs=30), many)
    assert len(sent) == 1


def test_a_cut_does_not_depend_on_time(digits, sent, stacks, monkeypatch):
    sizes = []
    for _ in range(2):
        stacks.clear()
        sent.clear()
        search(digits, n_jobs=2)
        sizes.append((list(stacks), len(sent)))
    assert sizes[0] == sizes[1] == ([16], 1)


def test_classes_of_a_function_travel(digits, sent):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, X):
            return self.layer(X)

    class Net(RegularizedNetClassifier):
        pass

    results = search(digits, net(Net, module=Own, hidden_layer_sizes=()), n_jobs=2)
    assert len(sent) == 1
    np.testing.assert_array_equal(
        results, search(digits, net(Net, module=Own, hidden_layer_sizes=()))
    )


MODULE = """
from torch import nn
import torch

SLOPE = 1.0

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, X):
        return helper(self.layer(X))

def helper(outputs):
    return SLOPE * torch.tanh(outputs)
"""


def test_modules_of_the_user_are_as_they_are_now(
    digits, sent, stacks, tmp_path, monkeypatch
):
    (tmp_path / "users_own.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("users_own")

    def scores(**options):
        estimator = net(module=own.Own, hidden_layer_sizes=(), dtype="float64")
        return search(digits, estimator, **options)

    first = scores(n_jobs=2)
    np.testing.assert_array_equal(first, scores())
    own.SLOPE = -30.0  # which a process that has imported the module cannot know
    changed = scores(n_jobs=2)
    np.testing.assert_array_equal(changed, scores())
    assert np.abs(changed - first).max() > 0
    (tmp_path / "users_own.py").write_text(MODULE.replace("tanh", "cos"))
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    del sys.modules["users_own"]
    own = importlib.import_module("users_own")
    again = scores(n_jobs=2)
    np.testing.assert_array_equal(again, scores())
    assert np.abs(again - first).max() > 0
    assert len(sent) == 3
    del sys.modules["users_own"]


class Shrink(Regularizer):
    def __init__(self, strength=0.0):
        self.strength = strength

    def project(self, weights, step_sizes):
        strength = torch.as_tensor(self.strength)
        for w in weights.values():
            w.mul_(1 - strength.reshape(-1, *[1] * (w.ndim - 1)).to(w))

    @classmethod
    def stack(cls, members):
        return cls(torch.tensor([member.strength for member in members]))


def test_own_regularizers_train_in_other_processes(digits, sent, capfd):
    nets = [
        net(regularizers=[Shrink(float(x))], dtype="float64")
        for x in np.linspace(0, 0.1, 16)
    ]
    together = fitted(digits, nets, n_jobs=2, verbose=1)
    assert len(sent) == 1
    assert "trained alone" not in capfd.readouterr().err
    for one, alone in zip(together, nets, strict=True):
        alone.fit(*digits)
        for w, v in zip(
            one.module_.parameters(), alone.module_.parameters(), strict=True
        ):
            torch.testing.assert_close(w, v, rtol=1e-6, atol=1e-8)


def test_a_net_that_nobody_has_trained_is_an_error(digits, monkeypatch):
    monkeypatch.setattr(StackSharing, "__call__", lambda self, *args: (x for x in ()))
    with (
        joblib.parallel_config("skreg"),
        pytest.raises(RuntimeError, match="was not trained"),
    ):
        cross_validate(net(), *digits, cv=3, error_score="raise")


class Lock:
    """Of which there is one, which cannot be pickled."""

    def __init__(self):
        self.lock = threading.Lock()

    def __deepcopy__(self, memo):
        return self


LOCK = Lock()


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.lock = nn.Linear(64, 10), LOCK

    def forward(self, X):
        return self.layer(X)


def test_what_cannot_be_pickled_stays_and_says_so(digits, sent, stacks, capfd):
    own = net(module=Locked, hidden_layer_sizes=())
    with joblib.parallel_config("skreg", n_jobs=2, verbose=1):
        found = GridSearchCV(own, GRID, cv=2, refit=False).fit(*digits)
    assert not sent
    assert "stay in this process" in capfd.readouterr().err
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


def test_warnings_come_back_to_their_fits(digits, sent):
    def caught(**options):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            wild = net(optimizer=torch.optim.SGD, lr=1e30)
            search(digits, wild, GRID, **options)
        texts = sorted(str(w.message) for w in found)
        return [text for text in texts if text.endswith("lambda1 or lambda2.")]

    there = caught(n_jobs=2)
    assert len(sent) == 1
    assert there == caught()
    assert len(there) == 32


def test_warnings_that_are_errors_fail_their_fits(digits, sent):
    wild = net(optimizer=torch.optim.SGD, lr=1e30)
    warnings.simplefilter("error")
    with joblib.parallel_config("skreg", n_jobs=2), pytest.raises(Warning):
        cross_validate(wild, *digits, cv=16, error_score="raise")
    assert len(sent) == 1


@posix
def test_a_killed_worker_costs_nothing_but_time(digits, sent, monkeypatch):
    expected = search(digits)
    submit = _workers.Workers.submit

    def killed(self, parcel, settings):
        future = submit(self, parcel, settings)
        if len(sent) == 1:
            pid = self._executor.submit(os.getpid).result() if future.done() else None
            for process in self._executor._processes.values():
                os.kill(pid or process.pid, signal.SIGKILL)
        return future

    monkeypatch.setattr(_workers.Workers, "submit", killed)
    np.testing.assert_array_equal(search(digits, n_jobs=2), expected)
    assert len(sent) == 2


@posix
def test_workers_that_end_again_and_again_leave_the_work_here(
    digits, sent, monkeypatch
):
    expected = search(digits)
    submit = _workers.Workers.submit

    def killed(self, parcel, settings):
        future = submit(self, parcel, settings)
        for process in self._executor._processes.values():
            os.kill(process.pid, signal.SIGKILL)
        return future

    monkeypatch.setattr(_workers.Workers, "submit", killed)
    with pytest.warns(UserWarning, match="ended 2 times"):
        np.testing.assert_array_equal(search(digits, n_jobs=2), expected)


def test_processes_that_ended_before_they_are_asked_lose_no_fit(
    digits, sent, monkeypatch
):
    expected = search(digits)
    submit = _workers.Workers.submit

    def ended(self, parcel, settings):
        if not sent:
            self.kill()
        return submit(self, parcel, settings)

    monkeypatch.setattr(_workers.Workers, "submit", ended)
    np.testing.assert_array_equal(search(digits, n_jobs=2), expected)
    assert len(sent) == 2


class Unknown:
    """Cannot be unpickled."""

    def __reduce__(self):
        return open, ("/no/such/file",)

    def __deepcopy__(self, memo):
        return self


UNKNOWN = Unknown()


class Strange(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.unknown = nn.Linear(64, 10), UNKNOWN

    def forward(self, X):
        return self.layer(X)


def test_what_another_process_cannot_train_is_trained_here(digits, sent, stacks, capfd):
    own = net(module=Strange, hidden_layer_sizes=())
    expected = GridSearchCV(own, GRID, cv=2, refit=False).fit(*digits)
    with joblib.parallel_config("skreg", n_jobs=2, verbose=1):
        found = GridSearchCV(own, GRID, cv=2, refit=False).fit(*digits)
    assert sent
    assert "No such file" in capfd.readouterr().err
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )


def test_data_are_written_once_and_read_in_place(digits, monkeypatch):
    found = {}

    def look(groups, pool):
        parcels = Parcels(pool)
        try:
            data = parcels.pack(groups[0].candidates)
            found["files"] = len(list(parcels._folder.iterdir()))
            found["bytes"] = len(data)
            twins = opened(data)
            found["data"] = {twin.train.X.ctypes.data for twin in twins}
            found["writeable"] = twins[0].train.X.flags.writeable
            folder = parcels._folder
        finally:
            parcels.close()
        found["left"] = folder.exists()
        return _engine.train_in_turn(groups, pool)

    monkeypatch.setattr(StackSharing, "__call__", lambda self, *args: look(*args))
    X = np.repeat(digits[0], 4, axis=1)
    nets = [net(lambda2=x) for x in np.linspace(0, 1, 12)]
    fitted((X, digits[1]), nets)
    assert found["files"] == 1  # y is small
    assert found["bytes"] < 2 * len(nets) * 8 * 4 * (256 + 10) * 4
    assert len(found["data"]) == 1
    assert not found["writeable"]
    assert not found["left"]


def test_equal_data_of_other_fits_are_one_file(digits):
    pool = DataPool()
    parcels = Parcels(pool)
    array = np.zeros(2**16)
    assert parcels.place_of(array) == parcels.place_of(array)
    parcels.close()
    parcels.close()  # nothing happens


SCRIPT = """
import sys, time
import joblib, numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skreg import RegularizedNetClassifier
from skreg.batching.processes.workers import workers

X, y = load_digits(return_X_y=True)
started = workers(1)
while started.n_ready < 1:
    time.sleep(0.05)
print("ready", *started._executor._processes, flush=True)
X = np.repeat(X, 16, axis=1)  # to be shared
net = RegularizedNetClassifier(hidden_layer_sizes=8, max_epochs=10**6)
with joblib.parallel_config("skreg", n_jobs=2):
    GridSearchCV(net, {"lambda2": np.linspace(0, 1, 16)}, cv=2).fit(X / 16, y)
"""


@posix
@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_a_search_that_is_ended_leaves_no_process_and_no_file(how, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "JOBLIB_TEMP_FOLDER": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        pids = [int(pid) for pid in process.stdout.readline().split()[1:]]
        assert pids
        assert wait_for(lambda: list(tmp_path.rglob("*.bin")))
        process.send_signal(getattr(signal, how))
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0
    if how == "SIGINT":
        assert "KeyboardInterrupt" in errors
    assert wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    assert wait_for(lambda: not list(tmp_path.iterdir()))


def wait_for(condition, seconds=60):
    """Return what a condition says at last, which should be something true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
