"""Weights of samples and of classes."""

import numpy as np
import pandas as pd
import pytest
import torch
from contract_nets import (
    SGD,
    assert_close_weights,
    equal_weights,
    pairs_dataset,
    small,
    small_regressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import Subset

from skreg import RegularizedNetClassifier
from skreg.modules import MLP


@pytest.mark.parametrize("params", [{}, {"batch_size": 7, "dropout": 0.3}])
@pytest.mark.parametrize("value", [1, 1.0, 7, 0.3])
def test_equal_weights_are_no_weights_bit_for_bit(iris, params, value):
    X, y = iris
    none = small(lambda1=1e-3, **params).fit(X, y)
    equal = small(lambda1=1e-3, **params).fit(X, y, np.full(len(y), value))
    assert equal_weights(none, equal)


@pytest.mark.parametrize("regression", [False, True])
def test_integer_weights_are_repeated_rows(iris, diabetes, regression):
    make, (X, y) = (small_regressor, diabetes) if regression else (small, iris)
    sample_weight = np.random.default_rng(0).integers(0, 4, len(y))
    params = {"batch_size": -1, "max_epochs": 50, "lambda1": 1e-3, "lambda2": 1e-3}
    weighted = make(**params, **SGD).fit(X, y, sample_weight=sample_weight)
    rows = np.repeat(np.arange(len(y)), sample_weight)
    repeated = make(**params, **SGD).fit(X[rows], y[rows])
    assert_close_weights(weighted, repeated, atol=1e-8)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-8)


def test_only_the_ratios_of_weights_count(iris):
    """Ten times the weights, and the penalty weighs what it did."""
    X, y = iris
    sample_weight = np.random.default_rng(0).uniform(size=len(y))
    one = small(lambda2=0.01, batch_size=16).fit(X, y, sample_weight)
    ten = small(lambda2=0.01, batch_size=16).fit(X, y, 10 * sample_weight)
    assert_close_weights(one, ten, atol=1e-10)
    np.testing.assert_allclose(
        one.history[:, "train_penalty"], ten.history[:, "train_penalty"], rtol=1e-10
    )


def test_weighted_loss_is_the_weighted_mean(iris):
    X, y = iris
    sample_weight = np.random.default_rng(0).uniform(size=len(y))
    net = small(batch_size=-1, max_epochs=1, lr=0.0).fit(X, y, sample_weight)
    losses = -np.log(net.predict_proba(X)[np.arange(len(y)), y])
    expected = np.average(losses, weights=sample_weight)
    assert net.history[0, "train_loss"] == pytest.approx(expected, rel=1e-10)


def test_weights_through_a_dataloader_are_the_same_weights(iris):
    X, y = iris
    sample_weight = np.arange(len(y)) % 3 + 1
    in_memory = small(shuffle=False, batch_size=32).fit(X, y, sample_weight)
    loader = small(
        shuffle=False, batch_size=32, iterator_train=torch.utils.data.DataLoader
    ).fit(X, y, sample_weight)
    assert_close_weights(in_memory, loader, atol=1e-12)
    pairs = [(x, label) for x, label in zip(X.astype(np.float32), y, strict=True)]
    dataset = small(shuffle=False, batch_size=32).fit(
        pairs_dataset(pairs), None, sample_weight
    )
    assert_close_weights(
        dataset,
        small(shuffle=False, batch_size=32, dtype="float32").fit(X, y, sample_weight),
        1e-6,
    )


def test_weights_survive_the_validation_split(iris):
    X, y = iris
    zero_or_one = (np.arange(len(y)) % 2).astype(float)
    split = {"early_stopping": True, "patience": 100}
    weighted = small(**split).fit(X, y, zero_or_one)
    dropped = small(**split).fit(X[1::2], y[1::2])
    assert equal_weights(weighted, dropped)


@pytest.mark.parametrize("kind", [np.asarray, list, pd.Series, torch.from_numpy])
def test_a_split_sees_all_samples_and_groups_before_those_of_no_weight_go(iris, kind):
    X, y = iris
    zero_or_one, groups = (np.arange(150) % 4 > 0).astype(float), np.arange(150) % 3
    net = small(train_split=ValidSplit(GroupKFold(3)))
    weighted = net.fit(X, y, zero_or_one, groups=kind(groups))
    parts = next(GroupKFold(3).split(X, y, groups))
    train, valid = (part[zero_or_one[part] > 0] for part in parts)
    dropped = small().fit(X[train], y[train], X_val=X[valid], y_val=y[valid])
    assert equal_weights(weighted, dropped)
    assert weighted.history[:, "valid_loss"] == dropped.history[:, "valid_loss"]


def test_other_fit_params_reach_the_split_as_they_are(iris):
    X, y = iris
    seen = {}

    def split(dataset, y=None, *, months, name, table):
        seen.update(months=months, name=name, table=table)
        return Subset(dataset, range(50)), None

    class Named(MLP):
        def forward(self, x, months=None, name=None, table=None):
            return super().forward(x)

    net = small(module=Named, train_split=split)
    weight = np.arange(150) % 2
    table, name = {"a": 1}, "n" * 150
    net.fit(X, y, weight, months=list(range(150)), name=name, table=table)
    assert seen["months"] == list(range(150))
    assert seen["name"] is name
    assert seen["table"] is table


def test_groups_are_held_out_as_a_whole_by_early_stopping(iris):
    X, y = iris
    groups, held_out = np.arange(150) // 10, []

    class Spy(RegularizedNetClassifier):
        def get_split_datasets(self, X, y=None, **fit_params):
            train, valid = super().get_split_datasets(X, y, **fit_params)
            held_out.extend([train.X, valid.X])
            return train, valid

    Spy(early_stopping=True, max_epochs=1, random_state=0).fit(X, y, groups=groups)
    rows = [{tuple(row) for row in part} for part in held_out]
    sides = [{g for x, g in zip(X, groups, strict=True) if tuple(x) in r} for r in rows]
    assert len(held_out[1]) == 20  # two of fifteen groups
    assert len(sides[1] - sides[0]) == 2
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        small().fit(X, y, groups=groups[:-1])


def test_a_class_of_weight_zero_is_a_class(iris):
    """As for LogisticRegression: y tells the classes, whatever the weights."""
    X, y = iris
    labels, no_cats = np.array(["ape", "bee", "cat"])[y], (y < 2).astype(float)
    net = small(max_epochs=40, lr=0.02).fit(X, labels, no_cats)
    peer = LogisticRegression().fit(X, labels, no_cats)
    assert list(net.classes_) == list(peer.classes_) == ["ape", "bee", "cat"]
    assert net.predict_proba(X).shape == (150, 3)
    assert net.score(X[:100], labels[:100]) == 1
    told = small(max_epochs=40, lr=0.02, classes=["ape", "bee", "cat"])
    assert equal_weights(net, told.fit(X[:100], labels[:100]))
    apes = small(max_epochs=40, lr=0.02).fit(X, labels, (y == 0).astype(float))
    assert apes.predict_proba(X).shape == (150, 3)
    assert (apes.predict(X[:50]) == "ape").all()


def test_class_weight_is_a_weight_of_samples(iris):
    X, y = iris[0][:120], iris[1][:120]  # 50, 50 and 20 of the classes
    named = np.array(["a", "b", "c"])[y]
    balanced = small(class_weight="balanced").fit(X, named)
    by_hand = small().fit(X, named, np.array([1 / 50, 1 / 50, 1 / 20])[y])
    assert_close_weights(balanced, by_hand, atol=1e-10)
    chosen = small(class_weight={"a": 1, "b": 2, "c": 3}).fit(X, named)
    assert_close_weights(chosen, small().fit(X, named, y + 1), atol=1e-10)
    both = small(class_weight={"a": 1, "b": 2, "c": 3}).fit(X, named, y + 1)
    assert_close_weights(both, small().fit(X, named, (y + 1) ** 2), atol=1e-10)


@pytest.mark.parametrize(
    ("sample_weight", "message"),
    [
        ([1.0, 2.0], r"sample_weight.shape=\(2,\) must be \(150,\)"),
        (np.zeros(150), "sample_weight is zero for all samples"),
        (np.full(150, -1.0), "sample_weight holds -1.0; negative"),
        (np.full(150, np.nan), "Input sample_weight contains NaN"),
    ],
)
def test_bad_sample_weight(iris, sample_weight, message):
    with pytest.raises(ValueError, match=message):
        small().fit(*iris, sample_weight)


def test_bad_class_weight(iris):
    with pytest.raises(
        ValueError, match="class_weight='auto' must be None, 'balanced'"
    ):
        small(class_weight="auto").fit(*iris)
    with pytest.raises(
        ValueError, match=r"classes, \[0, 1, 2\], are not in class_weight"
    ):
        small(class_weight={9: 1}).fit(*iris)


def test_criterion_without_reduction_cannot_be_weighted(iris):
    class Loss(nn.Module):
        def forward(self, outputs, y):
            return nn.functional.cross_entropy(outputs, y)

    small(criterion=Loss).fit(*iris)
    with pytest.raises(ValueError, match="criterion=Loss has no reduction='mean'"):
        small(criterion=Loss).fit(*iris, np.arange(150.0) + 1)


@pytest.mark.parametrize(
    "params", [{"weight": torch.ones(3)}, {"ignore_index": 1}, {"reduction": "sum"}]
)
def test_criterion_that_weighs_by_itself_cannot_be_weighted(iris, params):
    params = {f"criterion__{name}": value for name, value in params.items()}
    with pytest.raises(ValueError, match="criterion=CrossEntropyLoss has"):
        small(**params).fit(*iris, np.arange(150.0) + 1)


def test_weights_of_held_out_samples_do_not_weigh(iris):
    """Heavy validation samples must not make the training loss light."""
    X, y = iris
    order = np.random.default_rng(0).permutation(len(y))
    X, y, heavy = X[order], y[order], np.repeat([1.0, 5.0], 75)

    def first_half(dataset, y=None):
        return Subset(dataset, range(75)), Subset(dataset, range(75, 150))

    params = {"lambda2": 0.01, "batch_size": -1}
    split = small(train_split=first_half, **params).fit(X, y, heavy)
    assert_close_weights(split, small(**params).fit(X[:75], y[:75]), atol=1e-10)


@pytest.mark.parametrize("weight", [-1, 0, np.nan, np.inf])
def test_class_weights_are_checked(iris, weight):
    with pytest.raises(
        ValueError, match=r"class_weight=.* must hold finite weights >= 0"
    ):
        small(class_weight=dict.fromkeys(range(3), weight)).fit(*iris)


def test_huge_weights(iris):
    X, y = iris
    heavy = 1e307 * (np.arange(150) % 3 + 1)
    assert_close_weights(
        small().fit(X, y, heavy), small().fit(X, y, heavy / 1e307), atol=1e-10
    )


@pytest.mark.parametrize("size", [1e306, 1e-306])
def test_weights_of_any_size_in_a_regression(diabetes, size):
    X, y = diabetes
    weight = np.arange(len(y)) % 3 + 1.0
    scaled = small_regressor().fit(X, y, weight * size)
    peer = small_regressor().fit(X, y, weight)
    np.testing.assert_allclose(scaled.target_scale_, peer.target_scale_, rtol=1e-12)
    np.testing.assert_allclose(scaled.predict(X), peer.predict(X), rtol=1e-8)


def test_one_weight_for_all():
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    net = RegularizedNetClassifier(max_epochs=2, random_state=0)
    expected = net.fit(X, y).predict_proba(X)
    assert np.array_equal(net.fit(X, y, 3.0).predict_proba(X), expected)
