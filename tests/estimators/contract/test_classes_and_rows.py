"""Classes and rows: their names, their order, and what they come in."""

import numpy as np
import pandas as pd
import pytest
import torch
from contract_nets import pairs_dataset, small
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset


def test_a_data_loader_is_no_data(iris):
    X, y = iris
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)))
    for call in (
        lambda: small().fit(loader),
        lambda: small().fit(loader, y),
        lambda: small().partial_fit(loader),
        lambda: small().fit(X, y, X_val=loader),
        lambda: small().fit(X, y).predict(loader),
    ):
        with pytest.raises(
            ValueError, match=r"is a DataLoader, .*batch_size=.*workers"
        ):
            call()
    assert small().fit(loader.dataset).score(loader.dataset, y) > 0


def test_partial_fit_with_classes(iris):
    X, y = iris
    names = np.array(["a", "b", "c"])
    net = small(lr=0.02, max_epochs=1)
    for _ in range(40):
        for part in (slice(0, 100), slice(50, 150)):  # neither shows all the classes
            net.partial_fit(X[part], names[y[part]], classes=names)
    assert list(net.classes_) == list(names)
    assert net.score(X, names[y]) > 0.9
    with pytest.raises(
        ValueError, match=r"labels \['d'\] that are none of the classes"
    ):
        net.partial_fit(X[:2], ["a", "d"])
    with pytest.raises(
        ValueError, match=r"are not those of the first call, \['a', 'b'"
    ):
        net.partial_fit(X, names[y], classes=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="X has 3 features"):
        net.partial_fit(X[:, :3], names[y])


@pytest.fixture(scope="module")
def fitted(iris):
    return small(max_epochs=20).fit(*iris)


@given(st.permutations(range(150)))
@settings(max_examples=20)
def test_permuting_rows_permutes_predictions(iris, fitted, order):
    X = iris[0]
    np.testing.assert_allclose(
        fitted.predict_proba(X[order]), fitted.predict_proba(X)[order], rtol=1e-10
    )


@given(st.permutations(["ape", "bee", "cat"]))
@settings(max_examples=6)
def test_relabelling_classes_relabels_predictions(iris, labels):
    X, y = iris
    sorted_labels = np.array(sorted(labels))
    codes = np.searchsorted(sorted_labels, np.array(labels)[y])
    named = small().fit(X, np.array(labels)[y])
    assert np.array_equal(
        named.predict(X), sorted_labels[small().fit(X, codes).predict(X)]
    )


def test_frames_of_pandas_and_polars(iris):
    X, y = iris
    polars = pytest.importorskip("polars")
    for frame in (
        pd.DataFrame(X, columns=list("abcd")),
        polars.DataFrame(X, schema=list("abcd")),
    ):
        net, peer = small().fit(frame, y), StandardScaler().fit(frame)
        # Older versions of scikit-learn know no column names but those of pandas.
        names = getattr(peer, "feature_names_in_", None)
        assert np.array_equal(getattr(net, "feature_names_in_", None), names)
        assert np.array_equal(net.predict(frame), small().fit(X, y).predict(X))


def test_classes_are_told_once(iris):
    X, y = iris
    net = small(classes=[0, 1, 2, 3])
    for _ in range(2):  # before there are classes, and after
        with pytest.raises(
            ValueError, match=r"given classes=\[0, 1, 2\], but the parameter is"
        ):
            net.partial_fit(X, y, classes=[0, 1, 2])
        net.partial_fit(X, y, classes=[3, 2, 1, 0])
    assert net.predict_proba(X).shape == (150, 4)


def test_datasets_of_something_else_than_pairs():
    for sample in ((torch.ones(2),), (torch.ones(2), 1, 2), torch.ones(2)):
        with pytest.raises(ValueError, match=r"X=Pairs yields a .* pairs \(x, y\)"):
            small().fit(pairs_dataset([sample] * 4))
        with pytest.raises(ValueError, match=r"X=Pairs yields a .* pairs \(x, y\)"):
            small().fit(pairs_dataset([sample] * 4), [0, 1, 0, 1])


@pytest.mark.parametrize("classes", [[], [1], np.array([])])
def test_too_few_classes(iris, classes):
    for fit in (
        lambda X, y: small().partial_fit(X, y, classes=classes),
        lambda X, y: small(classes=classes).fit(X, y),
    ):
        with pytest.raises(ValueError, match=r"classes=.* at least 2 classes"):
            fit(*iris)
