"""Data that fit must leave as they are, and targets that do not belong together."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler
from torch.utils.data import Dataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

DIABETES, Y = load_diabetes(return_X_y=True)
DIABETES = DIABETES * 20


def jumbled(kind, index, duplicates):
    """Return a matrix of three rows, unsorted, and perhaps with a number twice."""
    indices = [2, 0, 1, 0, 1, 1] if duplicates else [2, 0, 1, 0, 2, 1]
    data = np.arange(1.0, 7.0)
    arrays = data, np.array(indices, index), np.array([0, 2, 3, 6], index)
    return kind(arrays, shape=(3, 3))


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("kind", [sp.csr_array, sp.csr_matrix])
def test_fit_leaves_sparse_data_as_they_are(kind, index, duplicates):
    X = jumbled(kind, index, duplicates)
    before, parts = X.toarray(), [X.data.copy(), X.indices.copy(), X.indptr.copy()]
    net = RegularizedNetClassifier(max_epochs=2, random_state=0, dtype="float64")
    found = net.fit(X, [0, 1, 0], X_val=X, y_val=[0, 1, 0]).predict_proba(X)
    np.testing.assert_array_equal(X.toarray(), before)
    for mine, theirs in zip((X.data, X.indices, X.indptr), parts, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    dense = net.fit(before, [0, 1, 0]).predict_proba(before)
    np.testing.assert_allclose(found, dense, rtol=1e-12)


def test_read_only_sparse_data_that_are_unsorted():
    X = jumbled(sp.csr_array, np.int64, True)
    for part in (X.data, X.indices, X.indptr):
        part.flags.writeable = False
    net = RegularizedNetClassifier(max_epochs=1, random_state=0).fit(X, [0, 1, 0])
    assert net.predict_proba(X).shape == (3, 2)


@pytest.mark.parametrize("factor", [1000, 1 / 1000])
def test_targets_in_other_units_are_told(factor):
    net = RegularizedNetRegressor(max_epochs=2, random_state=0)
    with pytest.warns(UserWarning, match="y_val lies elsewhere than y: y is between"):
        net.fit(DIABETES, Y, X_val=DIABETES[:100], y_val=factor * Y[:100])


@pytest.mark.parametrize(
    "options",
    [{"transformer": StandardScaler()}, {"func": np.log1p, "inverse_func": np.expm1}],
    ids=["scaler", "log"],
)
def test_targets_that_only_one_part_has_transformed(options):
    net = RegularizedNetRegressor(max_epochs=2, early_stopping=True, random_state=0)
    transformed = TransformedTargetRegressor(net, **options)
    with pytest.warns(UserWarning, match="TransformedTargetRegressor transforms y"):
        transformed.fit(DIABETES, Y, X_val=DIABETES[:100], y_val=Y[:100])


def test_targets_of_one_distribution_are_not_told():
    net = RegularizedNetRegressor(max_epochs=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for part in np.split(np.random.default_rng(0).permutation(440), 4):
            net.fit(DIABETES, Y, X_val=DIABETES[part], y_val=Y[part])
        order = np.argsort(Y)  # sorted, and validated on samples of all sizes
        net.fit(DIABETES[order], Y[order], X_val=DIABETES[:50], y_val=Y[:50])


def test_targets_that_single_precision_rounds():
    far = 2.0**40 + np.arange(len(Y))
    net = RegularizedNetRegressor(scale_target=False, max_epochs=1, random_state=0)
    with pytest.warns(UserWarning, match="y is rounded to float32.*dtype='float64'"):
        net.fit(DIABETES.astype(np.float32), far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.set_params(scale_target=True).fit(DIABETES.astype(np.float32), far)


class Half(Dataset):
    """Yields inputs in bfloat16."""

    def __len__(self):
        return len(DIABETES)

    def __getitem__(self, i):
        return torch.tensor(DIABETES[i], dtype=torch.bfloat16), float(Y[i])


def test_validation_data_in_bfloat16():
    net = RegularizedNetRegressor(max_epochs=1, random_state=0)
    net.fit(DIABETES.astype(np.float32), Y, X_val=Half())
    assert np.isfinite(net.history[-1, "valid_loss"])
