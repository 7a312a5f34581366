import matplotlib.pyplot as plt
import numpy as np
import pytest
from display_data import N_EPOCHS, N_SEEDS, PARAMETERS
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import MinMaxScaler

from skreg import RegularizedNetClassifier


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def curves(rng):
    shape = (N_SEEDS, N_EPOCHS)
    return {
        name: {"train": rng.random(shape), "valid": rng.random(shape)}
        for name in ("none", "L2")
    }


@pytest.fixture
def norms(rng):
    return {name: 1 + rng.random((N_SEEDS, N_EPOCHS)) for name in ("none", "L2")}


@pytest.fixture
def layer_norms(rng):
    return {
        name: {p: 1 + rng.random(N_SEEDS) for p in PARAMETERS}
        for name in ("none", "L2")
    }


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return MinMaxScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def search(iris):
    net = RegularizedNetClassifier(max_epochs=3, lr=0.01, random_state=0)
    grid = {"lambda2": [1e-2, 0, 1e-3], "lambda1": [0, 1e-2], "batch_size": [16]}
    scoring = ["accuracy", "neg_log_loss"]
    options = {"cv": 3, "return_train_score": True, "refit": False}
    return GridSearchCV(net, grid, scoring=scoring, **options).fit(*iris)
