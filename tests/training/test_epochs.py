"""The ways through an epoch, with hooks, without, and without autograd: one result."""

import pickle

import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from epoch_fits import assert_same_history, fit, trackers, without_time
from skorch.callbacks import LRScheduler
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.estimators import _epoch_without_hooks as _epochs
from skreg.estimators.paths import forced_path
from skreg.modules import MLP, AnimalNet, AnimalNetDropout, BigAnimalNet
from skreg.transforms import GaussianNoise


def _course_net(net):
    def make(in_features, out_features):
        return net(in_features, out_features)

    return make


def sequential(in_features, out_features):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_features, 6, bias=False),
        nn.LeakyReLU(0.2),
        nn.Dropout(),
        nn.Linear(6, 5),
        nn.Sigmoid(),
        nn.Identity(),
        nn.Linear(5, out_features),
    )


def in_a_row(in_features, out_features):
    """Activations whose backward needs what the next one would overwrite."""
    return nn.Sequential(
        nn.Linear(in_features, 7),
        nn.Tanh(),
        nn.Sigmoid(),
        nn.Dropout(),
        nn.Tanh(),
        nn.Linear(7, out_features),
    )


def falling(in_features, out_features):
    return nn.Sequential(nn.Linear(in_features, out_features), nn.LeakyReLU(-0.1))


def convolutional(in_features, out_features):
    convolution = nn.Conv1d(1, 2, 3)
    return nn.Sequential(
        nn.Unflatten(1, (1, in_features)),
        convolution,
        nn.Flatten(),
        nn.Linear(2 * (in_features - 2), out_features),
    )


def with_hook(in_features, out_features):
    module = MLP(in_features, out_features)
    module.fc2.register_forward_hook(lambda layer, args, outputs: 2 * outputs)
    return module


def frozen(in_features, out_features):
    module = MLP(in_features, out_features)
    module.fc1.requires_grad_(False)
    return module


def tied(in_features, out_features):
    module = MLP(in_features, out_features, (in_features, in_features))
    module.fc2.weight = module.fc1.weight
    return module


class Normalized(MLP):
    def forward(self, x):
        return nn.functional.normalize(super().forward(x))


WORK = [
    {},
    {"lambda1": 1e-2, "lambda2": 1e-2, "batch_size": 16, "dropout": 0.5},
    {"early_stopping": True, "patience": 1, "batch_size": -1},
    {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.1},
    {"augment": GaussianNoise(0.5), "class_weight": {0: 1, 1: 2, 2: 3}},
    {"optimizer": torch.optim.RMSprop, "iterator_train__drop_last": True}
    | {"batch_size": 16},
    {"iterator_train": torch.utils.data.DataLoader, "batch_size": 32},
    {"make": RegularizedNetRegressor, "lambda2": 0.1},
    {"schedule": LRScheduler("StepLR", step_size=2, gamma=0.5)},
]


@pytest.mark.parametrize("params", WORK)
def test_both_ways_give_the_same_bits_and_the_same_history(iris, params):
    with forced_path("autograd"):
        lean, was_lean = fit(iris, callbacks=trackers(params), **params)
    full, was_full = fit(iris, callbacks=[*trackers(params), SeesBatches()], **params)
    assert was_lean
    assert not was_full
    for a, b in zip(lean.module_.parameters(), full.module_.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(lean.history) == len(full.history)
    for a, b in zip(lean.history, full.history, strict=True):
        assert a.keys() == b.keys()
        assert without_time(a) == without_time(b)


MODULES = [
    {},
    {"module": _course_net(AnimalNet)},
    {"module": _course_net(BigAnimalNet)},
    {"module": _course_net(AnimalNetDropout)},
    {"module__activation": "tanh", "hidden_layer_sizes": (9, 7), "dropout": 0.3},
    {"module__activation": "logistic", "dropout": 0.3},
    {"hidden_layer_sizes": ()},
    {"module": sequential, "dropout": 0.2},
    {"criterion__label_smoothing": 0.1},
    {"penalize": "weights", "lambda1": 0.01},
    {"dropout": 1.0},
    {"module": in_a_row, "dropout": 0.0},
    {"module": in_a_row, "dropout": 0.5},
]


@pytest.mark.parametrize("params", [*WORK, *MODULES])
def test_written_out_backpropagation_trains_as_autograd_does(iris, params):
    params = {"lambda1": 1e-3, "lambda2": 1e-3, "max_epochs": 6} | params
    X, y = iris
    data = X.astype(np.float64), y
    by_hand, _ = fit(data, callbacks=trackers(params), **params)
    with forced_path("autograd"):
        autograd, _ = fit(data, callbacks=trackers(params), **params)
    assert autograd.training_path_ == "autograd"
    tolerance = {"rel": 1e-9, "abs": 1e-12}
    for a, b in zip(
        by_hand.module_.parameters(), autograd.module_.parameters(), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)
        assert a.untyped_storage().nbytes() == a.nbytes
        assert a.grad is None
    assert_same_history(by_hand.history, autograd.history, tolerance)
    by_hand.partial_fit(*data)
    with forced_path("autograd"):
        autograd.partial_fit(*data)
    assert_same_history(by_hand.history, autograd.history, tolerance)


@pytest.mark.parametrize(
    ("params", "by_hand"),
    [
        *(((params, True)) for params in WORK[:6] + MODULES),
        ({"module__activation": "gelu"}, False),
        ({"module": convolutional}, False),
        ({"criterion": torch.nn.SmoothL1Loss, "make": RegularizedNetRegressor}, False),
        ({"criterion__weight": torch.ones(3)}, False),
        ({"module": with_hook}, False),
        ({"module": falling}, False),
        ({"module": frozen}, False),
        ({"module": tied}, False),
        ({"module": Normalized}, False),
        ({"callbacks": [SeesBatches()]}, False),
    ],
)
def test_who_is_trained_by_hand(iris, params, by_hand):
    X, y = iris
    make = params.get("make", RegularizedNetClassifier)
    rest = {k: v for k, v in params.items() if k != "make"}
    rest = {"hidden_layer_sizes": 8, "max_epochs": 1, "batch_size": 50} | rest
    net = make(**rest).fit(X, y)
    assert (net.training_path_ == "backprop") == by_hand
    assert ("backprop" in net.training_path_reasons_) != by_hand


def test_optimizers_are_fused_unless_told_otherwise(iris):
    def group(**params):
        return fit(iris, **params)[0].optimizer_.param_groups[0]

    assert group()["fused"]
    assert not group(optimizer__fused=False)["fused"]
    assert group(optimizer__foreach=True)["foreach"]
    assert not group(optimizer=torch.optim.RMSprop).get("fused")


def test_sparse_embeddings_train():
    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.EmbeddingBag(5, 2, sparse=True)

        def forward(self, words):
            return self.embedding(words)

    words = {"words": np.arange(20).reshape(10, 2) % 5}
    net = RegularizedNetClassifier(Words, optimizer=torch.optim.SGD, max_epochs=2)
    assert net.fit(words, np.arange(10) % 2).predict(words).shape == (10,)


@pytest.mark.parametrize(("size", "expected"), [(8, 1), (20_000, 2)])
def test_small_nets_are_trained_by_one_thread(iris, size, expected):
    seen = []

    class Adam(torch.optim.Adam):
        def step(self, closure=None):
            seen.append(torch.get_num_threads())
            return super().step(closure)

    Adam.__module__ = "torch.optim.mine"
    torch.set_num_threads(2)
    try:
        fit(iris, optimizer=Adam, hidden_layer_sizes=size)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert set(seen) == {expected}


@pytest.mark.cuda
@pytest.mark.parametrize(
    "params",
    [
        {"lambda1": 1e-3, "lambda2": 1e-3},
        {"dropout": 0.5, "optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
        {"amp": "bfloat16"},
        {"amp": "float16"},
    ],
)
def test_an_epoch_on_a_gpu_waits_for_it_only_at_its_end(
    cuda, iris, params, monkeypatch
):
    train, record, epochs = _epochs.train_epoch, _epochs._record, []

    def strict(net, batches, fit_params):
        if len(net.history) > 1:  # in the first, data are moved and state is made
            torch.cuda.set_sync_debug_mode("error")
            epochs.append(len(net.history))
        try:
            train(net, batches, fit_params)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def at_the_end(*args, **kwargs):
        torch.cuda.set_sync_debug_mode("default")
        record(*args, **kwargs)

    monkeypatch.setattr(_epochs, "train_epoch", strict)
    monkeypatch.setattr(_epochs, "_record", at_the_end)
    net, _ = fit(iris, device="cuda", batch_size=16, max_epochs=4, **params)
    assert epochs == [2, 3, 4]
    assert np.isfinite(net.history[:, "train_loss"]).all()


# torch.compile itself looks at the gradient of what the criterion is given.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_module_trains_as_it_does_uncompiled(iris):
    params = {"lambda1": 1e-3, "lambda2": 1e-2, "penalize": ["fc1.*"]}
    plain, _ = fit(iris, callbacks=[SeesBatches()], **params)
    compiled, _ = fit(iris, compile=True, compile__backend="eager", **params)
    for a, b in zip(
        plain.module_.parameters(), compiled.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b)
    tolerance = {"rel": 1e-5, "abs": 1e-6}
    assert_same_history(plain.history, compiled.history, tolerance)
    again = pickle.loads(pickle.dumps(compiled))
    X, _ = iris
    np.testing.assert_allclose(
        again.predict_proba(X), plain.predict_proba(X), rtol=1e-4
    )
