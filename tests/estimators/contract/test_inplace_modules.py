"""Modules that work in place leave the user's data alone."""

import numpy as np
import pytest
import torch
from contract_nets import equal_weights, small
from torch import nn
from torch.utils.data import TensorDataset


class InPlace(nn.Module):
    """Writes into what it is given."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x):
        x -= 0.5
        return self.linear(x)


class OutOfPlace(InPlace):
    def forward(self, x):
        return self.linear(x - 0.5)


@pytest.mark.parametrize("params", [{"batch_size": -1}, {"shuffle": False}])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, "dataset"])
def test_modules_that_work_in_place_leave_the_data_alone(iris, params, kind):
    X, y = iris[0].astype(np.float32), iris[1]
    given = torch.as_tensor(X) if kind == "dataset" else kind(X)
    data = (TensorDataset(given, torch.as_tensor(y)),) if kind == "dataset" else (X, y)
    if kind is torch.as_tensor:
        data = given, y
    before, validation = X.copy(), given if kind != "dataset" else X
    net = small(module=InPlace, **params).fit(*data, X_val=validation, y_val=y)
    np.testing.assert_array_equal(X, before)
    twin = small(module=OutOfPlace, **params).fit(X, y, X_val=X, y_val=y)
    assert equal_weights(net, twin)
    assert net.history[:, "valid_loss"] == twin.history[:, "valid_loss"]
    np.testing.assert_array_equal(
        net.predict_proba(validation), twin.predict_proba(before)
    )
    np.testing.assert_array_equal(X, before)


def test_an_activation_in_place_may_come_first(iris):
    X, y = iris
    before = X.copy()
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    small(module=module, batch_size=-1).fit(X, y).predict(X)
    np.testing.assert_array_equal(X, before)


def test_adversarial_training_of_modules_that_work_in_place(iris):
    X, y = iris
    before = X.copy()
    params = {"adversarial_eps": 0.1, "batch_size": -1}
    net = small(module=InPlace, **params).fit(X, y)
    assert equal_weights(net, small(module=OutOfPlace, **params).fit(before, y))
    np.testing.assert_array_equal(X, before)
