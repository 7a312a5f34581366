"""Single and double precision, and numbers that are huge or tiny."""

import numpy as np
import pandas as pd
import pytest
import torch
from contract_nets import equal_weights, pairs_dataset, small, small_regressor, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor


def test_predictions_beyond_all_numbers_are_refused(diabetes):
    X, y = diabetes
    net = small_regressor().fit(X.astype(np.float32), y * 1e40)
    with pytest.raises(ValueError, match="y is too large for its dtype"):
        net.predict(X.astype(np.float32))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_float32_and_float64_agree(iris, seed):
    X, y = iris
    double = small(random_state=seed).fit(X, y)
    single = small(random_state=seed).fit(X.astype(np.float32), y)
    assert weights(double)[0].dtype == torch.float64
    assert weights(single)[0].dtype == torch.float32
    np.testing.assert_allclose(
        double.predict_proba(X), single.predict_proba(X.astype(np.float32)), atol=1e-3
    )


def test_batch_sizes_of_numpy(iris):
    X, y = iris
    net = small(batch_size=np.int64(16)).fit(X, y)
    assert equal_weights(net, small(batch_size=16).fit(X, y))
    assert equal_weights(net, small(iterator_train__batch_size=np.int32(16)).fit(X, y))
    grid = {
        "batch_size": np.array([16, -1]),
        "iterator_valid__batch_size": [np.int8(9)],
    }
    GridSearchCV(small(), grid, cv=2, error_score="raise").fit(X, y)
    pairs = pairs_dataset(list(zip(X.astype(np.float32), y, strict=True)))
    small(batch_size=np.int64(16)).fit(pairs).predict(pairs)


DOUBLES = {
    "list": lambda X: X.tolist(),
    "list of arrays": list,
    "list of tensors": lambda X: list(torch.as_tensor(X)),
    "mixed list": lambda X: [X[0].astype(int).tolist(), *X[1:].tolist()],
    "mixed objects": lambda X: np.array(DOUBLES["mixed list"](X), dtype=object),
    "mixed frame": lambda X: pd.DataFrame(DOUBLES["mixed objects"](X)),
    "big-endian": lambda X: X.astype(">f8"),
    "object": lambda X: X.astype(object),
    "longdouble": lambda X: X.astype(np.longdouble),
    "pandas": pd.DataFrame,
    "pandas Float64": lambda X: pd.DataFrame(X).astype("Float64"),
    "pandas object": lambda X: pd.DataFrame(X).astype(object),
    "polars": lambda X: pytest.importorskip("polars").DataFrame(X),
    "tensor": torch.as_tensor,
}


@pytest.mark.parametrize("form", DOUBLES)
def test_float64_in_any_form_trains_in_float64(iris, form):
    X, y = iris
    X = X.copy()
    X[0] = np.round(X[0])
    given = DOUBLES[form](X)
    net = small().fit(given, y)
    assert {w.dtype for w in net.module_.parameters()} == {torch.float64}
    assert net.predict_proba(given).dtype == np.float64
    assert equal_weights(net, small().fit(X, y))


SINGLES = {
    "list": lambda X: X.tolist(),
    "integers": lambda X: X,
    "bool": lambda X: X > 0,
    "object": lambda X: X.astype(object),
    "big-endian": lambda X: X.astype(">f4"),
    "half": lambda X: X.astype(np.float16),
    "list of arrays": lambda X: list(X.astype(np.float32)),
    "pandas": pd.DataFrame,
    "pandas Int64": lambda X: pd.DataFrame(X).astype("Int64"),
    "polars": lambda X: pytest.importorskip("polars").DataFrame(X),
    "polars Float32": lambda X: pytest.importorskip("polars").DataFrame(
        X.astype(np.float32)
    ),
    "bfloat16": lambda X: torch.as_tensor(X).bfloat16(),
}


@pytest.mark.parametrize("form", SINGLES)
def test_all_else_trains_in_float32(iris, form):
    X, y = iris
    X = np.round(X).astype(int)
    given = SINGLES[form](X)
    net = small().fit(given, y)
    assert {w.dtype for w in net.module_.parameters()} == {torch.float32}
    assert net.predict_proba(given).dtype == np.float32


def test_log_probabilities():
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 3
    net = RegularizedNetClassifier(max_epochs=3, random_state=0).fit(X, y)
    expected = np.log(net.predict_proba(X))
    assert np.allclose(net.predict_log_proba(X), expected, rtol=1e-10)
    extreme = net.predict_log_proba(1e6 * X)
    assert np.isfinite(extreme).all()
    assert extreme.min() < -1000
    own = cross_val_predict(net, X, y, cv=2, method="predict_log_proba")
    assert own.shape == (20, 3)


def test_huge_and_tiny_targets():
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = X[:, 0] + 0.1 * X[:, 1] ** 2
    net = RegularizedNetRegressor(random_state=0, max_epochs=30)
    reference = net.fit(X, y).predict(X)
    for unit in (1e200, 1e-200, 1e307, 1e-300):
        scaled = clone(net).fit(X, y * unit).predict(X)
        assert np.allclose(scaled / unit, reference, rtol=1e-6, atol=1e-6)


def test_the_mean_and_deviation_of_targets_lose_no_bit():
    y = np.random.default_rng(0).normal(5, 3, size=(100, 2))
    net = small_regressor(max_epochs=1).fit(np.arange(100.0)[:, None], y)
    assert np.array_equal(net.target_mean_, y.mean(axis=0))
    assert np.array_equal(net.target_scale_, y.std(axis=0))


def test_targets_too_large_for_the_dtype():
    X = np.random.default_rng(0).random((20, 3))
    far_apart = np.array([-1.7e308] + 19 * [1.7e308])
    for net, dtype, y in (
        (small_regressor(scale_target=False), np.float32, 1e200 * np.arange(20)),
        (small_regressor(), np.float64, far_apart),
    ):
        with pytest.raises(ValueError, match=r"y holds .* too large to train on in"):
            net.fit(X.astype(dtype), y)


def test_log_probabilities_of_other_criteria_are_finite(iris):
    X, y = iris

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            sure = nn.functional.one_hot(x[:, 0].gt(0).long(), 3).to(x)
            return sure + 0 * self.shift

    class Loss(nn.Module):
        def forward(self, outputs, y):
            return outputs.square().mean()

    net = small(module=Sure, criterion=Loss).fit(X, y)
    logs = net.predict_log_proba(X)
    assert np.isfinite(logs).all()
    assert set(np.unique(logs)) == {0.0, np.log(np.finfo(np.float64).tiny)}
