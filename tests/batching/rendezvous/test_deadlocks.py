"""Fits that wait for each other: none waits for ever."""

import threading
import time

import joblib
import pytest
from joblib import Parallel, delayed
from sklearn.model_selection import cross_val_score
from waiting_fits import FakeNet, outcome_of, small, within

from skreg.batching._broker import Broker


@pytest.fixture
def impatient(monkeypatch):
    original = Broker.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs, patience=0.02)

    monkeypatch.setattr(Broker, "__init__", init)


@pytest.mark.parametrize("n_jobs", [None, 3])
@pytest.mark.parametrize("chunk", range(4))
def test_random_mixes_of_tasks_end_and_agree(batches, impatient, chunk, n_jobs):
    def compare(seed):
        alone = outcome_of(seed)
        options = {"backend": "skreg", "max_in_flight": 1 + seed % 9, "n_jobs": n_jobs}
        assert outcome_of(seed, **options) == alone, seed

    for seed in range(40 * chunk, 40 * (chunk + 1)):
        within(60, lambda seed=seed: compare(seed))


def test_a_lock_around_fits(batches, impatient):
    lock = threading.Lock()

    def task(i):
        with lock:
            return FakeNet(i).fit()

    def run():
        with joblib.parallel_config("skreg"):
            return Parallel()(delayed(task)(i) for i in range(1, 9))

    assert within(60, run) == list(range(2, 10))


def test_slow_tasks_are_waited_for(impatient, batches):
    def task(i):
        start = time.process_time()
        while time.process_time() - start < 0.08:
            pass
        return FakeNet(i).fit()

    with joblib.parallel_config("skreg"):
        Parallel()(delayed(task)(i) for i in range(1, 6))
    assert batches == [5]


def test_processes_inside_of_a_task(batches):
    def task(i):
        with pytest.warns(UserWarning, match="Loky-backed parallel loops"):
            return Parallel(n_jobs=2, backend="loky")(
                delayed(FakeNet.fit)(FakeNet(j)) for j in range(1, 4)
            )

    def run():
        with joblib.parallel_config("skreg"):
            return Parallel()(delayed(task)(i) for i in range(2))

    assert within(60, run) == [[2, 3, 4]] * 2


def test_no_more_threads_than_the_system_gives(iris, batches, monkeypatch):
    begin = threading.Thread.start

    def start(thread):
        if thread.name == "skreg":
            alive = [t for t in threading.enumerate() if t.name == "skreg"]
            if len(alive) >= 5:
                raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with joblib.parallel_config("skreg"):
        assert len(cross_val_score(small(), *iris, cv=18)) == 18
    assert sum(batches) == 18
    assert max(batches) == 5
