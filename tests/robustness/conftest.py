import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris


@pytest.fixture(scope="module")
def iris():
    data = load_iris()
    return data.data, data.target_names[data.target]


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return X[:1000], y[:1000], X[1000:], y[1000:]
