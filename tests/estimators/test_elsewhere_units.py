"""Validation data in other units that overlap with those of the training data."""

import warnings

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skreg import RegularizedNetClassifier
from skreg.datasets import load_digit_images

ELSEWHERE = "lie elsewhere than the training data"


def fit(X, X_val):
    y, y_val = np.arange(len(X)) % 2, np.arange(len(X_val)) % 2
    net = RegularizedNetClassifier(max_epochs=0, random_state=0)
    return net.fit(X, y, X_val=X_val, y_val=y_val)


def fit_without_warning(X, X_val):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(X, X_val)


@pytest.mark.parametrize("backend", ["threading", "skreg"])
@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler()])
def test_raw_features_that_are_small_are_noticed(scaler, backend):
    X, X_val, y, y_val = train_test_split(
        *load_iris(return_X_y=True), train_size=80, test_size=30, random_state=0
    )
    net = RegularizedNetClassifier(max_epochs=1, random_state=0)
    pipeline = make_pipeline(scaler, net)
    message = r"feature 0 is between .* and be" if backend == "threading" else ELSEWHERE
    with joblib.parallel_config(backend), pytest.warns(UserWarning, match=message):
        pipeline.fit(
            X,
            y,
            regularizednetclassifier__X_val=X_val,
            regularizednetclassifier__y_val=y_val,
        )
    scaler = scaler.fit(X)
    fit_without_warning(scaler.transform(X), scaler.transform(X_val))


def test_the_only_feature_is_noticed():
    X = load_iris().data[np.random.default_rng(0).permutation(150), 2:3]
    with pytest.warns(UserWarning, match=ELSEWHERE):
        fit(StandardScaler().fit_transform(X[:100]), 1.5 + X[100:])


def dark_images():
    X = load_digit_images(return_X_y=True)[0][:400]
    X = X[np.random.default_rng(0).permutation(len(X))]
    return np.where(X > 0.5, X, 0)[:300], np.where(X > 0.5, X, 0)[300:]


@pytest.mark.parametrize("units", [16, 255])
@pytest.mark.parametrize("swapped", [False, True])
def test_dark_images_in_other_units_are_noticed(units, swapped):
    X, X_val = dark_images()
    fit_without_warning(X, X_val)
    X, X_val = (units * X, X_val) if swapped else (X, units * X_val)
    with pytest.warns(UserWarning, match="what X holds is between"):
        fit(X, X_val)


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler()])
def test_scaled_validation_data_of_raw_digits_are_noticed(scaler):
    X, X_val = train_test_split(load_digits().data, random_state=0)
    scaler = scaler.fit(X)
    fit_without_warning(scaler.transform(X), scaler.transform(X_val))
    with pytest.warns(UserWarning, match=ELSEWHERE):
        fit(X, scaler.transform(X_val))


def late_stamp(rng, n):
    return np.column_stack([np.arange(n), rng.normal(size=(n, 4))])


def only_stamps(rng, n):
    return np.arange(n, dtype=float)[:, None]


def categories(rng, n):
    return np.eye(12)[rng.integers(0, 12, n)]


def flowers(rng, n):
    return rng.permutation(load_iris().data)[:n]


def scales_of_rows(rng, n):
    return np.exp(2 * rng.normal(size=(n, 1, 1))) * rng.normal(size=(n, 6, 6))


@pytest.mark.parametrize(
    "make", [late_stamp, only_stamps, categories, scales_of_rows, flowers]
)
@pytest.mark.parametrize("n", [40, 60, 400])
def test_later_and_heavy_tailed_data_are_not_warned_of(make, n):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        X = make(rng, n)
        cut = int(0.7 * len(X))
        fit_without_warning(X[:cut], X[cut:])
        if X.ndim == 2:
            scaler = StandardScaler().fit(X[:cut])
            fit_without_warning(scaler.transform(X[:cut]), scaler.transform(X[cut:]))


def test_the_widest_range_of_all_is_no_fault():
    X = np.random.default_rng(0).normal(size=(80, 3))
    X[:2, 0] = -1.7e308, 1.7e308
    fit_without_warning(X, X)
