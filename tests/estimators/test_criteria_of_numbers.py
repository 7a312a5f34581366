"""Regressors with criteria that take counts or shares as targets."""

from functools import partial

import joblib
import numpy as np
import pytest
import torch
from joblib import delayed
from scipy.special import expit, softmax
from skorch.callbacks import EpochScoring
from torch import nn

from skreg import RegularizedNetRegressor

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 3)).astype(np.float32)
COUNTS = rng.poisson(np.exp(X[:, 0] + 0.5))
SHARES = expit(2 * X[:, :2])
KL = partial(nn.KLDivLoss, reduction="batchmean")


def make(criterion, **params):
    params = {"random_state": 0, "lr": 0.05, "max_epochs": 40} | params
    params = {"scale_target": False, "hidden_layer_sizes": ()} | params
    return RegularizedNetRegressor(criterion=criterion, **params)


def outputs_of(net):
    with torch.no_grad():
        return net.module_(torch.as_tensor(X)).numpy()


@pytest.mark.parametrize(
    ("criterion", "allowed"),
    [
        (nn.PoissonNLLLoss, "numbers >= 0"),
        (nn.PoissonNLLLoss(log_input=False), "numbers >= 0"),
        (nn.BCEWithLogitsLoss, "numbers between 0 and 1"),
        (nn.BCELoss(), "numbers between 0 and 1"),
        (nn.MultiLabelSoftMarginLoss, "numbers between 0 and 1"),
        (nn.CrossEntropyLoss, "numbers between 0 and 1"),
        (KL(), "numbers between 0 and 1"),
        (KL(log_target=True), "numbers <= 0"),
    ],
)
def test_targets_that_they_take_are_not_standardised(criterion, allowed):
    net = make(criterion, scale_target=True)
    message = f"takes {allowed} as y, but scale_tar.*; set scale_target=False"
    with pytest.raises(ValueError, match=message):
        net.fit(X, SHARES)
    with joblib.parallel_config("skreg"), pytest.raises(ValueError, match=message):
        joblib.Parallel()(
            delayed(make(criterion, scale_target=True).fit)(X, SHARES) for _ in "abc"
        )


@pytest.mark.parametrize("criterion", [nn.PoissonNLLLoss, nn.PoissonNLLLoss()])
def test_predictions_of_counts_are_their_mean(criterion):
    scores = EpochScoring("r2", lower_is_better=False, name="r2")
    net = make(criterion, callbacks=[scores])
    net.fit(X, COUNTS, X_val=X, y_val=COUNTS)
    predicted = net.predict(X)
    np.testing.assert_allclose(predicted, np.exp(outputs_of(net)).ravel(), rtol=1e-5)
    # Of a Poisson regression with an intercept, the means agree.
    assert predicted.mean() == pytest.approx(COUNTS.mean(), rel=0.1)
    assert net.history[-1, "r2"] == pytest.approx(net.score(X, COUNTS), abs=1e-6)
    assert net.score(X, COUNTS) > 0.5
    with joblib.parallel_config("skreg"):
        nets = [make(criterion) for _ in range(3)]
        fitted = joblib.Parallel()(delayed(one.fit)(X, COUNTS) for one in nets)
    alone = make(criterion).fit(X, COUNTS).predict(X)
    for one in fitted:
        np.testing.assert_allclose(one.predict(X), alone, rtol=1e-4)


@pytest.mark.parametrize(
    ("criterion", "mean"),
    [
        (nn.BCEWithLogitsLoss, expit),
        (nn.MultiLabelSoftMarginLoss(), expit),
        (nn.CrossEntropyLoss, partial(softmax, axis=1)),
        (nn.L1Loss, np.asarray),
        (nn.PoissonNLLLoss(log_input=False), np.asarray),
    ],
)
def test_predictions_of_shares_are_their_mean(criterion, mean):
    params = {"module": nn.Sequential(nn.Linear(3, 2), nn.Softplus())}
    params = params if isinstance(criterion, nn.PoissonNLLLoss) else {}
    Y = SHARES / SHARES.sum(axis=1, keepdims=True)
    net = make(criterion, **params).fit(X, Y)
    np.testing.assert_allclose(net.predict(X), mean(outputs_of(net)), rtol=1e-5)
    assert net.score(X, Y) > 0.3


def test_one_share_is_one_column():
    net = make(nn.BCEWithLogitsLoss).fit(X, SHARES[:, 0])
    assert net.predict(X).shape == (200,)
    assert net.score(X, SHARES[:, 0]) > 0.9
    ends = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    net = make(nn.BCELoss, module=ends).fit(X, SHARES[:, 0])
    assert net.score(X, SHARES[:, 0]) > 0.9


def test_what_outputs_mean_may_be_set():
    net = make(nn.PoissonNLLLoss, predict_nonlinearity=None).fit(X, COUNTS)
    np.testing.assert_allclose(net.predict(X), outputs_of(net).ravel(), rtol=1e-5)


@pytest.mark.parametrize(
    ("criterion", "y"), [(nn.PoissonNLLLoss, -COUNTS), (nn.BCEWithLogitsLoss, COUNTS)]
)
def test_other_targets_are_an_error(criterion, y):
    match = r"y holds numbers from .* to .*, but criterion=\w+ takes numbers (>=|betw)"
    with pytest.raises(ValueError, match=match):
        make(criterion).fit(X, y)


def test_stacks_leave_out_cross_entropy_of_shares(capfd):
    Y = SHARES / SHARES.sum(axis=1, keepdims=True)
    with joblib.parallel_config("skreg"):
        nets = [make(nn.CrossEntropyLoss) for _ in range(3)]
        fitted = joblib.Parallel(verbose=1)(delayed(net.fit)(X, Y) for net in nets)
    assert "criterion CrossEntropyLoss cannot be stacked" in capfd.readouterr().err
    alone = make(nn.CrossEntropyLoss).fit(X, Y).predict(X)
    for net in fitted:
        np.testing.assert_array_equal(net.predict(X), alone)
