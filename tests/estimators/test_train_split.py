"""What `train_split` is given, and what becomes of the parts that it returns."""

import numpy as np
import pytest
import torch
from fit_spies import NAMES, Looks, Pairs, classifier, regressor
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV
from skorch.dataset import ValidSplit
from torch.utils.data import TensorDataset


class Spied:
    """A split that keeps what it was given and what it has made."""

    def __init__(self, split):
        self.split = split

    def __call__(self, dataset, y=None, **kwargs):
        self.given = dataset, y
        self.parts = self.split(dataset, y, **kwargs)
        return self.parts


@pytest.mark.parametrize("stratified", [False, True])
def test_a_split_is_given_labels_and_takes_the_rows_it_took(flowers, stratified):
    X, y = flowers
    for cv, state in ((5, None), (0.2, 3)):
        split = Spied(ValidSplit(cv, stratified=stratified, random_state=state))
        looks = Looks(X, y)
        net = classifier(train_split=split, callbacks=[looks]).fit(X, y)
        assert np.array_equal(split.given[0].y, y)
        assert np.array_equal(split.given[1], y)
        codes = np.searchsorted(NAMES, y)
        for part, right in zip(split.parts, split.split(X, codes), strict=True):
            assert np.array_equal(part.indices, right.indices)
        for part, told in zip(split.parts, looks.told_["datasets"], strict=True):
            assert np.array_equal(told.y, y[part.indices])
        rows = split.parts[1].indices
        assert net.history[-1, "valid_acc"] == pytest.approx(
            net.score(X[rows], y[rows])
        )


def by_name(dataset, y, **kwargs):
    """Hold out some of those called c1, and of others every third."""
    held_out = (y == "c1") & (np.arange(len(y)) % 2 == 0) | (np.arange(len(y)) % 3 == 0)
    parts = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    return tuple(torch.utils.data.Subset(dataset, rows) for rows in parts)


def of_its_own(dataset, y, **kwargs):
    """Make datasets of what `by_name` picks."""
    return tuple(
        Pairs(*map(np.array, zip(*part, strict=True))) for part in by_name(dataset, y)
    )


@pytest.mark.parametrize(
    "make_data", [lambda X, y: (X, y), lambda X, y: (Pairs(X, y),)]
)
@pytest.mark.parametrize("split", [by_name, of_its_own])
def test_a_split_may_name_labels(flowers, make_data, split):
    X, y = flowers
    looks = Looks(X, y)
    net = classifier(train_split=split, callbacks=[looks]).fit(*make_data(X, y))
    rows = by_name(X, y)[1].indices
    shown = [label for _, label in looks.told_["datasets"][1]]
    assert shown == list(y[rows])
    assert net.history[-1, "valid_acc"] == pytest.approx(net.score(X[rows], y[rows]))
    same = classifier(train_split=by_name).fit(X, y)
    if split is by_name:
        assert np.allclose(net.predict_proba(X), same.predict_proba(X), rtol=1e-5)


def test_a_split_of_numbers_sees_the_unit_of_y(numbers):
    X, y = numbers
    given = []

    def above_500(dataset, y=None, **kwargs):
        given.append(y)
        large, small = np.flatnonzero(y > 500), np.flatnonzero(y <= 500)
        subset = torch.utils.data.Subset
        return subset(dataset, small), subset(dataset, large)

    net = regressor(train_split=above_500).fit(X, y)
    assert np.array_equal(given[0], y)
    large = y > 500
    error = np.mean(np.square((net.predict(X) - y)[large] / net.target_scale_))
    assert net.history[-1, "valid_loss"] == pytest.approx(error, rel=1e-4)


def test_a_subset_of_other_data_is_encoded(flowers):
    X, y = flowers
    others = Pairs(X[100:], y[100:])
    held_out = torch.utils.data.Subset(others, range(0, 50, 2))

    def split(dataset, y=None, **kwargs):
        return dataset, held_out

    net = classifier(train_split=split).fit(X[:100], y[:100])
    accuracy = net.score(X[100::2], y[100::2])
    assert net.history[-1, "valid_acc"] == pytest.approx(accuracy)


def test_weights_follow_a_split_or_are_refused(flowers):
    X, y = flowers
    weight = np.linspace(0.1, 2, len(y))
    of_arrays = classifier(train_split=by_name).fit(X, y, weight)
    of_pairs = classifier(train_split=by_name).fit(Pairs(X, y), sample_weight=weight)
    probabilities = of_arrays.predict_proba(X)
    assert np.allclose(of_pairs.predict_proba(X), probabilities, rtol=1e-4)
    rows = by_name(X, y)[0].indices
    right = classifier().fit(X[rows], y[rows], weight[rows]).predict_proba(X)
    assert np.allclose(probabilities, right, rtol=1e-4)
    with pytest.raises(
        ValueError, match=r"train_split=.* returned training data of its"
    ):
        classifier(train_split=of_its_own).fit(X, y, weight)


def test_splits_by_label_train_in_stacks_as_they_do_alone(flowers):
    X, y = flowers
    data = X.astype(np.float64), y

    def search():
        net = classifier(train_split=by_name, early_stopping=True, max_epochs=8)
        grid = {"lambda2": [0.0, 0.01, 0.1]}
        return GridSearchCV(net, grid, cv=2, error_score="raise").fit(*data)

    plain = search()
    with parallel_config("skreg"):
        stacked = search()
    a, b = (s.best_estimator_.history[:, "valid_loss"] for s in (plain, stacked))
    assert a == pytest.approx(b, rel=1e-8)


def test_tensors_of_a_tensor_dataset_are_shown_as_arrays_are(flowers):
    X, y = flowers
    codes = np.searchsorted(NAMES, y) + 5
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(codes))
    looks = Looks(X, codes)
    classifier(callbacks=[looks], train_split=ValidSplit(3)).fit(data)
    rows = ValidSplit(3)(X, codes)[1].indices
    assert np.array_equal(looks.told_["datasets"][1].y, codes[rows])
