"""Data sets that parameters hold: clones share them, and they count as memory."""

import tracemalloc
from functools import partial

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from skorch.dataset import Dataset as SkorchDataset
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import RandomSampler, TensorDataset

import skreg.batching._backend
from skreg import RegularizedNetClassifier
from skreg.batching.stacking import engine as _engine

N_FEATURES = 2000


def small(**params):
    return RegularizedNetClassifier(
        **{"max_epochs": 1, "random_state": 0, "hidden_layer_sizes": 2, **params}
    )


def data(n=60, n_features=N_FEATURES):
    X = np.random.default_rng(0).normal(size=(n, n_features)).astype("f4")
    return X, np.arange(n) % 2


def validation(n=600):
    X, y = data(n)
    return TensorDataset(torch.from_numpy(X), torch.from_numpy(y))  # 4.6 MiB


def split_of(net):
    return net.train_split.keywords["valid_ds"]


def test_clones_share_the_data_of_a_predefined_split():
    net = small(train_split=predefined_split(validation()))
    assert split_of(clone(net)) is split_of(net)
    assert clone(net).train_split is not net.train_split
    assert split_of(clone(make_pipeline(StandardScaler(), net))[-1]) is split_of(net)
    best = GridSearchCV(net, {"lr": [0.1]}, cv=2).fit(*data()).best_estimator_
    assert split_of(best) is split_of(net)


class Watching(Callback):
    """Looks at a data set after each epoch, and keeps notes."""

    def __init__(self, dataset=None, notes=None):
        self.dataset, self.notes = dataset, notes

    def on_epoch_end(self, net, **kwargs):
        self.seen_ = len(self.dataset)


class Blending(nn.Module):
    """Adds a little of other images."""

    def __init__(self, images):
        super().__init__()
        self.images = images
        self.register_buffer("kept", images.clone())

    def forward(self, x):
        return x + 0 * self.images[: len(x)]


class Shuffling:
    def __init__(self, dataset):
        self.dataset = dataset

    def split(self, dataset, y=None):
        return dataset, self.dataset


def test_clones_share_what_other_parameters_hold():
    dataset = validation()
    images = dataset.tensors[0]
    callback = Watching(dataset)
    net = small(
        callbacks=[callback, ("named", Watching(dataset))],
        augment=Blending(images),
        iterator_train__sampler=RandomSampler(dataset),
        train_split=Shuffling(dataset).split,
        callbacks__named__dataset=dataset,
    )
    twin = clone(net)
    assert twin.callbacks[0].dataset is twin.callbacks[1][1].dataset is dataset
    assert twin.callbacks[0] is not callback
    assert twin.augment.images is images
    assert twin.augment.kept is net.augment.kept
    assert twin.augment is not net.augment
    assert twin.iterator_train__sampler.data_source is dataset
    assert twin.iterator_train__sampler is not net.iterator_train__sampler
    assert twin.train_split.__self__.dataset is dataset
    assert twin.callbacks__named__dataset is dataset
    assert net.callbacks[0] is callback  # and net is what it was


def test_clones_of_callbacks_are_as_new():
    dataset = validation()
    net = small(callbacks=[Watching(dataset)]).fit(*data())
    assert net.callbacks[0].seen_ == 600
    assert not hasattr(clone(net).callbacks[0], "seen_")


def test_clones_share_nothing_that_callbacks_may_write_into():
    notes = np.zeros((1000, 1000))
    net = small(callbacks=[Watching([0], notes)])
    assert clone(net).callbacks[0].notes is not notes
    net.set_params(callbacks=[Watching(validation(), notes)])
    assert clone(net).callbacks[0].notes is not notes
    small_array = np.zeros(3)
    net = small(train_split=partial(max, small_array, predefined_split(validation())))
    assert clone(net).train_split.args[0] is not small_array


def peak_of(function):
    tracemalloc.start()
    function()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


@pytest.mark.parametrize("backend", ["threading", "skreg"])
def test_a_search_holds_one_validation_set(backend):
    X, y = data(120)
    dataset = SkorchDataset(*data(4000))  # 30.5 MiB
    net = small(train_split=predefined_split(dataset))
    grid = {"lambda1": np.geomspace(1e-6, 1, 5)}

    def search():
        with joblib.parallel_config(backend):
            GridSearchCV(net, grid, cv=3, refit=False, error_score="raise").fit(X, y)

    assert peak_of(search) < 80  # 15 folds of 0.6 MiB, and one or two such sets


@pytest.fixture
def batches(monkeypatch):
    """Return the numbers of fits that have been trained together."""
    sizes = []

    def noted(jobs, **kwargs):
        sizes.append(len(jobs))
        _engine.train_together(jobs, **kwargs)

    monkeypatch.setattr(skreg.batching._backend, "train_together", noted)
    return sizes


def searched(net, X, y, budget, monkeypatch, **fit_params):
    monkeypatch.setattr(skreg.batching._backend, "memory", lambda: 8 * budget)
    with joblib.parallel_config("skreg"):
        cross_val_score(net, X, y, cv=6, params=fit_params, error_score="raise")


def test_all_data_of_a_fit_count(batches, monkeypatch):
    X, y = data(120, 50)
    X_val, y_val = data(600, 50)
    fold = 100 * (50 * 4 + 8)
    searched(small(), X, y, 2.5 * fold, monkeypatch)
    assert batches == [3, 3]
    del batches[:]
    # Each fit encodes the targets of its own; X_val is in memory once.
    searched(
        small(),
        *(X, y, 2.5 * (fold + 600 * 8) + X_val.nbytes, monkeypatch),
        X_val=X_val,
        y_val=y_val,
    )
    assert batches == [3, 3]
    del batches[:]
    searched(
        small(),
        *(X, y, 2.5 * (fold + 100 * 8), monkeypatch),
        sample_weight=np.linspace(1, 2, 120),
    )
    assert batches == [3, 3]


def test_data_that_parameters_hold_count_once(batches, monkeypatch):
    X, y = data(120, 50)
    dataset = SkorchDataset(*data(600, 50))
    net = small(train_split=predefined_split(dataset))
    shared = dataset.X.nbytes + dataset.y.nbytes
    searched(net, X, y, 2.5 * 100 * (50 * 4 + 8) + shared, monkeypatch)
    assert batches == [3, 3]


def test_sparse_data_count_as_they_are(batches, monkeypatch):
    X, y = data(120, 50)
    X = sp.csr_array(X)
    fold = 100 * (50 * 8 + 4 + 8) + 4  # numbers, columns, ends of rows, y
    searched(small(), X, y, 2.5 * fold, monkeypatch)
    assert batches == [3, 3]


def test_files_are_not_in_memory(batches, monkeypatch, tmp_path):
    from skreg.batching._memory import buffers_of

    X, y = data(120, 50)
    np.save(tmp_path / "X.npy", X)

    class Fit:
        net, fit_params, sample_weight, validation = small(), {}, None, None

    class Job:
        fit, net = Fit, Fit.net

    Job.X, Job.y = np.load(tmp_path / "X.npy", mmap_mode="r"), y
    assert sum(buffers_of(Job).values()) == y.nbytes
    Job.X = X[::2]  # a view keeps all of it
    assert sum(buffers_of(Job).values()) == X.nbytes + y.nbytes
