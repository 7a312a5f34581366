"""Ctrl-C ends a search at any moment, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

INTERRUPTED = """
import faulthandler, threading, time
faulthandler.dump_traceback_later(100, exit=True)
from skreg.estimators import RegularizedNetClassifier  # before joblib
import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from skreg.callbacks import Callback

class Announce(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            print("alone", flush=True)

class Slow(RegularizedNetClassifier):
    def initialize(self):
        super().initialize()
        if self.seed_ == 1:
            print("waiting", flush=True)
            for _ in range(200):
                time.sleep(1e-2)
        return self

class Announced(RegularizedNetClassifier):
    def on_train_begin(self, net, **kwargs):
        super().on_train_begin(net, **kwargs)
        print("batch", flush=True)

X, y = load_iris(return_X_y=True)
for net in [
    Announced(random_state=0),
    RegularizedNetClassifier(random_state=0, callbacks=[Announce()]),
    Slow(random_state=1),
]:
    with joblib.parallel_config("skreg"):
        try:
            cross_val_score(net.set_params(max_epochs=10**6), X, y)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print([t.name for t in threading.enumerate()], flush=True)
        cross_val_score(RegularizedNetClassifier(max_epochs=1), X, y)
"""

THREADS_OF_TORCH = """
import os, threading
import joblib
import skreg.batching._backend
from sklearn.datasets import make_classification
from sklearn.model_selection import cross_val_score
from torch import nn
from skreg import RegularizedNetClassifier

def train_together(jobs, **options):
    print(len(jobs), len(os.listdir("/proc/self/task")) - threading.active_count())
    for job in jobs:
        job.train_alone("a test")

skreg.batching._backend.train_together = train_together
X, y = make_classification(1000, 100, random_state=0)
module = nn.Sequential(nn.Linear(100, 500), nn.ReLU(), nn.Linear(500, 2))
with joblib.parallel_config("skreg"):
    cross_val_score(RegularizedNetClassifier(module, max_epochs=1), X, y, cv=20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_fits_that_wait_keep_no_threads_of_torch():
    """Each would keep a team of its own; those of a stack would then go to sleep."""
    found = subprocess.run(
        [sys.executable, "-c", THREADS_OF_TORCH],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    n_waiting, n_more_threads = map(int, found.stdout.split())
    assert n_waiting == 20
    assert n_more_threads < n_waiting


INTERRUPTED_AT_RANDOM = """
import faulthandler, os, random, signal, sys, threading, time, warnings
faulthandler.dump_traceback_later(100, exit=True)
sys.path.insert(0, sys.argv[1])
from waiting_fits import outcome_of
import skreg.batching._backend

def train_together(jobs, **options):
    for job in jobs:
        job.train_alone("a test")

skreg.batching._backend.train_together = train_together
state = [*warnings.filters], warnings.showwarning
rng = random.Random(0)
for i in range(150):
    seed, n_jobs = rng.randrange(160), rng.choice([None, 3])
    delay = 0.03 * rng.random()
    alarm = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    try:
        alarm.start()
        outcome_of(seed, backend="skreg", max_in_flight=1 + seed % 9, n_jobs=n_jobs)
        time.sleep(10)
    except KeyboardInterrupt:
        pass
    alarm.join()
    time.sleep(1e-3)
    assert not [t for t in threading.enumerate() if t.name == "skreg"], i
    assert ([*warnings.filters], warnings.showwarning) == state, i
"""


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_interrupts_at_random_moments_leave_nothing_behind():
    command = [sys.executable, "-c", INTERRUPTED_AT_RANDOM, Path(__file__).parent]
    subprocess.run(command, check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_interrupt_ends_a_search():
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        # Five nets begin, and are trained as one batch; one is trained alone; one is
        # about to be initialised.
        for moment, n_times in [("batch", 5), ("alone", 1), ("waiting", 1)]:
            for _ in range(n_times):
                assert process.stdout.readline() == f"{moment}\n"
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            assert process.stdout.readline() == "interrupted\n"
            # A task that computes is let end: the last one, for two seconds.
            assert time.monotonic() - started < 5
            assert process.stdout.readline() == "['MainThread']\n"
    assert process.returncode == 0
