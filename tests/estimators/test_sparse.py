"""Sparse matrices as X: the nets of the same numbers in an array, bit for bit."""

import tracemalloc

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.helper import predefined_split
from torch.utils.data import DataLoader

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.robustness import robust_accuracy

FORMATS = {
    **{name: getattr(sp, f"{name}_matrix") for name in ("csr", "csc", "coo", "lil")},
    **{f"{name}_array": getattr(sp, f"{name}_array") for name in ("csr", "csc", "dok")},
}


def made_data(n=90, n_features=12, dtype=np.float32):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, n_features)) * (rng.random((n, n_features)) < 0.3)
    y = np.arange(n) % 3
    X[np.arange(n), y] += 1
    return X.astype(dtype), y


def small(**params):
    return RegularizedNetClassifier(
        **{"max_epochs": 3, "batch_size": 32, "random_state": 0, **params}
    )


def same(net, twin, X, sparse):
    """Assert that two nets have learned the same, and predict the same."""
    assert net.history[:, "train_loss"] == twin.history[:, "train_loss"]
    for mine, theirs in zip(
        net.module_.parameters(), twin.module_.parameters(), strict=True
    ):
        np.testing.assert_array_equal(
            mine.detach().cpu().numpy(), theirs.detach().cpu().numpy()
        )
    np.testing.assert_array_equal(net.predict_proba(X), twin.predict_proba(sparse))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_format_gives_the_net_of_the_array(name, dtype):
    X, y = made_data(dtype=dtype)
    sparse = FORMATS[name](X)
    net, twin = small().fit(X, y), small().fit(sparse, y)
    same(net, twin, X, sparse)
    assert net.score(X, y) == twin.score(sparse, y)
    assert twin.n_features_in_ == 12


@pytest.mark.parametrize(
    "params",
    [
        {"shuffle": False},
        {"batch_size": -1},
        {"dropout": 0.4},
        {"lambda1": 1e-3, "iterator_train__drop_last": True},
        {"early_stopping": True, "validation_fraction": 0.3},
        {"adversarial_eps": 0.1},
        {"augment": torch.nn.Dropout(0.2)},
        {"iterator_train": DataLoader},
        {"optimizer": torch.optim.LBFGS},
        {"module": torch.nn.Sequential(torch.nn.Linear(12, 9), torch.nn.Linear(9, 3))},
    ],
)
def test_every_way_of_training_takes_them(params):
    X, y = made_data()
    sparse = sp.csr_array(X)
    weight = np.arange(len(y)) % 4
    net, twin = small(**params), small(**params)
    same(net.fit(X, y, weight), twin.fit(sparse, y, weight), X, sparse)


def test_mixed_precision_takes_them():
    X, y = made_data()
    net = small(amp="bfloat16").fit(X, y)
    same(net, small(amp="bfloat16").fit(sp.csr_matrix(X), y), X, sp.csr_matrix(X))


@pytest.mark.parametrize("layout", ["to_sparse_coo", "to_sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_tensors_are_matrices(layout):
    X, y = made_data()
    tensor = getattr(torch.from_numpy(X), layout)()
    same(small().fit(X, y), small().fit(tensor, y), X, tensor)


@pytest.mark.parametrize("dtype", ["u1", "i8", "bool", "f2"])
def test_other_numbers_are_converted_as_those_of_arrays(dtype):
    X, y = made_data()
    X = (10 * np.abs(X)).astype(dtype)
    sparse = sp.csr_matrix(X) if dtype != "f2" else sp.csr_matrix(X.astype("f4"))
    same(small().fit(X, y), small().fit(sparse, y), X, sparse)


def test_indices_of_64_bits():
    X, y = made_data()
    sparse = sp.csr_array(X)
    sparse.indices, sparse.indptr = (
        part.astype(np.int64) for part in (sparse.indices, sparse.indptr)
    )
    same(small().fit(X, y), small().fit(sparse, y), X, sparse)


@pytest.mark.parametrize("sparse_validation", [True, False])
def test_validation_data_are_of_either_kind(sparse_validation):
    X, y = made_data()
    X_val = sp.csc_array(X[60:]) if sparse_validation else X[60:]
    net = small().fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    twin = small().fit(sp.csr_array(X[:60]), y[:60], X_val=X_val, y_val=y[60:])
    same(net, twin, X, sp.csr_array(X))
    assert net.history[:, "valid_loss"] == twin.history[:, "valid_loss"]


def test_partial_fits_and_regressions():
    X, _ = made_data()
    y = X @ np.arange(12)
    net = RegularizedNetRegressor(max_epochs=2, random_state=0)
    twin = RegularizedNetRegressor(max_epochs=2, random_state=0)
    for _ in range(2):
        net.partial_fit(X, y)
        twin.partial_fit(sp.csr_array(X), y)
    expected = net.predict(X)
    np.testing.assert_array_equal(twin.predict(sp.csc_matrix(X)), expected)


def searched(X, y, net, grid, backend):
    search = GridSearchCV(net, grid, cv=3, error_score="raise")
    with joblib.parallel_config(backend, verbose=1):
        return search.fit(X, y)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"early_stopping": True, "patience": 1, "dropout": 0.3},
        {"module": torch.nn.Sequential(torch.nn.Linear(12, 6), torch.nn.ELU())},
        {"dtype": "float64", "batch_size": 16, "lambda2": 0.01},
    ],
)
def test_stacks_take_them(params, capsys):
    X, y = made_data()
    if "module" in params:
        params = {"module": params["module"].append(torch.nn.Linear(6, 3))}
    grid = {"lambda1": [0, 1e-3, 1e-2], "lr": [1e-3, 1e-2]}
    net = small(**{"dtype": "float64", **params})
    plain = searched(sp.csr_array(X), y, net, grid, "threading")
    stacked = searched(sp.csr_array(X), y, net, grid, "skreg")
    told = capsys.readouterr().err
    assert "not arrays in memory" not in told
    if "module" not in params:  # which may lose the race against single runs
        assert "trained alone" not in told.replace("1 of 1 fits trained alone", "")
    for one, other in ((plain, stacked), (searched(X, y, net, grid, "skreg"), plain)):
        np.testing.assert_allclose(
            one.cv_results_["mean_test_score"], other.cv_results_["mean_test_score"]
        )
    np.testing.assert_allclose(
        plain.predict_proba(X), stacked.predict_proba(sp.csr_matrix(X)), atol=1e-8
    )


def test_stacks_compute_what_single_fits_compute():
    X, y = made_data(dtype=np.float64)
    sparse, nets = sp.csr_array(X), []
    for backend in ("threading", "skreg"):
        with joblib.parallel_config(backend):
            search = GridSearchCV(small(), {"lambda2": [0.0, 0.1, 0.2]}, cv=2)
            search.fit(sparse, y, X_val=sparse, y_val=y)
        nets.append(search)
    plain, stacked = nets
    np.testing.assert_allclose(
        plain.predict_proba(sparse), stacked.predict_proba(sparse), atol=1e-8
    )


def test_folds_that_hold_other_numbers_in_the_same_places_are_told_apart():
    """A stack takes equal data for one."""
    X, y = made_data()
    twice = sp.vstack([sp.csr_array(X), sp.csr_array(X)]).tocsr()
    twice.data[len(twice.data) // 4 : len(twice.data) // 3] *= 3
    expected = cross_val_score(small(dtype="float64"), twice, np.tile(y, 2), cv=4)
    with joblib.parallel_config("skreg"):
        scores = cross_val_score(small(dtype="float64"), twice, np.tile(y, 2), cv=4)
    np.testing.assert_allclose(scores, expected)


WIDE = (600, 200_000)  # 458 MiB as float32


def wide_data():
    rng = np.random.default_rng(0)
    n, n_features = WIDE
    columns = rng.integers(0, n_features, n * 20)
    rows = np.repeat(np.arange(n), 20)
    y = np.arange(n) % 2
    columns[::20] = y
    values = np.ones(n * 20, dtype="f4")
    return sp.csr_array((values, (rows, columns)), shape=WIDE), y


def peak_of(function):
    tracemalloc.start()
    function()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["threading", "skreg"])
def test_no_matrix_becomes_dense(backend):
    X, y = wide_data()
    net = RegularizedNetClassifier(
        max_epochs=1, batch_size=20, hidden_layer_sizes=2, random_state=0
    )

    def use():
        with joblib.parallel_config(backend):
            search = GridSearchCV(net, {"lambda1": [0, 1e-5]}, cv=3)
            search.fit(X, y, X_val=X[:100], y_val=y[:100])
        search.score(X, y)
        net.set_params(early_stopping=True).fit(X, y).predict(X)

    assert peak_of(use) < 150 * 2**20  # a batch is 15 MiB
    assert peak_of(X.toarray) > 400 * 2**20  # it would be seen


def test_text_in_a_pipeline():
    texts = [f"{'cold wind' if i % 2 else 'warm sun'} day {i}" for i in range(60)]
    y = np.array(["winter", "summer"] * 30)[::-1]
    pipeline = make_pipeline(
        TfidfVectorizer(), SelectKBest(k=20), small(max_epochs=30, lr=0.01)
    )
    assert pipeline.fit(texts, y).score(texts, y) == 1


def test_categories_and_numbers_in_a_pipeline():
    rng = np.random.default_rng(0)
    X = np.empty((120, 3), dtype=object)
    X[:, 0] = rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 120)
    X[:, 1] = rng.choice([f"city {i}" for i in range(40)], 120)
    X[:, 2] = rng.normal(size=120)
    y = X[:, 2].astype(float) > 0
    columns = ColumnTransformer(
        [
            ("kinds", OneHotEncoder(handle_unknown="ignore"), [0, 1]),
            ("numbers", StandardScaler(), [2]),
        ]
    )
    assert sp.issparse(columns.fit_transform(X))
    pipeline = make_pipeline(columns, small(max_epochs=30, lr=0.01))
    with joblib.parallel_config("skreg"):
        assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.8


def test_predefined_splits_take_them():
    X, y = made_data()
    from skorch.dataset import Dataset

    split = predefined_split(Dataset(sp.csr_matrix(X[60:]), y[60:]))
    twin = small(train_split=split).fit(sp.csr_matrix(X[:60]), y[:60])
    net = small().fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    assert net.history[:, "valid_loss"] == twin.history[:, "valid_loss"]


def test_bad_matrices_are_refused():
    X, y = made_data()
    net = small().fit(X, y)
    bad = sp.csr_array(X)
    bad.data[3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        small().fit(bad, y)
    with pytest.raises(ValueError, match="NaN"):
        net.predict(bad)
    with pytest.raises(ValueError, match=r"11 features, but Reg.* expecting 12"):
        net.predict(sp.csr_array(X[:, 1:]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        small().fit(sp.csr_array(X), y[1:])


def test_attacks_on_a_fitted_net_want_an_array():
    X, y = made_data()
    net = small().fit(sp.csr_array(X), y)
    with pytest.raises(TypeError, match=r"pass a part of it as X\.toarray"):
        robust_accuracy(net, sp.csr_array(X), y, eps=0.1)
    assert robust_accuracy(net, X, y, eps=0.0) == net.score(sp.csr_array(X), y)
