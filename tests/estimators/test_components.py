"""Components that callbacks and subclasses make, as with skorch; mixed precision."""

from copy import copy

import joblib
import numpy as np
import pytest
import torch
from joblib import delayed
from sklearn.base import clone
from skorch.callbacks import Callback, EpochScoring, InputShapeSetter, LRScheduler
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor


def small(make=RegularizedNetClassifier, **params):
    params = {"hidden_layer_sizes": 4, "max_epochs": 3, "random_state": 0} | params
    return make(**params)


def assert_same_weights(a, b):
    for one, other in zip(a.module_.parameters(), b.module_.parameters(), strict=True):
        torch.testing.assert_close(one, other)


class Shaped(nn.Module):
    def __init__(self, input_dim=1, width=5, out_features=3):
        super().__init__()
        self.hidden = nn.Linear(input_dim, width)
        self.out = nn.Linear(width, out_features)

    def forward(self, x):
        return self.out(self.hidden(x).relu())


class Fixed(nn.Module):
    """Another module, whatever the shape."""

    def __init__(self, input_dim=4):
        super().__init__()
        self.layer = nn.Linear(input_dim, 3)

    def forward(self, x):
        return self.layer(x)


class Sets(Callback):
    """Sets parameters as training begins, and sees at once what comes of it."""

    def __init__(self, **params):
        self.params = params

    def on_train_begin(self, net, X=None, **kwargs):
        net.set_params(**self.params)
        self.seen_ = net.module_, net.optimizer_, net.criterion_


@pytest.mark.parametrize("stacked", [False, True])
def test_the_shape_of_the_input_can_be_set_as_training_begins(iris, stacked):
    nets = [
        small(module=Shaped, callbacks=[InputShapeSetter()], lambda2=lambda2)
        for lambda2 in (0.0, 0.1, 0.2)
    ]
    if stacked:
        with joblib.parallel_config("skreg"):
            nets = joblib.Parallel()(delayed(clone(n).fit)(*iris) for n in nets)
    else:
        nets = [net.fit(*iris) for net in nets]
    for net in nets:
        right = small(module=Shaped, module__input_dim=4, lambda2=net.lambda2)
        assert_same_weights(net, right.fit(*iris))
        assert net.history[:, "train_loss"] == right.history[:, "train_loss"]
    X, y = iris
    net.fit(X[:, :2], y)  # and once more, for another shape
    assert net.module_.hidden.in_features == 2
    net.partial_fit(X[:, :2], y)
    assert len(net.history) == 6


@pytest.mark.parametrize(
    "params",
    [
        {"module__width": 7},
        {"module": Fixed},
        {"criterion": nn.MultiMarginLoss},
        {"criterion__label_smoothing": 0.3},
        {"optimizer": torch.optim.SGD},
        {"lr": 0.1},
        {"lambda2": 0.5, "penalize": "weights", "batch_size": 10},
        {"augment": lambda x: 2 * x},
        {"adversarial_eps": 0.1},
    ],
)
def test_what_a_callback_sets_as_training_begins_takes_effect(iris, params):
    base = {"module": Shaped, "module__input_dim": 4}
    sets = Sets(**params)
    net = small(**base, callbacks=[sets]).fit(*iris)
    right = base | params
    assert_same_weights(net, small(**right).fit(*iris))
    assert sets.seen_ == (net.module_, net.optimizer_, net.criterion_)
    assert len(net.partial_fit(*iris).history) == 6  # it goes on


def test_layers_of_our_module_can_be_set_as_training_begins(iris):
    net = small(callbacks=[Sets(hidden_layer_sizes=(6, 5))]).fit(*iris)
    assert_same_weights(net, small(hidden_layer_sizes=(6, 5)).fit(*iris))
    net = small(dropout=0.5, callbacks=[Sets(dropout=0.0)]).fit(*iris)
    assert_same_weights(net, small().fit(*iris))


def test_what_is_wrong_as_training_begins_is_told_of(iris):
    for params, message in [
        ({"module__depth": 3}, "module__depth=3 is no argument of module="),
        ({"lambda2": -1}, "lambda2=-1 must be a finite number"),
        ({"lamda2": 1}, "Invalid parameter 'lamda2'"),
    ]:
        net = small(module=Shaped, module__input_dim=4, callbacks=[Sets(**params)])
        with pytest.raises(ValueError, match=message):
            net.fit(*iris)


# -- further modules, losses and optimizers -----------------------------------------


class Encoder(nn.Module):
    def __init__(self, width=3, factor=1.0):
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.factor = factor

    def forward(self, x):
        return self.factor * self.layer(x)


class TwoModules(RegularizedNetClassifier):
    def initialize_module(self):
        super().initialize_module()
        torch.manual_seed(0)
        self.module2_ = Encoder(**self.get_params_for("module2"))
        return self

    def initialize_optimizer(self, *args, **kwargs):
        named = self.module_.named_parameters()
        args, kwargs = self.get_params_for_optimizer("optimizer", named)
        self.optimizer_ = self.optimizer(*args, **kwargs)
        named = self.module2_.named_parameters()
        args, kwargs = self.get_params_for_optimizer("optimizer2", named)
        self.optimizer2_ = torch.optim.SGD(*args, **kwargs)
        return self

    def infer(self, x, **fit_params):
        return super().infer(self.module2_(self._to_device(x)), **fit_params)


TWO = {
    "module": nn.Linear,
    "module__in_features": 6,
    "module2__width": 6,
    "optimizer2__lr": 0.1,
}


@pytest.mark.parametrize("stacked", [False, True])
def test_a_subclass_may_add_a_module_and_an_optimizer(iris, stacked):
    X, y = iris
    net = small(TwoModules, **TWO, module2__factor=0.5)
    if stacked:
        with joblib.parallel_config("skreg"):
            net, *_ = joblib.Parallel()(delayed(clone(net).fit)(X, y) for _ in "abc")
    else:
        net = clone(net).fit(X, y)
    assert net.module2_.factor == 0.5
    assert net.module2_.layer.out_features == 6
    assert {"module2", "optimizer2"} <= set(net.prefixes_)
    assert net.get_params()["module2__width"] == 6
    torch.manual_seed(0)
    assert not torch.equal(net.module2_.layer.weight, nn.Linear(4, 6).weight)
    before = net.module2_.layer.weight.detach().clone()
    net.set_params(optimizer2__lr=0.0).partial_fit(X, y)
    assert torch.equal(net.module2_.layer.weight, before)
    assert len(net.history) == 6
    net.set_params(module2__width=6, module2__factor=1.0).partial_fit(X, y)
    assert net.module2_.factor == 1.0  # it starts anew
    assert len(net.history) == 3
    net.fit(X.astype(np.float64), y)
    assert net.module2_.layer.weight.dtype == torch.float64


def test_early_stopping_restores_all_modules(iris):
    X, y = iris
    kept = []

    class Keeps(Callback):
        def on_epoch_end(self, net, **kwargs):
            kept.append(net.module2_.layer.weight.detach().clone())

    net = small(
        TwoModules, **TWO, early_stopping=True, patience=4, lr=0.1, max_epochs=30
    )
    net.set_params(callbacks=[Keeps()]).fit(X, y)
    assert net.best_epoch_ < len(net.history)
    assert torch.equal(net.module2_.layer.weight, kept[net.best_epoch_ - 1])


class LearnedLoss(nn.Module):
    def __init__(self, start=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(start)))

    def forward(self, outputs):
        return (self.weight - 1).square() + 0 * outputs.sum()


class TwoLosses(RegularizedNetRegressor):
    def initialize_criterion(self):
        super().initialize_criterion()
        self.criterion2_ = LearnedLoss(**self.get_params_for("criterion2"))
        return self

    def get_loss(self, y_pred, y_true, **kwargs):
        return super().get_loss(y_pred, y_true, **kwargs) + self.criterion2_(y_pred)


def test_a_subclass_may_add_a_loss(iris):
    X, y = iris
    net = small(TwoLosses, criterion2__start=5.0, lr=0.1, max_epochs=40).fit(X, y)
    assert net.criterion2_.weight.item() == pytest.approx(1, abs=0.5)
    net.set_params(criterion2__start=3.0, lr=0.0).partial_fit(X, y)
    assert net.criterion2_.weight.item() == 3.0


def test_names_that_no_component_has_raise_all_the_same(iris):
    for make, name in [
        (RegularizedNetClassifier, "module2__width"),
        (RegularizedNetClassifier, "modul__width"),
        (RegularizedNetClassifier, "lamda1"),
        (TwoModules, "module3__width"),
        (TwoModules, "lamda1"),
    ]:
        net = small(make, **{name: 3})
        if make is TwoModules:
            for key, value in TWO.items():
                setattr(net, key, value)
        with pytest.raises(ValueError, match=name):
            net.fit(*iris)


def test_an_attribute_is_no_parameter(iris):
    net = small()
    net.note = "of the user's"
    net.fit(*iris)
    assert net.note == "of the user's"
    assert "note" not in net.get_params()
    assert not hasattr(clone(net), "note")
    with pytest.raises(ValueError, match="Invalid parameter 'not'"):
        net.set_params(**{"not": 1})


def test_parameters_of_a_copy_are_its_own():
    net = small(module=Shaped, module__width=3)
    other = copy(net).set_params(module__width=4)
    assert (net.module__width, other.module__width) == (3, 4)


# -- mixed precision ----------------------------------------------------------------


def test_mixed_precision_takes_data_of_double_precision(iris):
    X, y = iris
    exact = X.astype(np.float64)
    for data in (exact, exact.tolist(), torch.from_numpy(exact)):
        net = small(amp="bfloat16").fit(data, y, X_val=exact, y_val=y)
        assert all(w.dtype == torch.float32 for w in net.module_.parameters())
        assert_same_weights(net, small(amp="bfloat16").fit(X, y))
        assert np.array_equal(net.predict_proba(exact), net.predict_proba(X))
        net.partial_fit(exact, y)
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(exact), torch.from_numpy(y))
    net = small(amp="bfloat16").fit(pairs)
    assert net.module_.fc1.weight.dtype == torch.float32
    assert small().fit(exact, y).module_.fc1.weight.dtype == torch.float64


def test_mixed_precision_refuses_weights_of_double_precision(iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"amp='bfloat16' needs .* float32"):
        small(amp="bfloat16", dtype="float64").fit(X, y)
    net = small().fit(X.astype(np.float64), y)
    with pytest.raises(ValueError, match=r"amp='bfloat16' needs .* float32"):
        net.set_params(amp="bfloat16").partial_fit(X, y)


def test_schedules_and_scorers_follow_a_module_that_is_made_anew(iris):
    X, y = iris
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.1)
    scoring = EpochScoring("accuracy", name="mine", on_train=True, use_caching=False)
    net = small(module=Shaped, callbacks=[InputShapeSetter(), schedule, scoring])
    net.fit(X, y)
    assert net.optimizer_.param_groups[0]["lr"] == pytest.approx(1e-6)
    assert net.history[-1, "mine"] == net.score(X, y)


class Scaled(torch.nn.Module):
    """A loss with a parameter of its own that is drawn."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.rand(1))

    def forward(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs * self.scale, targets)


class WithAnotherModule(RegularizedNetClassifier):
    def initialize_module(self):
        super().initialize_module()
        self.aux_ = torch.nn.Linear(1, 2)
        return self

    def infer(self, x, **fit_params):
        return super().infer(x, **fit_params) + self.aux_(self._to_device(x))


@pytest.mark.parametrize(
    "make",
    [lambda: RegularizedNetClassifier(criterion=Scaled), WithAnotherModule],
    ids=["criterion", "module"],
)
def test_random_state_decides_what_the_users_components_draw(make):
    X, y = [[0.0], [1.0]], [0, 1]
    before = torch.get_rng_state()
    nets = [make().set_params(random_state=0, max_epochs=2).fit(X, y) for _ in "ab"]
    assert torch.equal(before, torch.get_rng_state())
    outputs = [torch.cat(list(net.forward_iter(np.float32(X)))) for net in nets]
    assert torch.equal(*outputs)
    other = make().set_params(random_state=1, max_epochs=2).fit(X, y)
    assert not torch.equal(
        torch.cat(list(other.forward_iter(np.float32(X)))), outputs[0]
    )
