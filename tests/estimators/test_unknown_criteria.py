"""Classifiers with criteria that do not tell what outputs mean."""

from functools import partial

import joblib
import numpy as np
import pytest
import torch
from joblib import delayed
from torch import nn
from torch.nn import functional as F

from skreg import RegularizedNetClassifier

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4)).astype(np.float32)
y = X[:, :3].argmax(axis=1)
Y = (X[:, :3] > 0).astype(int)
SOFTMAX = partial(torch.softmax, dim=-1)


class Focal(nn.Module):
    """Takes logits, of one class per sample."""

    def forward(self, outputs, y):
        log_p = -F.cross_entropy(outputs, y, reduction="none")
        return -((1 - log_p.exp()).square() * log_p).mean()


class FocalOfLabels(nn.Module):
    """Takes logits, of several labels per sample."""

    def forward(self, outputs, y):
        losses = F.binary_cross_entropy_with_logits(outputs, y, reduction="none")
        return ((1 - torch.exp(-losses)).square() * losses).mean()


class ExpSum(nn.Module):
    """Returns positive numbers whose rows sum to anything."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x).exp()


def make(**params):
    params = {"max_epochs": 20, "random_state": 0, "lr": 0.02} | params
    return RegularizedNetClassifier(hidden_layer_sizes=10, **params)


@pytest.mark.parametrize("criterion", [Focal, Focal(), nn.MultiMarginLoss])
def test_outputs_that_are_no_probabilities_are_told_of(criterion):
    net = make(criterion=criterion).fit(X, y, X_val=X, y_val=y)
    name = "Focal" if criterion is not nn.MultiMarginLoss else "MultiMarginLoss"
    remedy = rf"\(the lowest is -.*criterion={name} .*partial\(torch.softmax, dim=-1\)"
    with pytest.warns(UserWarning, match=remedy) as caught:
        outputs = net.predict_proba(X)
    assert caught[0].filename == __file__
    with (
        pytest.warns(UserWarning, match="no probabilities"),
        pytest.raises(ValueError, match=r"no logarithm.*Set predict_nonlinearity"),
    ):
        net.predict_log_proba(X)
    # The largest output is that of the class: nothing is to be said of it.
    predicted = net.predict(X)
    np.testing.assert_array_equal(predicted, outputs.argmax(axis=1))
    assert net.score(X, y) == np.mean(predicted == y) == net.history[-1, "valid_acc"]
    assert net.score(X, y) > 0.8


def test_rows_must_sum_to_1():
    params = {"criterion": nn.MultiMarginLoss, "max_epochs": 2}
    net = make(module=ExpSum, **params).fit(X, y)
    with pytest.warns(UserWarning, match="a row sums to"):
        assert net.predict_proba(X).min() > 0
    with pytest.warns(UserWarning, match="a row sums to"):
        assert np.isfinite(net.predict_log_proba(X)).all()


def test_nothing_is_said_of_probabilities():
    ends = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
    nets = [
        make(criterion=Focal, predict_nonlinearity=SOFTMAX),
        make(criterion=nn.MultiMarginLoss, module=ends),
    ]
    for net in nets:
        probabilities = net.fit(X, y).predict_proba(X)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(
            net.predict_log_proba(X), np.log(probabilities), rtol=1e-4, atol=1e-6
        )


def test_a_subclass_may_say_what_probabilities_are():
    class Net(RegularizedNetClassifier):
        def predict_proba(self, X):
            return np.eye(3)[np.zeros(len(X), dtype=int)]

    net = Net(criterion=Focal, max_epochs=2, random_state=0).fit(X, y)
    assert (net.predict(X) == 0).all()


@pytest.mark.parametrize("criterion", [FocalOfLabels, FocalOfLabels(), nn.MSELoss])
def test_labels_need_to_know_what_outputs_mean(criterion):
    net = make(criterion=criterion)
    with pytest.raises(ValueError, match=r"predict_nonlinearity=torch\.sigmoid"):
        net.fit(X, Y)
    with joblib.parallel_config("skreg"), pytest.raises(ValueError, match="several l"):
        joblib.Parallel()(delayed(make(criterion=criterion).fit)(X, Y) for _ in "abc")
    early = make(criterion=criterion, module__in_features=4, module__out_features=3)
    with pytest.raises(ValueError, match="predict_nonlinearity=None"):
        early.initialize().partial_fit(X, Y)


def test_labels_are_above_a_probability_of_one_half():
    params = {"criterion": FocalOfLabels, "predict_nonlinearity": torch.sigmoid}
    net = make(**params).fit(X, Y, X_val=X, y_val=Y)
    with torch.no_grad():
        logits = net.module_(torch.as_tensor(X)).numpy()
    np.testing.assert_array_equal(net.predict(X), logits > 0)
    assert net.score(X, Y) == net.history[-1, "valid_acc"]


def test_probabilities_of_labels_are_looked_at():
    net = make(
        criterion=nn.BCELoss, module=nn.Sequential(nn.Linear(4, 3), nn.Sigmoid())
    )
    net.fit(X, Y)
    assert 0 <= net.predict_proba(X).min() <= net.predict_proba(X).max() <= 1
    net.module_ = nn.Linear(4, 3)
    with pytest.warns(UserWarning, match="BCELoss does not tell.*torch.sigmoid"):
        net.predict_proba(X)
