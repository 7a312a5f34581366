"""Modules that return what their criterion does not take: an error, or a warning."""

import warnings

import joblib
import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from joblib import delayed
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.batching.stacking import stack_size as _cost
from skreg.modules import MLP, AnimalNet

PROBABILITIES = "The module returns probabilities, but criterion=CrossEntropyLoss"
NOT_LOGARITHMS = "exponentials do not sum to 1, but criterion=NLLLoss"
SIGMOID = "The module ends in a sigmoid, but criterion"
BOUNDED = "The module returns numbers between 0 and 1, but scale_target=True"


@pytest.fixture(scope="module")
def shares(iris):
    """Targets between 0 and 1, which sum to 1."""
    X, y = iris
    return X, np.eye(3)[y] * 0.8 + 0.2 / 3


def ending_in(last, n_outputs=3):
    torch.manual_seed(0)  # some are made before tests begin
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n_outputs), last)


class TwoColumns(nn.Module):
    """Returns the probabilities of two classes, made of one logit."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        p = self.layer(x).sigmoid()
        return torch.cat([1 - p, p], dim=1)


class Squeezed(nn.Module):
    """Ends in a sigmoid whose shape is changed."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x).sigmoid().unsqueeze(0).view(-1, 3).squeeze()


def classifier(**params):
    params = {"max_epochs": 2, "random_state": 0, "hidden_layer_sizes": 5} | params
    return RegularizedNetClassifier(**params)


def regressor(**params):
    params = {"max_epochs": 2, "random_state": 0, "hidden_layer_sizes": 5} | params
    return RegularizedNetRegressor(**params)


PATHS = {
    "lean": {},
    "hooks": {"callbacks": [SeesBatches()]},
    "closure": {"optimizer": torch.optim.LBFGS, "lr": 1e-4},
    "amp": {"amp": "bfloat16"},
    "accumulates": {"batch_size": -1},
    "weighted": {"class_weight": {0: 1.0, 1: 2.0, 2: 1.0}},
    "schedule": {"shuffle": False, "batch_size": 1, "max_epochs": 1},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("last", "criterion", "message"),
    [
        (nn.Softmax(dim=1), nn.CrossEntropyLoss, PROBABILITIES),
        (nn.Softmax(dim=1), nn.NLLLoss, f"probabilities whose {NOT_LOGARITHMS}"),
        (nn.Identity(), nn.NLLLoss, f"numbers whose {NOT_LOGARITHMS}"),
        (nn.Sigmoid(), nn.CrossEntropyLoss, SIGMOID),
    ],
)
def test_outputs_that_a_criterion_does_not_take_are_told_of_once(
    iris, last, criterion, message, path
):
    net = classifier(module=ending_in(last), criterion=criterion, **PATHS[path])
    with pytest.warns(UserWarning, match=message) as caught:
        net.fit(*iris)
    assert len(caught) == 1
    if path != "closure":  # a loss without a bound
        net.partial_fit(*iris)  # no news


def test_a_criterion_may_be_an_instance_or_compiled(iris):
    module = ending_in(nn.Softmax(dim=1))
    with pytest.warns(UserWarning, match=PROBABILITIES):
        classifier(module=module, criterion=nn.CrossEntropyLoss()).fit(*iris)
    net = classifier(module=module, compile=True, compile__backend="eager")
    with pytest.warns(UserWarning, match=PROBABILITIES):
        net.fit(*iris)


def test_a_new_criterion_is_looked_at_again(iris):
    net = classifier(module=ending_in(nn.LogSoftmax(dim=1))).fit(*iris)
    net.set_params(criterion=nn.NLLLoss).partial_fit(*iris)
    net = classifier(module=ending_in(nn.Identity())).fit(*iris)
    net.set_params(criterion=nn.NLLLoss)
    with pytest.warns(UserWarning, match=NOT_LOGARITHMS):
        net.partial_fit(*iris)


def test_probabilities_made_by_hand_are_noticed(iris):
    X, y = iris
    with pytest.warns(UserWarning, match=PROBABILITIES):
        classifier(module=TwoColumns).fit(X, y > 0)
    with pytest.warns(UserWarning, match=SIGMOID):
        classifier(module=Squeezed).fit(X, y)


def test_without_the_softmax_it_learns(iris):
    params = {"max_epochs": 80, "lr": 0.02}
    with pytest.warns(UserWarning, match="Remove the softmax"):
        first = classifier(module=ending_in(nn.Softmax(dim=1)), **params).fit(*iris)
    second = classifier(module=ending_in(nn.Identity()), **params).fit(*iris)
    # Of three classes, none is more probable than e / (e + 2).
    assert first.predict_proba(iris[0]).max() < 0.577
    assert second.predict_proba(iris[0]).max() > 0.9


@pytest.mark.parametrize(
    "module", [None, MLP, AnimalNet, AnimalNet(4, 3), MLP(4, 3, (5,))]
)
@pytest.mark.parametrize("criterion", [nn.NLLLoss, nn.NLLLoss()])
def test_our_modules_do_not_go_with_log_likelihoods(iris, module, criterion):
    net = classifier(module=module, criterion=criterion)
    with pytest.raises(ValueError, match=r"criterion=NLLLoss takes log-prob.* returns"):
        net.fit(*iris)
    assert not net.initialized_
    with joblib.parallel_config("skreg"), pytest.raises(ValueError, match="NLLLoss"):
        joblib.Parallel()(delayed(net.fit)(*iris) for _ in range(3))


class LogNet(MLP):
    def forward(self, x):
        return F.log_softmax(super().forward(x), dim=1)


class LogLoss(RegularizedNetClassifier):
    def get_loss(self, y_pred, y_true, **kwargs):
        return super().get_loss(F.log_softmax(y_pred, dim=1), y_true, **kwargs)


class LogOfProbabilities(nn.CrossEntropyLoss):
    """Takes probabilities, as skorch's classifier has it."""

    def forward(self, p, y):
        return F.nll_loss(torch.log(p + 1e-6), y)


class AlmostSure(nn.Module):
    """Returns logarithms of probabilities that are never zero."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return torch.log(self.layer(100 * x).softmax(dim=1) + 1e-2)


FINE = [
    {},
    {"hidden_layer_sizes": ()},
    {"batch_size": 1, "max_epochs": 1},
    {"module": LogNet},
    {"module": LogNet, "criterion": nn.NLLLoss},
    {"module": AlmostSure, "criterion": nn.NLLLoss},
    {"module": LogNet, "criterion": nn.NLLLoss, "amp": "bfloat16"},
    {"module": ending_in(nn.ReLU())},
    {"module": ending_in(nn.Tanh())},
    {"module": ending_in(nn.Hardtanh(0, 1))},
    {"module": ending_in(nn.BatchNorm1d(3))},
    {"module": ending_in(nn.Softmax(dim=1)), "criterion": LogOfProbabilities},
    {"criterion": nn.MultiMarginLoss, "module": ending_in(nn.Softmax(dim=1))},
]


@pytest.mark.parametrize("params", FINE)
def test_nothing_is_said_of_outputs_that_may_be_meant(iris, params):
    X, y = iris
    composition = X / X.sum(axis=1, keepdims=True)
    for inputs in (X, composition, np.eye(4, dtype=np.float32)[y]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            classifier(**params).fit(inputs, y)


def test_a_loss_of_the_users_may_take_the_logarithm(iris):
    params = {"max_epochs": 2, "random_state": 0, "hidden_layer_sizes": 5}
    net = LogLoss(criterion=nn.NLLLoss, **params).fit(*iris)
    assert np.allclose(
        net.predict_proba(iris[0]),
        classifier().fit(*iris).predict_proba(iris[0]),
        atol=1e-5,
    )


def test_bounded_outputs_do_not_go_with_standardised_targets(shares):
    X, Y = shares
    for last in (nn.Sigmoid(), nn.Softmax(dim=1)):
        for params in ({}, {"callbacks": [SeesBatches()]}):
            with pytest.warns(UserWarning, match=BOUNDED) as caught:
                regressor(module=ending_in(last), **params).fit(X, Y)
            assert len(caught) == 1
        regressor(module=ending_in(last), scale_target=False).fit(X, Y)
    with pytest.warns(UserWarning, match=BOUNDED):
        regressor(module=ending_in(nn.Softmax(dim=1), 1)).fit(X, Y[:, 0])


def test_a_sigmoid_does_not_go_with_a_loss_that_has_its_own(shares):
    X, Y = shares
    params = {"criterion": nn.BCEWithLogitsLoss, "scale_target": False}
    with pytest.warns(UserWarning, match=SIGMOID):
        regressor(module=ending_in(nn.Sigmoid()), **params).fit(X, Y)
    regressor(module=ending_in(nn.Identity()), **params).fit(X, Y)
    regressor(module=ending_in(nn.Hardtanh(0, 1)), **params).fit(X, Y)
    params["criterion"] = nn.BCELoss
    regressor(module=ending_in(nn.Sigmoid()), **params).fit(X, Y)


@pytest.mark.parametrize(
    ("make", "last", "message"),
    [
        (classifier, nn.Softmax(dim=1), PROBABILITIES),
        (classifier, nn.Sigmoid(), SIGMOID),
        (regressor, nn.Sigmoid(), BOUNDED),
        (regressor, nn.Softmax(dim=1), BOUNDED),
    ],
)
def test_stacks_tell_of_it_once(iris, shares, make, last, message, capfd, monkeypatch):
    monkeypatch.setattr(_cost, "wins_race", lambda *args: True)
    X, y = iris if make is classifier else shares
    nets = [make(module=ending_in(last), max_epochs=n) for n in (1, 2, 3)]
    with joblib.parallel_config("skreg"), pytest.warns(match=message) as caught:
        joblib.Parallel(verbose=1)(delayed(net.fit)(X, y) for net in nets)
    assert "alone" not in capfd.readouterr().err
    assert len(caught) == 1


def test_stacks_that_are_told_to_fail_do(iris):
    net = classifier(module=ending_in(nn.Softmax(dim=1)))
    with warnings.catch_warnings(), joblib.parallel_config("skreg"):
        warnings.simplefilter("error", UserWarning)
        fits = [delayed(clone(net).fit)(*iris) for _ in range(3)]
        with pytest.raises(UserWarning, match=PROBABILITIES):
            joblib.Parallel()(fits)
