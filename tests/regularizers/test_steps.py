"""Clipping, sharpness-aware steps, averages and schedules against plain loops."""

import copy
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.estimators.paths import forced_path
from skreg.penalties import elastic_net

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
INPUTS, TARGETS = torch.from_numpy(X), torch.from_numpy(Y)
PATHS = ["backprop", "autograd", "hooks"]
L2 = 0.01


def make_module(norm=False):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)]
    if norm:
        layers.insert(1, nn.BatchNorm1d(6))
    return nn.Sequential(*layers).double()


def make_net(module=None, **params):
    return RegularizedNetClassifier(
        make_module() if module is None else module,
        **{
            "optimizer": torch.optim.SGD,
            "lr": 0.1,
            "batch_size": 50,
            "shuffle": False,
            "max_epochs": 7,
            "dtype": "float64",
            "random_state": 0,
            "lambda2": L2,
            **params,
        },
    )


def batches():
    return zip(INPUTS.split(50), TARGETS.split(50), strict=True)


def objective(module, x, y):
    loss = nn.functional.cross_entropy(module(x), y)
    return loss + elastic_net(list(module.parameters()), 0.0, L2)


def plain_loop(step, module=None, n_epochs=7, **options):
    """Train as one would without this library; `step` takes a batch."""
    module = make_module() if module is None else module
    optimizer = torch.optim.SGD(module.parameters(), **{"lr": 0.1, **options})
    for epoch in range(n_epochs):
        module.train()
        for x, y in batches():
            step(module, optimizer, x, y, epoch)
    return module


def assert_same_weights(net, module, **tolerance):
    for mine, theirs in zip(net.module_.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


@pytest.mark.parametrize("path", PATHS)
def test_clipping_is_that_of_torch(path):
    def step(module, optimizer, x, y, epoch):
        optimizer.zero_grad()
        objective(module, x, y).backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), 1.5)
        norms.append(float(norm))
        optimizer.step()

    norms = []
    module = plain_loop(step)
    assert min(norms) < 1.5 < max(norms)  # some steps are clipped, and some are not
    with forced_path(path):
        net = make_net(max_grad_norm=1.5).fit(X, Y)
    assert net.training_path_ == path
    assert_same_weights(net, module)


@pytest.mark.parametrize("path", PATHS)
def test_sharpness_aware_steps_follow_the_gradient_at_the_worst_point(path):
    rho = 0.3

    def step(module, optimizer, x, y, epoch):
        weights = list(module.parameters())
        first = torch.autograd.grad(objective(module, x, y), weights)
        norm = torch.sqrt(sum(g.square().sum() for g in first))
        moved = copy.deepcopy(module)
        with torch.no_grad():
            for w, g in zip(moved.parameters(), first, strict=True):
                w += rho * g / norm
        second = torch.autograd.grad(objective(moved, x, y), list(moved.parameters()))
        for w, g in zip(weights, second, strict=True):
            w.grad = g
        optimizer.step()

    with forced_path(path):
        net = make_net(sam_rho=rho).fit(X, Y)
    assert net.training_path_ == path
    assert_same_weights(net, plain_loop(step))


def test_the_history_holds_the_objective_at_the_weights_and_not_near_by():
    net = make_net(sam_rho=0.5, max_epochs=1, batch_size=-1).fit(X, Y)
    expected = objective(make_module(), INPUTS, TARGETS).item()
    assert net.history[0, "train_loss"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_the_moving_average_is_that_of_torch(path):
    averaged = []

    def step(module, optimizer, x, y, epoch):
        optimizer.zero_grad()
        objective(module, x, y).backward()
        optimizer.step()
        if not averaged:
            average = get_ema_multi_avg_fn(0.8)
            averaged.append(AveragedModel(module, multi_avg_fn=average))
        averaged[0].update_parameters(module)

    plain_loop(step)
    with forced_path(path):
        net = make_net(average="ema", average__decay=0.8).fit(X, Y)
    assert net.training_path_ == path
    assert_same_weights(net, averaged[0].module)
    probabilities = torch.softmax(averaged[0].module(INPUTS), 1).detach().numpy()
    np.testing.assert_allclose(net.predict_proba(X), probabilities)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("start", "first"), [(None, 6), (0.5, 4), (0.0, 0)])
def test_the_plain_average_is_the_mean_of_the_weights_at_the_ends_of_epochs(
    path, start, first
):
    ends, n_epochs = [], 7

    def step(module, optimizer, x, y, epoch):
        optimizer.zero_grad()
        objective(module, x, y).backward()
        optimizer.step()
        if x is INPUTS.split(50)[-1] or torch.equal(x, INPUTS[100:]):
            ends.append([w.detach().clone() for w in module.parameters()])

    plain_loop(step)
    assert len(ends) == n_epochs
    expected = [torch.stack(of).mean(0) for of in zip(*ends[first:], strict=True)]
    with forced_path(path):
        net = make_net(average="swa", average__start=start).fit(X, Y)
    for mine, theirs in zip(net.module_.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_validation_and_early_stopping_see_the_average():
    net = make_net(average="ema", average__decay=0.5, early_stopping=True, patience=100)
    net.set_params(max_epochs=12).fit(X, Y, X_val=X, y_val=Y)
    last = make_net(average="ema", average__decay=0.5, max_epochs=12).fit(X, Y)
    outputs = last.module_(INPUTS)
    expected = nn.functional.cross_entropy(outputs, TARGETS).item()
    assert net.history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-12)
    best = make_net(average="ema", average__decay=0.5, max_epochs=net.best_epoch_)
    best.fit(X, Y)
    assert_same_weights(net, best.module_, rtol=0, atol=0)


def test_statistics_of_batches_are_those_of_the_averaged_weights():
    net = make_net(make_module(norm=True), average="ema", average__decay=0.9)
    net.fit(X, Y)
    twin = copy.deepcopy(net.module_)
    update_bn([INPUTS[:50], INPUTS[50:100], INPUTS[100:]], twin)
    torch.testing.assert_close(net.module_[1].running_mean, twin[1].running_mean)
    torch.testing.assert_close(net.module_[1].running_var, twin[1].running_var)
    plain = make_net(make_module(norm=True)).fit(X, Y)
    # Training itself goes on with its own statistics: its losses do not change.
    assert net.history[:, "train_loss"] == plain.history[:, "train_loss"]


SCHEDULERS = {
    "cosine": lambda o, n: lr_scheduler.CosineAnnealingLR(o, n),
    "linear": lambda o, n: lr_scheduler.LinearLR(o, 1.0, 0.0, n),
    "cosine_restarts": lambda o, n: lr_scheduler.CosineAnnealingWarmRestarts(
        o, n // 7, 2
    ),
    "one_cycle": lambda o, n: lr_scheduler.OneCycleLR(o, 0.1, n),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedules_are_those_of_torch(path, name):
    schedulers = []

    def step(module, optimizer, x, y, epoch):
        if not schedulers:
            schedulers.append(SCHEDULERS[name](optimizer, 3 * 7))
        optimizer.zero_grad()
        objective(module, x, y).backward()
        optimizer.step()
        schedulers[0].step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the scheduler's first step
        module = plain_loop(step, momentum=0.9)
    with forced_path(path):
        net = make_net(lr_schedule=name, optimizer__momentum=0.9).fit(X, Y)
    assert net.training_path_ == path
    assert_same_weights(net, module)


def test_one_cycle_moves_the_first_beta_of_adam():
    module = make_module()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, 21)
    for _ in range(7):
        for x, y in batches():
            optimizer.zero_grad()
            objective(module, x, y).backward()
            optimizer.step()
            schedule.step()
    net = make_net(lr_schedule="one_cycle", optimizer=torch.optim.Adam).fit(X, Y)
    assert_same_weights(net, module)


def test_a_schedule_ends_with_the_fit():
    net = make_net(lr_schedule="linear", max_epochs=2).fit(X, Y)
    assert net.optimizer_.param_groups[0]["lr"] == 0.1
    twice = make_net(lr_schedule="linear", max_epochs=2)
    twice.partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y)
    again = make_net(lr_schedule="linear", max_epochs=2, warm_start=True)
    assert_same_weights(twice, again.fit(X, Y).fit(X, Y).module_, rtol=0, atol=0)


GRIDS = {
    "clip": {"max_grad_norm": [None, 0.05, 0.2, 1.0]},
    "sam": {"sam_rho": [0.01, 0.1, 0.3, 0.5]},
    "ema": {"average": ["ema"], "average__decay": [0.1, 0.5, 0.9, 0.95]},
    "swa": {"average": ["swa"], "lambda2": [0.0, 0.01, 0.1, 1.0]},
    "linear": {"lr_schedule": ["linear"], "lr": [0.01, 0.05, 0.1, 0.2]},
    "all": {
        "average": ["ema"],
        "lr_schedule": ["one_cycle"],
        "max_norm": [0.5],
        "sam_rho": [0.1],
        "adversarial_eps": [0.1],
        "max_grad_norm": [0.1, 0.2, 0.3, 0.4],
    },
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("stops", [False, True], ids=["all-epochs", "early-stopping"])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU], ids=["backprop", "vmap"])
def test_a_stack_does_what_each_net_does_alone(name, stops, activation, stacks):
    module = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 3)).double()
    params = {"early_stopping": True, "patience": 1} if stops else {}
    net = make_net(module, max_epochs=20, lr=0.3, **params)
    search = GridSearchCV(net, GRIDS[name], cv=2, scoring="neg_log_loss", refit=False)
    with joblib.parallel_config("skreg"):
        together = search.fit(X, Y).cv_results_["mean_test_score"]
    assert sum(stacks) == 2 * len(together)
    alone = search.fit(X, Y).cv_results_["mean_test_score"]
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_regressors_take_them_all():
    y = X @ [1.0, 2.0, 0.0, -1.0]
    net = RegularizedNetRegressor(
        sam_rho=0.05,
        max_grad_norm=1.0,
        average="swa",
        lr_schedule="cosine",
        max_epochs=100,
        random_state=0,
        lr=0.01,
    )
    assert net.fit(X, y).score(X, y) > 0.98


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sam_rho": -1}, r"sam_rho=-1 must be a finite number >= 0"),
        ({"max_grad_norm": 0}, "max_grad_norm=0 must be None or a finite number > 0"),
        ({"average": "mean"}, "average='mean' must be None, 'ema' or 'swa'"),
        ({"average__decay": 1.0}, r"average__decay=1.0 must be a number in \[0, 1\)"),
        (
            {"average__rate": 0.1},
            "average__rate=0.1 is no option of average",
        ),
        ({"lr_schedule": "step"}, "lr_schedule='step' must be None, 'cosine'"),
        ({"sam_rho": 0.1, "amp": "float16"}, "sam_rho=0.1 takes two gradients"),
    ],
)
def test_bad_values_are_told_before_training(params, message):
    with pytest.raises(ValueError, match=message):
        make_net(**params).fit(X, Y)
