"""The same numbers mean the same net, in whatever container they come."""

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from fit_spies import Pairs
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.dataset import Dataset as SkorchDataset
from skorch.helper import SliceDataset, predefined_split
from torch.utils.data import Dataset, TensorDataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor


class Told:
    """An object that becomes an array, and says something else about its shape."""

    def __init__(self, X):
        self.X, self.shape = X, (len(X),)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return Told(self.X[i])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.X, dtype=dtype)


def mapped(X, path):
    np.save(path / "X.npy", X)
    return np.load(path / "X.npy", mmap_mode="r")


def frame(X, make):
    return make({f"x{i}": column for i, column in enumerate(X.T)})


# From (X, y, folder) to what is passed as X and y.
CONTAINERS = {
    "array": lambda X, y, _: (X, y),
    "fortran": lambda X, y, _: (np.asfortranarray(X), y),
    "list": lambda X, y, _: (X.tolist(), y),
    "pandas": lambda X, y, _: (frame(X, pd.DataFrame), y),
    "polars": lambda X, y, _: (frame(X, pl.DataFrame), y),
    "tensor": lambda X, y, _: (torch.from_numpy(X), y),
    "memmap": lambda X, y, path: (mapped(X, path), y),
    "object": lambda X, y, _: (X.astype(object), y),
    "array-like": lambda X, y, _: (Told(X), y),
    "slice of tensors": lambda X, y, _: (
        SliceDataset(TensorDataset(torch.from_numpy(X), torch.arange(len(X))), 0),
        y,
    ),
    "slice of pairs": lambda X, y, _: (SliceDataset(Pairs(X, y), 0), y),
    "two slices": lambda X, y, _: (
        SliceDataset(Pairs(X, y), 0),
        SliceDataset(Pairs(X, y), 1),
    ),
    "pairs": lambda X, y, _: (Pairs(X, y), None),
    "pairs of tensors": lambda X, y, _: (Pairs(torch.from_numpy(X), y), None),
    "pairs, and y": lambda X, y, _: (Pairs(X, np.zeros(len(X))), y),
    "skorch": lambda X, y, _: (SkorchDataset(X, np.asarray(y)), None),
}
FRAMES = ["pandas", "polars"]
DTYPES = ["uint8", "bool", "int32", "int64", "float16", "float32", "float64"]
NAMES = np.array(["maple", "oak"])
TARGETS = {
    "int32": lambda y: y.astype("int32"),
    "int64": lambda y: y,
    "strings": lambda y: NAMES[y],
    "bool": lambda y: y > 0,
    "column": lambda y: y[:, None],
    "list": lambda y: y.tolist(),
    "list of strings": lambda y: NAMES[y].tolist(),
    "tensor": torch.from_numpy,
    "column of tensors": lambda y: torch.from_numpy(y)[:, None],
}


def data(dtype="float32"):
    X = np.random.default_rng(0).integers(0, 2, (40, 3))
    return X.astype(dtype), np.arange(40) % 2 | X[:, 0]


SETTINGS = {"max_epochs": 2, "batch_size": 16, "random_state": 0, "shuffle": False}


def small(**params):
    return RegularizedNetClassifier(
        # Batches are shuffled by a DataLoader in other orders than those of arrays.
        **{**SETTINGS, **params}
    )


def expected_dtype(container, dtype):
    """Numbers of Python have the precision of float64."""
    loses = container in ("list", "object") and np.dtype(dtype).kind == "f"
    return "float64" if loses else dtype


def is_half_of_polars(container, dtype):
    return container == "polars" and dtype == "float16"  # of which older ones have none


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_X(tmp_path, container, dtype):
    if is_half_of_polars(container, dtype):
        dtype = "float32"
    X, y = data(dtype)
    X_given, y_given = CONTAINERS[container](X, y, tmp_path)
    reference = small().fit(X.astype(expected_dtype(container, dtype)), y)
    net = small().fit(X_given, y_given)
    expected = reference.predict_proba(X)
    np.testing.assert_array_equal(net.predict_proba(X_given), expected)
    if container not in FRAMES:  # whose names would be missed
        np.testing.assert_array_equal(net.predict_proba(X), expected)
    assert net.history[:, "train_loss"] == reference.history[:, "train_loss"]


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_y(tmp_path, container, target):
    X, y = data()
    y_given = TARGETS[target](y)
    reference = small().fit(X.astype(expected_dtype(container, "float32")), y)
    X_given, y_container = CONTAINERS[container](X, y_given, tmp_path)
    net = small().fit(X_given, y_container)
    np.testing.assert_array_equal(
        net.predict_proba(X_given), reference.predict_proba(X)
    )
    assert net.classes_.tolist() == np.unique(np.asarray(y_given)).tolist()


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("target", ["int64", "strings", "column"])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32", "float64"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_validation_data(tmp_path, container, dtype, target):
    X, y = data("float32")
    y = TARGETS[target](y)
    X_val, y_val = CONTAINERS[container](X.astype(dtype), y, tmp_path)
    reference = small().fit(X, y, X_val=X, y_val=y)
    X_train = CONTAINERS[container](X, y, tmp_path)[0] if container in FRAMES else X
    net = small().fit(X_train, y, X_val=X_val, y_val=y_val)
    assert net.history[:, "valid_loss"] == reference.history[:, "valid_loss"]
    assert net.history[:, "valid_acc"] == reference.history[:, "valid_acc"]


@pytest.mark.parametrize("container", ["pairs", "slice of pairs", "skorch", "memmap"])
def test_arrays_validate_what_is_trained_on_other_containers(tmp_path, container):
    X, y = data()
    reference = small().fit(X, y, X_val=X, y_val=y)
    net = small().fit(*CONTAINERS[container](X, y, tmp_path), X_val=X, y_val=y)
    assert net.history[:, "valid_loss"] == reference.history[:, "valid_loss"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_a_regression(tmp_path, container):
    X, y = data()
    y = X @ np.arange(3.0) + y
    make = RegularizedNetRegressor
    reference = make(**SETTINGS).fit(X.astype(expected_dtype(container, "float32")), y)
    X_given, y_given = CONTAINERS[container](X, y, tmp_path)
    net = make(**SETTINGS).fit(X_given, y_given)
    np.testing.assert_array_equal(net.predict(X_given), reference.predict(X))


@pytest.mark.parametrize("backend", ["threading", "skreg"])
@pytest.mark.parametrize(
    "container", ["slice of tensors", "slice of pairs", "two slices"]
)
def test_searches_over_slices(container, backend, tmp_path):
    X, y = data("float64")
    grid = {"lambda2": [0.0, 0.1, 0.2]}
    expected = GridSearchCV(small(), grid, cv=2).fit(X, y)
    X_given, y_given = CONTAINERS[container](X, y, tmp_path)
    with joblib.parallel_config(backend):
        search = GridSearchCV(small(), grid, cv=2).fit(X_given, y_given)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    assert search.predict(X_given).tolist() == expected.predict(X).tolist()


def test_what_a_slice_yields_is_loaded_batch_by_batch():
    X, y = data()
    loaded = []

    class Noting(Pairs):
        def __getitem__(self, i):
            loaded.append(i)
            return super().__getitem__(i)

    sliced = SliceDataset(Noting(X, y), 0)
    net = small(max_epochs=1, shuffle=False).fit(sliced, y)
    assert loaded == [0, *range(40)]  # the first one tells what samples are like
    net.predict(sliced)
    assert loaded[41:] == list(range(40))


def test_a_slice_may_transform_what_it_picks():
    class Doubled(SliceDataset):
        def transform(self, data):
            return 2 * data

    X, y = data()
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    expected = small().fit(2 * X, y).predict_proba(2 * X)
    net = small().fit(Doubled(dataset, 0), y)
    np.testing.assert_array_equal(net.predict_proba(Doubled(dataset, 0)), expected)


@pytest.mark.parametrize("with_y", [True, False])
def test_a_search_over_a_dataset_says_what_to_pass(with_y):
    X, y = data()
    for dataset in (Pairs(X, y), TensorDataset(*map(torch.from_numpy, (X, y)))):
        search = GridSearchCV(small(), {"lr": [0.1]}, cv=2)
        with pytest.raises(ValueError, match=r"SliceDataset\(dataset, 0\) as X"):
            search.fit(dataset, y if with_y else None)


def test_lists_of_pairs_of_equal_shape_are_arrays():
    X, y = data()
    X_given = [(row, row + 1) for row in X]
    expected = small().fit(np.stack([X, X + 1], axis=1), y)
    assert small().fit(X_given, y).input_shape_ == expected.input_shape_


def test_the_targets_passed_are_those_trained_on():
    X, y = data()
    own = Pairs(X, 1 - y)
    np.testing.assert_array_equal(
        small().fit(own, y).predict_proba(X), small().fit(X, y).predict_proba(X)
    )
    with pytest.raises(ValueError, match="inconsistent numbers of samples: 40 and 39"):
        small().fit(own, y[:-1])


def test_column_vectors_in_a_dataset_are_warned_of_as_those_of_arrays():
    X, y = data()
    with pytest.warns(DataConversionWarning, match="column-vector"):
        small().fit(Pairs(X, y[:, None]))


def test_bad_targets_of_a_dataset_are_refused_as_those_of_arrays():
    X, y = data()
    for X_given, y_given in ((X, y + 0.5), (Pairs(X, y + 0.5), None)):
        with pytest.raises(ValueError, match="Unknown label type: continuous"):
            small().fit(X_given, y_given)
    with pytest.raises(ValueError, match="labels"):
        small().fit(X, y, X_val=Pairs(X, NAMES[y]))


def test_targets_that_torchvision_transforms():
    class Letters(Pairs):
        """As EMNIST: labels from 1 on, which a transform brings to 0."""

        target_transform = staticmethod(lambda label: label - 1)

        @property
        def targets(self):
            return self.labels

        def __getitem__(self, i):
            return self.inputs[i], self.target_transform(int(self.labels[i]))

    X, y = data()
    net = small().fit(Letters(X, y + 1))
    assert net.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(
        net.predict_proba(X), small().fit(X, y).predict_proba(X)
    )


def test_datasets_that_draw_their_samples_keep_x_and_y_together():
    """Targets are read once, but those trained on are what comes with x."""

    class Drawn(Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, i):
            label = int(torch.randint(2, ()))
            return torch.full((2,), 2.0 * label - 1), NAMES[label]

    torch.manual_seed(0)
    net = small(max_epochs=30, lr=0.05).fit(Drawn())
    assert net.predict([[-1.0, -1.0], [1.0, 1.0]]).tolist() == NAMES.tolist()


def test_predefined_splits_hold_any_targets():
    X, y = data()
    reference = small().fit(X, y, X_val=X, y_val=y)
    for labels in (y.astype("int32"), y.tolist(), torch.from_numpy(y)):
        net = small(train_split=predefined_split(Pairs(X.astype("u1"), labels)))
        net.fit(X, y)
        assert net.history[:, "valid_loss"] == reference.history[:, "valid_loss"]


def test_a_bagging_of_slices():
    X, y = data()
    sliced = SliceDataset(Pairs(X, y), 0)
    expected = cross_val_score(small(), X, y, cv=3)
    np.testing.assert_array_equal(cross_val_score(small(), sliced, y, cv=3), expected)
