"""What a net uses: inputs, units and weights, in the history and after fit."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.estimators.paths import PATHS, forced_path
from skreg.penalties import share_of_zeros
from skreg.regularizers import ElasticNet

X, Y, TRUTH = make_regression(
    120, 12, n_informative=3, noise=1, coef=True, random_state=0
)
SMALL = {"hidden_layer_sizes": (8, 5), "max_epochs": 4, "batch_size": 30, "lr": 0.02}
SMALL |= {"random_state": 0}
L1 = {"lambda1": 0.02, "proximal": True}


def net(**params):
    return RegularizedNetRegressor(**SMALL | params)


def zeros(module, names):
    named = dict(module.named_parameters())
    values = torch.cat([named[name].detach().flatten() for name in names])
    return float((values == 0).double().mean())


WEIGHTS = ["fc1.weight", "fc2.weight", "fc3.weight"]
BIASES = ["fc1.bias", "fc2.bias", "fc3.bias"]
COVERED = [
    (L1, [*WEIGHTS, *BIASES]),
    (L1 | {"penalize": "weights"}, WEIGHTS),
    ({"lambda_group": 0.1}, ["fc1.weight"]),
    (
        {"lambda_group": 0.05, "groups": "units"},
        ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"],
    ),
    (
        L1 | {"penalize": ["fc3.*"], "lambda_group": 0.1},
        ["fc1.weight", "fc3.weight", "fc3.bias"],
    ),
    (
        {"regularizers": [ElasticNet(0.02, 0.0, "weights", proximal=True)]},
        WEIGHTS,
    ),
]


@pytest.mark.parametrize(("params", "names"), COVERED)
@pytest.mark.parametrize("path", PATHS[1:])
def test_sparsity_is_the_share_of_zeros_among_what_steps_are_taken_on(
    params, names, path
):
    with forced_path(path):
        fitted = net(**params).fit(X, Y)
    assert fitted.training_path_ == path
    assert len(fitted.history[:, "sparsity"]) == 4
    assert 0 < fitted.sparsity_ < 1
    assert fitted.history[-1, "sparsity"] == fitted.sparsity_
    assert fitted.sparsity_ == pytest.approx(zeros(fitted.module_, names))
    again = pickle.loads(pickle.dumps(fitted))
    assert again.sparsity_ == fitted.sparsity_


def fit(one):
    return clone(one).fit(X, Y)


def test_in_a_stack_each_net_has_its_own(stacks):
    nets = [net(**params) for params, _ in COVERED[:5]]
    nets += [net(), net(lambda1=0.02), net(proximal=True)]
    with joblib.parallel_config("skreg"):
        found = joblib.Parallel()(joblib.delayed(fit)(one) for one in nets)
    for one, alone in zip(found, map(fit, nets), strict=True):
        assert one.training_path_ == "stack"
        assert ("sparsity" in one.history[-1]) == ("sparsity" in alone.history[-1])
        if "sparsity" in one.history[-1]:
            expected = alone.history[:, "sparsity"]
            assert one.history[:, "sparsity"] == pytest.approx(expected, abs=0.02)
            assert one.history[-1, "sparsity"] == pytest.approx(one.sparsity_)
    assert ["sparsity" in one.history[-1] for one in found] == [True] * 5 + [False] * 3


@pytest.mark.parametrize(
    "params",
    [{}, {"lambda1": 0.02}, {"proximal": True}, {"groups": "units"}],
)
def test_without_proximal_steps_there_is_none(params):
    fitted = net(**params).fit(X, Y)
    assert "sparsity" not in fitted.history[-1]
    with pytest.raises(AttributeError, match="sparsity_ is there with proximal=True"):
        _ = fitted.sparsity_


def test_share_of_zeros():
    assert (
        share_of_zeros([torch.zeros(3), torch.ones(2, 1), -torch.zeros(1)]) == 1 - 2 / 6
    )
    with pytest.raises(ValueError, match="params=\\(\\) holds no tensor"):
        share_of_zeros([])


# -- inputs and units -----------------------------------------------------------------


def test_importances_are_the_norms_of_what_an_input_goes_through():
    fitted = net().fit(X, Y)
    weight = fitted.module_.fc1.weight.detach().double()
    expected = weight.norm(dim=0).numpy()
    np.testing.assert_allclose(fitted.feature_importances_, expected)
    assert fitted.feature_importances_.shape == (12,)
    assert fitted.n_active_inputs_ == 12
    assert fitted.n_active_units_ == [8, 5]
    with torch.no_grad():
        fitted.module_.fc1.weight[:, :4] = 0
        fitted.module_.fc1.weight[2:5] = 0
        fitted.module_.fc2.weight[1] = 0
    assert fitted.n_active_inputs_ == 8
    assert fitted.n_active_units_ == [5, 4]
    assert (fitted.feature_importances_[:4] == 0).all()


def test_images_have_channels():
    images = np.random.default_rng(0).normal(size=(40, 3, 5, 5)).astype(np.float32)
    y = (images[:, 1].mean(axis=(1, 2)) > 0).astype(int)
    module = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    )
    fitted = RegularizedNetClassifier(module, max_epochs=2, random_state=0)
    fitted.fit(images, y)
    weight = fitted.module_[0].weight.detach().double()
    expected = weight.transpose(0, 1).flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(fitted.feature_importances_, expected)
    assert fitted.n_active_units_ == [4]
    flat = RegularizedNetClassifier(hidden_layer_sizes=4, max_epochs=2).fit(images, y)
    assert flat.feature_importances_.shape == (75,)


def test_computed_weights_have_importances_too():
    def module(in_features, out_features):
        return nn.Sequential(
            *(weight_norm(nn.Linear(in_features, 4)), nn.Linear(4, out_features))
        )

    fitted = net(module=module).fit(X, Y)
    expected = fitted.module_[0].weight.detach().double().norm(dim=0)
    np.testing.assert_allclose(fitted.feature_importances_, expected)
    assert fitted.n_active_units_ == [4]


ATTRIBUTES = [
    *("feature_importances_", "n_active_inputs_", "n_active_units_", "sparsity_"),
]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_before_fit_there_are_none(name):
    one = net(**L1)
    assert not hasattr(one, name)
    with pytest.raises(NotFittedError, match=f"has no {name} yet. Call fit first"):
        getattr(one, name)
    assert hasattr(one.fit(X, Y), name)
    assert not hasattr(clone(one), name)


class Words(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.words = nn.Embedding(10, 3)
        self.out = nn.Linear(3, out_features)

    def forward(self, x):
        return self.out(self.words(x).mean(dim=1))


class Backwards(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.out = nn.Linear(5, out_features)
        self.first = nn.Linear(in_features, 5)

    def forward(self, x):
        return self.out(self.first(x).tanh())


@pytest.mark.parametrize("name", ["feature_importances_", "n_active_inputs_"])
def test_modules_without_such_a_layer_have_none(name):
    words = np.random.default_rng(0).integers(10, size=(30, 4))
    fitted = net(module=Words).fit(words, words[:, 0].astype(np.float32))
    with pytest.raises(AttributeError, match="'words', of class Embedding"):
        getattr(fitted, name)
    assert not hasattr(fitted, "n_active_units_")
    fitted = net(module=Backwards).fit(X, Y)
    with pytest.raises(
        AttributeError, match="'out', has 5 inputs, but a sample has 12"
    ):
        getattr(fitted, name)


# -- scikit-learn's tools -------------------------------------------------------------


def test_select_from_model_takes_what_the_group_lasso_keeps():
    one = net(lambda_group=0.05, max_epochs=100, lr=0.01)
    selector = SelectFromModel(one, threshold=1e-12).fit(X, Y)
    np.testing.assert_array_equal(selector.get_support(), TRUTH != 0)
    assert selector.estimator_.n_active_inputs_ == 3
    model = make_pipeline(selector, net(max_epochs=30)).fit(X, Y)
    assert model[-1].n_features_in_ == 3
    assert model.score(X, Y) > 0.9


def test_recursive_elimination_finds_the_informative_features():
    points, kinds = make_classification(
        *(200, 8),
        n_informative=2,
        n_redundant=0,
        n_clusters_per_class=1,
        class_sep=2,
        shuffle=False,
        random_state=0,
    )
    one = RegularizedNetClassifier(
        hidden_layer_sizes=8, lambda_group=0.02, max_epochs=30, lr=0.01, random_state=0
    )
    rfe = RFE(one, n_features_to_select=2, step=2).fit(points, kinds)
    np.testing.assert_array_equal(np.flatnonzero(rfe.support_), [0, 1])
    assert rfe.estimator_.n_features_in_ == 2
