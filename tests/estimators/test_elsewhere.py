"""Validation data that were not prepared as the training data were."""

import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from skorch.dataset import Dataset as SkorchDataset
from skorch.helper import predefined_split
from torch.utils.data import TensorDataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

ELSEWHERE = "lie elsewhere than the training data"


def small(**params):
    return RegularizedNetClassifier(max_epochs=1, random_state=0, **params)


def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return train_test_split(X, y, random_state=0)


@pytest.mark.parametrize("backend", ["threading", "skreg"])
def test_a_pipeline_that_scales_X_alone_is_warned_of(backend):
    X, X_val, y, y_val = cancer()
    pipeline = Pipeline([("scaler", StandardScaler()), ("net", small())])
    with joblib.parallel_config(backend), pytest.warns(UserWarning, match=ELSEWHERE):
        pipeline.fit(X, y, net__X_val=X_val, net__y_val=y_val)
    search = GridSearchCV(pipeline, {"net__lr": [0.1, 0.01, 0.001]}, cv=3)
    with joblib.parallel_config(backend), pytest.warns(UserWarning, match=ELSEWHERE):
        search.fit(X, y, net__X_val=X, net__y_val=y)  # which scikit-learn cuts


def test_scikit_learn_can_scale_them_too():
    X, X_val, y, y_val = cancer()
    with sklearn.config_context(enable_metadata_routing=True):
        net = small(early_stopping=True).set_fit_request(X_val=True, y_val=True)
        pipeline = make_pipeline(StandardScaler(), net, transform_input=["X_val"])
        pipeline.fit(X, y, X_val=X_val, y_val=y_val)
    scaled = StandardScaler().fit(X)
    expected = small(early_stopping=True).fit(
        scaled.transform(X), y, X_val=scaled.transform(X_val), y_val=y_val
    )
    assert pipeline[-1].history[:, "valid_loss"] == expected.history[:, "valid_loss"]


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, torch.as_tensor])
def test_the_feature_and_what_was_seen_of_it_are_named(container):
    X, X_val, y, y_val = cancer()
    X, X_val = StandardScaler().fit_transform(X), StandardScaler().fit_transform(X_val)
    X_val[:, 3] = 650 + 350 * X_val[:, 3]
    message = r"feature 3 is between -1\.\d+ and \d\.\d+ in the training data, and be"
    with pytest.warns(UserWarning, match=message):
        small().fit(container(X), y, X_val=container(X_val), y_val=y_val)
    frames = (pd.DataFrame(part).rename(columns=str) for part in (X, X_val))
    X, X_val = (frame.rename(columns={"3": "mean area"}) for frame in frames)
    with pytest.warns(UserWarning, match="feature 'mean area' is between"):
        small().fit(X, y, X_val=X_val, y_val=y_val)


def made_images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 1, 6, 6)).astype("f4"), np.arange(40) % 2


def test_bytes_in_a_file(tmp_path):
    X, y = made_images()
    np.save(tmp_path / "X.npy", X.astype("u1"))
    file = np.load(tmp_path / "X.npy", mmap_mode="r")
    small().fit(X, y, X_val=file, y_val=y)
    with pytest.warns(UserWarning, match="what X holds is between"):
        small().fit(X / 255, y, X_val=file, y_val=y)


@pytest.mark.parametrize("swapped", [False, True])
def test_images_of_other_units(swapped):
    X, y = made_images()
    X, X_val = (X, X / 255) if swapped else (X / 255, X)
    with pytest.warns(UserWarning, match="what X holds is between"):
        small().fit(X, y, X_val=X_val, y_val=y)


def test_scaled_validation_data_of_unscaled_training_data():
    X, X_val, y, y_val = cancer()
    scaler = StandardScaler().fit(X)
    X, X_val = X[:, :24], scaler.transform(X_val)[:, :24]
    X = 1000 + 100 * scaler.transform(cancer()[0])[:, :24]
    with pytest.warns(UserWarning, match=ELSEWHERE):
        small().fit(X, y, X_val=X_val, y_val=y_val)


@pytest.mark.parametrize("backend", ["threading", "skreg"])
@pytest.mark.parametrize("make", [SkorchDataset, TensorDataset])
def test_predefined_splits_are_looked_at(make, backend):
    X, X_val, y, y_val = cancer()
    X = StandardScaler().fit_transform(X)
    parts = map(torch.from_numpy, (X_val, y_val))
    dataset = make(X_val, y_val) if make is SkorchDataset else make(*parts)
    net = small(train_split=predefined_split(dataset))
    with joblib.parallel_config(backend), pytest.warns(UserWarning, match=ELSEWHERE):
        net.fit(X, y)


@pytest.mark.parametrize("scaler", [None, StandardScaler(), MinMaxScaler()])
@pytest.mark.parametrize(
    "load", [load_breast_cancer, load_wine, load_digits, load_diabetes]
)
def test_random_parts_of_real_data_are_not_warned_of(load, scaler):
    X, y = load(return_X_y=True)
    X = X if scaler is None else scaler.fit_transform(X)
    y = y % 2 if load is load_diabetes else y
    for seed in range(5):
        X_train, X_val, y_train, y_val = train_test_split(
            X, y, test_size=0.1 + 0.1 * seed, random_state=seed, stratify=y
        )
        small(lr=1e-6).fit(X_train, y_train, X_val=X_val, y_val=y_val)


def heavy_tails(rng, n):
    return rng.standard_cauchy((n, 8))


def rare_categories(rng, n):
    return (rng.random((n, 50)) < 0.02).astype(float)


def trends(rng, n):
    return np.cumsum(rng.normal(1, 1, (n, 3)), axis=0)


def amounts(rng, n):
    return np.exp(3 * rng.normal(size=(n, 5)))


def constants(rng, n):
    return np.ones((n, 2)) + (np.arange(n) >= 0.8 * n)[:, None]


@pytest.mark.parametrize(
    "make", [heavy_tails, rare_categories, trends, amounts, constants]
)
@pytest.mark.parametrize("n", [12, 60, 400])
def test_unusual_data_are_not_warned_of(make, n):
    for seed in range(20):
        X = make(np.random.default_rng(seed), n)
        y, cut = np.arange(n) % 2, int(0.8 * n)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            RegularizedNetClassifier(max_epochs=0).fit(
                X[:cut], y[:cut], X_val=X[cut:], y_val=y[cut:]
            )


def test_few_samples_say_nothing():
    X = np.random.default_rng(0).normal(size=(30, 2))
    y = np.arange(30) % 2
    small().fit(X, y, X_val=X[:5] + 100, y_val=y[:5])
    with pytest.warns(UserWarning, match=ELSEWHERE):
        RegularizedNetRegressor(max_epochs=1).fit(
            X, y, X_val=X[:10] + 100, y_val=y[:10]
        )


def test_wide_data_are_looked_at_in_part():
    rng = np.random.default_rng(0)
    X = sp.random(100, 50_000, density=0.3, format="csr", random_state=0)
    y = rng.permutation(np.arange(100) % 2)
    net = small(hidden_layer_sizes=2)
    net.fit(X, y, X_val=X, y_val=y)
    X_val = sp.csr_array(X.toarray() + 9)
    with pytest.warns(UserWarning, match=ELSEWHERE):
        net.fit(X, y, X_val=X_val, y_val=y)
