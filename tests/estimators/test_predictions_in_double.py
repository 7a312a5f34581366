"""Predictions of a regressor have the digits that y needs; options leave none out."""

import numpy as np
import pytest
from sklearn.datasets import make_regression

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

X, Y = make_regression(200, 8, noise=5, random_state=0)
X, Y = X.astype(np.float32), (Y - Y.mean()) / Y.std()


@pytest.mark.parametrize(
    ("offset", "unit", "dtype"),
    [
        (0.0, 1.0, np.float32),
        (100.0, 1.0, np.float32),
        (1e8, 0.2, np.float64),
        (0.0, 1e-50, np.float64),
    ],
)
def test_a_large_offset_or_a_tiny_unit_costs_no_accuracy(offset, unit, dtype):
    net = RegularizedNetRegressor(random_state=0, max_epochs=60, lr=0.01)
    net.fit(X, offset + unit * Y)
    assert net.predict(X).dtype == dtype
    assert net.score(X, offset + unit * Y) > 0.95


def test_dates_as_targets_are_an_error_that_says_what_to_do():
    days = np.datetime64("2026-01-01") + np.arange(len(X))
    with pytest.raises(ValueError, match="convert them"):
        RegularizedNetRegressor().fit(X, days)


@pytest.mark.parametrize("monitor", ["valid_acc", "accuracy"])
def test_a_regressor_has_no_accuracy_to_monitor(monitor):
    net = RegularizedNetRegressor(early_stopping=True, monitor=monitor)
    with pytest.raises(ValueError, match="is an accuracy, which a regressor has none"):
        net.fit(X, Y)


def test_widths_that_are_given_twice_are_an_error():
    net = RegularizedNetRegressor(
        hidden_layer_sizes=(3,), module__hidden_layer_sizes=(7,), max_epochs=1
    )
    with pytest.raises(ValueError, match="contradict each other"):
        net.fit(X, Y)
    net.set_params(hidden_layer_sizes=(7,)).fit(X, Y)


def test_options_that_leave_out_predictions_are_an_error():
    net = RegularizedNetClassifier(
        max_epochs=1, iterator_valid__drop_last=True, iterator_valid__batch_size=64
    )
    net.fit(X, Y > 0)
    with pytest.raises(ValueError, match="predictions for 192 of 200 samples"):
        net.predict(X)
    assert len(net.predict(X[:192])) == 192
