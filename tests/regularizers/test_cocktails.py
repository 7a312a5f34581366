"""Cocktails: regularisers in pairs and in crowds train alike on every path.

``SKREG_RANDOM_COCKTAILS=300 pytest tests/regularizers/test_cocktails.py`` tries more.
"""

import ast
import os
import re
from itertools import combinations
from math import isfinite

import joblib
import numpy as np
import pytest
import torch
from same_nets import PATHS, assert_a_stack, assert_same, on_paths
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.regularizers import REGULARIZERS

N_COCKTAILS = int(os.environ.get("SKREG_RANDOM_COCKTAILS", "16"))
SMALL = {"hidden_layer_sizes": 5, "max_epochs": 2, "batch_size": 20}
SMALL |= {"dtype": "float64", "random_state": 0}
ESTIMATORS = [RegularizedNetClassifier, RegularizedNetRegressor]
OF_CLASSES = {"label_smoothing"}  # regressors refuse it


def flowers(n):
    X, y = load_iris(return_X_y=True)
    kept = np.random.default_rng(0).permutation(len(X))[:n]
    return ((X - X.mean(axis=0)) / X.std(axis=0))[kept], y[kept]


def parameters_of(kind, make):
    """Return the parameters of a regulariser, and its options, by their full names."""
    own = {n: p for n, p in kind.parameters.items() if _is_for(n, make)}
    options = {
        f"{prefix}__{name}": p
        for prefix, of in kind.options.items()
        for name, p in (of or {}).items()
    }
    return own, options


def _is_for(name, make):
    return make is RegularizedNetClassifier or name not in OF_CLASSES


def is_strength(parameter):
    return isinstance(parameter.rule.example, float)


# -- searches -------------------------------------------------------------------------


def searched(estimator, candidates, X, y, cv, backend, weight=None):
    """Return the fits of a search, in the order of candidates and folds."""
    fits = {}

    def keep(net, X_test, y_test, sample_weight=None):
        values = net.get_params()
        fits[tuple(values[name] for name in names), X_test.tobytes()] = net
        return 0.0

    names = sorted(candidates[0])
    grid = [{name: [of[name]] for name in names} for of in candidates]
    search = GridSearchCV(
        estimator, grid, cv=cv, scoring=keep, refit=False, error_score="raise"
    )
    with joblib.parallel_config(backend):
        search.fit(X, y, sample_weight=weight)
    order = [tuple(of[name] for name in names) for of in candidates]
    assert len(fits) == len(order) * search.n_splits_
    return [fits[key] for key in sorted(fits, key=lambda k: (order.index(k[0]), k[1]))]


def assert_as_alone(estimator, candidates, X, y, cv, weight=None):
    """Check that a search trains the nets of single fits; return them."""
    data = estimator, candidates, X, y, cv
    together = searched(*data, "skreg", weight)
    alone = searched(*data, "sequential", weight)
    assert_same(together, alone, rtol=1e-8)
    for net in together:
        assert all(isfinite(loss) for loss in net.history[:, "train_loss"])
    return together


def assert_every_path_is_the_same(estimator, X, y, **fit_params):
    paths = PATHS if estimator.module is None else PATHS[1:]
    first, *others = on_paths(estimator, X, y, paths, **fit_params)
    assert_same(others, [first] * len(others), rtol=1e-10)


# -- pairs ----------------------------------------------------------------------------

PAIRS = [
    (make, pair)
    for make in ESTIMATORS
    for pair in combinations(REGULARIZERS, 2)
    if all(parameters_of(kind, make)[0] for kind in pair)
]
X_SMALL, Y_SMALL = flowers(50)
SPLIT = [(np.arange(36), np.arange(36, 50))]


@pytest.mark.parametrize(
    ("make", "pair"),
    PAIRS,
    ids=lambda value: "-".join(kind.__name__ for kind in np.atleast_1d(value)),
)
@pytest.mark.usefixtures("stacks")
def test_a_pair_trains_in_a_stack_as_alone_and_on_every_path(make, pair):
    common, strengths = {}, {}
    for kind in pair:
        own, options = parameters_of(kind, make)
        for name, parameter in {**own, **options}.items():
            of = strengths if name in own and is_strength(parameter) else common
            of[name] = parameter.rule.example
    rates = (0.01, 0.01, 0.003, 0.003) if strengths else (0.01, 0.003, 0.02, 0.001)
    candidates = [
        {"lr": lr, **{name: factor * value for name, value in strengths.items()}}
        for factor, lr in zip((1.0, 0.5, 1.5, 0.75), rates, strict=True)
    ]
    estimator = make(**SMALL, **common)
    together = assert_as_alone(estimator, candidates, X_SMALL, Y_SMALL, SPLIT)
    assert [net.training_path_ for net in together] == ["stack"] * 4
    one = estimator.set_params(**candidates[0])
    assert_every_path_is_the_same(one, X_SMALL[:36], Y_SMALL[:36])


# -- crowds ---------------------------------------------------------------------------


def one_of(rng, *values):
    return values[rng.integers(len(values))]


def drawn(rng, parameter):
    """Draw a value that is like the example."""
    example = parameter.rule.example
    if isinstance(example, bool):
        return bool(rng.integers(2))
    if isinstance(example, float):
        values = (example * 10 ** rng.uniform(-0.7, 0.5) for _ in range(100))
        return next(filter(parameter.rule.accepts, values))
    choices = re.match(r"\{.*?\}", parameter.type)
    return one_of(rng, *sorted(ast.literal_eval(choices[0]))) if choices else example


def cocktail(rng, make):
    """Draw what the nets of a search have in common, and what each has of its own."""
    common, candidates = {}, [{"lr": 10 ** rng.uniform(-3, -1.5)} for _ in range(5)]
    for kind in REGULARIZERS:
        if rng.random() < 0.4:
            continue
        own, options = parameters_of(kind, make)
        common |= {name: drawn(rng, p) for name, p in options.items()}
        for name, parameter in own.items():
            if not is_strength(parameter):
                common[name] = drawn(rng, parameter)
                continue
            for of in candidates:
                is_on = rng.random() < 0.8
                of[name] = drawn(rng, parameter) if is_on else parameter.default
    if rng.random() < 0.4:
        for of in candidates:
            of["dropout"] = one_of(rng, 0.0, 0.2, 0.5)
    return common, candidates


class WithNorm(nn.Module):
    """Trains under vmap."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.first, self.norm = nn.Linear(in_features, 5), nn.LayerNorm(5)
        self.dropout, self.last = nn.Dropout(0.1), nn.Linear(5, out_features)

    def forward(self, x):
        x = self.norm(self.first(x.flatten(1)))
        return self.last(self.dropout(nn.functional.gelu(x)))


def surroundings(rng, common):
    """Draw what else a net has: hidden units, if something acts on them."""
    sizes = [(6,), (5, 4), (5, 5), *([] if "groups" in common else [()])]
    params = {
        "batch_size": one_of(rng, 16, 33, -1),
        "max_epochs": int(rng.integers(1, 5)),
        "random_state": int(rng.integers(100)),
        "shuffle": bool(rng.integers(2)),
    }
    if rng.random() < 0.25:
        params["module"] = WithNorm
    else:
        params["hidden_layer_sizes"] = one_of(rng, *sizes)
        params["module__activation"] = one_of(rng, "relu", "tanh", "logistic")
        params["module__batch_norm"] = rng.random() < 0.25
        params["module__skip_connections"] = rng.random() < 0.25
    if rng.random() < 0.4:
        params["optimizer"] = one_of(
            rng, torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop
        )
    if rng.random() < 0.3:
        params |= {"early_stopping": True, "patience": int(rng.integers(4))}
    return params


def targets(rng, y, X):
    """Return an estimator, and targets for it."""
    kind = one_of(rng, "classes", "classes", "labels", "numbers", "numbers")
    if kind == "numbers":
        return RegularizedNetRegressor, X[:, :2] + 0.1 * y[:, None]
    if kind == "labels":
        y = np.stack([y == 0, X[:, 1] > 0, X[:, 2] > 0.5], axis=1).astype(int)
    return RegularizedNetClassifier, y


@pytest.mark.parametrize("seed", range(N_COCKTAILS))
@pytest.mark.usefixtures("stacks")
def test_a_cocktail_trains_in_a_stack_as_alone_and_on_every_path(seed):
    rng = np.random.default_rng(seed)
    X, y = flowers(80)
    make, y = targets(rng, y, X)
    weight = rng.random(len(X)) if rng.random() < 0.3 else None
    common, candidates = cocktail(rng, make)
    estimator = make(**SMALL | surroundings(rng, common), **common)
    X = X.reshape(len(X), *one_of(rng, (4,), (4,), (2, 2), (1, 2, 2)))
    together = assert_as_alone(estimator, candidates, X, y, 2, weight)
    reasons = {net.training_path_reasons_.get("stack") for net in together} - {None}
    assert all("average needs statistics of its own" in reason for reason in reasons)
    one = estimator.set_params(**candidates[rng.integers(len(candidates))])
    assert_every_path_is_the_same(one, X, y, sample_weight=weight)


# -- what they have found -------------------------------------------------------------


@pytest.mark.usefixtures("stacks")
def test_nets_that_go_on_are_not_watched_again():
    """The third net is dead after a step, and the stack is made anew in epoch 2."""
    nets = [
        RegularizedNetClassifier(
            **SMALL | {"max_epochs": n_epochs},
            adversarial_eps=0.1,
            lambda_group=strength,
        )
        for strength, n_epochs in [(0.0, 1), (0.0, 3), (1e3, 3), (1e-3, 3)]
    ]
    assert_a_stack(nets, X_SMALL, Y_SMALL)


@pytest.mark.parametrize("make", ESTIMATORS)
@pytest.mark.usefixtures("stacks")
def test_a_batch_as_large_as_the_stack_and_as_the_number_of_outputs(make):
    y = Y_SMALL
    if make is RegularizedNetRegressor:
        y = X_SMALL[:, :3]
    nets = [
        make(**SMALL | {"batch_size": 3}, adversarial_eps=0.1, mixup=0.3, lambda2=s)
        for s in (0.0, 0.01, 0.1)
    ]
    assert_a_stack(nets, X_SMALL, y)
