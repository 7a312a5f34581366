"""Nets trained in stacks are the nets that train alone: weights, histories, scores."""

import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    check_cv,
    cross_validate,
    learning_curve,
)
from skorch.callbacks import LRScheduler
from skorch.dataset import ValidSplit
from stacked_nets import (
    SGD,
    Convolutional,
    alone,
    assert_same_nets,
    images,
    net,
    together,
)
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker
from skreg.modules import AnimalNetDropout
from skreg.transforms import GaussianNoise, RandomShift

SAME_SHAPE = {
    "penalties": [{"lambda1": a, "lambda2": b} for a in (0, 0.01) for b in (0, 0.1)],
    "lr": [{"lr": lr} for lr in (0.001, 0.01, 0.1)],
    "dropout": [{"dropout": p} for p in (0, 0.2, 0.2, 0.5, 1)],
    "seeds": [{"random_state": seed} for seed in range(3)],
    "seeds and dropout": [{"random_state": s, "dropout": 0.5} for s in range(3)],
    "epochs": [{"max_epochs": n} for n in (0, 1, 3, 3)],
    "penalize": [{"lambda1": 0.1, "penalize": p} for p in ("all", ["fc1.*"])],
    "betas": [{"optimizer__betas": (0.9, b)} for b in (0.9, 0.99)],
    "smoothing": [{"criterion__label_smoothing": s} for s in (0, 0.1, 0.3)],
    "momentum": [{**SGD, "optimizer__momentum": m} for m in (0, 0.9)],
    "nesterov": [
        {**SGD, "optimizer__momentum": 0.9, "optimizer__nesterov": n}
        for n in (False, True)
    ],
    "weight decay": [{**SGD, "optimizer__weight_decay": w} for w in (0, 0.1)],
    "AdamW": [
        {"optimizer": torch.optim.AdamW, "optimizer__weight_decay": w} for w in (0, 0.1)
    ],
    "amsgrad": [{"optimizer__amsgrad": True, "lr": lr} for lr in (0.01, 0.1)],
    "RMSprop": [{"optimizer": torch.optim.RMSprop, "lr": lr} for lr in (0.01, 0.1)],
    "NAdam": [{"optimizer": torch.optim.NAdam, "lambda1": x} for x in (0, 0.1)],
    "full batch": [{"batch_size": -1, "lambda2": x} for x in (0, 0.1)],
    "unshuffled": [{"shuffle": s, "lr": 0.01} for s in (True, False)],
    "tanh": [{"module__activation": "tanh", "lambda1": x} for x in (0, 0.1)],
    "linear": [{"hidden_layer_sizes": (), "lambda1": x} for x in (0, 0.1)],
    "deep": [{"hidden_layer_sizes": (5, 6, 7), "dropout": p} for p in (0, 0.5)],
    "gelu by vmap": [
        {"module__activation": "gelu", "dropout": p, "lambda1": 0.01} for p in (0, 0.5)
    ],
    "weights of classes": [
        {"class_weight": w} for w in (None, "balanced", {0: 1, 1: 2, 2: 5})
    ],
    "dropped last batch": [
        {"iterator_train__drop_last": True, "lr": lr} for lr in (0.01, 0.1)
    ],
    "training accuracy": [
        {"callbacks": [AccuracyTracker(on_train=True)], "lr": lr} for lr in (0.01, 0.1)
    ],
    "no norms": [{"callbacks__norms": None, "lr": lr} for lr in (0.01, 0.1)],
}


def test_validation_in_batches_of_different_sizes(iris, stacks):
    X, y = iris
    given = {"X_val": X[90:], "y_val": y[90:]}
    fits = [
        (net(lambda1=l1, iterator_valid__batch_size=n), X[:90], y[:90], given)
        for l1 in (0, 0.1)
        for n in (7, 60)
    ]
    mine = together(*fits)
    assert stacks == [2, 2]
    assert_same_nets(mine, alone(*fits))


@pytest.mark.parametrize("name", SAME_SHAPE)
@pytest.mark.parametrize("validated", [True, False])
def test_a_stack_trains_each_net_as_it_trains_alone(iris, stacks, name, validated):
    X, y = iris
    given = {"X_val": X[100:], "y_val": y[100:]} if validated else {}
    fits = [(net(**p), X[:90], y[:90], given) for p in SAME_SHAPE[name]]
    mine = together(*fits)
    assert stacks == [len(fits)]
    assert_same_nets(mine, alone(*fits))


SCHEDULES = {
    "StepLR": {"policy": "StepLR", "step_size": 2, "event_name": "event_lr"},
    "CosineAnnealingLR": {"policy": "CosineAnnealingLR", "T_max": 5},
    "ReduceLROnPlateau": {
        "policy": "ReduceLROnPlateau",
        "monitor": "train_loss",
        "patience": 0,
        "threshold": 0.1,
    },
}


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_the_learning_rate(iris, stacks, name, optimizer):
    X, y = iris
    params = {"max_epochs": 7, "optimizer": optimizer, "optimizer__weight_decay": 1e-3}
    fits = [
        (
            net(
                lr=lr,
                lambda1=l1,
                callbacks=[("schedule", LRScheduler(**SCHEDULES[name]))],
                **params,
            ),
            X,
            y,
        )
        for lr in (0.1, 0.01)
        for l1 in (0, 0.05, 1)
    ]
    mine, theirs = together(*fits), alone(*fits)
    assert stacks == [6]
    assert_same_nets(mine, theirs)
    rates = [n.optimizer_.param_groups[0]["lr"] for n in mine]
    assert rates == [n.optimizer_.param_groups[0]["lr"] for n in theirs]
    assert max(rates) < 0.1


def test_folds_of_different_sizes_and_data_are_one_stack(iris, stacks):
    X, y = iris
    fits = [
        (net(lambda1=0.01, dropout=p, random_state=s), X[rows], y[rows])
        for p in (0, 0.5)
        for s, rows in ((0, slice(97)), (0, slice(98)), (1, slice(10, 107)))
    ]
    mine = together(*fits)
    assert stacks == [6]
    assert_same_nets(mine, alone(*fits))


def test_nets_with_validation_sets_of_their_own(iris, stacks):
    X, y = iris
    fits = [
        (net(train_split=ValidSplit(4), lr=lr), X[rows], y[rows])
        for lr in (0.01, 0.1)
        for rows in (slice(100), slice(20, 118))
    ]
    mine = together(*fits)
    assert stacks == [4]
    assert_same_nets(mine, alone(*fits))


def test_samples_with_weights(iris, stacks):
    X, y = iris
    weight = np.random.default_rng(0).random((3, 100)) + 0.1
    fits = [
        (net(lambda2=0.01), X[:100], y[:100], {"sample_weight": w})
        for w in (*weight, np.ones(100))
    ]
    mine = together(*fits)
    assert stacks == [4]
    assert_same_nets(mine, alone(*fits))


def test_early_stopping_ends_each_net_in_its_own_time(iris, stacks):
    X, y = iris
    params = {"early_stopping": True, "patience": 2, "max_epochs": 40}
    fits = [
        (net(lr=lr, lambda1=l1, dropout=0.2, **params), X, y)
        for lr in (0.3, 0.03, 0.001)
        for l1 in (0, 0.1)
    ]
    mine, theirs = together(*fits), alone(*fits)
    assert stacks == [6]
    assert len({len(fitted.history) for fitted in theirs}) > 2
    assert_same_nets(mine, theirs)
    assert [a.best_epoch_ for a in mine] == [b.best_epoch_ for b in theirs]


def test_nets_go_on_as_they_would_alone(iris):
    X, y = iris
    fits = [
        (net(optimizer=optimizer, dropout=p), X, y)
        for optimizer in (torch.optim.Adam, torch.optim.SGD)
        for p in (0.0, 0.5)
    ]
    mine, theirs = together(*fits), alone(*fits)
    with joblib.parallel_config("skreg"):
        mine = joblib.Parallel()(
            joblib.delayed(fitted.partial_fit)(X, y) for fitted in mine
        )
    assert_same_nets(mine, [fitted.partial_fit(X, y) for fitted in theirs])


@pytest.mark.parametrize("norm", [True, False])
def test_convolutional_nets_by_vmap(iris, stacks, norm):
    X, y = images(iris[0]), iris[1]
    given = {"X_val": X[100:], "y_val": y[100:]}
    fits = [
        (
            net(
                Convolutional_classifier,
                module__norm=norm,
                dropout=p,
                lambda1=l1,
                lambda2=0.01,
            ),
            X[:90],
            y[:90],
            given,
        )
        for p in (0, 0.3)
        for l1 in (0, 0.01)
    ]
    mine = together(*fits)
    assert stacks == [4]
    assert_same_nets(mine, alone(*fits))


def Convolutional_classifier(**params):
    return RegularizedNetClassifier(Convolutional, **params)


@pytest.mark.parametrize("module", [Convolutional, None])
def test_augmentation_is_that_of_each_net(iris, stacks, module):
    X, y = images(iris[0]), iris[1]
    fits = [
        (net(module=module, augment=augment, dropout=p, lambda1=l1), X, y)
        for augment in (None, GaussianNoise(0.5), nn.Sequential(RandomShift(1)))
        for p in (0.1, 0.3)
        for l1 in (0, 0.01)
    ]
    mine = together(*fits)
    assert stacks == [12]
    assert_same_nets(mine, alone(*fits))


def test_dropout_before_the_activation(iris, stacks):
    X, y = iris
    fits = [
        (net(AnimalNetDropout_classifier, lambda2=l2, dropout=p), X, y)
        for p in (None, 0.3)
        for l2 in (0, 0.01)
    ]
    mine = together(*fits)
    assert stacks == [4]
    assert_same_nets(mine, alone(*fits))


def AnimalNetDropout_classifier(hidden_layer_sizes, **params):
    return RegularizedNetClassifier(AnimalNetDropout, **params)


def test_regressions(iris, stacks):
    X = iris[0]
    y = 1000 * np.column_stack([X[:, 0], X[:, 1] * X[:, 2]])
    fits = [
        (net(RegularizedNetRegressor, lambda1=l1, scale_target=scaled), X, target)
        for scaled, target in ((True, y), (False, y / 1000), (True, y[:, 0]))
        for l1 in (0, 0.1)
    ]
    mine = together(*fits)
    assert stacks == [4, 2]
    assert_same_nets(mine, alone(*fits))


def test_float32_agrees_within_rounding(iris, stacks):
    X, y = iris[0].astype(np.float32), iris[1]
    fits = [(net(lambda1=l1, dropout=p), X, y) for l1 in (0, 0.01) for p in (0.1, 0.5)]
    mine = together(*fits)
    assert mine[0].module_.fc1.weight.dtype == torch.float32
    assert_same_nets(mine, alone(*fits), rtol=1e-4, atol=1e-6)


def test_a_net_does_not_depend_on_its_company(iris):
    X, y = iris
    subject = (net(dropout=0.4, augment=GaussianNoise(0.1), lambda1=0.01), X, y)
    others = [
        (net(dropout=0.4, random_state=s, lr=0.1), X[:99], y[:99]) for s in (1, 2)
    ]
    first = together(subject)[0]
    last = together(*others, subject)[-1]
    middle = together(others[1], subject, others[0], max_in_flight=2)[1]
    assert_same_nets([first, first], [last, middle])


def test_nets_of_several_shapes_train_in_several_stacks(iris, stacks):
    X, y = iris
    fits = [
        (net(hidden_layer_sizes=h, lambda1=l1), X, y)
        for h in (4, 8, (4, 4))
        for l1 in (0, 0.1)
    ]
    mine = together(*fits)
    assert stacks == [2, 2, 2]
    assert_same_nets(mine, alone(*fits))


@pytest.mark.parametrize("cv", [3, KFold(4)])
def test_a_search_gives_the_results_of_the_plain_one(iris, stacks, cv):
    grid = {"lambda1": [0, 0.01], "dropout": [0, 0.5], "lr": [0.001, 0.01]}
    plain = GridSearchCV(net(), grid, cv=cv, return_train_score=True).fit(*iris)
    with joblib.parallel_config("skreg"):
        search = GridSearchCV(net(), grid, cv=cv, return_train_score=True).fit(*iris)
    assert sum(stacks) == 8 * len(list(check_cv(cv).split(*iris)))
    assert len(stacks) <= 2
    for key, values in plain.cv_results_.items():
        if "time" not in key:
            assert np.array_equal(search.cv_results_[key], values), key
    assert search.best_params_ == plain.best_params_


def test_learning_curve_and_cross_validate(iris, stacks):
    sizes = [20, 40, 60]
    plain = learning_curve(net(), *iris, train_sizes=sizes, cv=3)
    with joblib.parallel_config("skreg"):
        mine = learning_curve(net(), *iris, train_sizes=sizes, cv=3)
        scores = cross_validate(net(), *iris, cv=3)
    for a, b in zip(mine, plain, strict=True):
        assert np.array_equal(a, b)
    assert stacks == [3, 3, 3, 3]
    assert np.array_equal(
        scores["test_score"], cross_validate(net(), *iris, cv=3)["test_score"]
    )


def test_a_diverging_net_leaves_the_others_alone(iris, stacks):
    X, y = iris
    tracked = {"lambda2": 0.01, "callbacks": [AccuracyTracker(on_train=True)]}
    fits = [(net(**SGD | tracked | {"lr": lr}), X, y) for lr in (1e-2, 1e30, 2e-2)]
    with pytest.warns(
        ConvergenceWarning, match=r"Training diverged in epoch 1 .*lr=1e"
    ):
        mine = together(*fits)
    assert stacks == [3]
    assert [len(fitted.history) for fitted in mine] == [4, 1, 4]
    assert_same_nets([mine[0], mine[2]], alone(fits[0], fits[2]))
    with pytest.warns(ConvergenceWarning):
        diverged = alone(fits[1])[0]
    assert mine[1].history[0].keys() == diverged.history[0].keys()


@pytest.mark.parametrize("make", [RegularizedNetClassifier, RegularizedNetRegressor])
@pytest.mark.parametrize("n_outputs", [1, 2, 7])
@pytest.mark.parametrize("vmapped", [False, True])
def test_modules_with_another_number_of_outputs_are_refused(
    iris, stacks, make, n_outputs, vmapped
):
    X, y = iris
    if make is RegularizedNetRegressor:
        y = np.stack([y, 2 * y], axis=1)[:, : 1 if n_outputs > 1 else 2]
    layers = [nn.Linear(4, 8), nn.SiLU() if vmapped else nn.ReLU()]
    module = nn.Sequential(*layers, nn.Linear(8, n_outputs))
    fits = [(net(make, module=module, lambda1=l1), X, y) for l1 in (0, 0.1)]
    with pytest.raises(ValueError, match="The module returned outputs") as plain:
        alone(*fits)
    with pytest.raises(ValueError, match="The module returned outputs") as found:
        together(*fits)
    assert stacks == [2]
    assert str(found.value) == str(plain.value)


@pytest.mark.parametrize("scale", [1e36, 2e38])
def test_losses_overflow_in_a_stack_as_they_do_alone(iris, stacks, scale):
    X, y = iris
    X = np.where(X > 0, np.float32(scale), X).astype(np.float32)
    fits = [(net(lambda1=l1, batch_size=150), X, y) for l1 in (0, 1e-3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mine, theirs = together(*fits), alone(*fits)
    assert stacks == [2]
    assert [len(n.history) for n in theirs] == [4 if scale < 1e37 else 1] * 2
    for a, b in zip(mine, theirs, strict=True):
        losses = b.history[:, "train_loss"]
        assert a.history[:, "train_loss"] == pytest.approx(losses, rel=1e-4)


def test_what_is_infinite_costs_nothing_where_it_is_not_penalised(iris, stacks):
    X, y = iris
    fits = [
        (net(lambda1=l1, lr=1e200, optimizer=torch.optim.SGD, max_epochs=2), X, y)
        for l1 in (0, 0.01)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mine, theirs = together(*fits), alone(*fits)
    assert stacks == [2]
    assert mine[0].history[:, "train_penalty"] == [0.0] * len(theirs[0].history)
    assert theirs[0].history[:, "train_penalty"] == [0.0] * len(theirs[0].history)


def test_a_diverging_net_gets_the_error_score(iris):
    grid = {"lr": [1e-2, 1e30]}
    search = GridSearchCV(net(**SGD), grid, cv=3, error_score=np.nan, refit=False)
    with joblib.parallel_config("skreg"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(*iris)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])
