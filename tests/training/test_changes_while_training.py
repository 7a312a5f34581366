"""What callbacks change and subclasses override is what is trained."""

import pickle
import threading

import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from epoch_fits import assert_same_history, fit
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

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.estimators.paths import forced_path
from skreg.modules import MLP
from skreg.transforms import GaussianNoise


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
