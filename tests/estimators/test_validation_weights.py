"""Weights of validation data: the loss that early stopping watches knows them."""

import joblib
import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from sklearn.base import clone
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.utils.class_weight import compute_sample_weight
from skorch.dataset import ValidSplit
from torch.utils.data import TensorDataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

rng = np.random.default_rng(0)
X = rng.normal(size=(90, 3))
y = (X[:, 0] + rng.normal(size=90) > 0.7).astype(int)
weight = rng.uniform(0.1, 3, size=90)
VALID = np.arange(60, 90)  # what the split below holds out


def split(dataset, y=None, **params):
    indices = np.arange(60), VALID
    return tuple(torch.utils.data.Subset(dataset, rows) for rows in indices)


class Cubed(torch.nn.Linear):
    """A module that autograd trains."""

    def forward(self, x):
        return super().forward(x) ** 3


PATHS = {
    "backprop": {},
    "autograd": {"module": Cubed},
    "hooks": {"callbacks": [SeesBatches()]},
}


def net_of(kind=RegularizedNetClassifier, **params):
    params = {"max_epochs": 3, "batch_size": 8, "random_state": 0} | params
    return kind(train_split=split, **params)


@pytest.mark.parametrize("path", PATHS)
def test_the_loss_of_what_is_held_out_is_weighted(path):
    net = net_of(**PATHS[path]).fit(X, y, sample_weight=weight)
    expected = log_loss(
        y[VALID], net.predict_proba(X[VALID]), sample_weight=weight[VALID]
    )
    assert net.history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-6)


def test_of_a_regressor():
    net = net_of(RegularizedNetRegressor, scale_target=False)
    net.fit(X, X[:, 1] ** 2, sample_weight=weight)
    expected = mean_squared_error(
        X[VALID, 1] ** 2, net.predict(X[VALID]), sample_weight=weight[VALID]
    )
    assert net.history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("given", ["held out", "X_val", "Dataset"])
def test_weights_of_classes_count_in_it(given):
    class_weight = {0: 1.0, 1: 5.0}
    expected_weight = compute_sample_weight(class_weight, y[VALID])
    net, train = net_of(class_weight=class_weight), np.arange(60)
    if given == "held out":
        net.fit(X, y)
    elif given == "X_val":
        net.fit(X[train], y[train], X_val=X[VALID], y_val=y[VALID])
    else:
        net.fit(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)))
    expected = log_loss(
        y[VALID], net.predict_proba(X[VALID]), sample_weight=expected_weight
    )
    assert net.history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("path", ["backprop", "autograd"])
@pytest.mark.parametrize("splitter", [split, ValidSplit(4, stratified=True)])
def test_in_stacks_as_alone(path, splitter):
    nets = [
        net_of(**PATHS[path], class_weight="balanced", lambda2=10.0**-k, random_state=k)
        for k in range(4)
    ]
    nets = [net.set_params(train_split=splitter) for net in nets]
    weights = [None, weight, weight, None]
    with joblib.parallel_config("skreg"):
        mine = joblib.Parallel()(
            joblib.delayed(net.fit)(X, y, w)
            for net, w in zip(nets, weights, strict=True)
        )
    for net, w in zip(mine, weights, strict=True):
        alone = clone(net).fit(X, y, w)
        for key in ("valid_loss", "valid_acc", "train_loss"):
            np.testing.assert_allclose(
                net.history[:, key], alone.history[:, key], rtol=1e-8
            )


def test_early_stopping_follows_the_weights():
    """Where one class weighs all, a net that always says it is best."""
    net = RegularizedNetClassifier(
        class_weight={0: 1e-4, 1: 1e3}, early_stopping=True, random_state=0
    ).fit(X, y)
    assert (net.predict(X) == 1).mean() > 0.95


def test_held_out_samples_whose_weights_are_all_zero_weigh_alike():
    labels = np.append(y[:60], np.full(30, 2))
    net = net_of(class_weight={0: 1.0, 1: 1.0, 2: 0.0}).fit(X, labels)
    expected = log_loss(labels[VALID], net.predict_proba(X[VALID]), labels=[0, 1, 2])
    assert net.history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-6)
