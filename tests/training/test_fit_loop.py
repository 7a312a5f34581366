"""fit_loop on its own means the user's targets, as partial_fit does."""

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_regression
from sklearn.preprocessing import StandardScaler

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

PARAMS = {"hidden_layer_sizes": 8, "max_epochs": 3, "random_state": 0, "lr": 0.01}


def assert_same(one, other, X):
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    assert len(one.history) == len(other.history)
    for w, v in zip(one.module_.parameters(), other.module_.parameters(), strict=True):
        np.testing.assert_array_equal(w.detach(), v.detach())


@pytest.mark.parametrize("columns", [False, True])
def test_it_goes_on_with_numbers_in_units_of_y(columns):
    X, y = make_regression(120, 4, noise=5, random_state=0)
    y = 1000 * (y[:, None] if columns else y)
    looped = RegularizedNetRegressor(**PARAMS).fit(X, y)
    looped.fit_loop(X, y, epochs=5)
    partial = RegularizedNetRegressor(**PARAMS).fit(X, y)
    partial.set_params(max_epochs=5).partial_fit(X, y)
    assert_same(looped, partial, X)
    assert looped.max_epochs == 3


@pytest.mark.parametrize(
    "names", [np.array(["a", "b", "c"]), np.array([1, 2, 3]), np.array([0, 2, 4])]
)
def test_it_goes_on_with_labels(names):
    X, y = load_iris(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), names[y]
    looped = RegularizedNetClassifier(**PARAMS).fit(X, y)
    looped.fit_loop(X, y)
    partial = RegularizedNetClassifier(**PARAMS).fit(X, y).partial_fit(X, y)
    assert_same(looped, partial, X)


def test_it_refuses_what_partial_fit_refuses():
    X, y = load_iris(return_X_y=True)
    net = RegularizedNetClassifier(**PARAMS).fit(X, y)
    with pytest.raises(ValueError, match="none of the classes"):
        net.fit_loop(X, y + 7)
    with pytest.raises(ValueError, match="contains NaN"):
        net.fit_loop(X * np.nan, y)
