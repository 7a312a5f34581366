"""Metadata routing of ``partial_fit``: what ``fit`` asks for, unless told otherwise."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.metrics import get_scorer
from sklearn.model_selection import learning_curve
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.utils.metadata_routing import get_routing_for_object
from skorch.dataset import ValidSplit

from skreg import RegularizedNetClassifier, RegularizedNetRegressor


@pytest.fixture(autouse=True)
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    Y = np.stack([X[:, 0] > 0, X[:, 1] + X[:, 2] > 0], axis=1).astype(int)
    return X, Y, rng.integers(1, 6, 90).astype(float)


MAKERS = {
    "classifier": (RegularizedNetClassifier, MultiOutputClassifier),
    "regressor": (RegularizedNetRegressor, MultiOutputRegressor),
}


def small(make=RegularizedNetClassifier, **params):
    return make(**{"max_epochs": 3, "random_state": 0, "batch_size": 16, **params})


def asked(net, method="partial_fit"):
    routing = get_routing_for_object(net)
    names = ["sample_weight", "X_val", "y_val", "groups", "mask"]
    return {name for name in names if routing.consumes(method=method, params=[name])}


def equal_weights(a, b):
    pairs = zip(a.module_.parameters(), b.module_.parameters(), strict=True)
    return all((x == y).all() for x, y in pairs)


@pytest.mark.parametrize("kind", MAKERS)
def test_partial_fit_gets_the_weights_that_fit_asks_for(data, kind):
    X, Y, weight = data
    make, of_outputs = MAKERS[kind]
    net = small(make).set_fit_request(sample_weight=True)
    many = of_outputs(net)
    for _ in range(2):
        many.partial_fit(X, Y, sample_weight=weight)
    for k, fitted in enumerate(many.estimators_):
        alone = small(make).partial_fit(X, Y[:, k], sample_weight=weight)
        alone.partial_fit(X, Y[:, k], sample_weight=weight)
        assert equal_weights(fitted, alone)
        assert not equal_weights(fitted, small(make, max_epochs=6).fit(X, Y[:, k]))


def test_learning_curves_of_partial_fit(data):
    X, Y, weight = data
    y, sizes = Y[:, 0], [20, 60]
    scoring = get_scorer("neg_log_loss").set_score_request(sample_weight=False)

    def curve(net, **params):
        return learning_curve(
            net,
            X,
            y,
            train_sizes=sizes,
            cv=[(np.arange(60), np.arange(60, 90))],
            scoring=scoring,
            exploit_incremental_learning=True,
            params=params,
            error_score="raise",
        )[2]

    net = small().set_fit_request(sample_weight=True)
    alone = small()
    for size, start, score in zip(
        sizes, [0, 20], curve(net, sample_weight=weight)[:, 0], strict=True
    ):
        part = slice(start, size)
        alone.partial_fit(X[part], y[part], [0, 1], sample_weight=weight[part])
        assert score == pytest.approx(scoring(alone, X[60:], y[60:]))
    assert (curve(small()) != curve(net, sample_weight=weight)).all()


def test_what_is_said_of_partial_fit_itself_comes_first(data):
    net = small().set_fit_request(sample_weight=True, X_val=True, y_val=True)
    assert asked(net) == {"sample_weight", "X_val", "y_val"}
    net.set_partial_fit_request(sample_weight=False)
    assert asked(net) == {"X_val", "y_val"}
    assert asked(net, "fit") == {"sample_weight", "X_val", "y_val"}
    assert asked(clone(net)) == {"X_val", "y_val"}
    net.set_fit_request(groups=True)  # after the other, and followed all the same
    assert asked(net) == {"X_val", "y_val", "groups"}
    net.set_partial_fit_request(groups=False)
    assert asked(net) == {"X_val", "y_val"}
    # The other way about nothing is followed.
    net = small().set_partial_fit_request(sample_weight=True)
    assert asked(net) == {"sample_weight"}
    assert asked(net, "fit") == set()


def test_parameters_of_forward_and_names_of_others():
    net = small().set_fit_request(mask=True, sample_weight="importance")
    assert "mask" in asked(net)
    routing = get_routing_for_object(net)
    assert routing.consumes(method="partial_fit", params=["importance"]) == {
        "importance"
    }


def test_groups_go_to_splits_alone_until_somebody_asks(data):
    X, Y, _ = data
    assert asked(small()) == asked(small(), "fit") == set()
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
        MultiOutputClassifier(small()).partial_fit(X, Y, sample_weight=np.ones(90))
    splitting = small(train_split=ValidSplit(3))
    assert asked(splitting.set_fit_request(groups=True)) == {"groups"}
