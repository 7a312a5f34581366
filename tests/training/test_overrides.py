"""Whoever overrides a method is trained as skorch does it, with every method called."""

import inspect
from collections import Counter

import joblib
import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer, LRScheduler
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker

PARAMS = {"hidden_layer_sizes": 4, "max_epochs": 2, "batch_size": 40, "random_state": 0}


class CountsInLoss(RegularizedNetClassifier):
    def get_loss(self, y_pred, y_true, **kwargs):
        n = len(self.history[-1, "batches"])
        self.history.record_batch("n_batches", n)
        return super().get_loss(y_pred, y_true, **kwargs)


class CountsInInfer(RegularizedNetClassifier):
    def infer(self, x, **kwargs):
        self.history.record_batch("n_batches", len(self.history[-1, "batches"]))
        return super().infer(x, **kwargs)


class ReadsLosses(RegularizedNetClassifier):
    def get_loss(self, y_pred, y_true, **kwargs):
        before = self.history[-1]["batches"][:-1]
        self.history.record_batch("n_batches", 1 + sum(map(_has_loss, before)))
        return super().get_loss(y_pred, y_true, **kwargs)


def _has_loss(row):
    return bool({"train_loss", "valid_loss"} & row.keys())


@pytest.mark.parametrize("make", [CountsInLoss, CountsInInfer, ReadsLosses])
def test_an_override_sees_the_batch_in_the_history(iris, make):
    X, y = iris
    net = make(**PARAMS).fit(X, y, X_val=X[:50], y_val=y[:50])
    for epoch in range(2):
        assert net.history[epoch, "batches", :, "n_batches"] == [1, 2, 3, 4, 5, 6]


def test_a_criterion_or_augmentation_may_count_batches(iris):
    counts = []

    class Loss(nn.CrossEntropyLoss):
        def forward(self, outputs, targets):
            counts.append(len(net.history[-1, "batches"]))
            net.history.record_batch("seen", counts[-1])
            return super().forward(outputs, targets)

    def augment(x):
        counts.append(len(net.history[-1, "batches"]))
        return x

    for params in ({"criterion": Loss()}, {"augment": augment}):
        net = RegularizedNetClassifier(**PARAMS, **params)
        net.fit(*iris)
        assert counts == [1, 2, 3, 4] * 2
        counts.clear()
    assert len(net.history[-1, "batches"]) == 4


METHODS = [
    name
    for name in dir(RegularizedNetClassifier)
    if inspect.isfunction(getattr(RegularizedNetClassifier, name))
    and not name.startswith("__")
]


def calls(name, iris, make=RegularizedNetClassifier, **params):
    """Return how often each method was called in a fit that overrides one."""
    counts = Counter()
    original = getattr(make, name)

    def counted(self, *args, **kwargs):
        counts[bool(self._session)] += 1
        return original(self, *args, **kwargs)

    Mine = type("Mine", (make,), {name: counted})
    X, y = iris
    net = Mine(**PARAMS, **params)
    net.fit(X, y, X_val=X[:50], y_val=y[:50]).partial_fit(X, y)
    net.score(X, y)
    return counts, net


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_called_as_often_as_in_the_loop_of_skorch(iris, name):
    callbacks = [AccuracyTracker(on_train=True)]
    ours, net = calls(name, iris, callbacks=[*callbacks, EpochTimer()])
    theirs, other = calls(name, iris, callbacks=[*callbacks, SeesBatches()])
    assert ours == theirs
    for a, b in zip(net.module_.parameters(), other.module_.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def twice(get_loss):
    def get_loss_twice(self, *args, **kwargs):
        return 2 * get_loss(self, *args, **kwargs)

    return get_loss_twice


def assert_twice(net, iris):
    plain = RegularizedNetClassifier(**PARAMS, lr=0.0).fit(*iris)
    net.fit(*iris)
    for epoch, other in zip(net.history, plain.history, strict=True):
        assert epoch["train_loss"] == pytest.approx(2 * other["train_loss"])


def test_a_method_of_one_net_may_be_replaced(iris):
    net = RegularizedNetClassifier(**PARAMS, lr=0.0)
    net.get_loss = twice(RegularizedNetClassifier.get_loss).__get__(net)
    assert_twice(net, iris)


def test_a_method_of_our_class_may_be_replaced(iris):
    with pytest.MonkeyPatch.context() as patch:
        loss = twice(RegularizedNetClassifier.get_loss)
        patch.setattr(RegularizedNetClassifier, "get_loss", loss, raising=False)
        net = RegularizedNetClassifier(**PARAMS, lr=0.0).fit(*iris)
    expected = RegularizedNetClassifier(**PARAMS, lr=0.0).fit(*iris)
    assert net.history[-1, "train_loss"] == pytest.approx(
        2 * expected.history[-1, "train_loss"]
    )


class InFront:
    get_loss = twice(RegularizedNetClassifier.get_loss)


class Behind(NeuralNetClassifier):
    steps = 0

    def train_step(self, batch, **kwargs):
        type(self).steps += 1
        return super().train_step(batch, **kwargs)


def test_mixins_are_noticed_in_front_of_our_classes_and_behind(iris):
    class First(InFront, RegularizedNetClassifier):
        """Has the loss of a mixin."""

    class Last(RegularizedNetClassifier, Behind):
        """Has the steps of a class of skorch's kind."""

    assert_twice(First(**PARAMS, lr=0.0), iris)
    Last(**PARAMS).fit(*iris)
    assert Last.steps == 8


def test_a_schedule_by_a_function_may_change_the_weights(iris):
    def monitor(net):
        for weight in net.module_.parameters():
            weight.data = torch.full_like(weight, 0.1)
        return 1.0

    schedule = LRScheduler("ReduceLROnPlateau", monitor=monitor)
    X, y = iris
    net = RegularizedNetClassifier(**PARAMS, callbacks=[schedule])
    net.fit(X, y, X_val=X, y_val=y)
    for weight in net.module_.parameters():
        assert torch.equal(weight, torch.full_like(weight, 0.1))
    assert len(np.unique(net.predict_proba(X).round(6))) == 1


class OwnChecks(RegularizedNetClassifier):
    def _checked_outputs(self, y_pred, n_samples):
        if self.lambda1 > 0:
            raise ArithmeticError("these outputs will not do")
        return super()._checked_outputs(y_pred, n_samples)


class OwnStep(RegularizedNetRegressor):
    def train_step(self, batch, **kwargs):
        X, y = batch
        return super().train_step((X, 0 * y), **kwargs)


class Harmless(RegularizedNetClassifier):
    """Overrides what no batch passes through."""

    def __repr__(self):
        return "Harmless"

    def initialize_module(self):
        super().initialize_module()
        self.prepared_ = True

    def score(self, X, y, sample_weight=None):
        return super().score(X, y, sample_weight) / 2


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (OwnChecks, "6 of 6 fits trained alone: OwnChecks overrides _checked_outputs."),
        (OwnStep, "6 of 6 fits trained alone: OwnStep overrides train_step."),
        (CountsInInfer, "fits trained alone: CountsInInfer overrides infer."),
        (Harmless, None),
    ],
)
def test_stacks_leave_out_who_overrides_what_they_do_not_know(
    iris, make, reason, capfd
):
    net = make(**PARAMS | {"hidden_layer_sizes": 5})
    grid = {"lambda2": [0.0, 0.01, 0.1]}

    def search():
        return GridSearchCV(net, grid, cv=2, refit=False).fit(*iris)

    plain = search()
    with joblib.parallel_config("skreg", verbose=1):
        stacked = search()
    told = capfd.readouterr().err
    assert (reason in told) if reason else "alone" not in told
    key = "mean_test_score"
    assert stacked.cv_results_[key] == pytest.approx(plain.cv_results_[key])
