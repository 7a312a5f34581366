"""Whatever ends a fit, it ends in good order; the history is as skorch writes it."""

import os
import signal
import time
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from sklearn.base import clone
from sklearn.datasets import load_iris
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, EpochScoring, TrainEndCheckpoint
from skorch.dataset import ValidSplit
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.batching.stacking import stack_size as _cost
from skreg.callbacks import AccuracyTracker
from skreg.modules import MLP


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return ((X - X.mean(0)) / X.std(0)).astype(np.float32), y


def small(make=RegularizedNetClassifier, **params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 9, "random_state": 0} | params
    return make(**params)


class Pruned(Exception):
    """What a search raises to end a fit."""


class Ended(Callback):
    """Tells how often training has ended, and in which mode the module was."""

    def on_train_begin(self, net, **kwargs):
        self.ends = 0

    def on_train_end(self, net, X=None, y=None, **kwargs):
        assert X is not None
        assert y is not None
        self.ends += 1
        self.weights = [w.detach().clone() for w in net.module_.parameters()]


class RaisesAt(Callback):
    def __init__(self, epoch, error):
        self.epoch = epoch
        self.error = error

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise self.error


class Broken(nn.CrossEntropyLoss):
    """A loss that fails at the 20th batch."""

    calls = 0

    def forward(self, *args):
        self.calls += 1
        if self.calls == 20:
            raise Pruned
        return super().forward(*args)


class BrokenData(torch.utils.data.Dataset):
    """Data that fail at the 400th sample."""

    def __init__(self, X, y):
        self.X, self.targets, self.calls = X, y, 0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        self.calls += 1
        if self.calls == 400:
            raise Pruned
        return self.X[i], self.targets[i]


class Interrupted(MLP):
    """A module in which Ctrl-C is pressed."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 20:
            raise KeyboardInterrupt
        return super().forward(x)


ERRORS = {
    "a callback": ({}, Pruned),
    "the loss": ({"criterion": Broken}, Pruned),
    "the data": ({}, Pruned),
    "the user": ({"module": Interrupted}, KeyboardInterrupt),
}


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("origin", ERRORS)
def test_training_ends_in_good_order_whatever_raises(iris, origin, early_stopping):
    params, error = ERRORS[origin]
    callbacks = [ended := Ended()]
    if origin == "a callback":
        callbacks.append(RaisesAt(4, Pruned("enough")))
    data = BrokenData(*iris) if origin == "the data" else iris[0]
    net = small(
        callbacks=callbacks, early_stopping=early_stopping, dropout=0.5, **params
    )
    with pytest.raises(error):
        net.fit(data, iris[1])
    assert ended.ends == 1
    assert not net.module_.training
    assert 1 <= len(net.history) < 9
    assert set(net.predict(iris[0])) <= {0, 1, 2}
    assert net._session is None


@pytest.mark.parametrize("context", ["plain", "skreg"])
def test_a_fit_that_is_pruned_has_the_weights_of_its_best_epoch(iris, context):
    """The validation loss rises, with labels that are the wrong ones there."""
    X, y = iris
    kept = {}

    class Keep(Callback):
        def on_epoch_end(self, net, **kwargs):
            weight = net.module_.fc1.weight.detach().clone()
            kept[net.random_state, len(net.history)] = weight

    nets = [
        small(
            early_stopping=True,
            lr=0.05,
            random_state=seed,
            callbacks=[Keep(), ended, RaisesAt(7, Pruned())],
        )
        for seed, ended in ((0, Ended()), (1, Ended()))
    ]

    def caught(net):
        with pytest.raises(Pruned):
            net.fit(X, y, X_val=X, y_val=(y + 1) % 3)
        return net

    with joblib.parallel_config("skreg" if context == "skreg" else "threading"):
        for net in joblib.Parallel()(joblib.delayed(caught)(net) for net in nets):
            assert len(net.history) == 7
            best = int(np.argmin(net.history[:, "valid_loss"])) + 1
            assert net.best_epoch_ == best < 7
            assert torch.equal(
                net.module_.fc1.weight, kept[net.random_state, net.best_epoch_]
            )
            assert dict(net.callbacks_)["Ended"].ends == 1


def test_a_fit_of_a_stack_that_fails_ends_in_good_order(iris, monkeypatch):
    """The error is raised while the stack trains, by a monitor that there is not."""
    monkeypatch.setattr(_cost, "MIN_STACK", 2)
    ended, record = [], AccuracyTracker.on_train_end

    def counted(self, net, **kwargs):
        ended.append(net.random_state)
        record(self, net, **kwargs)

    monkeypatch.setattr(AccuracyTracker, "on_train_end", counted)

    def caught(net):
        with pytest.raises(ValueError, match="monitors 'missing'"):
            net.fit(*iris)
        return net

    nets = [
        small(early_stopping=True, monitor="missing", random_state=seed, dropout=0.1)
        for seed in range(3)
    ]
    with joblib.parallel_config("skreg"):
        nets = joblib.Parallel()(joblib.delayed(caught)(net) for net in nets)
    assert sorted(ended) == [0, 1, 2]
    assert not any(net.module_.training for net in nets)


def test_others_see_the_best_weights_when_training_ends(iris, tmp_path):
    X, y = iris
    checkpoint = TrainEndCheckpoint(dirname=str(tmp_path))
    net = small(early_stopping=True, lr=0.05, callbacks=[ended := Ended(), checkpoint])
    net.fit(X, y, X_val=X, y_val=(y + 1) % 3)
    assert net.best_epoch_ < 9
    weights = list(net.module_.parameters())
    assert all(map(torch.equal, ended.weights, weights))
    other = small().fit(X, y)
    other.load_params(f_params=str(tmp_path / "train_end_params.pt"))
    assert all(map(torch.equal, other.module_.parameters(), weights))


# -- the mode of the module ---------------------------------------------------------


@pytest.mark.parametrize("context", ["plain", "skreg"])
@pytest.mark.parametrize("max_epochs", [0, 2])
def test_the_module_is_in_evaluation_mode_after_fit(iris, context, max_epochs):
    nets = [small(dropout=0.5, max_epochs=max_epochs, lr=lr) for lr in (1e-3, 1e-2, 1)]
    with joblib.parallel_config("skreg" if context == "skreg" else "threading"):
        nets = joblib.Parallel()(joblib.delayed(net.fit)(*iris) for net in nets)
    for net in nets:
        assert not any(module.training for module in net.module_.modules())
        outputs = net.module_(torch.from_numpy(iris[0]))
        probabilities = outputs.softmax(dim=1).detach().numpy()
        np.testing.assert_allclose(probabilities, net.predict_proba(iris[0]), rtol=1e-5)


def test_the_module_is_in_evaluation_mode_after_loading(iris, tmp_path):
    path = str(tmp_path / "weights")
    small(dropout=0.5, max_epochs=1).fit(*iris).save_params(f_params=path)
    sizes = {"module__in_features": 4, "module__out_features": 3}
    net = small(dropout=0.5, **sizes).initialize()
    net.load_params(f_params=path)
    assert not any(module.training for module in net.module_.modules())


def test_a_net_that_goes_on_trains_in_training_mode(iris):
    """Dropout is drawn again: k calls are one fit."""
    once = small(dropout=0.5, max_epochs=3).fit(*iris)
    often = small(dropout=0.5, max_epochs=1)
    for _ in range(3):
        often.partial_fit(*iris)
    for a, b in zip(once.module_.parameters(), often.module_.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_exported_module_computes_what_the_net_predicts(iris):
    X, y = iris
    example = torch.from_numpy(X)
    net = small(dropout=0.5, device="cpu").fit(X, y)
    exported = torch.export.export(net.module_, (example,)).module()
    probabilities = exported(example).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(probabilities, net.predict_proba(X), rtol=1e-5)
    net = small(RegularizedNetRegressor, dropout=0.5, device="cpu").fit(X, 50 + 9 * y)
    exported = torch.export.export(net.module_, (example,)).module()
    outputs = exported(example).detach().numpy().ravel()
    predicted = outputs * net.target_scale_ + net.target_mean_
    np.testing.assert_allclose(predicted, net.predict(X), rtol=1e-5)


# -- the history --------------------------------------------------------------------


class Linear(nn.Module):
    """What neither the written-out backpropagation nor skorch has to know."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.linear(x).sinh()


PATHS = {
    "backprop": {},
    "lean": {"module": Linear},
    "hooks": {"callbacks": [SeesBatches()]},
    "stack": {},
}
KINDS = {
    "classifier": (RegularizedNetClassifier, NeuralNetClassifier, nn.CrossEntropyLoss),
    "regressor": (RegularizedNetRegressor, NeuralNetRegressor, nn.MSELoss),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_history_has_all_keys_of_skorch(iris, kind, path):
    X, y = iris
    mine, theirs, criterion = KINDS[kind]
    if kind == "regressor":
        y = X[:, :1] + X[:, 1:2]
    split = {"train_split": ValidSplit(5), "max_epochs": 2, "batch_size": 64}
    module = MLP(4, y.shape[1] if kind == "regressor" else 3)
    skorch = theirs(module, criterion=criterion, verbose=0, **split).fit(X, y)
    nets = [small(mine, lambda1=x, **split, **PATHS[path]) for x in (0, 0.1, 0.2)]
    with joblib.parallel_config("skreg" if path == "stack" else "threading"):
        nets = joblib.Parallel()(joblib.delayed(net.fit)(X, y) for net in nets)
    for ours, reference in zip(nets[0].history, skorch.history, strict=True):
        assert reference.keys() <= ours.keys()
        for batch, other in zip(ours["batches"], reference["batches"], strict=True):
            assert other.keys() <= batch.keys()


@pytest.mark.parametrize("path", PATHS)
def test_the_best_accuracy_is_marked(iris, path):
    X, y = iris
    given = PATHS[path].get("callbacks", [])
    params = PATHS[path] | {"callbacks": [*given, AccuracyTracker(on_train=True)]}
    nets = [small(lr=0.05, lambda1=x, **params) for x in (0, 0.01, 0.02)]
    with joblib.parallel_config("skreg" if path == "stack" else "threading"):
        net = joblib.Parallel()(
            joblib.delayed(clone(net).fit)(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
            for net in nets
        )[0]
    net.partial_fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    for key in ("valid_acc", "train_acc"):
        values = net.history[:, key]
        before = [max([-np.inf, *values[:i]]) for i in range(len(values))]
        is_best = [value > best for value, best in zip(values, before, strict=True)]
        assert net.history[:, f"{key}_best"] == is_best


def test_a_checkpoint_of_the_best_accuracy(iris, tmp_path):
    X, y = iris
    checkpoint = Checkpoint(
        monitor="valid_acc_best", dirname=str(tmp_path), load_best=True
    )
    net = small(lr=0.05, callbacks=(checkpoint,))
    net.fit(X, y, X_val=X[::5], y_val=y[::5])
    assert net.score(X[::5], y[::5]) == max(net.history[:, "valid_acc"])


@pytest.mark.parametrize("kind", [list, tuple])
def test_callbacks_are_a_list_or_a_tuple(iris, kind):
    scoring = EpochScoring("accuracy", on_train=True, name="hits")
    net = small(callbacks=kind([("mine", scoring), AccuracyTracker(on_train=True)]))
    net.fit(*iris)
    assert {"hits", "train_acc"} <= net.history[-1].keys()
    assert "callbacks__mine__name" in net.get_params()


def test_the_log_prints_what_early_stopping_writes(iris):
    lines = []
    small(
        early_stopping=True,
        monitor="f1_macro",
        verbose=1,
        max_epochs=1,
        callbacks__print_log__sink=lines.append,
    ).fit(*iris)
    assert "valid_f1_macro" in lines[0]


# -- requests to stop, and interrupts ------------------------------------------------


class StopsAtOnce(Callback):
    def on_train_begin(self, net, **kwargs):
        raise KeyboardInterrupt  # skorch's way to end training


def test_a_request_to_stop_as_training_begins():
    net = RegularizedNetClassifier(callbacks=[StopsAtOnce()], max_epochs=3)
    net.fit([[0.0], [1.0]], [0, 1])
    assert len(net.history) == 0
    assert net.predict([[0.0]]).shape == (1,)


class Signalled(Callback):
    """Sends a signal to the process in the second epoch."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # the handler is called here


def interrupt(*args):
    raise KeyboardInterrupt


class Interrupts:
    def __call__(self, *args):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "handler",
    [interrupt, partial(interrupt), Interrupts()],
    ids=["def", "partial", "()"],
)
@pytest.mark.parametrize("context", ["sequential", "skreg"])
def test_an_interrupt_of_a_signal_handler_reaches_the_caller(handler, context):
    before = signal.signal(signal.SIGTERM, handler)
    net = RegularizedNetClassifier(callbacks=[Signalled()], max_epochs=5)
    try:
        with joblib.parallel_config(context), pytest.raises(KeyboardInterrupt):
            joblib.Parallel()(
                [joblib.delayed(clone(net).fit)([[0.0], [1.0]], [0, 1])] * 2
            )
    finally:
        signal.signal(signal.SIGTERM, before)
