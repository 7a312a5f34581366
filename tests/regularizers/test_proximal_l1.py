"""proximal=True: the L1 penalty by proximal steps ends at its minimum, with zeros."""

import inspect

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import ElasticNet as SklearnElasticNet
from sklearn.linear_model import Lasso, LogisticRegression
from skorch.callbacks import Callback, LRScheduler
from torch import nn, optim

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.estimators.paths import forced_path
from skreg.regularizers import ElasticNet, Regularizer

X, Y = make_regression(80, 10, n_informative=4, noise=5, random_state=0)
X, Y = (X - X.mean(axis=0)) / X.std(axis=0), (Y - Y.mean()) / Y.std() + 3
POINTS, KINDS = make_classification(
    *(120, 8),
    n_informative=4,
    n_redundant=0,
    n_classes=3,
    n_clusters_per_class=1,
    random_state=1,
)
POINTS = (POINTS - POINTS.mean(axis=0)) / POINTS.std(axis=0)
PATHS = ["backprop", "autograd", "hooks"]
LINEAR = {"hidden_layer_sizes": (), "penalize": "weights", "proximal": True}
LINEAR |= {"batch_size": -1, "dtype": "float64", "random_state": 0}
LINEAR |= {"max_epochs": 400}
COOLED = [("cooled", LRScheduler("ExponentialLR", gamma=0.985))]
SGD = {"optimizer": optim.SGD, "lr": 0.1}
MOMENTUM = {"optimizer": optim.SGD, "lr": 0.03, "optimizer__momentum": 0.9}
ADAM = {"lr": 0.3, "optimizer__betas": (0.9, 0.99), "callbacks": COOLED}
OPTIMIZERS = {
    "SGD": SGD,
    "momentum": MOMENTUM,
    "nesterov": MOMENTUM | {"optimizer__nesterov": True},
    "dampening": MOMENTUM | {"lr": 0.3, "optimizer__dampening": 0.9},
    "Adam": ADAM,
    "amsgrad": ADAM | {"optimizer__amsgrad": True},
    "AdamW": ADAM | {"optimizer": optim.AdamW, "optimizer__weight_decay": 0.0},
    "Adamax": ADAM | {"optimizer": optim.Adamax},
    "NAdam": ADAM | {"optimizer": optim.NAdam},
    "RAdam": ADAM | {"optimizer": optim.RAdam},
    "RMSprop": {"optimizer": optim.RMSprop, "lr": 0.3, "callbacks": COOLED},
    "Adagrad": {"optimizer": optim.Adagrad, "lr": 0.5},
}
MAIN = ["SGD", "momentum", "Adam"]


def regressor(lambda1=0.3, **params):
    params = {"scale_target": False} | LINEAR | params
    return RegularizedNetRegressor(lambda1=lambda1, **params)


def weights(net):
    """Return the weights and the biases of a linear net."""
    w, b = (p.detach().numpy() for p in net.module_.parameters())
    return w, b


def lasso(lambda1, lambda2=0.0, y=Y, X=X):
    """Return scikit-learn's: it halves the squared error, and the squares."""
    alpha = lambda1 / 2 + lambda2
    settings = {"tol": 1e-14, "max_iter": 10**6}
    if lambda2 == 0:
        return Lasso(alpha=alpha, **settings).fit(X, y)
    ratio = lambda1 / 2 / alpha
    return SklearnElasticNet(alpha=alpha, l1_ratio=ratio, **settings).fit(X, y)


def assert_is(net, expected):
    w, b = weights(net)
    np.testing.assert_allclose(w.ravel(), expected.coef_, atol=1e-4, rtol=0)
    np.testing.assert_allclose(b, expected.intercept_, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(w.ravel() == 0, expected.coef_ == 0)


# -- the minimum is scikit-learn's ----------------------------------------------------


@pytest.mark.parametrize("optimizer", MAIN)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("lambda2", [0.0, 0.1])
def test_a_linear_net_is_the_lasso_or_the_elastic_net(optimizer, path, lambda2):
    net = regressor(lambda2=lambda2, **OPTIMIZERS[optimizer])
    with forced_path(path):
        net.fit(X, Y)
    assert net.training_path_ == path
    expected = lasso(0.3, lambda2)
    assert (expected.coef_ == 0).any()
    assert_is(net, expected)  # with an intercept of 3, which nobody thresholds


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS.keys() - set(MAIN)))
def test_so_it_is_with_every_optimizer_that_tells_its_step_sizes(optimizer):
    net = regressor(lambda2=0.1, **OPTIMIZERS[optimizer]).fit(X, Y)
    assert_is(net, lasso(0.3, 0.1))


@pytest.mark.parametrize("path", PATHS)
def test_targets_are_scaled_first(path):
    y = 50 * Y + 7
    with forced_path(path):
        net = regressor(scale_target=True, module=nn.Linear, **SGD).fit(X, y)
    expected = lasso(0.3, y=(y - y.mean()) / y.std())
    assert_is(net, expected)
    found = net.predict(X)
    np.testing.assert_allclose(found, expected.predict(X) * y.std() + y.mean())


def l1_logistic(strength, X, y):
    """Return scikit-learn's: it sums the losses, and divides by the strength."""
    defaults = inspect.signature(LogisticRegression).parameters
    kind = {"penalty": "l1"}
    if defaults["penalty"].default == "deprecated":
        kind = {"l1_ratio": 1.0}
    model = LogisticRegression(
        C=1 / (len(y) * strength), solver="saga", tol=1e-10, max_iter=10**5, **kind
    )
    return model.fit(X, y)


SLOWLY = [("cooled", LRScheduler("ExponentialLR", gamma=0.99))]
OF_CLASSES = {
    "SGD": {"optimizer": optim.SGD, "lr": 1.0},
    "momentum": MOMENTUM | {"lr": 0.3},
    "Adam": ADAM | {"callbacks": SLOWLY, "max_epochs": 800},
}


@pytest.mark.parametrize("optimizer", MAIN)
@pytest.mark.parametrize("path", PATHS)
def test_a_linear_classifier_is_l1_logistic_regression(optimizer, path):
    net = RegularizedNetClassifier(lambda1=0.05, **LINEAR | OF_CLASSES[optimizer])
    with forced_path(path):
        net.fit(POINTS, KINDS)
    assert net.training_path_ == path
    expected = l1_logistic(0.05, POINTS, KINDS)
    w, b = weights(net)
    np.testing.assert_allclose(w, expected.coef_, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(w == 0, expected.coef_ == 0)
    assert 0 < (w == 0).sum() < w.size
    centered = expected.intercept_ - expected.intercept_.mean()
    np.testing.assert_allclose(b - b.mean(), centered, atol=1e-4)


@pytest.mark.parametrize("optimizer", MAIN)
def test_of_two_classes_the_difference_of_the_logits_is(optimizer):
    """The penalty of two rows is that of their difference, however it is split."""
    y = np.minimum(KINDS, 1)
    net = RegularizedNetClassifier(lambda1=0.05, **LINEAR | OF_CLASSES[optimizer])
    w, b = weights(net.fit(POINTS, y))
    expected = l1_logistic(0.05, POINTS, y)
    np.testing.assert_allclose(w[1:] - w[:1], expected.coef_, atol=1e-4, rtol=0)
    np.testing.assert_allclose(b[1:] - b[:1], expected.intercept_, atol=1e-4)
    np.testing.assert_array_equal((w == 0).all(axis=0), expected.coef_[0] == 0)
    assert 0 < (expected.coef_ == 0).sum() < expected.coef_.size


# -- the condition of a minimum -------------------------------------------------------


def perceptron(in_features, out_features):
    return nn.Sequential(
        nn.Linear(in_features, 6), nn.Tanh(), nn.Linear(6, out_features)
    )


OF_PERCEPTRONS = {
    "momentum": MOMENTUM | {"lr": 0.05},
    "Adam": {
        "lr": 0.01,
        "optimizer__betas": (0.9, 0.9),
        "callbacks": [("cooled", LRScheduler("StepLR", step_size=400, gamma=0.2))],
    },
}


@pytest.mark.parametrize("optimizer", OF_PERCEPTRONS)
@pytest.mark.parametrize("penalize", ["weights", "all"])
def test_the_subgradient_of_the_objective_holds_zero(optimizer, penalize):
    """Weights rest where the slope of the rest is lambda1, zeros where it is less."""
    params = {"penalize": penalize, "max_epochs": 1000}
    params |= OF_PERCEPTRONS[optimizer]
    net = regressor(0.02, module=perceptron, lambda2=0.05, **params).fit(X, Y)
    outputs = net.module_(torch.from_numpy(X))
    nn.functional.mse_loss(outputs[:, 0], torch.from_numpy(Y)).backward()
    n_zeros = 0
    for name, w in net.module_.named_parameters():
        slope, w = w.grad, w.detach()
        if penalize == "weights" and "bias" in name:
            assert slope.abs().max() < 1e-4
            assert (w != 0).all()  # nobody thresholds them
            continue
        slope += 2 * 0.05 * w
        torch.testing.assert_close(
            slope[w != 0], -0.02 * w.sign()[w != 0], atol=1e-4, rtol=0
        )
        assert (slope[w == 0].abs() <= 0.02).all()
        n_zeros += int((w == 0).sum())
    assert n_zeros > 20


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "Adamax", "NAdam", "RMSprop"])
def test_from_the_minimum_steps_lead_nowhere(optimizer):
    covered = {"penalize": "all"}  # Adam follows the sign of slopes that are near 0
    module = regressor(0.3, **SGD, **covered).fit(X, Y).module_
    options = OPTIMIZERS[optimizer] | covered
    options |= {"lr": 0.01, "callbacks": None, "max_epochs": 5}
    moved = regressor(0.3, module=module, **options).fit(X, Y).module_
    for w, v in zip(moved.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(w, v, atol=1e-10, rtol=0)
        assert torch.equal(w == 0, v == 0)


# -- stacks ---------------------------------------------------------------------------


class Affine(nn.Module):
    """A linear layer that is no layer of torch's: backprop does not know it."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


def fit(net, data, y):
    return clone(net).fit(data, y)


def together(nets):
    with joblib.parallel_config("skreg"):
        return joblib.Parallel()(joblib.delayed(fit)(net, X, Y) for net in nets)


LAMBDAS = [0.0, 0.05, 0.3, 0.3, 10.0]


def nets_of_a_stack(**params):
    """Return nets with strengths of their own; the fourth takes subgradients."""
    nets = [regressor(lambda1, lambda2=0.01, **params) for lambda1 in LAMBDAS]
    nets[3].set_params(proximal=False)
    return [*nets, regressor(0.0, **params)]  # no penalty at all


@pytest.mark.parametrize("optimizer", MAIN)
@pytest.mark.parametrize("module", [None, nn.Linear, Affine, perceptron])
def test_a_stack_trains_nets_with_lambdas_of_their_own_as_each_alone(
    optimizer, module, stacks
):
    params = OPTIMIZERS[optimizer] | {"module": module, "max_epochs": 40}
    nets = nets_of_a_stack(**params)
    found = together(nets)
    assert {net.training_path_ for net in found} == {"stack"}
    for net, one in zip(found, nets, strict=True):
        alone = fit(one, X, Y)
        for w, v in zip(*(n.module_.parameters() for n in (net, alone)), strict=True):
            torch.testing.assert_close(w, v, rtol=1e-7, atol=1e-9)
            assert torch.equal(w == 0, v == 0)
        for key in ("train_loss", "train_penalty"):
            assert net.history[:, key] == pytest.approx(alone.history[:, key])


@pytest.mark.parametrize("optimizer", MAIN)
def test_the_nets_of_a_stack_are_lassos_of_their_own(optimizer, stacks):
    found = together(nets_of_a_stack(**OPTIMIZERS[optimizer]))
    assert {net.training_path_ for net in found} == {"stack"}
    for i in (1, 2, 4):
        assert_is(found[i], lasso(LAMBDAS[i], 0.01))
    assert (weights(found[4])[0] == 0).all()
    for i in (0, 3, 5):
        assert (weights(found[i])[0] != 0).all()  # a subgradient makes no zeros


# -- what else there is ---------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_the_penalty_is_part_of_the_objective(path):
    with forced_path(path):
        net = regressor(0.3, lambda2=0.1, penalize="all", **SGD | {"max_epochs": 1})
        net.fit(X, Y)
        params = [w.detach().clone() for w in net.module_.parameters()]
        loss = ((net.predict(X) - Y) ** 2).mean()
        net.set_params(warm_start=True).fit(X, Y)
    penalty = float(sum(0.3 * abs(w).sum() + 0.1 * (w**2).sum() for w in params))
    assert net.history[-1, "train_penalty"] == pytest.approx(penalty)
    assert net.history[-1, "train_loss"] == pytest.approx(loss + penalty)


@pytest.mark.parametrize("path", PATHS)
def test_without_a_penalty_nothing_changes_bit_for_bit(path):
    params = {"hidden_layer_sizes": 5, "max_epochs": 3, "batch_size": 20}
    nets = []
    for proximal in (True, False):
        with forced_path(path):
            net = regressor(0.0, lambda2=0.1, **params, proximal=proximal).fit(X, Y)
        nets.append(net)
    for w, v in zip(*(net.module_.parameters() for net in nets), strict=True):
        assert torch.equal(w, v)
    assert nets[0].history[:, "train_loss"] == nets[1].history[:, "train_loss"]


@pytest.mark.parametrize("path", PATHS)
def test_an_own_elastic_net_does_it_too(path):
    own = ElasticNet(lambda1=0.3, penalize="weights", proximal=True)
    params = {"penalize": "all", "proximal": False} | SGD
    with forced_path(path):
        net = regressor(0.0, regularizers=[own], **params).fit(X, Y)
    assert_is(net, lasso(0.3))


class Kept(ElasticNet):
    """An elastic net that keeps weights within [-1, 1], besides."""

    def project(self, weights, step_sizes):
        super().project(weights, step_sizes)
        for w in weights.values():
            w.clamp_(-1, 1)


def test_a_subclass_may_add_to_the_projection():
    plain = {"penalize": "all", "proximal": False}
    for proximal in (False, True):
        own = Kept(0.1, penalize="weights", proximal=proximal)
        net = regressor(0.0, regularizers=[own], **SGD | plain).fit(X, Y)
        w, b = weights(net)
        assert (w == 0).any() == proximal
        assert b == 1


UNKNOWN = [
    ({"optimizer": optim.Rprop}, "optimizer=Rprop does not tell"),
    ({"optimizer": optim.LBFGS}, "optimizer=LBFGS does not tell"),
    (MOMENTUM | {"optimizer__momentum": 1.0}, "SGD with momentum=1.0 does not tell"),
    ({"optimizer__maximize": True}, "Adam with maximize=True does not tell"),
]


class Fails(Regularizer):
    """Does not expect to be asked."""

    def batch(self, X, y):
        raise AssertionError("training has begun")


@pytest.mark.parametrize("backend", [False, True])
@pytest.mark.parametrize(("params", "message"), UNKNOWN)
def test_an_optimizer_without_step_sizes_is_an_error_before_training(
    params, message, backend
):
    net = regressor(0.1, regularizers=[Fails()], **params)
    message = rf"ElasticNet\(lambda1=0.1, .*proximal=True\).*{message}.* use SGD, Adam"
    with pytest.raises(ValueError, match=message):
        together([net, net]) if backend else net.fit(X, Y)
    net = regressor(0.0, **params | {"max_epochs": 1})
    assert len(net.fit(X, Y).history) == 1  # there are no steps to take


def test_callbacks_may_turn_it_on():
    class Prunes(Callback):
        def on_epoch_begin(self, net, **kwargs):
            net.set_params(proximal=len(net.history) > 2)

    params = SGD | {"max_epochs": 2, "callbacks": [Prunes()]}
    assert (weights(regressor(0.3, **params).fit(X, Y))[0] != 0).all()
    params["max_epochs"] = 4
    assert (weights(regressor(0.3, **params).fit(X, Y))[0] == 0).any()


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_other_values_are_errors(value):
    with pytest.raises(ValueError, match=r"proximal=.* must be a bool; True makes"):
        regressor(proximal=value).fit(X, Y)
