"""Parameters with a prefix, such as module__x: where they are and are not."""

import pickle
from copy import deepcopy

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_no_attributes_set_in_init

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

X, y = load_iris(return_X_y=True)


def with_momentum(kind=RegularizedNetClassifier, **params):
    return kind(
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        max_epochs=2,
        random_state=0,
        **params,
    )


@pytest.mark.parametrize("kind", [RegularizedNetClassifier, RegularizedNetRegressor])
def test_init_sets_no_attributes_but_the_parameters_of_the_signature(kind):
    check_no_attributes_set_in_init(kind.__name__, with_momentum(kind))


@pytest.mark.parametrize(
    "copy", [clone, deepcopy, lambda net: pickle.loads(pickle.dumps(net))]
)
def test_a_copy_has_them_and_its_own(copy):
    net = with_momentum()
    twin = copy(net)
    assert twin.get_params()["optimizer__momentum"] == twin.optimizer__momentum == 0.9
    twin.set_params(optimizer__momentum=0.5)
    assert (net.optimizer__momentum, twin.optimizer__momentum) == (0.9, 0.5)


def test_setting_the_attribute_sets_the_parameter():
    net = with_momentum()
    net.optimizer__momentum = 0.5
    assert net.get_params()["optimizer__momentum"] == 0.5
    assert net.fit(X, y).optimizer_.param_groups[0]["momentum"] == 0.5
    del net.optimizer__momentum
    assert "optimizer__momentum" not in net.get_params()


def test_an_attribute_of_the_users_is_no_parameter():
    net = with_momentum()
    net.note = "the best so far"
    assert "note" not in net.get_params()
    assert net.fit(X, y).note == "the best so far"
    with joblib.parallel_config("skreg"):
        search = GridSearchCV(net, {"optimizer__momentum": [0.0, 0.9]}, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_what_is_neither_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'module__x'"):
        _ = with_momentum().module__x
    with pytest.raises(NotFittedError, match="not fitted, so that its classes"):
        _ = with_momentum().classes_


@pytest.mark.parametrize("name", ["max_epoch", "modul__x"])
def test_a_typing_error_is_told(name):
    with pytest.raises((TypeError, ValueError), match=name):
        with_momentum(**{name: 1}).fit(X, y)


def test_a_subclass_may_set_them_before_and_after_its_base():
    class Nesterov(RegularizedNetClassifier):
        def __init__(self, module=None, *, momentum=0.9, **params):
            self.optimizer__nesterov = True
            super().__init__(module, optimizer=torch.optim.SGD, **params)
            self.optimizer__momentum = momentum
            self.momentum = momentum

    group = Nesterov(max_epochs=1).fit(X, y).optimizer_.param_groups[0]
    assert (group["nesterov"], group["momentum"]) == (True, 0.9)
