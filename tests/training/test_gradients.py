"""Modules whose loss has no gradient in their parameters."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
y = (X[:, 0] > 0).astype(int)


class WithoutGradients(nn.Module):
    def __init__(self, out_features=2):
        super().__init__()
        self.layer = nn.Linear(4, out_features)

    def forward(self, x):
        with torch.no_grad():
            return self.layer(x)


class Detached(WithoutGradients):
    def forward(self, x):
        return self.layer(x).detach()


class Frozen(WithoutGradients):
    def __init__(self, out_features=2):
        super().__init__(out_features)
        self.requires_grad_(False)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("kind", [RegularizedNetClassifier, RegularizedNetRegressor])
@pytest.mark.parametrize("module", [WithoutGradients, Detached, Frozen])
@pytest.mark.parametrize("lambda2", [0.0, 0.1])  # whose gradient is there all the same
def test_a_loss_without_gradients_is_an_error(kind, module, lambda2):
    net = kind(module, lambda2=lambda2, max_epochs=2)
    with pytest.raises(
        ValueError, match=f"not depend on the parameters.*{module.__name__}"
    ):
        net.fit(X, y)


def test_in_a_search_each_fit_raises_it():
    search = GridSearchCV(
        RegularizedNetClassifier(Detached, max_epochs=2),
        {"lambda2": [0.0, 0.1, 0.2]},
        error_score="raise",
    )
    with joblib.parallel_config("skreg"), pytest.raises(ValueError, match="Detached"):
        search.fit(X, y)


def test_one_frozen_layer_is_none():
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    module[0].requires_grad_(False)
    net = RegularizedNetClassifier(module, max_epochs=2, lambda2=0.1).fit(X, y)
    assert torch.equal(net.module_[0].weight, module[0].weight)
    assert not torch.equal(net.module_[2].weight, module[2].weight)
