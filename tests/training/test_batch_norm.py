"""Batch normalisation and the last batch: one sample alone joins the batch before."""

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.model_selection import GridSearchCV, KFold
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.estimators._batch_norm import MergingBatchSampler


class Rows(nn.Module):
    def __init__(self, in_features=4, out_features=2, dropout=0.0):
        super().__init__()
        self.fc1 = nn.Linear(in_features, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(6, out_features)

    def forward(self, x):
        return self.fc2(self.drop(torch.relu(self.norm(input=self.fc1(x)))))


class Images(nn.Module):
    """Normalises images of `size` x `size` pixels; with 1, vectors in disguise."""

    def __init__(self, out_features=2, size=2):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(size)
        self.norm = nn.BatchNorm2d(1)
        self.fc = nn.Linear(size * size, out_features)

    def forward(self, x):
        return self.fc(self.norm(self.pool(x)).flatten(1))


class Cut:
    """An iterator of batches that end where they are told to."""

    def __init__(self, dataset, batch_size, ends):
        self.dataset, self.ends = dataset, ends

    def __iter__(self):
        X, y = self.dataset.X, self.dataset.y
        for start, end in zip([0, *self.ends], self.ends, strict=False):
            yield torch.as_tensor(X[start:end]), torch.as_tensor(y[start:end])


def made(n, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4)).astype(dtype)
    return X, (X[:, 0] + 0.3 * rng.normal(size=n) > 0).astype(int)


def net(make=RegularizedNetClassifier, **params):
    params = {"module": Rows, "max_epochs": 3, "batch_size": 16, "lr": 0.01} | params
    return make(random_state=0, **params)


def sizes(fitted):
    return [batch["train_batch_size"] for batch in fitted.history[-1, "batches"]]


def assert_same(mine, theirs):
    others = theirs.module_.state_dict()
    for name, tensor in mine.module_.state_dict().items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-8, atol=1e-10)


def test_a_lone_last_sample_joins_the_batch_before():
    X, y = made(33)
    fitted = net(shuffle=False).fit(X, y)
    assert sizes(fitted) == [16, 17]
    cut = net(iterator_train=Cut, iterator_train__ends=[16, 33]).fit(X, y)
    assert_same(fitted, cut)
    assert sizes(net().fit(X[:17], y[:17])) == [17]
    assert sizes(net(make=RegularizedNetRegressor).fit(X, X[:, 1])) == [16, 17]
    assert sizes(net().partial_fit(X, y)) == [16, 17]
    # Two samples suffice, and whoever leaves the last batch out, leaves it out.
    assert sizes(net().fit(X[:18], y[:18])) == [16, 2]
    assert sizes(net(iterator_train__drop_last=True).fit(X, y)) == [16, 16]


LOADED = {
    "loader": {"iterator_train": DataLoader},
    "loader of sparse": {"iterator_train": DataLoader},
    "dataset": {},
    "workers": {"iterator_train__num_workers": 1},
}


@pytest.mark.parametrize("shuffle", [True, False])
def test_data_of_any_kind_have_the_same_batches(shuffle, tmp_path):
    X, y = made(33, np.float32)
    mapped = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", X.dtype, X.shape)
    mapped[:] = X
    first = [net(shuffle=shuffle, **by).fit(X, y) for by in ({}, LOADED["loader"])]

    class Pairs(torch.utils.data.Dataset):
        targets = y

        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i], y[i]

    ways = {
        "sparse": (X_sparse := sp.csr_matrix(X), y, {}),
        "file": (mapped, y, {}),
        "tensors": (TensorDataset(*map(torch.as_tensor, (X, y))), None, {}),
        "loader": (X, y, LOADED["loader"]),
        "loader of sparse": (X_sparse, y, LOADED["loader"]),
        "dict": ({"x": X}, y, {}),
        "dataset": (Pairs(), None, LOADED["dataset"]),
        "workers": (Pairs(), None, LOADED["workers"]),
    }
    of_dict = type(
        "OfDict", (Rows,), {"forward": lambda self, x: Rows.forward(self, x)}
    )
    for name, (data, targets, params) in ways.items():
        module = {"module": of_dict(4, 2)} if name == "dict" else {}
        fitted = net(shuffle=shuffle, **params, **module).fit(data, targets)
        assert sizes(fitted) == [16, 17], name
        if name != "dict":
            np.testing.assert_array_equal(
                fitted.history[:, "train_loss"],
                # A DataLoader draws orders in its own way.
                first[shuffle and name in LOADED].history[:, "train_loss"],
            )


def test_weights_of_samples_go_with_them():
    X, y = made(33)
    weight = np.linspace(0.1, 1, 33)
    plain = net(shuffle=False).fit(X, y, sample_weight=weight)
    loaded = net(shuffle=False, iterator_train=DataLoader)
    loaded.fit(X, y, sample_weight=weight)
    assert sizes(plain) == sizes(loaded) == [16, 17]
    assert_same(plain, loaded)


def test_a_sampler_of_the_user():
    X, y = made(33)
    sampler = SequentialSampler(range(17))
    fitted = net(shuffle=False, iterator_train__sampler=sampler).fit(X, y)
    assert sizes(fitted) == [17]


def test_what_torch_trains_on_one_sample_stays_as_it_is():
    X, y = made(33)
    images = X.reshape(-1, 1, 2, 2)
    assert sizes(net(module=Images).fit(images, y)) == [16, 16, 1]
    assert sizes(net(module=Images, module__size=1).fit(images, y)) == [16, 17]
    assert sizes(net(module=nn.Sequential(nn.Linear(4, 2))).fit(X, y)) == [16, 16, 1]

    class Frozen(Rows):
        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

    assert sizes(net(module=Frozen).fit(X, y)) == [16, 16, 1]


def test_looking_at_the_module_does_not_change_the_training():
    X, y = made(33)
    noisy = net(module__dropout=0.5, shuffle=False).fit(X, y)
    ends = {"iterator_train": Cut, "iterator_train__ends": [16, 33]}
    assert_same(noisy, net(module__dropout=0.5, **ends).fit(X, y))
    assert int(noisy.module_.norm.num_batches_tracked) == 2 * 3


def test_batches_of_one_sample_are_an_error():
    X, y = made(33)
    with pytest.raises(ValueError, match=r"batch_size=1 makes .*normalisation"):
        net(batch_size=1).fit(X, y)
    with pytest.raises(ValueError, match=r"batch_size=16 makes .*at least 2 samples"):
        net().partial_fit(X[:1], y[:1], classes=[0, 1])
    assert (
        sizes(net(module=Images, batch_size=1).fit(X.reshape(-1, 1, 2, 2), y))[0] == 1
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_a_search_in_stacks(stacks, sparse):
    X, y = made(65)
    X = sp.csr_matrix(X) if sparse else X
    grid = {"lambda2": [0, 0.01, 0.1], "module__dropout": [0.0, 0.3]}

    def search():
        return GridSearchCV(net(), grid, cv=KFold(2), error_score="raise").fit(X, y)

    plain = search()
    with joblib.parallel_config("skreg"):
        stacked = search()
    # One fold has 33 training samples, the other 32.
    assert sorted(stacks) == [6, 6]
    for key in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(plain.cv_results_[key], stacked.cv_results_[key])
    assert_same(plain.best_estimator_, stacked.best_estimator_)


def test_stacks_of_fits_that_merge(stacks):
    X, y = made(33)

    def fit(lambda2):
        return net(lambda2=lambda2).fit(X, y)

    with joblib.parallel_config("skreg"):
        mine = joblib.Parallel()(joblib.delayed(fit)(x) for x in (0, 0.1, 0.2))
    assert stacks == [3]
    for fitted, lambda2 in zip(mine, (0, 0.1, 0.2), strict=True):
        assert sizes(fitted) == [16, 17]
        assert_same(fitted, fit(lambda2))


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8, 9])
@pytest.mark.parametrize("size", [2, 4])
def test_the_sampler_merges_nothing_else(n, size):
    sampler = MergingBatchSampler(range(n), size)
    batches = list(sampler)
    assert [i for batch in batches for i in batch] == list(range(n))
    assert len(batches) == len(sampler)
    lengths = [len(batch) for batch in batches]
    full, rest = divmod(n, size)
    expected = [size] * full + [rest] * (rest > 0)
    if rest == 1 and full:
        expected = [*expected[:-2], size + 1]
    assert lengths == expected
