"""Schedules of the learning rate: they go on with the net, and say why they cannot."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from skorch.callbacks import LRScheduler
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from skreg import RegularizedNetClassifier
from skreg.batching.stacking import engine as _engine
from skreg.batching.stacking import stack_size as _cost

SCHEDULES = {
    "StepLR": {"policy": StepLR, "step_size": 2, "gamma": 0.5},
    "steps by batch": {"policy": StepLR, "step_size": 5, "step_every": "batch"},
    "ExponentialLR": {"policy": "ExponentialLR", "gamma": 0.8},
    "cosine": {"policy": CosineAnnealingLR, "T_max": 7},
    "MultiStepLR": {"policy": "MultiStepLR", "milestones": [2, 3]},
    "one cycle": {"policy": OneCycleLR, "max_lr": 0.05, "total_steps": 6},
    "one cycle by batch": {
        "policy": OneCycleLR,
        "max_lr": 0.05,
        "total_steps": 18,
        "step_every": "batch",
    },
    "plateau": {"policy": ReduceLROnPlateau, "patience": 0, "threshold": 0.5},
}


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return (X - X.mean(0)) / X.std(0), y


def net(*schedules, **params):
    defaults = {"hidden_layer_sizes": 8, "lr": 0.05, "random_state": 0, "max_epochs": 6}
    return RegularizedNetClassifier(callbacks=list(schedules), **defaults | params)


def scheduled(name, **params):
    return net(LRScheduler(**SCHEDULES[name], event_name="rate"), **params)


def rates(fitted):
    """Return the rate of each epoch, or of each batch."""
    if "rate" in fitted.history[0]:
        return fitted.history[:, "rate"]
    batches = [batch for epoch in fitted.history for batch in epoch["batches"]]
    return [batch["rate"] for batch in batches]


def assert_same(a, b, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    assert rates(a) == pytest.approx(rates(b), rel=1e-12)
    for mine, theirs in zip(
        a.module_.parameters(), b.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, **tolerance)


# -- going on -----------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("way", ["partial_fit", "warm start", "copies"])
def test_several_calls_are_one_fit(iris, name, optimizer, way):
    once = scheduled(name, optimizer=optimizer).fit(*iris)
    often = scheduled(
        name, optimizer=optimizer, max_epochs=2, warm_start=way == "warm start"
    )
    for _ in range(3):
        call = often.fit if way == "warm start" else often.partial_fit
        call(*iris)
        if way == "copies":
            often = pickle.loads(pickle.dumps(often))
    assert len(set(rates(once))) > 1
    assert_same(once, often)


@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("name", SCHEDULES)
def test_several_calls_are_one_fit_in_stacks(iris, name, optimizer, monkeypatch):
    sizes, train_until = [], _engine.train_until
    monkeypatch.setattr(_cost, "MIN_STACK", 2)
    monkeypatch.setattr(
        _engine,
        "train_until",
        lambda stack, *args: sizes.append(len(stack)) or train_until(stack, *args),
    )

    def often(seed):
        fitted = scheduled(name, optimizer=optimizer, max_epochs=2, random_state=seed)
        for _ in range(3):
            fitted.partial_fit(*iris)
        return fitted

    with joblib.parallel_config("skreg"):
        nets = joblib.Parallel()(joblib.delayed(often)(seed) for seed in range(3))
    by_batch = SCHEDULES[name].get("step_every") == "batch"
    # An optimizer that has a state already trains alone.
    assert sizes == ([] if by_batch else [3])
    for seed, fitted in enumerate(nets):
        once = scheduled(name, optimizer=optimizer, random_state=seed).fit(*iris)
        assert_same(once, fitted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["plateau", "StepLR", "cosine"])
def test_a_stack_that_fails_leaves_schedules_where_they_were(iris, monkeypatch, name):
    """The nets have followed them for a call and an epoch, and then train alone."""
    monkeypatch.setattr(_cost, "MIN_STACK", 2)
    step, calls = _engine.Stack.step, []

    def failing(self):
        calls.append(len(self.candidates[0].net.history))
        if calls[-1] == 5:
            raise RuntimeError("simulated")
        return step(self)

    monkeypatch.setattr(_engine.Stack, "step", failing)

    def twice(seed):
        fitted = scheduled(name, optimizer=SGD, max_epochs=3, random_state=seed)
        fitted.partial_fit(*iris)
        fitted.optimizer_.state.clear()  # or it would not be stacked
        return fitted.partial_fit(*iris)

    with joblib.parallel_config("skreg"):
        nets = joblib.Parallel()(joblib.delayed(twice)(seed) for seed in range(3))
    assert max(calls) == 5
    for seed, fitted in enumerate(nets):
        once = scheduled(name, optimizer=SGD, random_state=seed).fit(*iris)
        assert_same(once, fitted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [*SCHEDULES][:-1])
def test_callbacks_that_are_made_anew_do_not_set_a_schedule_back(iris, name):
    once = scheduled(name).fit(*iris)
    often = scheduled(name, max_epochs=3).fit(*iris)
    often.set_params(callbacks__norms=None).partial_fit(*iris)
    assert_same(once, often)


def test_saved_weights_and_history_go_on_too(iris, tmp_path):
    files = {f"f_{kind}": str(tmp_path / kind) for kind in ("params", "optimizer")}
    files["f_history"] = str(tmp_path / "history")
    sizes = {"module__in_features": 4, "module__out_features": 3, "dtype": "float64"}
    scheduled("StepLR", max_epochs=3, **sizes).fit(*iris).save_params(**files)
    again = scheduled("StepLR", max_epochs=3, **sizes).initialize()
    again.load_params(**files)
    again.partial_fit(*iris)
    assert rates(again) == [0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125]


def test_another_optimizer_begins_anew(iris):
    fitted = scheduled("StepLR", max_epochs=3, warm_start=True).fit(*iris)
    fitted.set_params(optimizer=SGD, lr=0.5).fit(*iris)
    assert rates(fitted) == [0.05, 0.05, 0.025, 0.5, 0.5, 0.25]


def test_a_schedule_that_comes_late_begins_then(iris):
    fitted = net(max_epochs=3, warm_start=True).fit(*iris)
    late = LRScheduler(StepLR, step_size=2, gamma=0.5, event_name="rate")
    fitted.set_params(callbacks=[late]).fit(*iris)
    assert fitted.history[3:, "rate"] == [0.05, 0.05, 0.025]


# -- errors -------------------------------------------------------------------------


def cycle(**params):
    return LRScheduler(OneCycleLR, max_lr=0.1, **params)


def plateau(**params):
    return LRScheduler(ReduceLROnPlateau, monitor="valid_loss", **params)


ERRORS = {
    "no length": (cycle(), "cannot make a OneCycleLR: .*total_steps=max_epochs"),
    "no arguments": (LRScheduler(StepLR), "cannot make a StepLR: .*step_size"),
    "unknown argument": (LRScheduler(StepLR, step=1), "cannot make a StepLR: .*'step'"),
    "too short": (
        cycle(total_steps=5),
        r"OneCycleLR ends after total_steps=5 epochs, .*set total_steps=6",
    ),
    "too few batches": (
        cycle(total_steps=5, step_every="batch"),
        r"ends after total_steps=5 batches, .*times that of batches in an epoch \(3",
    ),
    "no validation data": (
        plateau(),
        r"ReduceLROnPlateau\) monitors 'valid_loss', .*'train_loss'.* pass X_val",
    ),
    "no validation of a batch": (
        plateau(step_every="batch"),
        r"ReduceLROnPlateau\) monitors 'valid_loss', .*'train_loss'.* pass X_val",
    ),
    "unknown name": (
        LRScheduler("OneCycleLR", max_lr=1),
        r"policy='OneCycleLR'\) is no schedule that skorch knows by name; pass the cl",
    ),
}


@pytest.mark.parametrize("context", ["plain", "skreg"])
@pytest.mark.parametrize("name", ERRORS)
def test_schedules_that_cannot_be_followed_say_why(iris, name, context):
    schedule, message = ERRORS[name]
    nets = [net(schedule, random_state=seed) for seed in range(3)]

    def caught(estimator):
        with pytest.raises(ValueError, match=message):
            estimator.fit(*iris)

    with joblib.parallel_config("skreg" if context == "skreg" else "threading"):
        joblib.Parallel()(
            joblib.delayed(caught)(estimator.set_params(callbacks=[clone_of(schedule)]))
            for estimator in nets
        )


def clone_of(schedule):
    return pickle.loads(pickle.dumps(schedule))


def test_a_call_that_would_go_past_the_end_is_refused_before_it_trains(iris):
    fitted = net(cycle(total_steps=8)).fit(*iris)
    before = [w.clone() for w in fitted.module_.parameters()]
    with pytest.raises(ValueError, match="set total_steps=12"):
        fitted.partial_fit(*iris)
    assert all(map(torch.equal, before, fitted.module_.parameters()))
    assert len(fitted.history) == 6


def test_a_plateau_of_the_validation_loss(iris):
    X, y = iris
    schedule = plateau(patience=0, threshold=0.9, event_name="rate")
    fitted = net(schedule).fit(X, y, X_val=X, y_val=y)
    assert rates(fitted)[-1] < rates(fitted)[0]
    assert np.all(np.diff(rates(fitted)) <= 0)
