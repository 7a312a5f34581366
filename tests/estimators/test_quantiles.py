"""Quantiles by the pinball loss: what they mean, on all paths and in stacks."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import d2_pinball_score, make_scorer, mean_pinball_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import EpochScoring
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.estimators.paths import forced_path
from skreg.losses import PinballLoss

QUANTILES = 0.1, 0.5, 0.9


def net(quantiles=QUANTILES, **params):
    params = {"max_epochs": 3, "random_state": 0, "hidden_layer_sizes": 8} | params
    return RegularizedNetRegressor(
        criterion=PinballLoss, criterion__quantiles=quantiles, **params
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    y = 50 + 10 * (X[:, 0] + (1 + np.abs(X[:, 1])) * rng.normal(size=600))
    return X, y


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_the_loss_is_that_of_scikit_learn(data, q):
    _, y = data
    outputs = torch.linspace(0, 100, len(y), dtype=torch.float64)
    loss = PinballLoss(q)(outputs[:, None], torch.from_numpy(y)[:, None])
    assert float(loss) == pytest.approx(mean_pinball_loss(y, outputs, alpha=q))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_reductions(data, reduction):
    y = torch.from_numpy(data[1])[:, None].expand(-1, 3)
    each = PinballLoss(QUANTILES, "none")(torch.zeros_like(y), y)
    expected = {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]
    found = PinballLoss(QUANTILES, reduction)(torch.zeros_like(y), y)
    torch.testing.assert_close(found, expected)


def test_a_linear_net_is_quantile_regression(data):
    X, y = data
    linear = net(
        module=nn.Linear,
        module__in_features=2,
        module__out_features=3,
        hidden_layer_sizes=(),
        batch_size=-1,
        max_epochs=1500,
        lr=0.02,
        lr_schedule="linear",
        dtype="float64",
    ).fit(X, y)
    predicted = linear.predict(X)
    for column, q in zip(predicted.T, QUANTILES, strict=True):
        theirs = QuantileRegressor(quantile=q, alpha=0).fit(X, y).predict(X)
        best = mean_pinball_loss(y, theirs, alpha=q)
        assert mean_pinball_loss(y, column, alpha=q) == pytest.approx(best, rel=1e-4)
        assert np.abs(column - theirs).mean() < 0.02 * y.std()


def test_shares_of_y_lie_below(data):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3000, 2))
    y = X[:, 0] + (1 + np.abs(X[:, 1])) * rng.normal(size=3000)
    fitted = net(max_epochs=30, hidden_layer_sizes=32).fit(X[:2000], y[:2000])
    shares = (y[2000:, None] < fitted.predict(X[2000:])).mean(axis=0)
    np.testing.assert_allclose(shares, QUANTILES, atol=0.04)


def test_shapes_and_scores(data):
    X, y = data
    several, one = net().fit(X, y), net(0.9).fit(X, y)
    assert several.predict(X).shape == (600, 3)
    assert several.n_outputs_ == 3
    assert one.predict(X).shape == (600,)
    expected = [
        d2_pinball_score(y, column, alpha=q)
        for column, q in zip(several.predict(X).T, QUANTILES, strict=True)
    ]
    assert several.score(X, y) == pytest.approx(np.mean(expected))
    assert one.score(X, y) == pytest.approx(
        d2_pinball_score(y, one.predict(X), alpha=0.9)
    )
    weight = np.arange(600)
    assert one.score(X, y, weight) != one.score(X, y)
    column = net(0.9).fit(X, y[:, None]).predict(X)
    assert column.shape == (600, 1)
    np.testing.assert_array_equal(column.ravel(), one.predict(X))


def test_predictions_follow_the_unit_of_y(data):
    X, y = data
    first, second = net().fit(X, y), net().fit(X, 1000 * y + 7)
    np.testing.assert_allclose(
        second.predict(X), 1000 * first.predict(X) + 7, rtol=1e-5
    )


@pytest.mark.parametrize("path", ["hooks", "autograd", "backprop"])
def test_all_paths_train_the_same_net(data, path):
    weight = np.linspace(0.5, 2, 600)
    params = {"dtype": "float64", "lambda1": 1e-3, "early_stopping": True}
    expected = net(**params).fit(*data, sample_weight=weight)
    assert expected.training_path_ == "backprop"
    forced = net(**params)
    with forced_path(path):
        forced.fit(*data, sample_weight=weight)
    assert forced.training_path_ == path
    np.testing.assert_allclose(forced.predict(data[0]), expected.predict(data[0]))
    for key in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(forced.history[:, key], expected.history[:, key])


@pytest.mark.parametrize("extra", [{}, {"mixup": 0.3}, {"module__activation": "gelu"}])
def test_stacks_train_the_nets_that_train_alone(data, stacks, extra):
    each = [(0.1, 0.5), (0.2, 0.6), (0.3, 0.9)]
    nets = [net(q, dtype="float64", **extra) for q in each]
    with joblib.parallel_config("skreg"):
        together = joblib.Parallel()(
            joblib.delayed(lambda n: n.fit(*data))(clone(n)) for n in nets
        )
    assert stacks == [3]
    for one, alone in zip(together, nets, strict=True):
        alone.fit(*data)
        assert one.training_path_ == "stack"
        np.testing.assert_allclose(
            one.predict(data[0]), alone.predict(data[0]), rtol=1e-8
        )


def test_quantiles_are_searched(data, stacks):
    score = make_scorer(mean_pinball_loss, alpha=0.9, greater_is_better=False)
    grid = {"criterion__quantiles": [0.1, 0.5, 0.9]}
    search = GridSearchCV(net(max_epochs=20, lr=1e-2), grid, scoring=score, cv=3)
    with joblib.parallel_config("skreg"):
        search.fit(*data)
    assert search.best_params_ == {"criterion__quantiles": 0.9}
    assert stacks == [9]
    assert np.isfinite(cross_val_score(net(), *data, cv=2)).all()


def test_callbacks_see_the_y_of_the_user(data):
    seen = []

    def look(fitted, X, y):
        seen.append(np.asarray(y))
        return mean_pinball_loss(np.ravel(y), fitted.predict(X)[:, 0], alpha=0.1)

    scoring = EpochScoring(look, lower_is_better=True, name="lowest", use_caching=False)
    net(early_stopping=True, callbacks=[scoring]).fit(*data)
    assert seen[0].shape == (60,)
    assert np.isin(seen[0], data[1]).all()


@pytest.mark.parametrize("quantiles", [0, 1, 1.5, (), (0.1, 0.1), "x", None, np.nan])
def test_other_quantiles_are_an_error(data, quantiles):
    with pytest.raises(ValueError, match="must be a number between 0 and 1"):
        net(quantiles).fit(*data)


def test_quantiles_of_several_targets_are_an_error(data):
    X, y = data
    with pytest.raises(ValueError, match=r"2 targets per sample.*MultiOutputRegressor"):
        net().fit(X, np.column_stack([y, y]))


def test_classes_have_no_quantiles(data):
    X, y = data
    with pytest.raises(ValueError, match="is for numbers"):
        RegularizedNetClassifier(criterion=PinballLoss).fit(X, y > 50)


def test_an_instance_and_numpy_numbers_are_taken(data):
    given = RegularizedNetRegressor(
        criterion=PinballLoss(np.array([0.1, 0.5, 0.9])),
        max_epochs=3,
        random_state=0,
        hidden_layer_sizes=8,
    ).fit(*data)
    np.testing.assert_array_equal(
        given.predict(data[0]), net(list(QUANTILES)).fit(*data).predict(data[0])
    )
