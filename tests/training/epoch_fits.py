"""Fits of few epochs, and whether their histories are the same."""

import numpy as np
import pytest

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker


def fit(data, make=RegularizedNetClassifier, callbacks=(), **params):
    if (schedule := params.pop("schedule", None)) is not None:
        callbacks = [*callbacks, schedule]
    params = {"hidden_layer_sizes": 8, "max_epochs": 4, "random_state": 0} | params
    net = make(callbacks=[*callbacks], **params)
    X, y = data
    net.fit(X[::2], y[::2], np.arange(75) % 3, X_val=X[1::2], y_val=y[1::2])
    return net, net.training_path_ != "hooks"


def trackers(params):
    return [] if "make" in params else [AccuracyTracker(on_train=True)]


def without_time(epoch):
    return {key: value for key, value in epoch.items() if key != "dur"}


def assert_same_history(a, b, tolerance):
    assert len(a) == len(b)
    for x, y in zip(map(without_time, a), map(without_time, b), strict=True):
        assert x.keys() == y.keys()
        for key in x.keys() - {"batches", "param_norms", "event_best"}:
            assert x[key] == pytest.approx(y[key], **tolerance), key
        assert x["param_norms"] == pytest.approx(y["param_norms"], **tolerance)
        for p, q in zip(x["batches"], y["batches"], strict=True):
            assert p == pytest.approx(q, **tolerance)
