"""Nets trained in stacks are the nets that train alone: weights, histories, scores."""

import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    check_cv,
    cross_validate,
    learning_curve,
)
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.batching import _cost, _engine
from skreg.batching._stack import Stack
from skreg.callbacks import AccuracyTracker
from skreg.modules import AnimalNetDropout
from skreg.transforms import GaussianNoise, RandomShift

EXACT = {"rtol": 1e-8, "atol": 1e-10}


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    order = np.random.default_rng(0).permutation(len(y))
    return X[order], y[order]


@pytest.fixture
def stacks(monkeypatch):
    """Sizes of the stacks that are trained."""
    sizes = []
    train_stack = _engine.train_stack

    def counted(candidates, pool):
        sizes.append(len(candidates))
        return train_stack(candidates, pool)

    monkeypatch.setattr(_engine, "train_stack", counted)
    monkeypatch.setattr(_cost, "MIN_STACK", 2)
    monkeypatch.setattr(_cost, "wins_race", lambda *args: True)
    return sizes


def net(make=RegularizedNetClassifier, **params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 4, "random_state": 0} | params
    return make(batch_size=params.pop("batch_size", 16), **params)


def fit(estimator, X, y, **fit_params):
    return estimator.fit(X, y, **fit_params)


def together(*fits, **config):
    """Run fits, each (net, X, y, fit_params), in the backend; return fitted nets."""
    with joblib.parallel_config("skreg", **config):
        return joblib.Parallel()(
            joblib.delayed(fit)(clone(estimator), X, y, **(rest[0] if rest else {}))
            for estimator, X, y, *rest in fits
        )


def alone(*fits):
    return [
        fit(clone(estimator), X, y, **(rest[0] if rest else {}))
        for estimator, X, y, *rest in fits
    ]


def assert_same_nets(mine, theirs, rtol=1e-8, atol=1e-10):
    for a, b in zip(mine, theirs, strict=True):
        tensors = b.module_.state_dict()
        for name, tensor in a.module_.state_dict().items():
            torch.testing.assert_close(tensor, tensors[name], rtol=rtol, atol=atol)
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert len(a.history) == len(b.history)
        for x, y in zip(a.history, b.history, strict=True):
            assert x.keys() == y.keys()
            for key in x.keys() - {"batches", "dur", "param_norms"}:
                assert x[key] == pytest.approx(y[key], rel=rtol, abs=atol), key
            assert x["dur"] >= 0
            if "param_norms" in x:
                assert x["param_norms"] == pytest.approx(
                    y["param_norms"], rel=rtol, abs=atol
                )
            assert len(x["batches"]) == len(y["batches"])
            for p, q in zip(x["batches"], y["batches"], strict=True):
                assert p == pytest.approx(q, rel=rtol, abs=atol)


def images(X):
    """Turn rows of 4 numbers into images of 2 channels."""
    return np.stack([X, X[:, ::-1]], axis=1).reshape(-1, 2, 2, 2)


class Convolutional(nn.Module):
    def __init__(self, out_features, norm=True, dropout=0.2):
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, 2, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.dropout2d = nn.Dropout2d(dropout)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(4 * 9, out_features)

    def forward(self, x):
        x = torch.relu(self.norm(self.convolution(x)))
        return self.linear(self.dropout(self.dropout2d(x).flatten(1)))


SGD = {"optimizer": torch.optim.SGD, "lr": 0.05}
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


def test_a_fit_that_cannot_split_off_its_validation_data_fails_alone(iris, stacks):
    X, y = iris

    def refuse(data, y):
        raise ValueError("no")

    grid = {"train_split": [None, refuse]}
    search = GridSearchCV(net(), grid, cv=3, refit=False)
    with (
        joblib.parallel_config("skreg"),
        pytest.warns(FitFailedWarning),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(X, y)
    assert stacks == [3]
    assert np.isfinite(search.cv_results_["mean_test_score"][0])


def next_place(stack):
    """Return which step of an epoch, counted from 0, a stack is about to take."""
    n = len(stack.candidates[0].batches)
    stack.place = (vars(stack).get("place", -1) + 1) % n
    return stack.place


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_where_memory_does_not_suffice_stacks_are_halved(
    iris, stacks, monkeypatch, limit
):
    step = Stack.step

    def limited(self):
        i, result = next_place(self), step(self)
        if len(self) > limit and i == 2 and len(self.candidates[0].net.history) == 2:
            raise torch.OutOfMemoryError("simulated")
        return result

    monkeypatch.setattr(Stack, "step", limited)
    params = {"early_stopping": True, "patience": 9, "lr": 0.01}
    fits = [(net(lambda1=l1, dropout=0.3, **params), *iris) for l1 in range(5)]
    mine = together(*fits)
    assert (
        stacks
        == {1: [5, 2, 1, 1, 3, 1, 2, 1, 1], 2: [5, 2, 3, 1, 2], 3: [5, 2, 3]}[limit]
    )
    assert_same_nets(mine, alone(*fits))


def test_large_nets_train_in_small_stacks_and_few_nets_alone(iris, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        _engine, "train_stack", lambda stack, pool: sizes.append(len(stack)) or {}
    )
    X = np.zeros((len(iris[1]), 500))
    fits = [(net(hidden_layer_sizes=400, lambda1=l1), X, iris[1]) for l1 in range(9)]
    together(*fits)
    assert sizes == [3, 3, 3]
    together(*fits[:2])
    assert sizes == [3, 3, 3]


def test_nets_that_lose_the_race_train_alone(iris, monkeypatch):
    monkeypatch.setattr(_cost, "wins_race", lambda *args: False)
    monkeypatch.setattr(_engine, "train_stack", None)
    fits = [(net(module__activation="gelu", lambda1=x), *iris) for x in range(4)]
    assert_same_nets(together(*fits), alone(*fits))


def test_the_race_leaves_the_module_and_random_states_as_they_are(iris):
    module = Convolutional(3)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = torch.get_rng_state()
    assert isinstance(_cost.wins_race(module, torch.randn(16, 2, 2, 2), 4), bool)
    torch.set_rng_state(state)
    after = module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(w.grad is None for w in module.parameters())
    assert module.training


class Watches(Callback):
    def on_epoch_end(self, net, **kwargs):
        pass


class OtherLoss(RegularizedNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return 2 * super().get_loss(y_pred, y_true, X=X, training=training)


class Scaled(nn.Module):
    """Has a parameter that is one number."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        x -= 0.1  # in place, as some do
        return self.linear(x) * self.scale


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.NAdam]
)
def test_parameters_that_are_numbers_and_modules_in_place(iris, stacks, optimizer):
    X, y = iris
    fits = [
        (
            net(module=Scaled, lambda1=l1, lambda2=0.1, optimizer=optimizer),
            X[rows],
            y[rows],
        )
        for l1 in (0, 0.1)
        for rows in (slice(100), slice(20, 120))
    ]
    before = X.copy()
    mine, theirs = together(*fits), alone(*fits)
    assert stacks == [4]
    assert np.array_equal(X, before)
    assert_same_nets(mine, theirs)
    for a, b in zip(mine, theirs, strict=True):
        a.partial_fit(X, y)
        b.partial_fit(X, y)
    assert_same_nets(mine, theirs)


def test_a_stack_that_fails_leaves_its_nets_and_all_others_to_be_trained(
    iris, stacks, monkeypatch, capfd
):
    X, y = iris
    step = Stack.step

    def broken(self):
        i, result = next_place(self), step(self)
        if i == 1 and self.candidates[0].net.hidden_layer_sizes == 4:
            raise ArithmeticError("simulated")
        return result

    monkeypatch.setattr(Stack, "step", broken)
    fits = [
        (net(hidden_layer_sizes=h, lambda1=l1), X, y) for h in (4, 5) for l1 in (0, 0.1)
    ]
    assert_same_nets(together(*fits, verbose=1), alone(*fits))
    assert (
        "a stack of them failed: ArithmeticError: simulated" in capfd.readouterr().err
    )


class Average(nn.Module):
    """Assigns to its buffer."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + x.detach().mean()
        return self.linear(x) * (1 + self.mean)


class Unique(Average):
    def forward(self, x):
        return self.linear(x) * len(torch.unique(x))


class Words(nn.Module):
    def __init__(self, out_features):
        super().__init__()
        self.words = nn.Embedding(20, 3, padding_idx=0)
        self.linear = nn.Linear(12, out_features)

    def forward(self, x):
        return self.linear(self.words((x.abs() * 4).long()).flatten(1))


class Stubborn(nn.Module):
    """Its result depends on numbers, so that no two can run as one."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x):
        x = self.linear(x)
        return x if x.sum() > 0 else 2 * x


class Random(Stubborn):
    def forward(self, x):
        return self.linear(x + torch.rand_like(x))


class Drawing(Stubborn):
    def forward(self, x):
        return self.linear(x) * np.random.uniform(0.5, 1)  # noqa: NPY002


class Counting(Stubborn):
    """Keeps a number of its own, that decides what it computes."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        return self.linear(x) * (1 + self.steps)


class Remembering(Counting):
    """Changes what an attribute holds that cannot be pickled."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.seen = {"size": len, "key": lambda x: x, "sums": [0.0]}

    def forward(self, x):
        self.seen["sums"].append(float(len(x)))
        return self.linear(x) * sum(self.seen["sums"])


class Tracking(Counting):
    """Moves a tensor that is not registered as a buffer."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.mean = torch.zeros(in_features)

    def forward(self, x):
        if self.training:
            self.mean += 0.1 * (x.detach().mean(0) - self.mean)
        return self.linear(x - self.mean)


def made_of(part, forward, train=nn.Module.train):
    """Return the class of a net whose hidden values go through `forward(net, z)`."""

    class Net(nn.Module):
        def __init__(self, in_features, out_features):
            super().__init__()
            self.first, self.part = nn.Linear(in_features, 8), part()
            self.last = nn.Linear(8, out_features)

        def forward(self, x):
            return self.last(forward(self, torch.tanh(self.first(x))))

        def train(self, mode=True):
            return train(self, mode)

    return Net


def count_trainings(net, mode):
    vars(net)["calls"] = vars(net).get("calls", 0) + 1
    return nn.Module.train(net, mode)


def count_full_batches(net, z):
    net.calls = getattr(net, "calls", 0) + (len(z) == 16)
    return z * net.calls


def halve_gradient(net, z):
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient / 2)
    return z


def dropped_in_place(net, z):
    z = z + 0
    net.part(z)
    return z


# What goes through the hidden layer, and the net's other parts.
CUSTOM = {
    "parameters that have no part": (lambda: nn.Linear(8, 8), lambda net, z: z),
    "has parameters that have no part": (
        lambda: nn.Linear(8, 8),
        lambda net, z: net.part(z) if len(z) == 16 else z,
    ),
    "its outputs": (
        lambda: nn.Linear(8, 8),
        lambda net, z: z if net.training else net.part(z),
    ),
    "others under vmap": (
        lambda: nn.Dropout(0.3),
        lambda net, z: net.part(z.view(-1, 2, 4).mT).mT.reshape(-1, 8),
    ),
    "the outputs": (lambda: nn.Dropout(0.3, inplace=True), dropped_in_place),
    "outputs of its module": (
        lambda: nn.Dropout(0.3),
        lambda net, z: net.part(z) if isinstance(net.part, nn.Dropout) else z,
    ),
    "the gradients of its module": (nn.Identity, halve_gradient),
    "attribute 'calls'": (nn.Identity, count_full_batches),
    "changes its attribute 'calls'": (
        nn.Identity,
        lambda net, z: z * net.calls,
        count_trainings,
    ),
}


def two_blocks():
    dropout = nn.Dropout(0.3)
    return nn.Sequential(
        nn.Sequential(nn.Linear(8, 8), dropout), nn.Sequential(nn.Tanh(), dropout)
    )


STACKED = {
    "dropout in two places": (two_blocks, lambda net, z: net.part(z)),
    "flattened": (
        lambda: nn.Dropout(0.3),
        lambda net, z: net.part(z.view(-1, 4)).view(-1, 8),
    ),
    "samples second": (
        lambda: nn.Dropout(0.3),
        lambda net, z: net.part(torch.stack([z, -z, z / 2])).sum(0),
    ),
    "twice": (lambda: nn.Dropout(0.3), lambda net, z: net.part(net.part(z))),
    "batch norm": (lambda: nn.BatchNorm1d(8), lambda net, z: net.part(z)),
    "recurrent": (
        lambda: nn.GRU(2, 2, batch_first=True),
        lambda net, z: net.part(z.view(-1, 4, 2))[0].reshape(-1, 8),
    ),
    "attention": (
        lambda: nn.MultiheadAttention(4, 2, batch_first=True),
        lambda net, z: net.part(*[z.view(-1, 2, 4)] * 3)[0].reshape(-1, 8),
    ),
}


class DroppedInputs(nn.Module):
    """Also holds its parts in a list."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.dropout, self.first = nn.Dropout(0.3), nn.Linear(in_features, 6)
        self.last = nn.Linear(6, out_features)
        self.layers = [self.first, nn.Tanh(), self.last]
        self.again = self.first.forward

    def forward(self, x):
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x)
        return x


def test_dropout_of_inputs_and_parts_in_a_list(iris, stacks):
    fits = [
        (net(module=DroppedInputs, dropout=p, lr=lr, random_state=seed), *iris)
        for p in (0.2, 0.5)
        for lr in (0.01, 0.1)
        for seed in (0, 1)
    ]
    for some in (fits, fits[:1] + fits[2:3]):  # of two streams, and of one
        stacks.clear()
        mine = together(*some)
        assert stacks == [len(some)]
        assert_same_nets(mine, alone(*some))


@pytest.mark.parametrize("name", STACKED)
def test_modules_of_many_kinds(iris, stacks, name):
    part, module = STACKED[name][0], made_of(*STACKED[name])
    ps = (
        (0.2, 0.5)
        if any(isinstance(m, nn.Dropout) for m in part().modules())
        else (None, None)
    )
    params = {"module": module, "optimizer": torch.optim.SGD}
    fits = [(net(**params, dropout=p, lr=lr), *iris) for p in ps for lr in (0.01, 0.1)]
    mine = together(*fits)
    # What vmap does in a slow way only trains alone.
    assert stacks == ([] if name in ("recurrent", "attention") else [4])
    assert_same_nets(mine, alone(*fits))


def hooked(in_features, out_features):
    module = nn.Linear(in_features, out_features)
    module.register_forward_hook(lambda module, args, outputs: 2 * outputs)
    return module


def patched(in_features, out_features):
    module = nn.Linear(in_features, out_features)
    module.forward = lambda x: x @ module.weight.T
    return module


ALONE = {
    "replaces its buffers": {"module": Average},
    "vmap cannot run": {"module": Unique},
    "embedding with padding": {"module": Words},
    "compiled, or replaced": {"module": patched},
    "its module has hooks": {"module": hooked},
    "callback Watches": {"callbacks": [Watches()]},
    "callback LRScheduler": {
        "callbacks": [LRScheduler("StepLR", step_size=1, step_every="batch")]
    },
    "OtherLoss overrides get_loss": {"make": OtherLoss},
    "optimizer LBFGS": {"optimizer": torch.optim.LBFGS},
    "vmap": {"module": Stubborn},
    "random": {"module": Random},
    "draws from numpy.random": {"module": Drawing},
    "changes its attribute 'steps'": {"module": Counting},
    "changes its attribute 'seen'": {"module": Remembering},
    "changes its attribute 'mean'": {"module": Tracking},
    "criterion MultiMarginLoss": {"criterion": nn.MultiMarginLoss},
    "augment=": {"augment": torch.nn.Identity()},
    "not arrays in memory": {"iterator_train": torch.utils.data.DataLoader},
    "validation data are shuffled, or not all": {
        "train_split": ValidSplit(3),
        "iterator_valid__drop_last": True,
    },
    "options of its optimizer": {
        "optimizer__eps": torch.tensor([1e-8], dtype=torch.float64),
        "optimizer__foreach": False,
    },
    **{
        reason: {"module": made_of(*custom), "optimizer__weight_decay": 0.1}
        for reason, custom in CUSTOM.items()
    },
}


@pytest.mark.parametrize("reason", ALONE)
def test_what_cannot_be_stacked_trains_alone_and_says_why(iris, stacks, capfd, reason):
    X, y = iris
    params = {"max_epochs": 2} | ALONE[reason]
    fits = [(net(**params, lambda1=x), X, y) for x in (0, 0.01)]
    fits += [(net(lambda1=x), X, y) for x in (0, 0.01)]
    with joblib.parallel_config("skreg"):
        mine = joblib.Parallel(verbose=1)(
            joblib.delayed(fit)(clone(estimator), X, y) for estimator, X, y in fits
        )
    told = [line for line in capfd.readouterr().err.splitlines() if "alone" in line]
    assert len(told) == 1
    assert "2 of 4 fits" in told[0]
    assert stacks == [2]
    assert reason in told[0]
    theirs = alone(*fits)
    assert_same_nets(mine, theirs)
    for a, b in zip(mine[:2], theirs[:2], strict=True):
        for name in ("steps", "calls"):
            assert getattr(a.module_, name, None) == getattr(b.module_, name, None)


def test_nothing_is_said_unless_asked_for(iris, capfd):
    together((net(callbacks=[Watches()]), *iris))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("verbose", [0, 1])
def test_meta_estimators_without_verbosity_take_that_of_the_context(
    iris, capfd, verbose
):
    with joblib.parallel_config("skreg", verbose=verbose):
        cross_validate(net(callbacks=[Watches()]), *iris, cv=3)
    assert capfd.readouterr().err.count("3 of 3 fits trained alone") == verbose


class Centred(nn.Module):
    """Its samples see each other, in training and in evaluation."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.first = nn.Linear(in_features, 6)
        self.last = nn.Linear(6, out_features)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x):
        z = torch.tanh(self.first(x))
        z = z - z.mean(0)
        if self.training:
            self.scale.mul_(0.9).add_(0.1 * z.detach().std())
        return self.last(z / self.scale)


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        ([slice(100), slice(20, 120)], [4]),
        ([slice(100), slice(20, 118)], [2, 2]),  # other data sets to train on
        ([slice(100), slice(20, 121)], [2, 2]),  # other validation sets
    ],
)
def test_samples_that_see_each_other_see_no_others(iris, stacks, rows, sizes):
    X, y = iris
    fits = [
        (net(module=Centred, lambda1=l1, train_split=ValidSplit(7)), X[part], y[part])
        for l1 in (0, 0.01)
        for part in rows
    ]
    mine, theirs = together(*fits), alone(*fits)
    assert stacks == sizes
    assert_same_nets(mine, theirs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.module_.scale, b.module_.scale, **EXACT)


def test_the_global_random_states_are_left_alone(iris):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    together(*[(net(dropout=0.5, random_state=s), *iris) for s in range(3)])
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_a_module_that_cannot_be_measured_leaves_the_others_alone(
    iris, monkeypatch, capfd, fails
):
    def without_graph(net, z):
        with torch.set_grad_enabled(net.training):
            return net.part(z)

    def broken(*args):
        raise ArithmeticError("simulated")

    if fails:
        monkeypatch.setattr(_cost, "wins_race", broken)
    module = made_of(lambda: nn.Linear(8, 8), without_graph)
    fits = [
        (net(**params, lr=lr), *iris)
        for params in ({"module": module}, {})
        for lr in (0.01, 0.02, 0.03)
    ]
    assert_same_nets(together(*fits, verbose=1), alone(*fits))
    assert ("failed: ArithmeticError: simulated" in capfd.readouterr().err) == fails


@pytest.mark.cuda
def test_stacks_on_cuda(iris, stacks, cuda):
    X, y = iris
    fits = [(net(lambda1=l1, dropout=0, device="cuda"), X, y) for l1 in (0, 0.01, 0.1)]
    mine = together(*fits)
    assert stacks == [3]
    assert_same_nets(mine, alone(*fits))
    dropped = [(net(dropout=0.5, random_state=s, device="cuda"), X, y) for s in (0, 1)]
    assert_same_nets(together(*dropped), together(*dropped[::-1])[::-1])


class InPlace(Convolutional):
    def forward(self, x):
        return super().forward(x.relu_())


def test_modules_that_work_in_place_leave_the_data_alone(stacks, iris):
    X = images(iris[0])
    before = X.copy()
    fits = [
        (net(module=InPlace, lr=lr, shuffle=False, batch_size=-1), X, iris[1])
        for lr in (0.001, 0.01)
    ]
    mine = together(*fits)
    assert stacks == [2]
    np.testing.assert_array_equal(X, before)
    assert_same_nets(mine, alone(*fits))
