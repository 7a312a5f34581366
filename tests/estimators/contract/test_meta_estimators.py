"""Nets inside of scikit-learn's meta-estimators, and what is routed to them."""

import numpy as np
import pytest
import sklearn
from contract_nets import equal_weights, small, small_regressor
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import ValidSplit

META_CLASSIFIERS = [
    AdaBoostClassifier(small(), n_estimators=3, random_state=0),
    BaggingClassifier(small(), n_estimators=3, random_state=0),
    CalibratedClassifierCV(small(), cv=2),
    OneVsRestClassifier(small()),
    StackingClassifier([("net", small()), ("lr", LogisticRegression())], cv=2),
    VotingClassifier([("net", small()), ("lr", LogisticRegression())], voting="soft"),
]


@pytest.mark.parametrize("meta", META_CLASSIFIERS, ids=lambda m: type(m).__name__)
def test_meta_classifiers(iris, meta):
    nets = {
        n: small(max_epochs=40, lr=0.02)
        for n in meta.get_params()
        if n in ("estimator", "net")
    }
    meta = clone(meta).set_params(**nets)
    assert meta.fit(*iris).score(*iris) > 0.9


def test_meta_regressors(diabetes):
    X, y = diabetes
    net = small_regressor(max_epochs=30, lr=0.01)
    y_two = np.column_stack([y, -y])
    assert MultiOutputRegressor(net).fit(X, y_two).score(X, y_two) > 0.4
    log = TransformedTargetRegressor(net, func=np.log, inverse_func=np.exp).fit(X, y)
    assert log.score(X, y) > 0.4


def test_sample_weight_and_groups_are_routed(iris):
    X, y = iris
    sample_weight, groups = np.arange(len(y)) % 5 + 1.0, np.arange(len(y)) % 3
    with sklearn.config_context(enable_metadata_routing=True):
        net = small().set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, net)
        pipeline.fit(X, y, sample_weight=sample_weight)
        grid = {"regularizednetclassifier__lambda1": [0, 0.1]}
        scoring = get_scorer("accuracy").set_score_request(sample_weight=True)
        search = GridSearchCV(pipeline, grid, cv=GroupKFold(3), scoring=scoring)
        search.fit(X, y, sample_weight=sample_weight, groups=groups)
        unweighted = make_pipeline(StandardScaler(), small()).fit(X, y)
    scaled = StandardScaler().fit_transform(X)
    assert equal_weights(pipeline[-1], small().fit(scaled, y, sample_weight))
    assert not equal_weights(pipeline[-1], unweighted[-1])
    best = small(lambda1=search.best_params_["regularizednetclassifier__lambda1"])
    assert equal_weights(search.best_estimator_[-1], best.fit(scaled, y, sample_weight))


def test_groups_reach_the_train_split_of_a_net_that_asks_for_them(iris):
    X, y = iris
    groups = np.arange(len(y)) % 5
    params = {"train_split": ValidSplit(GroupKFold(2))}
    with sklearn.config_context(enable_metadata_routing=True):
        asking = small(**params).set_fit_request(groups=True)
        search = GridSearchCV(asking, {"lambda1": [0.1]}, cv=GroupKFold(3))
        search.fit(X, y, groups=groups)
        pipeline = make_pipeline(asking).fit(X, y, groups=groups)
    alone = small(lambda1=0.1, **params).fit(X, y, groups=groups)
    assert equal_weights(search.best_estimator_, alone)
    assert (
        alone.history[:, "valid_loss"]
        == (search.best_estimator_.history[:, "valid_loss"])
    )
    assert equal_weights(pipeline[0], small(**params).fit(X, y, groups=groups))
    by_name = make_pipeline(small(**params))
    by_name.fit(X, y, regularizednetclassifier__groups=groups)
    assert equal_weights(by_name[0], pipeline[0])
