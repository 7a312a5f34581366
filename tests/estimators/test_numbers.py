"""Numbers of NumPy and torch as parameters, and parameters that are no numbers."""

from contextlib import nullcontext

import joblib
import numpy as np
import pytest
import torch
from scipy.stats import uniform
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import RandomizedSearchCV, cross_validate
from torch import nn

from skreg import RegularizedNetClassifier

X, y = load_iris(return_X_y=True)
MAKERS = {
    "scalar": lambda value: np.array(value)[()],
    "array": np.array,
    "tensor": torch.tensor,
}
PLAIN = {
    "lambda1": 0.0625,
    "lambda2": 0.125,
    "dropout": 0.5,
    "lr": 0.25,
    "max_epochs": 3,
    "batch_size": 32,
    "shuffle": True,
    "early_stopping": True,
    "patience": 2,
    "validation_fraction": 0.25,
    "random_state": 7,
    "verbose": 0,
    "hidden_layer_sizes": 8,
    "optimizer__momentum": 0.5,
    "optimizer__nesterov": True,
    "optimizer__weight_decay": 0.125,
    "iterator_train__drop_last": True,
    "callbacks__early_stopping__patience": 1,
}


def weights_of(params, backend):
    net = RegularizedNetClassifier(optimizer=torch.optim.SGD, **params)
    with joblib.parallel_config("skreg") if backend else nullcontext():
        found = cross_validate(
            net, X, y, cv=2, return_estimator=True, error_score="raise"
        )
    nets = found["estimator"]
    assert [set(net.predict(X)) <= set(y) for net in nets] == [True, True]
    for fitted in nets:
        given = fitted.get_params(deep=False)
        assert all(type(given[name]) is type(v) for name, v in params.items())
    return [weight for net in nets for weight in net.module_.parameters()]


@pytest.mark.parametrize("backend", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_numbers_of_other_libraries_mean_the_same(kind, backend):
    params = {name: MAKERS[kind](value) for name, value in PLAIN.items()}
    for mine, theirs in zip(
        weights_of(params, backend), weights_of(PLAIN, backend), strict=True
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_numbers_inside_options(make):
    params = {"random_state": 0, "max_epochs": 2}
    other = RegularizedNetClassifier(
        optimizer__betas=(make(0.5), make(0.75)),
        optimizer__param_groups=[("fc1*", {"lr": make(0.125)})],
        **params,
    ).fit(X, y)
    plain = RegularizedNetClassifier(
        optimizer__betas=(0.5, 0.75),
        optimizer__param_groups=[("fc1*", {"lr": 0.125})],
        **params,
    ).fit(X, y)
    for mine, theirs in zip(
        other.module_.parameters(), plain.module_.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)
    first = other.optimizer_.param_groups[0]
    assert [type(value) for value in (*first["betas"], first["lr"])] == [float] * 3
    # The parameters are the very objects that the user gave.
    again = clone(other).set_params(**other.get_params(deep=False))
    assert again.optimizer__betas is other.optimizer__betas


def test_set_params_on_a_fitted_net_keeps_the_users_number():
    net = RegularizedNetClassifier(optimizer=torch.optim.SGD, max_epochs=1).fit(X, y)
    lr, momentum = np.float32(0.5), np.array(0.25)
    net.set_params(lr=lr, optimizer__momentum=momentum)
    assert net.lr is lr
    assert net.optimizer__momentum is momentum
    group = net.optimizer_.param_groups[0]
    assert (type(group["lr"]), group["momentum"]) == (float, 0.25)
    net.partial_fit(X, y)
    assert net.lr is lr


def test_what_is_no_number_is_left_as_it_is():
    class Scaled(nn.Linear):
        def __init__(self, scale, widths, in_features=4, out_features=3):
            super().__init__(in_features, out_features)
            self.register_buffer("scale", scale)
            self.widths = widths

        def forward(self, x):
            return super().forward(x) * self.scale

    widths = [1, 2]
    net = RegularizedNetClassifier(
        Scaled, module__scale=torch.tensor(2.0), module__widths=widths, max_epochs=1
    ).fit(X, y)
    assert net.module_.scale == 2
    assert net.module_.widths is widths


def test_a_random_search_draws_options():
    space = {
        "optimizer__momentum": uniform(0, 0.9),
        "optimizer__nesterov": np.array([True]),
        "hidden_layer_sizes": np.array([4, 8]),
        "optimizer__weight_decay": uniform(1e-4, 1e-2),
    }
    net = RegularizedNetClassifier(optimizer=torch.optim.SGD, max_epochs=2)
    search = RandomizedSearchCV(
        net, space, n_iter=3, cv=2, random_state=0, error_score="raise"
    )
    with joblib.parallel_config("skreg"):
        assert search.fit(X, y).score(X, y) > 0


@pytest.mark.parametrize("sizes", ["x", -1, 0, 2.5, (5, -1), [[4]], None, {4}, True])
@pytest.mark.parametrize("module", [None, nn.Linear])
def test_sizes_are_told_with_all_other_problems(sizes, module):
    net = RegularizedNetClassifier(module, hidden_layer_sizes=sizes, lr=-1)
    with pytest.raises(ValueError, match=r"(?s)hidden_layer_sizes=.*lr=-1 must be"):
        net.fit(X, y)


@pytest.mark.parametrize(
    "sizes", [(), [], 3, 3.0, [3, 2], range(2, 4), np.array([3, 2]), np.int8(3)]
)
def test_sizes_that_mean_something(sizes):
    net = RegularizedNetClassifier(hidden_layer_sizes=sizes, max_epochs=1).fit(X, y)
    assert len(list(net.module_.parameters())) == 2 + 2 * np.size(sizes)


@pytest.mark.parametrize("backend", [False, True])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"criterion__label_smoothing": 2}, r"label_smoothing=2 .*\[0, 1\]"),
        ({"criterion__label_smoothing": -0.1}, r"label_smoothing=-0.1 .*\[0, 1\]"),
        ({"criterion__label_smoothing": "x"}, r"label_smoothing='x' .*\[0, 1\]"),
        ({"criterion": nn.CrossEntropyLoss(label_smoothing=2)}, "label_smoothing=2 "),
        ({"optimizer__betas": 0.9}, "optimizer=Adam .*betas=0.9, lr=0.001"),
        ({"optimizer__betas": (0.9,)}, r"optimizer=Adam .*betas=\(0.9,\)"),
        ({"optimizer__weight_decay": "a"}, "optimizer=Adam .*weight_decay='a'"),
        ({"optimizer__weight_decay": -1}, "weight_decay=-1, .*optimizer__"),
        ({"verbose": "x"}, "verbose='x' must be an integer >= 0"),
    ],
)
def test_errors_name_parameter_and_value(params, message, backend):
    net = RegularizedNetClassifier(max_epochs=1, **params)
    with joblib.parallel_config("skreg") if backend else nullcontext():  # noqa: SIM117
        with pytest.raises(ValueError, match=message):
            cross_validate(net, X, y, cv=2, error_score="raise")
