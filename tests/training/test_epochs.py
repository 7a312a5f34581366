"""The ways through an epoch, with hooks, without, and without autograd: one result."""

import pickle
import threading

import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from sklearn.datasets import load_iris
from skorch.callbacks import (
    Callback,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
    Unfreezer,
)
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils.prune import l1_unstructured
from torch.optim.optimizer import register_optimizer_step_post_hook

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker
from skreg.estimators import _epoch_without_hooks as _epochs
from skreg.estimators.paths import forced_path
from skreg.modules import MLP, AnimalNet, AnimalNetDropout, BigAnimalNet
from skreg.transforms import GaussianNoise


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), y


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


def fit(data, make=RegularizedNetClassifier, callbacks=(), **params):
    if (schedule := params.pop("schedule", None)) is not None:
        callbacks = [*callbacks, schedule]
    params = {"hidden_layer_sizes": 8, "max_epochs": 4, "random_state": 0} | params
    net = make(callbacks=[*callbacks], **params)
    X, y = data
    net.fit(X[::2], y[::2], np.arange(75) % 3, X_val=X[1::2], y_val=y[1::2])
    return net, net.training_path_ != "hooks"


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


def trackers(params):
    return [] if "make" in params else [AccuracyTracker(on_train=True)]


def without_time(epoch):
    return {key: value for key, value in epoch.items() if key != "dur"}


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


def assert_same_history(a, b, tolerance):
    assert len(a) == len(b)
    for x, y in zip(map(without_time, a), map(without_time, b), strict=True):
        assert x.keys() == y.keys()
        for key in x.keys() - {"batches", "param_norms", "event_best"}:
            assert x[key] == pytest.approx(y[key], **tolerance), key
        assert x["param_norms"] == pytest.approx(y["param_norms"], **tolerance)
        for p, q in zip(x["batches"], y["batches"], strict=True):
            assert p == pytest.approx(q, **tolerance)


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


@pytest.mark.parametrize("name", ["get_loss", "infer", "evaluation_step"])
def test_who_overrides_a_computation_gets_it_called(iris, name):
    calls = []

    def overridden(self, *args, **kwargs):
        calls.append(name)
        return getattr(super(Mine, self), name)(*args, **kwargs)

    Mine = type("Mine", (RegularizedNetClassifier,), {name: overridden})
    Mine(max_epochs=1, callbacks=[AccuracyTracker(on_train=True)]).fit(*iris)
    assert calls


def test_weights_that_a_callback_changes_are_the_ones_evaluated_and_trained(iris):
    class Clip(Callback):
        def on_epoch_end(self, net, **kwargs):
            for w in net.module_.parameters():
                w.data.clamp_(-0.1, 0.1)

    params = {"callbacks": [Clip()], "batch_size": -1, "lr": 0.05}
    by_hand, _ = fit(iris, **params)
    with forced_path("autograd"):
        autograd, _ = fit(iris, **params)
    assert_same_history(by_hand.history, autograd.history, {"rel": 1e-4})


def freeze(net):
    net.module_.fc1.requires_grad_(False)


def hook(net):
    net.module_.fc2.register_forward_hook(lambda layer, args, outputs: 2 * outputs)


def hook_gradient(net):
    net.module_.fc1.weight.register_hook(lambda gradient: 0 * gradient)


def replace_activation(net):
    net.module_.activation = nn.Tanh()


def replace_layer(net):
    torch.manual_seed(0)
    net.module_.fc1 = nn.Linear(4, 8)


def replace_weight(net):
    torch.manual_seed(1)
    net.module_.fc1.weight = nn.Parameter(torch.randn(8, 4))


def replace_data(net):
    for w in net.module_.parameters():
        w.data = w.data.clamp(-0.1, 0.1)


def smooth(net):
    net.criterion_.label_smoothing = 0.5


def replace_criterion(net):
    net.criterion_ = nn.MultiMarginLoss()


def prune(net):
    l1_unstructured(net.module_.fc1, "weight", amount=0.5)


def patch_forward(net):
    module = net.module_
    module.forward = lambda x: nn.functional.normalize(type(module).forward(module, x))


def drop(net):
    net.module_.dropout.p = 0.5


def replace_optimizer(net):
    net.optimizer_ = torch.optim.SGD(net.module_.parameters(), lr=0.1)


class Intervene(Callback):
    def __init__(self, act, when):
        self.act = act
        self.when = when

    def on_train_begin(self, net, **kwargs):
        self._act("train", net)

    def on_epoch_begin(self, net, **kwargs):
        self._act("begin", net)

    def on_epoch_end(self, net, **kwargs):
        self._act("end", net)

    def _act(self, moment, net):
        if moment == self.when and (len(net.history) == 2 or moment == "train"):
            self.act(net)


class Own(MLP):
    """The same as an MLP, trained by autograd since its ``forward`` is its own."""

    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("when", ["train", "begin", "end"])
@pytest.mark.parametrize(
    "act",
    [
        *(freeze, hook, hook_gradient, replace_activation, replace_layer),
        *(replace_weight, replace_data, smooth, replace_criterion, prune),
        *(patch_forward, drop, replace_optimizer),
    ],
)
def test_what_callbacks_do_to_the_net_counts(iris, act, when):
    params = {"lambda2": 1e-3, "batch_size": 16, "max_epochs": 5}
    trackers = [AccuracyTracker(on_train=True)]
    by_hand, _ = fit(iris, callbacks=[Intervene(act, when), *trackers], **params)
    autograd, _ = fit(
        iris, module=Own, callbacks=[Intervene(act, when), *trackers], **params
    )
    untouched, _ = fit(iris, **params)
    assert_same_history(by_hand.history, autograd.history, {"rel": 1e-4, "abs": 1e-6})
    assert by_hand.history[-1, "valid_loss"] != untouched.history[-1, "valid_loss"]
    for w in by_hand.module_.parameters():
        assert w.untyped_storage().nbytes() == w.nbytes


def test_the_net_is_whole_after_an_interrupted_fit(iris):
    class Interrupt(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise RuntimeError("stop here")

    net = RegularizedNetClassifier(callbacks=[Interrupt()], random_state=0)
    with pytest.raises(RuntimeError, match="stop here"):
        net.fit(*iris)
    for w in net.module_.parameters():
        assert w.untyped_storage().nbytes() == w.nbytes


@pytest.mark.parametrize(
    "callback",
    [
        SeesBatches(),
        EpochScoring("accuracy"),
        GradientNormClipping(1.0),
        LRScheduler("StepLR", step_size=1, step_every="batch"),
    ],
)
def test_who_looks_at_batches_gets_to_see_them(iris, callback):
    assert not fit(iris, callbacks=[callback])[1]


BATCH_METHODS = (
    *("_step_optimizer", "_zero_grad_optimizer", "get_train_step_accumulator"),
    *("on_batch_begin", "on_batch_end", "on_grad_computed", "run_single_epoch"),
    *("train_step", "train_step_single", "validation_step"),
)


@pytest.mark.parametrize("name", BATCH_METHODS)
def test_who_overrides_a_step_gets_it_called(iris, name):
    def overridden(self, *args, **kwargs):
        return getattr(super(Mine, self), name)(*args, **kwargs)

    Mine = type("Mine", (RegularizedNetClassifier,), {name: overridden})
    assert not fit(iris, make=Mine)[1]


def test_an_optimizer_that_wants_a_closure_gets_it(iris):
    assert not fit(iris, optimizer=torch.optim.LBFGS, lr=0.1)[1]

    class Foreign(torch.optim.SGD):
        def step(self, closure):
            with torch.enable_grad():
                loss = closure()
            super().step()
            return loss

    net, lean = fit(iris, optimizer=Foreign)
    assert not lean
    assert np.isfinite(net.history[-1, "train_loss"])


def test_who_overrides_the_loss_gets_it_called(iris):
    class Smoothed(RegularizedNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return 2 * super().get_loss(y_pred, y_true, X=X, training=training)

    doubled, lean = fit(iris, make=Smoothed, lr=0.0)
    assert not lean
    plain, _ = fit(iris, lr=0.0)
    assert doubled.history[0, "train_loss"] == pytest.approx(
        2 * plain.history[0, "train_loss"]
    )


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


def test_hooks_of_an_instance_are_called(iris):
    callback, calls = Callback(), []
    callback.on_batch_end = lambda net, training=False, **kwargs: calls.append(training)
    tracker = AccuracyTracker()
    tracker.on_grad_computed = lambda net, **kwargs: calls.append("gradient")
    fit(iris, callbacks=[callback, tracker], max_epochs=2, batch_size=-1)
    assert calls.count(True) == calls.count("gradient") == 2
    assert calls.count(False) == 2


class AppendsLate(Callback):
    def __init__(self, method):
        setattr(self, method, self.append)

    def append(self, net, **kwargs):
        if not any(isinstance(cb, CountsBatches) for _, cb in net.callbacks_):
            net.callbacks_.append(("late", CountsBatches()))


class CountsBatches(Callback):
    n = 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.n += training


@pytest.mark.parametrize("method", ["on_train_begin", "on_epoch_begin"])
def test_callbacks_that_come_late_see_batches(iris, method):
    net, _ = fit(iris, callbacks=[AppendsLate(method)], batch_size=-1, max_epochs=3)
    assert dict(net.callbacks_)["late"].n == 3


def test_hooks_on_all_optimizers_and_all_modules_are_called(iris):
    steps, passes = [], []
    on_step = register_optimizer_step_post_hook(lambda *args: steps.append(1))
    on_pass = register_module_forward_hook(lambda *args: passes.append(1))
    try:
        fit(iris, batch_size=25, max_epochs=2)
    finally:
        on_step.remove()
        on_pass.remove()
    assert len(steps) == 4
    assert len(passes) >= 4


def test_weights_that_are_unfrozen_are_penalised_from_then_on(iris):
    def half_frozen(in_features, out_features):
        module = MLP(in_features, out_features, (5,))
        module.fc1.weight.requires_grad_(False)
        return module

    thaw = Unfreezer("fc1.weight", at=2)
    params = {"module": half_frozen, "max_epochs": 40, "lr": 0.02, "lambda2": 100.0}
    norms = fit(iris, callbacks=[thaw], **params)[0].history[-1, "param_norms"]
    free = fit(iris, **(params | {"module": MLP, "hidden_layer_sizes": (5,)}))[0]
    assert norms["fc1.weight"] < 3 * free.history[-1, "param_norms"]["fc1.weight"]


class ToLBFGS(Callback):
    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3:
            net.optimizer_ = torch.optim.LBFGS(net.module_.parameters(), lr=0.1)


def test_an_optimizer_that_wants_a_closure_may_come_late(iris):
    net, _ = fit(iris, callbacks=[ToLBFGS()], batch_size=-1, max_epochs=6)
    assert net.history[-1, "train_loss"] < net.history[1, "train_loss"]


class Accumulates(RegularizedNetClassifier):
    """Accumulates gradients as skorch's guide does: ``train_step`` is its own."""

    def train_step(self, batch, **fit_params):
        self.optimizer_.zero_grad()
        step = self.train_step_single(batch, **fit_params)
        self.optimizer_.step()
        return step


@pytest.mark.parametrize(
    "params",
    [
        {"class_weight": {0: 1, 1: 2, 2: 30}},
        {"augment": GaussianNoise(0.5)},
        {"adversarial_eps": 0.3},
        {"lambda1": 0.1},
    ],
)
def test_a_train_step_of_ones_own_loses_no_parameter(iris, params):
    own, _ = fit(iris, make=Accumulates, **params)
    base, _ = fit(iris, callbacks=[SeesBatches()], **params)
    for a, b in zip(own.module_.parameters(), base.module_.parameters(), strict=True):
        assert torch.equal(a, b)
    assert_same_history(own.history, base.history, {"rel": 0})


def test_predictions_in_another_thread_leave_training_alone(iris):
    X, y = iris
    params = {"random_state": 0, "batch_size": 50, "max_epochs": 1}
    alone = RegularizedNetClassifier(**params).fit(X, y).set_params(max_epochs=200)
    disturbed = pickle.loads(pickle.dumps(alone))
    alone.partial_fit(X, y)
    thread = threading.Thread(target=disturbed.partial_fit, args=(X, y))
    thread.start()
    while thread.is_alive():
        disturbed.predict_proba(X[:20])
    thread.join()
    assert len(disturbed.history) == 201
    for a, b in zip(
        alone.module_.parameters(), disturbed.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


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
