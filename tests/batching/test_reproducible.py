"""A search in stacks gives the same bits each time, wherever its data lie in memory."""

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_validate

from skreg import RegularizedNetClassifier


def weights_of_folds(X, y) -> list[np.ndarray]:
    net = RegularizedNetClassifier(hidden_layer_sizes=50, max_epochs=2, random_state=0)
    with joblib.parallel_config("skreg"):
        found = cross_validate(net, X, y, cv=3, return_estimator=True)
    return [
        w.detach().numpy()
        for net in found["estimator"]
        for w in net.module_.parameters()
    ]


def test_weights_do_not_depend_on_addresses():
    X, y = load_digits(return_X_y=True)
    X, y = X[:600].astype(np.float32) / 16, y[:600]
    first = weights_of_folds(X, y)
    blocks = []
    for i in range(8):  # each time, the folds get other places, in another order
        blocks += [np.empty_like(X[:400]) for _ in range(i)]
        del blocks[::2]
        for a, b in zip(first, weights_of_folds(X, y), strict=True):
            np.testing.assert_array_equal(a, b)
