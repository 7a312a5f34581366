import signal
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from skorch.callbacks import EarlyStopping as SkorchEarlyStopping

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker, EarlyStopping, StopTraining
from skreg.modules import MLP
from skreg.penalties import frobenius_norm


@pytest.fixture(scope="module")
def data():
    X, y = make_classification(
        200, 8, n_informative=5, n_classes=3, flip_y=0.3, random_state=0
    )
    return X.astype(np.float32), np.array(["a", "b", "c"])[y]


def fit(data, **params):
    params = {"random_state": 0, "max_epochs": 5, "hidden_layer_sizes": 16} | params
    X, y = data
    net = RegularizedNetClassifier(**params)
    return net.fit(X[:100], y[:100], X_val=X[100:], y_val=y[100:])


def test_norms_are_those_of_the_weights_after_the_epoch(data):
    norms = []

    class Spy(Callback):
        def on_epoch_end(self, net, **kwargs):
            norms.append(frobenius_norm(net.module_))

    net = fit(data, callbacks=[Spy()])
    assert net.history[:, "param_norm"] == norms
    assert norms[-1] == frobenius_norm(net.module_)
    last = net.history[-1, "param_norms"]
    assert last == {
        name: pytest.approx(w.norm().item(), rel=1e-6)
        for name, w in net.module_.named_parameters()
    }


def test_accuracies_are_those_of_the_net_after_the_epoch(data):
    X, y = data
    expected = []

    class Spy(Callback):
        def on_epoch_end(self, net, **kwargs):
            codes = np.unique(y, return_inverse=True)[1]
            with torch.no_grad():
                hits = (
                    net.module_.eval()(torch.from_numpy(X)).argmax(1).numpy() == codes
                )
            expected.append((hits[:100].mean(), hits[100:].mean()))

    net = fit(data, dropout=0.5, callbacks=[Spy(), AccuracyTracker(on_train=True)])
    assert net.history[:, ("train_acc", "valid_acc")] == expected


def test_no_validation_data_no_validation_entries(data):
    X, y = data
    net = RegularizedNetClassifier(max_epochs=1).fit(X, y)
    assert not {"valid_acc", "valid_loss"} & net.history[0].keys()


class Scores(Callback):
    """Writes a given value each epoch, and keeps the weights of each."""

    def __init__(self, values):
        self.values = values

    def on_train_begin(self, net, **kwargs):
        self.weights_ = []

    def on_epoch_end(self, net, **kwargs):
        net.history.record("score", self.values[len(net.history) - 1])
        self.weights_.append(net.module_.fc1.weight.detach().clone())


def stopping_rule(scores, patience):
    """The course's loop, word for word: epochs from 1; returns (best, last)."""
    best, wait, best_epoch = 0.0, 0, 0
    for epoch, score in enumerate(scores, start=1):
        if score > best:
            best, wait, best_epoch = score, 0, epoch
        else:
            wait += 1
        if wait > patience:
            return best_epoch, epoch
    return best_epoch, len(scores)


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize(
    "scores",
    [
        [0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2],
        [0.5, 0.4, 0.6, 0.3, 0.6, 0.2, 0.61, 0.1],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2],
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    ],
)
def test_early_stopping_follows_the_rule_of_the_course(data, scores, patience):
    spy, stopping = Scores(scores), EarlyStopping(patience, monitor="score")
    net = fit(data, max_epochs=len(scores), callbacks=[spy, stopping])
    best_epoch, last_epoch = stopping_rule(scores, patience)
    assert len(net.history) == last_epoch
    assert net.best_epoch_ == stopping.best_epoch_ == best_epoch
    assert stopping.best_score_ == scores[best_epoch - 1]
    assert torch.equal(net.module_.fc1.weight, spy.weights_[best_epoch - 1])


def test_early_stopping_parameter_keeps_the_best_net(data):
    X, y = data
    stopping = {"early_stopping": True, "monitor": "valid_acc", "patience": 5}
    net = fit(data, max_epochs=60, lr=0.02, **stopping)
    accuracies = net.history[:, "valid_acc"]
    assert len(net.history) == net.best_epoch_ + 6 < 60
    assert net.best_epoch_ == np.argmax(accuracies) + 1
    assert net.score(X[100:], y[100:]) == max(accuracies)


def test_early_stopping_of_a_regressor_watches_the_loss():
    X = np.linspace(-1, 1, 60, dtype=np.float32)[:, None]
    y = X[:, 0] + np.random.default_rng(0).normal(size=60)
    net = RegularizedNetRegressor(
        early_stopping=True, patience=3, lr=0.05, max_epochs=200, random_state=0
    ).fit(X, y)
    losses = np.array(net.history[:, "valid_loss"])
    best = net.best_epoch_ - 1
    assert losses[best] <= 1.02 * losses.min()
    assert (losses[best + 1 :] > 1.02 * losses.min()).all()
    assert len(losses) == net.best_epoch_ + 4


def test_early_stopping_holds_out_a_stratified_part(data):
    X, y = data
    seen = {}

    class Spy(Callback):
        def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
            seen["train"], seen["valid"] = dataset_train, dataset_valid

    RegularizedNetClassifier(
        max_epochs=1, early_stopping=True, validation_fraction=0.2, callbacks=[Spy()]
    ).fit(X, y)
    assert len(seen["train"]) == 160
    assert len(seen["valid"]) == 40
    overall = np.unique(y, return_counts=True)[1] / len(y)
    held_out = np.unique(seen["valid"].y, return_counts=True)[1] / 40
    np.testing.assert_allclose(held_out, overall, atol=1 / 40)


def test_early_stopping_names_a_missing_key(data):
    with pytest.raises(ValueError, match=r"monitors 'val_acc'.*'valid_acc'.*X_val"):
        fit(data, callbacks=[EarlyStopping(monitor="val_acc")])


def test_best_epoch_needs_early_stopping(data):
    with pytest.raises(AttributeError, match="early_stopping=True"):
        fit(data).best_epoch_  # noqa: B018


def test_diverging_fit_stops_and_says_what_to_try(data):
    with pytest.warns(ConvergenceWarning) as record:
        net = fit(data, max_epochs=150, lr=1e30, optimizer=torch.optim.SGD)
    message = str(record[0].message)
    assert len(record) == 1
    assert len(net.history) < 10
    assert f"diverged in epoch {len(net.history)} of 150" in message
    assert "lr=1e+30" in message
    assert "Try a smaller lr" in message
    X, y = data
    with pytest.raises(ValueError, match="not finite numbers: its training diverged"):
        net.score(X, y)


def test_a_penalty_can_diverge_too(data):
    """SGD on lambda2 * w ** 2 multiplies w by 1 - 2 * lr * lambda2 in each step."""
    with pytest.warns(ConvergenceWarning, match="lambda2=1000000.0"):
        fit(data, max_epochs=150, lr=0.1, lambda2=1e6, optimizer=torch.optim.SGD)


def test_a_good_fit_does_not_warn(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(data, lambda1=1e-3, lambda2=1e-3)


class StopAt(Callback):
    def __init__(self, epoch, error):
        self.epoch = epoch
        self.error = error

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise self.error


@pytest.mark.parametrize("error", [StopTraining, KeyboardInterrupt])
def test_callbacks_may_end_training_and_all_see_the_last_epoch(data, error):
    seen = []

    class Spy(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(len(net.history))

        def on_train_end(self, net, **kwargs):
            seen.append("end")

    net = fit(data, callbacks=[StopAt(2, error), Spy()])
    assert len(net.history) == 2
    assert seen == [1, 2, "end"]


def test_early_stopping_of_skorch_works(data):
    stopping = SkorchEarlyStopping("valid_loss", patience=2, threshold=10, sink=str)
    assert len(fit(data, callbacks=[stopping], max_epochs=50).history) == 3


def test_ctrl_c_reaches_the_caller_and_leaves_a_net_that_predicts(data):
    class Interrupted(MLP):
        calls = 0

        def forward(self, x):
            Interrupted.calls += 1
            if Interrupted.calls == 6:
                raise KeyboardInterrupt
            return super().forward(x)

    X, y = data
    net = RegularizedNetClassifier(Interrupted, random_state=0, max_epochs=50)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y)
    assert 1 <= len(net.history) < 50
    assert set(net.predict(X)) <= set(y)


def test_epochs_are_printed_when_asked(data, capsys):
    fit(data)
    assert capsys.readouterr().out == ""
    fit(data, verbose=1)
    printed = capsys.readouterr().out
    assert "train_loss" in printed
    assert len(printed.splitlines()) == 2 + 5  # head, rule, and a line per epoch


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_inside_a_callback_is_no_wish_of_the_callback(data):
    class Slow(Callback):
        def on_epoch_end(self, net, **kwargs):
            signal.raise_signal(signal.SIGINT)
            sum(range(1000))

    with pytest.raises(KeyboardInterrupt):
        fit(data, callbacks=[Slow()])
