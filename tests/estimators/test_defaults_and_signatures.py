"""Defaults, and which parameters there are."""

import inspect

import numpy as np
import pytest
from plain_nets import small
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.modules import AnimalNet


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "ours", "peer"),
    [
        (load_digits, RegularizedNetClassifier, MLPClassifier),
        (load_iris, RegularizedNetClassifier, MLPClassifier),
        (load_diabetes, RegularizedNetRegressor, MLPRegressor),
    ],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer:UserWarning")
def test_defaults_learn_as_well_as_those_of_scikit_learn(load, ours, peer):
    X, y = load(return_X_y=True)
    X = X.astype(np.float32)
    scores = cross_val_score(ours(random_state=0), X, y)
    assert scores.mean() > cross_val_score(peer(random_state=0), X, y).mean() - 0.01


def test_every_parameter_shows_in_the_signature():
    common = {"lambda1", "lambda2", "penalize", "dropout", "lr", "early_stopping"}
    for estimator in (RegularizedNetClassifier, RegularizedNetRegressor):
        signature = inspect.signature(estimator)
        assert common < set(signature.parameters)
        assert set(estimator().get_params(deep=False)) == set(signature.parameters) - {
            "kwargs"
        }
        for name in set(signature.parameters) - {
            "kwargs",
            "iterator_valid",
            "callbacks",
        }:
            assert name in estimator.__doc__, name
    assert "classes" in inspect.signature(RegularizedNetClassifier).parameters
    assert "scale_target" in inspect.signature(RegularizedNetRegressor).parameters


def test_a_subclass_adds_parameters_without_repeating_signatures():
    class Mine(RegularizedNetClassifier):
        def __init__(self, *args, sharpness=1.0, lr=0.5, **kwargs):
            super().__init__(*args, lr=lr, **kwargs)
            self.sharpness = sharpness

    net = clone(Mine(AnimalNet, sharpness=2.0, lambda1=0.1, module__in_features=7))
    params = net.get_params(deep=False)
    assert params["module"] is AnimalNet
    assert (params["sharpness"], params["lr"], params["lambda1"]) == (2.0, 0.5, 0.1)
    assert params["module__in_features"] == 7


def test_init_only_stores():
    net = RegularizedNetClassifier(lambda1=-1, module__nonsense=3)
    params = net.get_params(deep=False)
    # Those with a prefix are kept together, in one private attribute.
    stored = {**vars(net), **net._kwargs}
    del stored["_kwargs"]
    assert stored.keys() == params.keys()
    assert all(stored[name] is params[name] for name in params)


def test_unknown_parameter_is_named():
    with pytest.raises(ValueError, match=r"unexpected argument.* lamda1"):
        small(lamda1=0.1).fit([[0.0], [1.0]], [0, 1])
