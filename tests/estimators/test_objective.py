"""The objective, against plain PyTorch."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_nets import equal_weights, small, weights
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.modules import AnimalNet
from skreg.penalties import elastic_net


def plain_loop(X, y, *, seed, lr, momentum, lambda1, lambda2, epochs):
    """The course's training loop: full batch, penalties as Python sums."""
    torch.manual_seed(seed)
    net = AnimalNet()
    start = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    norms, losses = [], []
    for _ in range(epochs):
        net.train()
        optimizer.zero_grad()
        loss = F.nll_loss(F.log_softmax(net(X), dim=1), y)
        l1 = sum(w.abs().sum() for w in net.parameters())
        l2 = sum((w**2).sum() for w in net.parameters())
        loss = loss + lambda1 * l1 + lambda2 * l2
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        norms.append(sum((w**2).sum() for w in net.parameters()).sqrt().item())
    return start, norms, losses


def test_parity_with_the_plain_loop_of_the_course(images):
    X, labels = images
    classes, y = np.unique(labels, return_inverse=True)
    start, norms, losses = plain_loop(
        torch.from_numpy(X),
        torch.from_numpy(y),
        seed=2021,
        lr=5e-3,
        momentum=0.99,
        lambda1=1e-3,
        lambda2=1e-3,
        epochs=30,
    )
    settings = {
        "optimizer": torch.optim.SGD,
        "lr": 5e-3,
        "optimizer__momentum": 0.99,
        "lambda1": 1e-3,
        "lambda2": 1e-3,
        "batch_size": -1,
        "random_state": 2021,
    }
    untrained = RegularizedNetClassifier(AnimalNet, max_epochs=0, **settings)
    untrained.fit(X, labels)
    assert untrained.module_.state_dict().keys() == start.keys()
    for name, w in untrained.module_.state_dict().items():
        assert torch.equal(w, start[name])

    net = RegularizedNetClassifier(AnimalNet, max_epochs=30, **settings)
    net.fit(X, labels)
    np.testing.assert_allclose(net.history[:, "param_norm"], norms, rtol=1e-4)
    np.testing.assert_allclose(net.history[:, "train_loss"], losses, rtol=1e-4)
    assert list(net.classes_) == list(classes)


def test_log_softmax_and_nll_loss_are_cross_entropy(images):
    class LogSoftmaxNet(AnimalNet):
        def forward(self, x):
            return F.log_softmax(super().forward(x), dim=1)

    logits = small(module=AnimalNet).fit(*images)
    for criterion in (nn.CrossEntropyLoss, nn.NLLLoss):
        net = small(module=LogSoftmaxNet, criterion=criterion).fit(*images)
        np.testing.assert_allclose(
            net.predict_proba(images[0]), logits.predict_proba(images[0]), atol=1e-4
        )
        np.testing.assert_allclose(
            net.history[:, "train_loss"], logits.history[:, "train_loss"], rtol=1e-4
        )


@pytest.mark.parametrize("penalize", ["all", "weights", ["fc2.*"]])
def test_gradient_of_get_loss_is_the_numerical_derivative(iris, penalize):
    X, y = iris[0].astype(np.float64), iris[1]
    net = small(lambda1=0.3, lambda2=0.7, penalize=penalize, activation="tanh")
    del net.activation
    net.set_params(module__activation="tanh").fit(X, y)
    names = [name for name, _ in net.module_.named_parameters()]
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    def objective(*values):
        outputs = torch.func.functional_call(
            net.module_, dict(zip(names, values, strict=True)), X
        )
        data_loss = net.get_loss(outputs, y, training=False)
        chosen = [
            v
            for name, v in zip(names, values, strict=True)
            if penalize == "all"
            or (penalize == "weights" and name.endswith("weight"))
            or (penalize == ["fc2.*"] and name.startswith("fc2."))
        ]
        return data_loss + elastic_net(chosen, 0.3, 0.7)

    params = tuple(net.module_.parameters())
    assert torch.autograd.gradcheck(objective, params)
    expected = torch.autograd.grad(objective(*params), params)
    got = torch.autograd.grad(net.get_loss(net.module_(X), y, training=True), params)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_validation_loss_holds_no_penalty(images):
    X, y = images
    net = small(lambda1=1.0, lambda2=1.0, batch_size=-1, max_epochs=3)
    net.fit(X, y, X_val=X, y_val=y)
    with torch.no_grad():
        logits = net.module_(torch.from_numpy(X))
    codes = torch.from_numpy(np.searchsorted(net.classes_, y))
    plain = F.cross_entropy(logits, codes).item()
    assert net.history[-1, "valid_loss"] == pytest.approx(plain, rel=1e-6)
    assert net.get_loss(logits, codes).item() == pytest.approx(plain, rel=1e-6)
    penalty = elastic_net(weights(net), 1.0, 1.0).item()
    assert net.get_loss(logits, codes, training=True).item() == pytest.approx(
        plain + penalty, rel=1e-6
    )


def test_train_loss_is_data_loss_plus_train_penalty(iris):
    X, y = iris
    net = small(lambda1=0.01, lambda2=0.02, batch_size=-1, max_epochs=1, lr=0.0)
    net.fit(X, y, X_val=X, y_val=y)  # with lr=0 the weights are as they were
    loss, penalty, valid_loss = net.history[
        0, ("train_loss", "train_penalty", "valid_loss")
    ]
    assert penalty == pytest.approx(elastic_net(weights(net), 0.01, 0.02).item())
    assert loss == pytest.approx(valid_loss + penalty)


def test_zero_lambdas_equal_no_penalty_bit_for_bit(iris):
    class NoPenalty(RegularizedNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return self.criterion_(y_pred, y_true)

    X, y = iris
    ours = small(lambda1=0.0, lambda2=0, dropout=0.3).fit(X, y)
    plain = NoPenalty(**ours.get_params(deep=False)).fit(X, y)
    assert equal_weights(ours, plain)
    assert set(ours.history[:, "train_penalty"]) == {0.0}


@pytest.mark.parametrize("name", ["lambda1", "lambda2"])
def test_larger_lambda_smaller_norm(iris, name):
    norms = [
        small(max_epochs=60, **{name: value}).fit(*iris).history[-1, "param_norm"]
        for value in [0, 1e-3, 1e-2, 1e-1]
    ]
    assert all(a > b for a, b in pairwise(norms))


def test_penalty_shrinks_only_what_it_covers(iris):
    sgd = {"optimizer": torch.optim.SGD, "lr": 0.01}
    net = small(lambda2=10.0, penalize=["fc1.weight"], max_epochs=50, **sgd)
    norms = net.fit(*iris).history[-1, "param_norms"]
    assert norms["fc1.weight"] < 0.05
    assert min(norms["fc2.weight"], norms["fc1.bias"], norms["fc2.bias"]) > 0.1


def test_sgd_weight_decay_is_twice_lambda2(iris):
    X, y = iris[0].astype(np.float64), iris[1]
    sgd = {"optimizer": torch.optim.SGD, "lr": 0.1, "optimizer__momentum": 0.9}
    ours = small(lambda2=0.01, **sgd).fit(X, y)
    decay = small(optimizer__weight_decay=0.02, **sgd).fit(X, y)
    for a, b in zip(weights(ours), weights(decay), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


LBFGS = {
    "hidden_layer_sizes": (),
    "optimizer": torch.optim.LBFGS,
    "optimizer__line_search_fn": "strong_wolfe",
    "lr": 1.0,
    "batch_size": -1,
    "max_epochs": 100,
}


def test_linear_net_with_l2_is_logistic_regression(iris):
    """Same minimiser: C scales the sum of losses, 1 / 2 the sum of squares."""
    X, y = iris[0].astype(np.float64), iris[1]
    ours = small(lambda2=0.01, penalize="weights", **LBFGS).fit(X, y)
    peer = LogisticRegression(C=1 / (2 * 0.01 * len(X)), tol=1e-8, max_iter=10_000)
    peer.fit(X, y)
    np.testing.assert_allclose(ours.module_.fc1.weight.detach(), peer.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-4)


def test_linear_net_with_l2_is_ridge():
    X, y = load_diabetes(return_X_y=True)
    X = 20 * X
    params = LBFGS | {"lambda2": 0.1, "penalize": "weights", "scale_target": False}
    ours = RegularizedNetRegressor(**params).fit(X, y)
    peer = Ridge(alpha=0.1 * len(X)).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), peer.predict(X), rtol=1e-5)


def test_callbacks_and_subclasses_may_change_lambda_during_the_fit(iris):
    class Annealed(RegularizedNetClassifier):
        def on_epoch_begin(self, net, **kwargs):
            super().on_epoch_begin(net, **kwargs)
            self.lambda2 = 0.1 * (len(self.history) == 2)

    net = Annealed(**small(max_epochs=3).get_params(deep=False)).fit(*iris)
    penalties = net.history[:, "train_penalty"]
    assert penalties[0] == penalties[2] == 0.0
    assert penalties[1] > 0
