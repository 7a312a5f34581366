"""A search in stacks gives the same bits each time, wherever its data lie in memory."""

import random

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

from skreg import RegularizedNetClassifier

GRID = {"lambda2": [0.0, 1e-4, 1e-3], "dropout": [0.0, 0.3]}


def weights_of_a_search(X, y) -> list[np.ndarray]:
    net = RegularizedNetClassifier(hidden_layer_sizes=7, max_epochs=3, random_state=0)
    kept = []

    def keep(net, X, y):
        kept.append([w.detach().numpy().copy() for w in net.module_.parameters()])
        return 0.0

    with joblib.parallel_config("skreg"):
        GridSearchCV(net, GRID, cv=5, scoring=keep, refit=False).fit(X, y)
    return sorted((w for fit in kept for w in fit), key=lambda w: w.tobytes())


@pytest.mark.parametrize("seed", range(3))
def test_weights_do_not_depend_on_addresses(seed):
    X, y = load_iris(return_X_y=True)
    first = weights_of_a_search(X, y)
    # The next folds get other places, in another order.
    rng = random.Random(seed)
    blocks = [np.empty_like(X[:120]) for _ in range(40)]
    rng.shuffle(blocks)
    del blocks[::2]
    again = weights_of_a_search(X, y)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
