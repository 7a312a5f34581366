"""Searches of a process that ignores Ctrl-C, as those of nohup, cron and ``&`` do."""

import os
import signal
import subprocess
import sys
from functools import partial

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")

SEARCH = """
import ctypes, signal, sys, threading, time
import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from skreg import RegularizedNetClassifier
from skreg.callbacks import NormTracker

assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
main = threading.main_thread().ident

def stop(way):
    time.sleep(0.5)
    if way == "exception":
        error = ctypes.py_object(KeyboardInterrupt)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), error)
    elif way == "signal":
        signal.pthread_kill(main, signal.SIGUSR1)

def interrupt(*args):
    raise KeyboardInterrupt

class Announced(RegularizedNetClassifier):
    def on_train_begin(self, net, **kwargs):
        super().on_train_begin(net, **kwargs)
        print("batch", flush=True)

class Alone(Announced):
    def on_epoch_end(self, net, **kwargs):
        super().on_epoch_end(net, **kwargs)

way, kind = sys.argv[1:]
signal.signal(signal.SIGUSR1, interrupt)
X, y = load_iris(return_X_y=True)
net = (Alone if kind == "alone" else Announced)(max_epochs=10**6)
threading.Thread(target=stop, args=(way,), daemon=True).start()
with joblib.parallel_config("skreg"):
    try:
        cross_val_score(net, X, y)
    except KeyboardInterrupt:
        print("interrupted", [t.name for t in threading.enumerate()])
    cross_val_score(net.set_params(max_epochs=1), X, y)
assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""


def start(*args):
    """Start a search in a process that ignores SIGINT from its first line on."""
    return subprocess.Popen(
        [sys.executable, "-c", SEARCH, *args],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_IGN),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "kind"), [("exception", "together"), ("signal", "alone")]
)
def test_a_keyboard_interrupt_ends_a_search_that_ignores_ctrl_c(way, kind):
    with start(way, kind) as process:
        said = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert [line for line in said if line != "batch"] == ["interrupted ['MainThread']"]


def test_sigterm_ends_a_search_that_ignores_ctrl_c():
    with start("not at all", "together") as process:
        assert process.stdout.readline() == "batch\n"
        process.send_signal(signal.SIGINT)  # ignored
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    assert process.returncode == -signal.SIGTERM
