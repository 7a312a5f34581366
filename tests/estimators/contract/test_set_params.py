"""Parameters: when they act, and which are refused."""

import pickle

import numpy as np
import pytest
import torch
from contract_nets import equal_weights, small, weights
from skorch.callbacks import EpochTimer
from torch import nn
from torch.utils.data import TensorDataset

from skreg import RegularizedNetClassifier
from skreg.modules import MLP, AnimalNetDropout
from skreg.transforms import RandomFlip


def test_set_params_before_fit_only_stores(iris):
    net = small().set_params(
        module__activation="tanh", optimizer__weight_decay=0.1, callbacks__norms=None
    )
    assert not hasattr(net, "callbacks_")
    net.fit(*iris)
    assert isinstance(net.module_.activation, nn.Tanh)
    assert net.optimizer_.param_groups[0]["weight_decay"] == 0.1
    assert "param_norm" not in net.history[0]


@pytest.mark.parametrize(
    "params",
    [
        {"module__activation": "tanh"},
        {"hidden_layer_sizes": 3},
        {"lambda1": 0.1},
        {"lr": 0.1, "optimizer__weight_decay": 0.1},
        {"optimizer": torch.optim.SGD},
        {"criterion__label_smoothing": 0.1},
        {"callbacks__norms": None},
        {"dtype": "float32", "max_epochs": 2},
    ],
)
def test_set_params_after_fit_shows_at_the_next_fit(iris, params):
    X, y = iris
    net = small().fit(X, y)
    before = net.predict_proba(X)
    net.set_params(**params)
    assert np.array_equal(net.predict_proba(X), before)
    assert {name: net.get_params()[name] for name in params} == params
    assert equal_weights(net.fit(X, y), small().set_params(**params).fit(X, y))


def test_set_params_and_warm_start(iris):
    X, y = iris
    net = small(warm_start=True, max_epochs=1).fit(X, y)
    module, optimizer = net.module_, net.optimizer_
    net.set_params(lr=0.5, optimizer__weight_decay=0.25)
    assert net.optimizer_.param_groups[0]["lr"] == 0.5
    net.fit(X, y)
    assert net.module_ is module
    assert net.optimizer_ is optimizer
    assert len(net.history) == 2
    net.set_params(optimizer=torch.optim.SGD, callbacks__norms=None).fit(X, y)
    assert net.module_ is module
    assert isinstance(net.optimizer_, torch.optim.SGD)
    assert "param_norm" not in net.history[-1]
    net.set_params(module__dropout=0.5).fit(X, y)
    assert net.module_ is not module
    assert len(net.history) == 1


def test_dropout_none_on_a_warm_net_is_the_dropout_of_the_module(iris):
    X, y = iris
    net = small(module=AnimalNetDropout, module__in_features=4, dropout=0.125)
    net.fit(X, y)
    layers = net.module_.dropout1, net.module_.dropout2
    net.set_params(dropout=None).partial_fit(X, y)
    assert [layer.p for layer in layers] == [0.5, 0.3]
    layers[0].p = 0.25  # by hand, which nobody has asked to undo
    pickle.loads(pickle.dumps(net)).partial_fit(X, y)
    net.partial_fit(X, y)
    assert [layer.p for layer in layers] == [0.25, 0.3]
    net.set_params(dropout=0.75).partial_fit(X, y)
    copied = pickle.loads(pickle.dumps(net)).set_params(dropout=None)
    copied.partial_fit(X, y)
    assert copied.module_.dropout1.p == 0.5


def test_device_and_dtype_of_a_warm_net_wait(iris):
    X, y = iris
    net, peer = (small(device="cpu").fit(X, y) for _ in range(2))
    net.set_params(dtype="float32", device="cuda:7")
    assert np.array_equal(net.predict_proba(X), peer.predict_proba(X))
    assert equal_weights(net.partial_fit(X, y), peer.partial_fit(X, y))
    assert net.device_.type == "cpu"
    with pytest.raises(ValueError, match="device='cuda:7' cannot be used"):
        net.fit(X, y)
    net.set_params(device="cpu").fit(X, y)
    assert weights(net)[0].dtype == torch.float32


def test_early_stopping_set_on_a_warm_net(iris):
    net = small(warm_start=True).fit(*iris)
    net.set_params(early_stopping=True, patience=0, max_epochs=500, lr=0.1).fit(*iris)
    assert len(net.history) == net.best_epoch_ + 1 < 505


def test_unknown_parameters(iris):
    with pytest.raises(ValueError, match="Invalid parameter 'lamda'"):
        small().set_params(lamda=1)
    with pytest.raises(ValueError, match="unexpected argument"):
        small(modul__x=1).fit(*iris)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"module__nope": 1}, "module__nope=1 is no argument of module=MLP, .*activ"),
        ({"optimizer__nope": 1}, "optimizer__nope=1 is no .*Adam, .*optimizer__betas"),
        (
            {"criterion__nope": 1},
            "criterion__nope=1 is no .*CrossEntropyLoss, .*weight",
        ),
        ({"iterator_train__nope": 1}, "iterator_train__nope=1 is no .*num_workers"),
        ({"iterator_valid__nope": 1}, "iterator_valid__nope=1 is no .*num_workers"),
        ({"dataset__nope": 1}, "dataset__nope=1 is no .*dataset__length"),
        ({"augment__nope": 1}, "augment__nope=1 is no .*augment=None, .* none"),
        ({"callbacks__norm": None}, "callbacks__norm=None names no callback; .*norms"),
        (
            {"criterion": nn.CrossEntropyLoss(), "criterion__nope": 1},
            "criterion__nope=1 is no argument of criterion=CrossEntropyLoss",
        ),
        (
            {"augment": RandomFlip, "augment__nope": 1},
            "augment=RandomFlip, which accepts augment__horizontal, augment__vertical",
        ),
        ({"module": nn.Bilinear}, "module=Bilinear cannot .*in1_features, module__in2"),
        ({"module__a": 1, "lr": -1}, r"lr=-1 must be .*\n.*module__a=1 is no"),
    ],
)
def test_arguments_that_components_do_not_take(iris, params, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        small(**params).fit(*iris)
    net = small().fit(*iris).set_params(**params)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        net.partial_fit(*iris)


def test_arguments_that_components_do_take(iris):
    class Open(MLP):
        def __init__(self, in_features, out_features, **anything):
            super().__init__(in_features, out_features)

    net = small(
        module=Open,
        module__nope=1,
        optimizer__param_groups=[("fc1.*", {"lr": 0.5})],
        callbacks=[("mine", EpochTimer())],
        callbacks__mine=None,
        callbacks__early_stopping__patience=3,
        iterator_train__drop_last=True,
    )
    assert net.fit(*iris).optimizer_.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("iterator_train__batch_size", 0, "a positive integer or -1"),
        ("iterator_valid__batch_size", 1.5, "a positive integer or -1"),
        ("dataset", None, "a Dataset class"),
    ],
)
def test_what_makes_batches_is_checked_with_the_rest(iris, name, value, allowed):
    net = small(lambda1=-1, **{name: value})
    with pytest.raises(ValueError, match="lambda1=-1 must be") as error:
        net.fit(*iris)
    assert f"{name}={value} must be {allowed}" in str(error.value)


ERRORS = {
    "classes=": lambda net, X, y: net.partial_fit(X, y, classes=[]),
    "class_weight='balanced' cannot": lambda net, X, y: net.set_params(
        class_weight="balanced"
    ).partial_fit(X, y),
    "groups has shape": lambda net, X, y: net.fit(X, y, groups=np.zeros((20, 2))),
    "iterator_train=3 must be": lambda net, X, y: net.set_params(iterator_train=3).fit(
        X, y
    ),
    "compile='x' must be": lambda net, X, y: net.set_params(compile="x").fit(X, y),
    "verbose=-1 must be": lambda net, X, y: net.set_params(verbose=-1).fit(X, y),
    "given to set_callbacks": lambda net, X, y: net.set_params(
        callbacks=[object()]
    ).fit(X, y),
    "pairs": lambda net, X, y: net.fit(TensorDataset(torch.ones(4, 2)), y[:4]),
}


@pytest.mark.parametrize("message", ERRORS)
def test_one_error_names_the_parameter(message):
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    with pytest.raises(ValueError, match=message):
        ERRORS[message](RegularizedNetClassifier(max_epochs=1), X, y)


def test_bad_components_are_listed_together(iris):
    bad = {
        "augment": 3,
        "callbacks": [("ours",)],
        "compile": "x",
        "iterator_train": 3,
        "iterator_valid": "loader",
        "verbose": -1,
        "lambda1": -1,
    }
    with pytest.raises(ValueError, match="must be") as caught:
        small(**bad).fit(*iris)
    for name, value in bad.items():
        assert f"{name}={value!r} must be" in str(caught.value)
