"""Averaged weights are evaluated and kept; proximal steps know their size."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import make_regression
from sklearn.linear_model import Lasso
from sklearn.model_selection import cross_validate
from skorch.callbacks import Callback
from torch import nn

from skreg import RegularizedNetRegressor
from skreg.estimators.paths import forced_path
from skreg.regularizers import Regularizer

X, Y = make_regression(80, 6, n_informative=3, noise=5, random_state=0)
X, Y = (X - X.mean(axis=0)) / X.std(axis=0), (Y - Y.mean()) / Y.std()
PATHS = ["backprop", "autograd", "hooks"]
SMALL = {"random_state": 0, "dtype": "float64", "batch_size": 20, "max_epochs": 4}


def linear(in_features, out_features):
    return nn.Sequential(nn.Linear(in_features, out_features))


def tensors(net):
    return [w.detach().clone() for w in net.module_.parameters()]


class SoftThreshold(Regularizer):
    """The proximal step of strength * |w|_1, for weight matrices."""

    def __init__(self, strength=0.1):
        self.strength = strength

    def project(self, weights, step_sizes):
        for name, w in weights.items():
            if name.endswith("weight"):
                strength = torch.as_tensor(self.strength, dtype=w.dtype)[
                    ..., None, None
                ]
                cut = step_sizes[name] * strength
                w.copy_(w.sign() * (w.abs() - cut).clamp(min=0))

    @classmethod
    def stack(cls, members):
        return cls(torch.tensor([m.strength for m in members], dtype=torch.float64))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("optimizer", "lr", "epochs"),
    [(torch.optim.SGD, 0.1, 300), (torch.optim.Adam, 0.02, 1000)],
)
def test_proximal_steps_end_at_the_lasso(path, optimizer, lr, epochs):
    net = RegularizedNetRegressor(
        **SMALL | {"batch_size": -1, "max_epochs": epochs},
        module=linear,
        optimizer=optimizer,
        lr=lr,
        scale_target=False,
        regularizers=[SoftThreshold(0.4)],
        callbacks="disable",
    )
    with forced_path(path):
        net.fit(X, Y)
    assert net.training_path_ == path
    # scikit-learn halves the squared error.
    lasso = Lasso(alpha=0.2, tol=1e-12).fit(X, Y)
    weight = net.module_[0].weight.detach().numpy().ravel()
    np.testing.assert_allclose(weight, lasso.coef_, atol=2e-4)
    assert (weight[lasso.coef_ == 0] == 0).all()
    assert (lasso.coef_ == 0).any()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_the_nets_of_a_stack_know_their_step_sizes(optimizer):
    net = RegularizedNetRegressor(
        **SMALL, hidden_layer_sizes=5, optimizer=optimizer, lr=0.01
    )
    net.set_params(regularizers=[SoftThreshold(0.3)])

    def folds(backend):
        with joblib.parallel_config(backend):
            found = cross_validate(net, X, Y, cv=3, return_estimator=True)
        return found["estimator"]

    for one, other in zip(folds("skreg"), folds("sequential"), strict=True):
        assert one.training_path_ == "stack"
        for w, v in zip(tensors(one), tensors(other), strict=True):
            torch.testing.assert_close(w, v, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "params",
    [
        {"optimizer": torch.optim.Rprop},
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 1.0},
    ],
)
def test_an_optimizer_that_does_not_tell_is_an_error(path, params):
    net = RegularizedNetRegressor(**SMALL, **params, regularizers=[SoftThreshold()])
    with forced_path(path), pytest.raises(ValueError, match="does not tell the step"):
        net.fit(X, Y)


class Mean(Regularizer):
    """The mean of the weights after all steps so far."""

    def begin(self, module):
        if not hasattr(self, "sums_"):
            self.sums_, self.n_ = {}, 0

    def average(self, weights):
        self.n_ += 1
        for name, w in weights.items():
            self.sums_[name] = self.sums_.get(name, 0) + w
        return {name: total / self.n_ for name, total in self.sums_.items()}


class Looks(Callback):
    def on_train_begin(self, net, **kwargs):
        self.steps_, self.ends_ = [], []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.steps_.append(tensors(net))

    def on_epoch_end(self, net, **kwargs):
        self.ends_.append(tensors(net))


def test_epochs_end_with_the_averages_and_go_on_from_the_weights():
    look = Looks()
    plain = RegularizedNetRegressor(**SMALL, callbacks=[("look", look)]).fit(X, Y)
    steps = dict(plain.callbacks_)["look"].steps_
    net = RegularizedNetRegressor(
        **SMALL, regularizers=[Mean()], callbacks=[("look", Looks())]
    ).fit(X, Y, X_val=X, y_val=Y)
    seen = dict(net.callbacks_)["look"]
    n = len(steps) // 4
    for epoch in range(4):
        for i, w in enumerate(seen.ends_[epoch]):
            mean = torch.stack([s[i] for s in steps[: n * (epoch + 1)]]).mean(dim=0)
            torch.testing.assert_close(w, mean)
    for mine, theirs in zip(seen.steps_, steps, strict=True):
        for w, v in zip(mine, theirs, strict=True):
            assert torch.equal(w, v)
    for w, v in zip(tensors(net), seen.ends_[-1], strict=True):
        assert torch.equal(w, v)
    outputs = net.predict(X)
    loss = np.mean(((outputs - Y) / net.target_scale_) ** 2)
    assert net.history[-1, "valid_loss"] == pytest.approx(loss)


def test_averages_are_the_same_on_every_path_and_stacks_leave_them_alone():
    nets = []
    for path in PATHS:
        with forced_path(path):
            net = RegularizedNetRegressor(**SMALL, regularizers=[Mean()])
            nets.append(net.fit(X, Y, X_val=X, y_val=Y))
    for other in nets[1:]:
        for w, v in zip(tensors(nets[0]), tensors(other), strict=True):
            torch.testing.assert_close(w, v, rtol=1e-9, atol=1e-11)
        for key in ("valid_loss", "param_norm"):
            assert nets[0].history[:, key] == pytest.approx(other.history[:, key])
    with joblib.parallel_config("skreg"):
        found = cross_validate(nets[0], X, Y, cv=3, return_estimator=True)
    for net in found["estimator"]:
        assert "averages weights" in net.training_path_reasons_["stack"]
