"""Which path trained a net, and why not a faster one: the unknown is never fast."""

import inspect
import re

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_validate
from skorch import NeuralNet
from skorch.callbacks import (
    Callback,
    EpochTimer,
    LRScheduler,
    PassthroughScoring,
)
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import (
    AccuracyTracker,
    BatchAverage,
    DivergenceGuard,
    EarlyStopping,
    EpochLog,
    NormTracker,
)
from skreg.estimators._overrides import AROUND_BATCHES, AROUND_EPOCHS, OUTSIDE, known_to
from skreg.estimators.paths import KNOWN_CALLBACKS, PATHS, forced_path

SMALL = {"hidden_layer_sizes": 6, "max_epochs": 2, "random_state": 0}
SMALL |= {"batch_size": 32, "dtype": "float64"}


def flowers():
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], y[order]


X, Y = flowers()


def fitted(net, backend=False, **fit_params):
    """Return the nets of three folds, in a stack if they can be in one."""
    context = "skreg" if backend else "threading"
    with joblib.parallel_config(context, n_jobs=1 if not backend else None):
        found = cross_validate(
            net, X, Y, cv=3, return_estimator=True, error_score="raise", **fit_params
        )
    return found["estimator"]


def tensors(net):
    return [w.detach() for w in net.module_.parameters()]


def assert_same_nets(nets, others, rtol=1e-7):
    for net, other in zip(nets, others, strict=True):
        for w, v in zip(tensors(net), tensors(other), strict=True):
            torch.testing.assert_close(w, v, rtol=rtol, atol=rtol / 100)


# -- the answers ----------------------------------------------------------------------


def test_a_net_tells_its_path_and_why_it_is_no_faster_one():
    net = RegularizedNetClassifier(**SMALL).fit(X, Y)
    assert net.training_path_ == "backprop"
    assert net.training_path_reasons_.keys() == {"stack"}
    assert "parallel_config('skreg')" in net.training_path_reasons_["stack"]


def test_the_nets_of_a_stack_tell_so():
    for net in fitted(RegularizedNetClassifier(**SMALL), backend=True):
        assert net.training_path_ == "stack"
        assert net.training_path_reasons_ == {}


def test_a_net_that_trains_alone_in_a_search_tells_the_reason_of_the_search():
    net = RegularizedNetClassifier(**SMALL, callbacks=[Callback()])
    for one in fitted(net, backend=True):
        assert one.training_path_ != "stack"
        assert "callback Callback" in one.training_path_reasons_["stack"]


BY_BATCH = LRScheduler("StepLR", step_size=9, step_every="batch")


@pytest.mark.parametrize(
    ("params", "path", "word"),
    [
        ({}, "backprop", None),
        ({"module__activation": "gelu"}, "autograd", "MLP"),
        ({"amp": "bfloat16", "dtype": "float32"}, "autograd", "amp='bfloat16'"),
        ({"criterion": nn.MultiMarginLoss}, "autograd", "MultiMarginLoss"),
        ({"optimizer": torch.optim.LBFGS}, "hooks", "LBFGS"),
        ({"callbacks": [BY_BATCH]}, "hooks", "LRScheduler"),
    ],
)
def test_the_path_and_the_word_for_the_reason(params, path, word):
    net = RegularizedNetClassifier(**SMALL | params).fit(X, Y)
    assert net.training_path_ == path
    faster = PATHS[: PATHS.index(path)]
    assert tuple(net.training_path_reasons_) == faster
    assert word is None or word in net.training_path_reasons_[faster[-1]]


@pytest.mark.parametrize("path", PATHS[1:])
def test_a_slower_path_can_be_asked_for_and_trains_the_same_net(path):
    net = RegularizedNetClassifier(**SMALL, lambda1=1e-3, lambda2=1e-3)
    with forced_path(path):
        nets = fitted(net, backend=True)
    assert {one.training_path_ for one in nets} == {path}
    assert_same_nets(nets, fitted(net, backend=True), rtol=1e-8)


def test_the_path_is_that_of_the_last_epoch():
    class Hooks(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                net.module_.register_forward_hook(lambda *args: None)

    net = RegularizedNetClassifier(**SMALL | {"max_epochs": 4}, callbacks=[Hooks()])
    net.fit(X, Y)
    assert net.training_path_ == "autograd"
    assert "has hooks" in net.training_path_reasons_["backprop"]
    net.set_params(max_epochs=1, callbacks=None).fit(X, Y)
    assert net.training_path_ == "backprop"


def test_the_path_is_known_if_training_ends_with_an_error():
    class Ends(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) >= 2:
                raise ArithmeticError

    net = RegularizedNetClassifier(**SMALL, callbacks=[Ends()])
    with pytest.raises(ArithmeticError):
        net.fit(X, Y)
    assert net.training_path_ == "hooks"
    net = RegularizedNetClassifier(**SMALL).fit(X, Y)
    net.set_params(callbacks=[Ends()], warm_start=True)
    with pytest.raises(ArithmeticError):
        net.fit(X, Y)
    assert net.training_path_ == "hooks"


def test_the_path_is_known_if_no_epoch_runs():
    net = RegularizedNetClassifier(**SMALL | {"max_epochs": 0}).fit(X, Y)
    assert net.training_path_ == "backprop"


# -- every parameter ------------------------------------------------------------------

ESTIMATORS = [RegularizedNetClassifier, RegularizedNetRegressor]
REFUSED = {(RegularizedNetRegressor, "label_smoothing")}  # there are no labels


def parameters(make):
    kinds = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in kinds if p.kind is not p.VAR_KEYWORD}


@pytest.mark.parametrize("make", ESTIMATORS)
def test_every_parameter_has_a_rule_that_allows_its_default_and_its_example(make):
    assert parameters(make).keys() == make._rules.keys()
    for name, default in parameters(make).items():
        rule = make._rules[name]
        assert rule.accepts(default), name
        assert rule.accepts(rule.example), name
        assert rule.example is not default, name


@pytest.mark.filterwarnings("ignore:Torchinductor|.*lower precision.*:UserWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:predict_proba returns:UserWarning")
@pytest.mark.parametrize(
    ("make", "name"),
    [(make, name) for make in ESTIMATORS for name in parameters(make)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_stack_trains_as_each_net_alone_or_says_why_it_does_not(make, name):
    params = SMALL | {name: make._rules[name].example}
    if name == "amp":
        params["dtype"] = "float32"
    if name == "compile":
        params["compile__backend"] = "eager"
    if (make, name) in REFUSED:
        for backend in (False, True):
            with pytest.raises(ValueError, match=f"{name}="):
                fitted(make(**params), backend)
        return
    alone = fitted(make(**params))
    together = fitted(make(**params), backend=True)
    single = name in ("dtype", "amp")  # float32 where all else is float64
    assert_same_nets(together, alone, rtol=1e-4 if single else 1e-7)
    for net, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(
            net.predict(X), other.predict(X), rtol=1e-4 if single else 1e-6
        )
        if net.training_path_ != "stack":
            assert net.training_path_reasons_["stack"]


class Grown(RegularizedNetClassifier):
    """Has the name of a parameter that no path has heard of."""

    __module__ = "skreg.estimators._grown"

    def __init__(self, module=None, *, new_regularizer=0.0, **params):
        super().__init__(module, **params)
        self.new_regularizer = new_regularizer


def test_a_parameter_that_no_fast_path_knows_is_slow_and_not_forgotten():
    net = Grown(**SMALL).fit(X, Y)
    assert net.training_path_ == "backprop"
    net = Grown(**SMALL, new_regularizer=0.5).fit(X, Y)
    assert net.training_path_ == "hooks"
    for reason in list(net.training_path_reasons_.values())[1:]:
        assert "new_regularizer=0.5" in reason
    for one in fitted(Grown(**SMALL, new_regularizer=0.5), backend=True):
        assert "new_regularizer=0.5" in one.training_path_reasons_["stack"]


# -- every callback -------------------------------------------------------------------

CALLBACKS = {
    AccuracyTracker: AccuracyTracker(on_train=True),
    BatchAverage: BatchAverage("train_penalty", on_train=True),
    DivergenceGuard: DivergenceGuard(),
    EarlyStopping: EarlyStopping(patience=1, monitor="train_loss", tol=0.0),
    EpochLog: EpochLog(keys_ignored=["param_norms"], sink=lambda text: None),
    EpochTimer: EpochTimer(),
    LRScheduler: LRScheduler("StepLR", step_size=1, gamma=0.1, event_name="rate"),
    NormTracker: NormTracker(),
    PassthroughScoring: PassthroughScoring("train_batch_size", on_train=True),
}


def without_time(history):
    return [{k: v for k, v in epoch.items() if k != "dur"} for epoch in history]


def assert_same_histories(one, other):
    for a, b in zip(without_time(one), without_time(other), strict=True):
        assert a.keys() == b.keys()
        for row, column in zip(a.pop("batches"), b.pop("batches"), strict=True):
            assert row == pytest.approx(column, rel=1e-7, abs=1e-9)
        assert a.pop("param_norms") == pytest.approx(b.pop("param_norms"), rel=1e-8)
        assert a == pytest.approx(b, rel=1e-7, abs=1e-9)


def test_all_known_callbacks_are_tried():
    assert CALLBACKS.keys() == KNOWN_CALLBACKS


@pytest.mark.parametrize("kind", CALLBACKS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("verbose", [0, 1])
def test_a_known_callback_writes_the_same_history_on_every_path(kind, verbose):
    net = RegularizedNetClassifier(
        **SMALL | {"max_epochs": 4, "lr": 0.1},
        lambda2=1e-3,
        callbacks=[("mine", CALLBACKS[kind])],
        verbose=verbose,
    )
    split = {"params": {"X_val": X[:33], "y_val": Y[:33]}}
    stacked = fitted(net, backend=True, **split)
    assert {one.training_path_ for one in stacked} == {"stack"}
    for path in PATHS[1:]:
        with forced_path(path):
            alone = fitted(net, **split)
        for one, other in zip(stacked, alone, strict=True):
            assert other.training_path_ == path
            assert_same_histories(one.history, other.history)


# -- every hook -----------------------------------------------------------------------


def functions(kind):
    found = inspect.getmembers(kind, inspect.isfunction)
    names = [name for name, _ in found if not name.startswith("__")]
    return [name for name in names if not re.fullmatch("set_.*_request", name)]


HOOKS = [name for name in functions(NeuralNet) if hasattr(Callback, name)]
HOOKS += [name for name in functions(RegularizedNetClassifier) if name not in HOOKS]


AROUND = AROUND_BATCHES | AROUND_EPOCHS


def counting(function, calls):
    def counted(*args, **kwargs):
        calls.append(1)
        return function(*args, **kwargs)

    return counted


@pytest.mark.parametrize("name", HOOKS)
def test_code_added_to_a_method_of_ours_runs_as_often_on_every_path(name, monkeypatch):
    calls, counts = [], []
    original = getattr(RegularizedNetClassifier, name)
    added = counting(original, calls)
    monkeypatch.setattr(RegularizedNetClassifier, name, added, raising=False)
    net = RegularizedNetClassifier(**SMALL)
    for path in ("backprop", "hooks"):
        calls.clear()
        with forced_path(path):
            net.fit(X, Y, X_val=X, y_val=Y)
        counts.append(len(calls))
        assert net.training_path_ == "hooks" or name in OUTSIDE | AROUND
    assert counts[0] == counts[1]
    calls.clear()
    nets = fitted(net, backend=True)
    stacked = len(calls), {one.training_path_ for one in nets}
    with forced_path("hooks"):
        calls.clear()
        fitted(net)
    assert stacked[1] != {"stack"} or name in OUTSIDE
    assert stacked[0] == len(calls)


def test_a_hook_that_we_add_without_a_word_to_the_paths_sends_nets_to_skorchs_loop():
    calls = []

    class Sloppy(RegularizedNetClassifier):
        __module__ = "skreg.estimators._sloppy"

        def on_batch_end(self, net, *args, **kwargs):
            calls.append(1)

    net = Sloppy(**SMALL).fit(X, Y)
    assert len(calls) == 2 * -(-len(X) // 32)
    assert net.training_path_ == "hooks"
    assert "on_batch_end" in net.training_path_reasons_["autograd"]

    class Declared(RegularizedNetClassifier):
        __module__ = "skreg.estimators._declared"

        @known_to("autograd", "backprop", "stack")
        def on_batch_end(self, net, *args, **kwargs):
            """Do nothing, as every path does."""

    assert Declared(**SMALL).fit(X, Y).training_path_ == "backprop"
