"""Integers as X: exact where a module wants them, and a warning where they are not."""

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from fit_spies import Pairs
from sklearn.model_selection import GridSearchCV
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import TensorDataset

from skreg import RegularizedNetClassifier
from skreg.robustness import robust_accuracy

BIG = 2**24


class ByParity(nn.Module):
    """Looks up what to answer for odd and for even numbers."""

    def __init__(self, out_features):
        super().__init__()
        self.table = nn.Embedding(2, out_features)

    def forward(self, x):
        return self.table(x % 2).sum(dim=1)


def embedding(n_features=3, n_words=20):
    return nn.Sequential(
        nn.Embedding(n_words, 4), nn.Flatten(), nn.Linear(4 * n_features, 2)
    )


def small(**params):
    return RegularizedNetClassifier(
        **{
            **{"max_epochs": 3, "batch_size": 16, "random_state": 0},
            **{"shuffle": False},
            **params,
        }
    )


def words():
    X = np.random.default_rng(0).integers(0, 20, (60, 3))
    return X, X[:, 0] % 2


def identifiers():
    X = BIG + np.arange(80)[:, None]
    return X, X[:, 0] % 2


def test_large_integers_are_exact_where_a_module_looks_them_up():
    X, y = identifiers()
    net = small(module=ByParity, max_epochs=60, lr=0.1).fit(X, y)
    assert net.score(X, y) == 1
    assert net.score(X.tolist(), y) == net.score(pd.DataFrame(X), y) == 1


@pytest.mark.parametrize("module", [None, nn.Sequential(nn.Linear(1, 2))])
@pytest.mark.parametrize(
    "container",
    [np.asarray, np.ndarray.tolist, pd.DataFrame, sp.csr_array, torch.as_tensor],
)
def test_large_integers_that_are_rounded_are_warned_of(module, container):
    X, y = identifiers()
    X_given = container(X)
    with pytest.warns(UserWarning, match="integers such as 16777217, which float32"):
        net = small(module=module).fit(X_given, y)
    with pytest.warns(UserWarning, match="rounds to multiples of 2"):
        net.predict(X_given)


def test_large_integers_in_a_file_are_warned_of(tmp_path):
    X, y = identifiers()
    np.save(tmp_path / "X.npy", X)
    file = np.load(tmp_path / "X.npy", mmap_mode="r")
    for module in (None, nn.Sequential(nn.Linear(1, 2))):
        with pytest.warns(UserWarning, match="16777217, which float32"):
            net = small(module=module).fit(file, y)
        with pytest.warns(UserWarning, match="16777217, which float32"):
            net.predict(file)
    assert (
        small(module=ByParity, max_epochs=60, lr=0.1).fit(file, y).score(file, y) == 1
    )


def test_what_is_exact_is_not_warned_of():
    X, y = identifiers()
    small(dtype="float64").fit(X, y).predict(X)
    small().fit(2 * (X - 2**23), y)
    small().fit(X - BIG, y)
    small().fit((X - BIG).astype("u1"), y)
    small().fit(np.array([[2**62], [2**61]] * 9), np.arange(18) % 2)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_beyond_float64_are_warned_of(dtype):
    X = (2**53 + np.arange(20)[:, None]).astype(dtype)
    with pytest.warns(UserWarning, match="such as 9007199254740993, which float64"):
        small(dtype="float64").fit(X, np.arange(20) % 2)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_numbers_beyond_the_dtype_are_refused(tmp_path):
    X = np.linspace(1e200, 1e300, 20)[:, None]
    np.save(tmp_path / "X.npy", X)
    for X_given in (X, X.tolist(), np.load(tmp_path / "X.npy", mmap_mode="r")):
        with pytest.raises(ValueError, match=r"too large for dtype\('float32'\)"):
            small(dtype="float32").fit(X_given, np.arange(20) % 2)


KINDS = {
    "int64": lambda X, y, _: (X, y),
    "int32": lambda X, y, _: (X.astype("i4"), y),
    "uint8": lambda X, y, _: (X.astype("u1"), y),
    "uint64": lambda X, y, _: (X.astype("u8"), y),
    "list": lambda X, y, _: (X.tolist(), y),
    "frame": lambda X, y, _: (pd.DataFrame(X, columns=list("abc")), y),
    "nullable": lambda X, y, _: (pd.DataFrame(X).convert_dtypes(), y),
    "tensor": lambda X, y, _: (torch.from_numpy(X), y),
    "object": lambda X, y, _: (X.astype(object), y),
    "sparse": lambda X, y, _: (sp.csr_array(X), y),
    "file": lambda X, y, file: (file, y),
    "tensors": lambda X, y, _: (
        TensorDataset(torch.from_numpy(X), torch.from_numpy(y)),
        None,
    ),
    "dataset": lambda X, y, _: (Pairs(X, y), None),
    "dataset of bytes": lambda X, y, _: (Pairs(X.astype("u1"), y), None),
    "slice": lambda X, y, _: (SliceDataset(Pairs(X, y)), y),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_reaches_the_embedding(kind, tmp_path):
    X, y = words()
    np.save(tmp_path / "X.npy", X)
    file = np.load(tmp_path / "X.npy", mmap_mode="r")
    X_given, y_given = KINDS[kind](X, y, file)
    module = embedding()
    expected, net = small(module=module), small(module=module)
    expected.fit(X, y, X_val=X, y_val=y)
    net.fit(X_given, y_given, X_val=X_given, y_val=y_given)
    np.testing.assert_array_equal(net.predict_proba(X_given), expected.predict_proba(X))
    assert net.history[:, "train_loss"] == expected.history[:, "train_loss"]
    assert net.history[:, "valid_loss"] == expected.history[:, "valid_loss"]


def test_stacks_look_up_integers(capsys):
    X, y = words()
    torch.manual_seed(0)
    net = small(module=embedding(), dtype="float64", early_stopping=True)
    found = {}
    for backend in ("threading", "skreg"):
        search = GridSearchCV(net, {"lr": [1e-3, 1e-2, 0.1, 0.2]}, cv=3)
        with joblib.parallel_config(backend, verbose=1):
            found[backend] = search.fit(X, y)
    told = capsys.readouterr().err
    assert "vmap" not in told
    assert "not arrays" not in told
    plain, stacked = found["threading"], found["skreg"]
    np.testing.assert_allclose(
        stacked.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )
    np.testing.assert_allclose(
        stacked.predict_proba(X), plain.predict_proba(X), atol=1e-8
    )


def test_integers_that_are_floats_by_the_way():
    X, y = words()
    net = small(module=embedding()).fit(X, y)
    np.testing.assert_array_equal(net.predict(X.astype(float)), net.predict(X))
    with pytest.raises(
        ValueError, match=r"X holds 17\.5, but the net was fitted on int"
    ):
        net.predict(X + 0.5)
    with pytest.raises(ValueError, match="too large for int64"):
        net.predict(X.astype("u8") + np.uint64(2**63))


def test_a_module_that_takes_floats_gets_them_in_spite_of_its_embedding():
    """Positions of pixels are looked up; pixels are not."""

    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = nn.Embedding(4, 1)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x + self.positions.weight.T)

    class Scaled(Patches):
        def forward(self, x):
            return self.head(x)

    X = np.random.default_rng(0).integers(0, 255, (40, 4), dtype=np.uint8)
    y = np.arange(40) % 2
    for module in (Patches, Scaled):
        expected = small(module=module).fit(X.astype("f4"), y).predict_proba(X)
        np.testing.assert_array_equal(
            small(module=module).fit(X, y).predict_proba(X), expected
        )
        net = small(module=module).fit(Pairs(X, y))
        np.testing.assert_array_equal(net.predict_proba(X), expected)


def test_a_module_that_indexes_without_an_embedding():
    class OneHot(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(60, 2)

        def forward(self, x):
            return self.head(
                nn.functional.one_hot(x, 20).flatten(1).to(self.head.weight)
            )

    X, y = words()
    net = small(module=OneHot).fit(X, y)
    twin = small(module=OneHot).fit(Pairs(X, y))
    np.testing.assert_array_equal(net.predict_proba(X), twin.predict_proba(X))


def test_lazy_modules_see_integers():
    X, y = words()
    module = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.LazyLinear(2))
    net = small(module=module).fit(X, y)
    assert net.module_[2].in_features == 12


def test_partial_fits_and_warm_starts_keep_integers():
    X, y = words()
    net = small(module=embedding(), warm_start=True)
    net.partial_fit(X, y).partial_fit(pd.DataFrame(X).to_numpy(), y).fit(X, y)
    assert len(net.history) == 9
    started = small(module=embedding()).initialize()
    assert started.partial_fit(X, y).predict(X).shape == (60,)


def test_dicts_pass_integers_as_they_are():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(20, 2), nn.Linear(2, 2)

        def forward(self, word, size):
            return self.table(word[:, 0]) + self.head(size)

    X, y = words()
    inputs = {"word": X[:, :1], "size": X[:, 1:].astype("f4")}
    assert small(module=Two).fit(inputs, y).predict(inputs).shape == (60,)


def test_attacks_on_integers_are_refused():
    X, y = words()
    net = small(module=embedding()).fit(X, y)
    with pytest.raises(TypeError, match="takes integers"):
        robust_accuracy(net, X, y, eps=0.1)
