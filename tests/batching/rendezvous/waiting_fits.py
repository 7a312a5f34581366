"""Fits that wait for each other, also in calls of random tasks."""

import faulthandler
import tempfile
import threading
import time
from types import MappingProxyType

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed

from skreg import RegularizedNetClassifier
from skreg.callbacks import StopTraining
from skreg.training.trainer import train


def small(**params):
    params = {"hidden_layer_sizes": 4, "max_epochs": 2, "random_state": 0} | params
    return RegularizedNetClassifier(**params)


def within(seconds, function):
    """Return what the function returns; dump all stacks if it takes longer."""
    outcome = []

    def run():
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        with tempfile.TemporaryFile("w+") as file:
            faulthandler.dump_traceback(file)
            file.seek(0)
            pytest.fail(f"no end after {seconds} s:\n{file.read()}")
    ((result, error),) = outcome
    if error is not None:
        raise error
    return result


class FakeNet:
    """Takes part in the rendezvous, at no cost, as a net and as its own fit."""

    sample_weight = validation = train_split = augment = callbacks = None
    regularizers, fit_params = None, MappingProxyType({})

    def __init__(self, value):
        self.value, self.net = value, self

    def fit(self):
        train(self, None, None)
        return self.result

    def fit_loop(self, X, y, **fit_params):
        if self.value % 17 == 0:
            raise ArithmeticError(self.value)
        self.result = self.value + 1


LOCKS = [threading.RLock() for _ in range(2)]


def random_task(seed, depth):
    """Do some of all that a task may do; return something that depends on `seed`."""
    rng = np.random.default_rng(seed)
    total = 0
    for _ in range(rng.integers(0, 4)):
        action = rng.choice(list(ACTIONS))
        child = int(rng.integers(10**6))
        try:
            total += ACTIONS[action](child, depth)
        except ArithmeticError:
            if rng.random() < 0.1:
                raise
            total -= 1
    return total


def random_call(seed, depth, **kwargs):
    if depth == 3:
        return 0
    rng = np.random.default_rng(seed)
    n_tasks = int(rng.integers(0, [14, 5, 3][depth]))
    seeds = rng.integers(10**6, size=n_tasks)
    return sum(Parallel(**kwargs)(delayed(random_task)(s, depth + 1) for s in seeds))


def in_new_backend(seed, depth):
    with joblib.parallel_config("skreg", max_in_flight=1 + seed % 5):
        return random_call(seed, depth)


def in_own_thread(seed, depth):
    result = []
    net = FakeNet(17 * seed + 1)
    thread = threading.Thread(target=lambda: result.append(net.fit()))
    thread.start()
    thread.join()
    return result[0]


def behind_a_lock(seed, depth):
    with LOCKS[seed % 2]:
        return FakeNet(seed).fit()


def stop(seed, depth):
    class Stopped(FakeNet):
        def fit_loop(self, X, y):
            raise StopTraining

    try:
        return Stopped(seed).fit()
    except StopTraining:
        return 5


ACTIONS = {
    "nothing": lambda seed, depth: seed,
    "sleep": lambda seed, depth: time.sleep(seed % 3 * 1e-4) or 1,
    "error": lambda seed, depth: 1 // (seed % 3),
    "fit": lambda seed, depth: FakeNet(seed).fit(),
    "fits": lambda seed, depth: sum(FakeNet(seed + i).fit() for i in range(3)),
    "stop": stop,
    "call": random_call,
    "same call twice": lambda s, d: random_call(s, d) + random_call(s, d),
    "call with one job": lambda s, d: random_call(s, d, n_jobs=1),
    "call of threads": lambda s, d: random_call(s, d, n_jobs=2, backend="threading"),
    "generator": lambda s, d: sum(
        Parallel(return_as="generator")(delayed(pow)(i, 2) for i in range(s % 4))
    ),
    "new backend": in_new_backend,
    "own thread": in_own_thread,
    "lock": behind_a_lock,
}


def outcome_of(seed, **config):
    if not config:
        config = {"n_jobs": 1}
    with joblib.parallel_config(**config):
        try:
            return random_call(seed, 0)
        except ArithmeticError as error:
            return type(error)
