import numpy as np
import pytest
from fit_spies import make_flowers, make_numbers
from sklearn.datasets import load_iris


@pytest.fixture(scope="module")
def images():
    """Noise images of three classes that differ in brightness."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2], 20))
    X = rng.normal(y[:, None, None, None] / 4, 1.0, size=(60, 3, 32, 32))
    return X.astype(np.float32), np.array(["cat", "dog", "wild"])[y]


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def flowers():
    return make_flowers()


@pytest.fixture(scope="module")
def numbers():
    return make_numbers()
