"""What users pass as data by mistake, or in forms of their own."""

import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from fit_spies import Pairs
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from skorch.dataset import Dataset as SkorchDataset
from skorch.helper import SliceDataset
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

BIG = 2**24


class Lookup(nn.Module):
    def __init__(self, n_rows=5):
        super().__init__()
        self.table = nn.Embedding(n_rows, 3)
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        return self.last(self.table(x).flatten(1))


class Mixed(Lookup):
    """Looks up one column and takes the other as a number."""

    def forward(self, x):
        table = self.table(x[:, 0].long())
        return self.last(torch.cat([table, x[:, 1:].expand(-1, 3)], dim=1))


def small(**params):
    return RegularizedNetClassifier(
        **{"max_epochs": 3, "batch_size": 16, "random_state": 0, **params}
    )


def numbers(n=40, n_features=4, n_classes=2):
    X = np.random.default_rng(0).normal(size=(n, n_features)).astype("float32")
    return X, np.arange(n) % n_classes


def categories():
    X = np.random.default_rng(0).integers(0, 5, (40, 2))
    return X, X[:, 0] % 2


# -- whole numbers of floating point -------------------------------------------------


def test_a_pipeline_of_an_ordinal_encoder_feeds_an_embedding():
    X, y = categories()
    names = np.array(list("abcde"))[X]
    pipeline = make_pipeline(OrdinalEncoder(), small(module=Lookup, dtype="float32"))
    pipeline.fit(names, y)
    expected = small(module=Lookup, dtype="float32").fit(X, y)
    np.testing.assert_array_equal(
        pipeline.predict_proba(names), expected.predict_proba(X)
    )


def test_whole_numbers_are_looked_up_in_all_methods_and_containers():
    X, y = categories()
    floats = X.astype("float64")
    expected = small(module=Lookup, dtype="float32", shuffle=False)
    expected.fit(X, y, X_val=X, y_val=y)
    net = clone(expected).fit(floats, y, X_val=floats, y_val=y)
    assert net.history[:, "valid_loss"] == expected.history[:, "valid_loss"]
    data = Pairs(floats.astype("float32"), y)
    of_dataset = clone(expected).fit(data, X_val=data)
    np.testing.assert_allclose(
        of_dataset.predict_proba(data), expected.predict_proba(X), rtol=1e-5
    )
    net.partial_fit(floats, y), expected.partial_fit(X, y)
    np.testing.assert_array_equal(net.predict_proba(X), expected.predict_proba(X))


@pytest.mark.filterwarnings("ignore:.*trained.*alone")
def test_whole_numbers_are_looked_up_in_stacks():
    X, y = categories()
    search = GridSearchCV(small(module=Lookup), {"lr": [0.1, 0.01]}, cv=2)
    expected = clone(search).fit(X.astype("float64"), y)
    with joblib.parallel_config("skreg"):
        search.fit(X.astype("float64"), y)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )


def test_lazy_modules_with_an_embedding_take_whole_numbers():
    X, y = categories()
    module = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.LazyLinear(2))
    net = small(module=module).fit(X.astype("float64"), y)
    assert net.module_[2].in_features == 6


def test_modules_that_convert_columns_themselves_get_numbers():
    X, y = categories()
    X = np.column_stack([X[:, 0], np.linspace(0, 1, len(X))])
    assert np.isfinite(small(module=Mixed).fit(X, y).predict_proba(X)).all()


@pytest.mark.parametrize("as_data", [lambda X, y: (X, y), lambda X, y: (Pairs(X, y),)])
def test_fractions_for_an_embedding_are_explained(as_data):
    X, y = categories()
    data = as_data(X + 0.5, y)
    with pytest.raises(ValueError, match=r"X holds 3\.5.*|takes integers alone.*Ordin"):
        small(module=Lookup).fit(*data)
    net = small(module=Lookup).fit(X.astype("float64"), y)
    with pytest.raises(ValueError, match=r"fitted on integers.*OrdinalEncoder"):
        net.predict(data[0])


@pytest.mark.parametrize("unknown", [-1, 5])
def test_integers_without_a_row_are_explained(unknown):
    X, y = categories()
    net = small(module=Lookup).fit(X.astype("float64"), y)
    X[3, 0] = unknown
    with pytest.raises(ValueError, match=r"no row for one of them.*unknown_value"):
        net.predict(X.astype("float64"))
    with pytest.raises(ValueError, match="no row for one of them"):
        small(module=Lookup).fit(X, y)


# -- large integers of Datasets ------------------------------------------------------


@pytest.mark.parametrize("slices", [False, True])
def test_rounded_integers_of_datasets_are_warned_of_once(slices):
    X = np.random.default_rng(0).integers(0, 9, (40, 3)) + np.array([BIG, 0, 0])
    y = np.arange(40) % 2
    data = Pairs(X, y)
    fitted = (SliceDataset(data, 0), y) if slices else (data,)
    net = small(batch_size=8, max_epochs=2)
    with pytest.warns(UserWarning, match="float32 rounds") as caught:
        net.fit(*fitted)
    assert len(caught) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net.predict(fitted[0])
    assert [w.category for w in caught] == [UserWarning]


def test_small_integers_of_datasets_are_not_warned_of():
    X = np.random.default_rng(0).integers(0, 9, (40, 3))
    data = Pairs(X, np.arange(40) % 2)
    assert len(small().fit(data).predict(data)) == 40


# -- lazy modules with batch normalisation -------------------------------------------

LAZY = [
    nn.Sequential(nn.LazyLinear(8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
    nn.Sequential(nn.Linear(4, 8), nn.LazyBatchNorm1d(), nn.Linear(8, 3)),
    nn.Sequential(nn.Linear(4, 8), nn.LazyBatchNorm1d(affine=False), nn.Linear(8, 3)),
]


@pytest.mark.parametrize("module", LAZY)
def test_lazy_modules_with_batch_norm_are_fitted(module):
    X, y = numbers(n_classes=3)
    net = small(module=module).fit(X, y)
    assert net.module_[1].num_features == 8
    assert net.module_[1].num_batches_tracked == 3 * 3  # of training, and no trial
    np.testing.assert_array_equal(
        clone(net).fit(X, y).predict_proba(X), net.predict_proba(X)
    )


@pytest.mark.parametrize("module", LAZY)
def test_lazy_modules_with_batch_norm_are_fitted_in_stacks(module):
    X, y = numbers(48, n_classes=3)
    search = GridSearchCV(
        small(module=module, dtype="float64"), {"lr": [0.1, 0.01]}, cv=2
    )
    expected = clone(search).fit(X, y)
    with joblib.parallel_config("skreg"):
        search.fit(X, y)
    np.testing.assert_allclose(
        search.predict_proba(X), expected.predict_proba(X), atol=1e-8
    )


def test_lazy_weights_are_drawn_as_in_training():
    X, y = numbers()
    module = nn.Sequential(nn.LazyLinear(6), nn.Dropout(0.5), nn.LazyLinear(2))
    net = small(module=module, lr=1e-30).fit(X, y)
    with torch.random.fork_rng():
        torch.manual_seed(net.seed_)
        twin = nn.Sequential(nn.LazyLinear(6), nn.Dropout(0.5), nn.LazyLinear(2))
        twin(torch.zeros(1, 4))
    torch.testing.assert_close(net.module_[2].weight, twin[2].weight)


# -- Datasets ------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [list("abcd"), range(4)])
def test_datasets_of_frames_predict(columns):
    X, y = numbers()
    data = SkorchDataset(pd.DataFrame(X, columns=columns), y)
    expected = small().fit(X, y)
    net = small().fit(data)
    np.testing.assert_array_equal(net.predict_proba(data), expected.predict_proba(X))
    scores = cross_val_score(small(), SliceDataset(data, 0), y, cv=2)
    np.testing.assert_array_equal(scores, cross_val_score(small(), X, y, cv=2))


def test_datasets_of_other_shapes_are_explained():
    X, y = numbers()
    net = small().fit(Pairs(X, y))
    with pytest.raises(ValueError, match=r"shape \(3,\), but.*shape \(4,\)"):
        net.predict(Pairs(X[:, :3], y))
    with pytest.raises(ValueError, match=r"shape \(3,\), but.*shape \(4,\)"):
        net.fit(Pairs(X, y), X_val=Pairs(X[:, :3], y))


def test_nan_in_datasets_is_named():
    X, y = numbers()
    net = small().fit(Pairs(X, y))
    X = X.copy()
    X[5, 1] = np.nan
    with pytest.raises(ValueError, match="X=Pairs holds NaN or infinity"):
        net.predict(Pairs(X, y))
    with pytest.raises(ValueError, match="X=SliceDataset holds NaN or infinity"):
        net.predict(SliceDataset(Pairs(X, y), 0))


# -- targets and arguments -----------------------------------------------------------


@pytest.mark.parametrize(
    "y",
    [
        [[0, 1], [2]] * 20,
        [[], [1]] * 20,
        [{0, 1}, {1, 2}] * 20,
        pd.Series([[0, 1], [2]] * 20),
    ],
)
def test_lists_of_labels_are_explained(y):
    X, _ = numbers()
    with pytest.raises(ValueError, match=r"MultiLabelBinarizer\(\)\.fit_transform"):
        small().fit(X, y)
    with pytest.raises(ValueError, match=r"MultiLabelBinarizer\(\)\.fit_transform"):
        small().fit(Pairs(X, list(y)))


def test_rows_of_different_lengths_are_explained_by_regressors():
    X, _ = numbers()
    with pytest.raises(ValueError, match="lists of different lengths"):
        RegularizedNetRegressor().fit(X, [[0.1, 1.0], [2.0]] * 20)


@pytest.mark.parametrize("params", [{}, {"early_stopping": True}])
def test_unknown_arguments_of_fit_are_explained(params):
    X, y = numbers()
    message = "unexpected argument 'sample_weights'. Did you mean sample_weight"
    with pytest.raises(TypeError, match=message):
        small(**params).fit(X, y, sample_weights=np.ones(40))
    module = nn.Linear(4, 2)
    with pytest.raises(TypeError, match=r"Linear\.forward takes input"):
        small(module=module).partial_fit(X, y, [0, 1], scale=2.0)


def test_known_arguments_of_forward_are_passed_on():
    class Scaled(nn.Linear):
        def forward(self, x, scale=1.0):
            return scale * super().forward(x)

    X, y = numbers()
    net = small(module=Scaled(4, 2)).fit(X, y, scale=0.0)
    assert net.history[0, "train_loss"] == pytest.approx(np.log(2))
