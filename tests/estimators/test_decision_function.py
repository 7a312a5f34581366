"""decision_function: the logits, as scikit-learn's classifiers have them."""

import pickle
from functools import partial

import numpy as np
import pytest
import sklearn
import torch
from scipy.special import expit, softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version
from torch import nn

from skreg import RegularizedNetClassifier


def data_of(load):
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def three():
    X, y = data_of(load_iris)
    return X, np.array(["ape", "bee", "cat"])[y]


@pytest.fixture(scope="module")
def two():
    X, y = data_of(load_breast_cancer)
    return X[:200], np.array(["no", "yes"])[y[:200]]


def net(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 5, "random_state": 0} | params
    return RegularizedNetClassifier(**params)


class LogSoftmax(nn.Sequential):
    def __init__(self, in_features, out_features):
        super().__init__(nn.Linear(in_features, out_features), nn.LogSoftmax(dim=1))


def test_of_three_classes_they_are_the_outputs_of_the_module(three):
    X, y = three
    fitted = net().fit(X, y)
    scores = fitted.decision_function(X)
    with torch.no_grad():
        outputs = fitted.module_(torch.as_tensor(X).to(fitted.device_)).cpu().numpy()
    np.testing.assert_array_equal(scores, outputs)
    np.testing.assert_allclose(softmax(scores, axis=1), fitted.predict_proba(X))
    assert (fitted.classes_[scores.argmax(axis=1)] == fitted.predict(X)).all()


def test_of_two_classes_it_is_the_log_odds_of_the_second(two):
    X, y = two
    fitted = net().fit(X, y)
    scores = fitted.decision_function(X)
    assert scores.shape == (200,)
    np.testing.assert_allclose(expit(scores), fitted.predict_proba(X)[:, 1])
    assert ((scores > 0) == (fitted.predict(X) == "yes")).all()


def test_of_log_probabilities_it_is_these(three, two):
    X, y = three
    fitted = net(module=LogSoftmax, criterion=nn.NLLLoss).fit(X, y)
    np.testing.assert_allclose(fitted.decision_function(X), fitted.predict_log_proba(X))
    X, y = two
    fitted.fit(X, y)
    odds = np.diff(fitted.predict_log_proba(X), axis=1).ravel()
    np.testing.assert_allclose(fitted.decision_function(X), odds)


@pytest.mark.parametrize(
    "params",
    [
        {"criterion": nn.MultiMarginLoss},
        {"criterion": nn.MultiMarginLoss()},
        {"predict_nonlinearity": partial(torch.softmax, dim=1)},
        {"predict_nonlinearity": None},
    ],
)
def test_it_is_absent_where_outputs_need_be_no_logits(params, three):
    X, y = three
    other = net(**params)
    assert not hasattr(other, "decision_function")
    assert not hasattr(other.fit(X, y), "decision_function")
    with pytest.raises(AttributeError) as error:
        _ = other.decision_function
    assert "need not be logits. Use predict_proba." in str(error.value.__cause__)
    # So scorers take probabilities, which are there if it is known what outputs are.
    if "criterion" in params:
        with pytest.warns(UserWarning, match="criterion=MultiMarginLoss"):
            assert other.predict_proba(X).shape == (150, 3)
    else:
        assert other.predict_proba(X).shape == (150, 3)


@pytest.mark.parametrize(
    "criterion", [nn.CrossEntropyLoss, nn.CrossEntropyLoss(label_smoothing=0.1)]
)
def test_it_is_there_before_fit(criterion, three):
    assert hasattr(net(criterion=criterion), "decision_function")
    assert hasattr(make_pipeline(StandardScaler(), net()), "decision_function")
    with pytest.raises(sklearn.exceptions.NotFittedError):
        net().decision_function(three[0])


def test_a_fitted_net_decides_as_it_was_fitted(three):
    X, y = three
    fitted = net().fit(X, y)
    expected = fitted.decision_function(X)
    fitted.set_params(criterion=nn.MultiMarginLoss)
    np.testing.assert_array_equal(fitted.decision_function(X), expected)
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.decision_function(X), expected)


def test_cross_val_predict(three, two):
    for X, y in (three, two):
        scores = cross_val_predict(net(), X, y, method="decision_function", cv=3)
        probabilities = cross_val_predict(net(), X, y, method="predict_proba", cv=3)
        expected = probabilities if scores.ndim == 2 else probabilities[:, 1]
        link = softmax if scores.ndim == 2 else expit
        np.testing.assert_allclose(link(scores, **axis(scores)), expected, atol=1e-6)


def axis(scores):
    return {"axis": 1} if scores.ndim == 2 else {}


def test_thresholds(two):
    X, y = two
    always = FixedThresholdClassifier(
        net(), threshold=-1e6, pos_label="yes", response_method="decision_function"
    )
    assert (always.fit(X, y).predict(X) == "yes").all()
    tuned = TunedThresholdClassifierCV(
        net(), response_method="decision_function", scoring="balanced_accuracy", cv=3
    ).fit(X, y)
    scores = tuned.estimator_.decision_function(X)
    assert ((scores >= tuned.best_threshold_) == (tuned.predict(X) == "yes")).all()


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_calibration(method, two, three):
    if method == "temperature" and parse_version(sklearn.__version__) < parse_version(
        "1.8"
    ):
        pytest.skip("scikit-learn 1.8 has it first")
    for X, y in (two, three):
        calibrated = CalibratedClassifierCV(net(lr=0.05), method=method, cv=3)
        calibrated.fit(X, y)
        probabilities = calibrated.predict_proba(X)
        assert probabilities.shape == (len(X), len(set(y)))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert calibrated.score(X, y) > 0.75


def test_temperature_only_scales_the_logits(three):
    if parse_version(sklearn.__version__) < parse_version("1.8"):
        pytest.skip("scikit-learn 1.8 has it first")
    from sklearn.frozen import FrozenEstimator

    X, y = three
    fitted = net(max_epochs=20, lr=0.01).fit(X, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), method="temperature")
    log_p = np.log(calibrated.fit(X, y).predict_proba(X))
    gaps = np.diff(log_p, axis=1) / np.diff(fitted.decision_function(X), axis=1)
    np.testing.assert_allclose(gaps, gaps[0, 0], rtol=1e-4)


def test_scorers_and_searches_rank_by_it(two):
    X, y = two
    fitted = net().fit(X, y)
    expected = roc_auc_score(y == "yes", fitted.decision_function(X))
    assert get_scorer("roc_auc")(fitted, X, y) == pytest.approx(expected)
    search = GridSearchCV(net(lr=0.01), {"lambda2": [0, 1e-3]}, scoring="roc_auc", cv=2)
    assert search.fit(X, y).best_score_ > 0.9


def test_one_against_the_rest(three):
    X, y = three
    assert cross_val_score(OneVsRestClassifier(net(lr=0.05)), X, y, cv=3).min() > 0.6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_criteria_are_what_they_were(dtype, three):
    """A compiled criterion is no instance of its class."""
    X, y = three
    log_softmax = net(module=LogSoftmax, criterion=nn.NLLLoss, dtype=dtype).fit(X, y)
    expected = log_softmax.predict_proba(X)
    log_softmax.criterion_ = torch.compile(log_softmax.criterion_, backend="eager")
    np.testing.assert_array_equal(log_softmax.predict_proba(X), expected)
    assert log_softmax.decision_function(X).shape == (150, 3)
