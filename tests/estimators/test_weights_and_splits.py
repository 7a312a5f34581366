"""Samples of weight zero keep their places until the user's split has seen them."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import PredefinedSplit
from skorch.dataset import ValidSplit
from torch.utils.data import SequentialSampler, Subset, TensorDataset

from skreg import RegularizedNetClassifier

X, Y = make_classification(300, 10, random_state=0)
X = X.astype(np.float32)
WEIGHT = np.ones(300)
WEIGHT[:50] = 0
PARAMS = {"hidden_layer_sizes": 8, "max_epochs": 2, "random_state": 0}


def split_by_place(dataset, y=None, **kwargs):
    assert len(dataset) == 300
    return Subset(dataset, range(150)), Subset(dataset, range(150, 300))


FOLD = np.r_[np.full(150, -1), np.zeros(100), np.full(50, -1)]


def weights_of(net):
    return [w.detach() for w in net.module_.parameters()]


@pytest.mark.parametrize("container", ["arrays", "dataset"])
def test_a_split_by_place_gets_all_samples(container):
    net = RegularizedNetClassifier(**PARAMS, train_split=split_by_place)
    data = (X, Y)
    if container == "dataset":
        data = (TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), None)
    net.fit(*data, sample_weight=WEIGHT)
    expected = RegularizedNetClassifier(**PARAMS)
    expected.fit(X[50:150], Y[50:150], X_val=X[150:], y_val=Y[150:])
    assert net.history[-1, "valid_loss"] > 0
    if container == "arrays":
        for w, v in zip(weights_of(net), weights_of(expected), strict=True):
            torch.testing.assert_close(w, v)
        assert net.history[:, "valid_loss"] == pytest.approx(
            expected.history[:, "valid_loss"]
        )


def test_a_predefined_split_gets_all_samples():
    net = RegularizedNetClassifier(
        **PARAMS, train_split=ValidSplit(PredefinedSplit(FOLD))
    )
    net.fit(X, Y, sample_weight=WEIGHT)
    assert sum(net.history[-1, "batches", :, "train_batch_size"][:3]) == 150
    counts = [row.get("valid_batch_size", 0) for row in net.history[-1, "batches"]]
    assert sum(counts) == 100


def test_a_sampler_knows_the_places():
    sampler = SequentialSampler(range(300))
    net = RegularizedNetClassifier(
        **PARAMS, shuffle=False, iterator_train__sampler=sampler
    )
    net.fit(X, Y, sample_weight=WEIGHT)
    sizes = net.history[-1, "batches", :, "train_batch_size"]
    assert sum(sizes) == 300


def test_a_split_that_leaves_no_weight_is_an_error():
    def split(dataset, y=None, **kwargs):
        return Subset(dataset, range(50)), Subset(dataset, range(50, 300))

    net = RegularizedNetClassifier(**PARAMS, train_split=split)
    with pytest.raises(ValueError, match="only samples of weight zero"):
        net.fit(X, Y, sample_weight=WEIGHT)
