"""Adversarial training in stacks: each net its own attacks, as it has alone."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.model_selection import GridSearchCV
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.backprop import Backprop
from skreg.estimators.paths import forced_path
from skreg.modules import MLP

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
ATTACKS = {
    "fgsm": {},
    "fgsm-l2": {"adversarial_norm": "l2"},
    "pgd": {"adversarial_steps": 3},
    "pgd-l2": {"adversarial_steps": 3, "adversarial_norm": "l2"},
}
GRID = {"adversarial_eps": [0.0, 0.05, 0.2, 0.4], "random_state": [0, 1]}


def scores(net, grid, X, y, scoring):
    search = GridSearchCV(net, grid, cv=3, scoring=scoring, refit=False)
    with joblib.parallel_config("skreg"):
        together = search.fit(X, y).cv_results_["mean_test_score"]
    return together, search.fit(X, y).cv_results_["mean_test_score"]


def module_of(activation):
    torch.manual_seed(0)
    layers = nn.Linear(4, 6), activation(), nn.Dropout(0.2), nn.Linear(6, 3)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU], ids=["backprop", "vmap"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_stack_is_attacked_as_each_net_is_alone(attack, activation, stacks):
    net = RegularizedNetClassifier(
        module_of(activation), max_epochs=6, dtype="float64", **ATTACKS[attack]
    )
    together, alone = scores(net, GRID, X, Y, "neg_log_loss")
    assert sum(stacks) == 3 * len(together)
    np.testing.assert_allclose(together, alone, rtol=1e-9)
    assert len(set(alone.round(6))) > 4  # the strengths matter


@pytest.mark.parametrize("attack", ["fgsm", "pgd-l2"])
def test_regressors_with_folds_of_different_sizes(attack, stacks):
    y = X @ [1.0, 2.0, 0.0, -1.0]
    net = RegularizedNetRegressor(
        hidden_layer_sizes=6,
        max_epochs=6,
        batch_size=40,
        dtype="float64",
        **ATTACKS[attack],
    )
    together, alone = scores(net, GRID, X[:148], y[:148], "r2")
    assert sum(stacks) == 3 * len(together)
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_several_labels(stacks):
    X, y = make_multilabel_classification(80, 5, n_classes=3, random_state=0)
    net = RegularizedNetClassifier(hidden_layer_sizes=6, max_epochs=4, dtype="float64")
    together, alone = scores(net, GRID, X, y, "roc_auc")
    assert sum(stacks) == 3 * len(together)
    np.testing.assert_allclose(together, alone, rtol=1e-9)


class Rounds(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x.round())


def test_a_blind_attack_warns_of_each_net_as_alone():
    net = RegularizedNetClassifier(Rounds, max_epochs=1, random_state=0)
    search = GridSearchCV(net, {"adversarial_eps": [0.1, 0.2]}, cv=2, refit=False)
    blind = "the attacks find nothing"
    with joblib.parallel_config("skreg"), pytest.warns(UserWarning, match=blind) as all:
        search.fit(X, Y)
    assert sum(blind in str(warning.message) for warning in all) == 4


@pytest.mark.parametrize("n_nets", [None, 3])
def test_the_gradient_in_the_inputs_is_that_of_autograd(n_nets):
    torch.manual_seed(0)
    sizes = {"hidden_layer_sizes": (4, 3)}
    modules = [MLP(5, 2, **sizes).double() for _ in range(n_nets or 1)]
    first = modules[0]
    layers = [layer for layer in first.layers() if not isinstance(layer, nn.Dropout)]
    weights = {}
    for w, *others in zip(*(m.parameters() for m in modules), strict=True):
        tensors = [w, *others]
        weights[w] = w.detach() if n_nets is None else torch.stack(tensors).detach()
    gradients = {w: torch.full_like(t, 7.0) for w, t in weights.items()}
    model = Backprop(layers, weights, gradients, lambda layer, x: None)
    x = torch.randn(n_nets or 1, 6, 5, dtype=torch.float64)
    factors = torch.randn(n_nets or 1, 6, 2, dtype=torch.float64)
    inputs = x.clone().requires_grad_()
    outputs = model.attached(inputs[0] if n_nets is None else inputs)
    (outputs * (factors[0] if n_nets is None else factors)).sum().backward()
    for module, own, factor, found in zip(
        modules, x, factors, inputs.grad, strict=True
    ):
        own = own.clone().requires_grad_()
        (module(own) * factor).sum().backward()
        torch.testing.assert_close(found, own.grad)
    assert all((g == 7.0).all() for g in gradients.values())  # weights have no part


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_written_gradient_attacks_as_autograd_does(attack):
    def fitted(path):
        with forced_path(path):
            net = RegularizedNetClassifier(
                hidden_layer_sizes=8,
                adversarial_eps=0.2,
                max_epochs=6,
                dtype="float64",
                random_state=0,
                **ATTACKS[attack],
            ).fit(X, Y)
        assert net.training_path_ == path
        return net.predict_proba(X)

    np.testing.assert_allclose(fitted("backprop"), fitted("hooks"), rtol=1e-9)
