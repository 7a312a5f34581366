"""Batches: whose memory they are, what Datasets hold, how many there are."""

import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from skorch.callbacks import Callback
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.training.batches import is_mapped


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 7)).astype("f4"), rng.integers(0, 3, 60)


class AddsNoise(Callback):
    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training:
            batch[0].add_(1.0)
            batch[1].fill_(0)


class Halves(RegularizedNetClassifier):
    def train_step_single(self, batch, **fit_params):
        batch[0].mul_(0.5)
        return super().train_step_single(batch, **fit_params)


class Subtracts(RegularizedNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(x.sub_(1), **fit_params)


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        return self.fc(x.sub_(1))


WRITERS = {
    "callback": (RegularizedNetClassifier, {"callbacks": [AddsNoise()]}),
    "train_step_single": (Halves, {}),
    "infer": (Subtracts, {}),
    "forward": (RegularizedNetClassifier, {"module": Shifted}),
    "augment": (RegularizedNetClassifier, {"augment": lambda x: x.add_(1)}),
}


@pytest.mark.parametrize("kind", ["array", "read-only array", "r+", "r", "c"])
@pytest.mark.parametrize("batching", [{"batch_size": -1}, {"shuffle": False}, {}])
@pytest.mark.parametrize("writer", WRITERS)
def test_nobody_writes_into_the_data(data, writer, batching, kind, tmp_path):
    X, y = data
    targets = y.copy()
    if "array" in kind:
        given = X.copy()
        given.flags.writeable = kind == "array"
    else:
        np.save(tmp_path / "X.npy", X)
        given = np.load(tmp_path / "X.npy", mmap_mode=kind)
        assert is_mapped(given)
    make, params = WRITERS[writer]
    params = {"batch_size": 16, "max_epochs": 2, "random_state": 0} | params | batching
    net = make(**params).fit(given, targets)
    for _ in range(2):
        proba = net.predict_proba(given)
    np.testing.assert_array_equal(given, X)
    np.testing.assert_array_equal(targets, y)
    np.testing.assert_array_equal(proba, net.predict_proba(X.copy()))


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", "longdouble", "f2", "u1"])
def test_files_of_any_number_format_train_as_arrays_do(data, dtype, tmp_path):
    X, y = data
    X = np.round(10 * abs(X)).astype(dtype)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    net = RegularizedNetClassifier(max_epochs=2, random_state=0)
    a, b = (
        [w.detach().clone() for w in net.fit(x, y).module_.parameters()]
        for x in (mapped, X)
    )
    for mine, wanted in zip(a, b, strict=True):
        torch.testing.assert_close(mine, wanted)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, X, y):
        self.X, self.labels = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.labels[i]


@pytest.mark.parametrize("callbacks", [None, [SeesBatches()]])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "i8", "f4", "f8"])
def test_datasets_may_hold_labels_of_any_dtype(data, dtype, callbacks):
    X, y = data
    net = RegularizedNetClassifier(
        max_epochs=2, random_state=0, shuffle=False, callbacks=callbacks
    )
    expected = net.fit(X, y).predict_proba(X)
    proba = net.fit(Pairs(X, y.astype(dtype)), None).predict_proba(X)
    np.testing.assert_allclose(proba, expected, rtol=1e-5)


def test_datasets_may_hold_targets_of_another_precision(data):
    X, _ = data
    Y = X[:, :2].astype("f8")
    net = RegularizedNetRegressor(max_epochs=2, scale_target=False, random_state=0)
    assert net.fit(Pairs(X, Y), None).predict(X).shape == (60, 2)


def test_a_fit_without_a_batch_is_refused(data):
    net = RegularizedNetClassifier(batch_size=100, iterator_train__drop_last=True)
    with pytest.raises(ValueError, match=r"batch_size=100 .* no batch of 60 samples"):
        net.fit(*data)


def test_predictions_for_an_empty_dataset_are_refused(data):
    net = RegularizedNetClassifier(max_epochs=1).fit(*data)
    with pytest.raises(ValueError, match=r"X=Pairs holds 0 samples"):
        net.predict(Pairs(data[0][:0], data[1][:0]))
