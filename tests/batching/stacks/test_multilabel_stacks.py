"""Nets of 0/1 matrices train in all loops, and in stacks, as they do in skorch's."""

import joblib
import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from sklearn.datasets import make_multilabel_classification
from sklearn.model_selection import GridSearchCV
from skorch.dataset import ValidSplit
from torch import nn

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.estimators.paths import forced_path

X, Y = make_multilabel_classification(110, 8, n_classes=4, random_state=0)
X = (X - X.mean(axis=0)) / X.std(axis=0)
WEIGHT = np.random.default_rng(0).uniform(0.5, 2, 110)


def net(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 4, "random_state": 0} | params
    return RegularizedNetClassifier(**({"lr": 0.02, "batch_size": 32} | params))


def assert_same(mine, theirs, rtol=1e-8, atol=1e-10):
    for a, b in zip(*(n.module_.parameters() for n in (mine, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
    assert len(mine.history) == len(theirs.history)
    for a, b in zip(mine.history, theirs.history, strict=True):
        for key in a.keys() - {"batches", "dur", "param_norms"}:
            assert a[key] == pytest.approx(b[key], rel=rtol, abs=atol), key


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["equal", "weighted"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"lambda1": 1e-3, "lambda2": 1e-2},
        {"dropout": 0.3},
        {"train_split": ValidSplit(4), "early_stopping": True},
    ],
    ids=["plain", "penalties", "dropout", "validation"],
)
def test_loops_agree(params, weight):
    if "dropout" in params:
        params = {**params, "module": _with_dropout}
    by_hand = net(**params).fit(X, Y, weight)
    hooks = net(callbacks=[SeesBatches()], **params).fit(X, Y, weight)
    assert_same(by_hand, hooks)
    with forced_path("autograd"):
        lean = net(**params).fit(X, Y, weight)
    assert_same(lean, hooks, rtol=0, atol=0)


def _with_dropout(in_features, out_features):
    return nn.Sequential(
        nn.Linear(in_features, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, out_features)
    )


def _normalized(in_features, out_features):
    return nn.Sequential(
        nn.Linear(in_features, 8),
        nn.LayerNorm(8),
        nn.ReLU(),
        nn.Linear(8, out_features),
    )


def fit(one, *args, **options):
    return one.fit(*args, **options)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"module": _with_dropout},
        {"module": _normalized},
        {"early_stopping": True, "patience": 1},
        {"train_split": ValidSplit(4)},
        {"callbacks": [AccuracyTracker(on_train=True)]},
        {"criterion": nn.BCEWithLogitsLoss, "optimizer": torch.optim.SGD},
    ],
    ids=["mlp", "dropout", "vmap", "stopping", "split", "training", "explicit"],
)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["equal", "weighted"])
def test_stacks_are_the_nets_that_train_alone(params, weight, stacks):
    rows = [slice(0, 90), slice(0, 90), slice(20, 110), slice(10, 110)]
    lambdas = [0.0, 1e-2, 1e-2, 1e-3]
    fits = [
        (net(lambda2=lam, **params), X[s], Y[s], None if weight is None else weight[s])
        for lam, s in zip(lambdas, rows, strict=True)
    ]
    with joblib.parallel_config("skreg"):
        together = joblib.Parallel()(joblib.delayed(fit)(*args) for args in fits)
    assert sum(stacks) >= 3
    for mine, args in zip(together, fits, strict=True):
        assert_same(mine, fit(*args))
        assert isinstance(mine.criterion_, nn.BCEWithLogitsLoss)


@pytest.mark.parametrize(
    "params",
    [
        {"criterion": nn.BCEWithLogitsLoss, "criterion__pos_weight": 2 * torch.ones(4)},
        {"criterion": nn.MultiLabelSoftMarginLoss},
        {"predict_nonlinearity": torch.sigmoid},
    ],
    ids=["pos_weight", "criterion", "nonlinearity"],
)
def test_what_the_stack_does_not_know_trains_alone(params, stacks):
    args = X, Y, None
    fits = [net(lambda2=lam, **params) for lam in (0.0, 1e-2)]
    with joblib.parallel_config("skreg"):
        together = joblib.Parallel()(
            joblib.delayed(fit)(one, *args, X_val=X, y_val=Y) for one in fits
        )
    assert stacks == []
    for mine, one in zip(together, fits, strict=True):
        assert_same(mine, one.fit(*args, X_val=X, y_val=Y), rtol=0, atol=0)


def test_a_search_finds_the_same(stacks):
    grid = {"lambda2": [0.0, 1e-3, 1e-1]}
    search = GridSearchCV(net(), grid, cv=3, scoring="f1_macro")
    alone = search.fit(X, Y).cv_results_["mean_test_score"]
    with joblib.parallel_config("skreg"):
        together = search.fit(X, Y).cv_results_["mean_test_score"]
    assert sum(stacks) == 9
    np.testing.assert_allclose(together, alone)
