"""What skorch's users expect: scorings, splits, callbacks, steps."""

import copy
import pickle

import numpy as np
import pytest
import torch
from plain_nets import equal_weights, small
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import EpochScoring, ProgressBar
from skorch.dataset import ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import TensorDataset

from skreg import RegularizedNetRegressor
from skreg.modules import MLP, AnimalNet


@pytest.mark.parametrize("use_caching", [True, False])
@pytest.mark.parametrize("on_train", [True, False])
def test_epoch_scoring_of_skorch_sees_consistent_labels(images, on_train, use_caching):
    scoring = EpochScoring(
        "accuracy", name="acc", on_train=on_train, use_caching=use_caching
    )
    X, y = images
    net = small(module=AnimalNet, callbacks=[scoring], batch_size=-1, max_epochs=3)
    net.fit(X, y, X_val=X, y_val=y)
    if not use_caching or not on_train:
        assert net.history[-1, "acc"] == net.score(X, y)
    assert net.history[-1, "acc"] > 0.5


def test_train_split_of_skorch(images):
    X, y = images
    net = small(module=AnimalNet, train_split=ValidSplit(5, stratified=True)).fit(X, y)
    assert 0 <= net.history[-1, "valid_acc"] <= 1
    codes = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    held_out = TensorDataset(torch.from_numpy(X), codes)
    net = small(module=AnimalNet, train_split=predefined_split(held_out))
    net.fit(X, np.unique(y, return_inverse=True)[1])
    assert net.history[-1, "valid_acc"] == net.score(X, codes.numpy())


def test_user_callbacks_and_their_parameters(iris):
    net = small(callbacks__norms=None, callbacks__divergence_guard=None).fit(*iris)
    assert "param_norm" not in net.history[0]
    printed = []
    small(verbose=1, callbacks__print_log__sink=printed.append).fit(*iris)
    assert "param_norm" in printed[0]
    assert "param_norms" not in printed[0]


def test_progress_bar_of_skorch(iris, capsys):
    small(callbacks=[ProgressBar()]).fit(*iris)
    assert "0/3 [" in capsys.readouterr().err  # three batches of 64


def test_steps_of_skorch_may_be_taken_by_hand(iris):
    """Without fit there is no session: no weights of samples, no validation data."""
    X, y = iris
    net = small(module=MLP, module__in_features=4, module__out_features=3, lambda1=0.1)
    net.initialize()
    net.classes_inferred_ = np.arange(3)
    net.fit_loop(X, y, epochs=2)
    assert len(net.history) == 2
    batch = torch.from_numpy(X), torch.from_numpy(y)
    loss = net.train_step(batch)["loss"].item()
    assert loss > net.validation_step(batch)["loss"].item()


def test_lbfgs_works(iris):
    net = small(optimizer=torch.optim.LBFGS, lr=0.1, batch_size=-1, lambda2=1e-3)
    assert net.fit(*iris).score(*iris) > 0.9


def test_pickle_copy_and_clone(iris):
    X, y = iris
    net = small(lambda1=1e-3, dropout=0.1).fit(X, y)
    for copied in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert np.array_equal(copied.predict_proba(X), net.predict_proba(X))
        assert copied.get_params(deep=False) == net.get_params(deep=False)
        assert copied.device == "auto"
    unfitted = clone(net)
    assert "module_" not in vars(unfitted)
    assert equal_weights(unfitted.fit(X, y), net)


def test_grid_search(iris):
    grid = {"lambda1": [0, 10.0], "module__activation": ["relu", "tanh"]}
    search = GridSearchCV(small(max_epochs=30, lr=0.02), grid, cv=3).fit(*iris)
    assert search.best_params_["lambda1"] == 0
    assert search.best_score_ > 0.8


def test_regressor_rejects_outputs_that_would_broadcast():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, 1)

        def forward(self, x):
            return self.fc(x)[:, 0]

    X = [[0.0], [1], [2]]
    with pytest.raises(ValueError, match=r"outputs of shape \(3,\).*of shape \(3, 2\)"):
        RegularizedNetRegressor(Flat).fit(X, [[0.0, 1], [1, 2], [2, 0]])
    # Of a single target the axis may be missing: (3,) is not subtracted from (3, 1).
    net = RegularizedNetRegressor(Flat, max_epochs=1).fit(X, [0.0, 1, 2])
    assert net.predict(X).shape == (3,)
