"""Input dropout: the expected input is the input, and dropout is an L2 penalty."""

from itertools import product

import numpy as np
import pytest
import torch
from same_nets import assert_a_stack, assert_same, on_paths, tensors, together
from sklearn.datasets import load_iris
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.regularizers import InputDropout

X, Y = load_iris(return_X_y=True)
SMALL = {"hidden_layer_sizes": 6, "max_epochs": 3, "batch_size": 40}
SMALL |= {"random_state": 0, "dtype": "float64", "lr": 0.01}


def net(make=RegularizedNetClassifier, **params):
    return make(**SMALL | params)


def dropped(X, p, seed=0):
    torch.manual_seed(seed)
    return InputDropout(p).batch(X, None)[0]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(4,), (2, 3), (3, 2, 2), ()])
def test_the_expected_input_is_the_input(p, shape):
    torch.manual_seed(1)
    sample = torch.rand(1, *shape, dtype=torch.float64) + 0.5
    n = 40_000
    found = dropped(sample.expand(n, *shape), p)
    stays = found != 0
    torch.testing.assert_close(found[stays], (sample / (1 - p)).expand_as(found)[stays])
    if len(shape) > 1:  # channels are dropped as one
        flat = stays.flatten(2)
        assert (flat == flat[:, :, :1]).all()
    rate = stays.double().mean(0)
    torch.testing.assert_close(rate, torch.full_like(rate, 1 - p), rtol=0, atol=0.01)
    torch.testing.assert_close(found.mean(0), sample[0], rtol=0.1, atol=0)


def test_features_of_samples_are_dropped_on_their_own():
    stays = dropped(torch.ones(20_000, 3, dtype=torch.float64), 0.5) > 0
    correlations = torch.corrcoef(stays.double().T)
    torch.testing.assert_close(
        correlations, torch.eye(3, dtype=torch.float64), rtol=0, atol=0.03
    )


def test_of_a_linear_net_it_is_an_l2_penalty_on_average(monkeypatch):
    rng = np.random.default_rng(0)
    sample, w = (torch.from_numpy(rng.normal(size=(1, 4))) for _ in range(2))
    y, p, expected = 0.7, 0.3, 0.0
    for drops in product([0.0, 1.0], repeat=4):
        monkeypatch.setattr(
            torch, "rand", lambda *shape, drops=drops: torch.tensor([drops])
        )
        chance = np.prod([p if d else 1 - p for d in drops])
        inputs, _ = InputDropout(p).batch(sample, None)
        expected += chance * ((inputs * w).sum() - y) ** 2
    penalty = p / (1 - p) * (w**2 * sample**2).sum()
    torch.testing.assert_close(expected, ((sample * w).sum() - y) ** 2 + penalty)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_are_those_of_every_dtype(dtype):
    ones = torch.ones(5, 7, dtype=dtype)
    found = dropped(ones, 0.4)
    assert found.dtype == dtype
    assert torch.equal(found > 0, dropped(ones.double(), 0.4) > 0)


@pytest.mark.parametrize("make", [RegularizedNetClassifier, RegularizedNetRegressor])
def test_every_path_trains_the_same_net_and_validates_without(make):
    nets = on_paths(net(make, input_dropout=0.3), X, Y, X_val=X, y_val=Y)
    assert_same(nets[1:], [nets[0]] * 2, rtol=1e-10)
    plain = net(make).fit(X, Y)
    assert not torch.allclose(tensors(nets[0])[0], tensors(plain)[0])
    if make is RegularizedNetClassifier:
        assert nets[0].history[-1, "valid_acc"] == nets[0].score(X, Y)


def test_zero_is_absence_bit_for_bit():
    assert_same([net(input_dropout=0.0).fit(X, Y)], [net().fit(X, Y)], rtol=0)


def with_dropout(in_features, out_features):
    return nn.Sequential(
        nn.Linear(in_features, 6),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(6, out_features),
    )


@pytest.mark.parametrize("module", [None, with_dropout])
def test_each_net_of_a_stack_has_its_own(module):
    nets = [
        net(module=module, input_dropout=p, lambda2=lambda2)
        for p, lambda2 in [(0.0, 0.0), (0.2, 0.0), (0.2, 1e-2), (0.5, 0.0)]
    ]
    assert_a_stack(nets, X, Y)


@pytest.mark.parametrize("backend", [False, True])
def test_integers_are_an_error(backend):
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, x):
            return self.table(x).sum(1)

    data = np.random.default_rng(0).integers(5, size=(60, 2))
    estimator = net(module=Embedded, input_dropout=0.2)
    message = r"input_dropout=0.2 needs .*numbers; got torch.int64.*input_dropout=0"
    with pytest.raises(ValueError, match=message):
        together([estimator] * 4, data, Y[:60]) if backend else estimator.fit(
            data, Y[:60]
        )


@pytest.mark.parametrize("p", [1.0, -0.1, "much", None])
def test_a_probability_is_in_the_interval(p):
    with pytest.raises(ValueError, match=r"input_dropout=.*a number in \[0, 1\)"):
        net(input_dropout=p).fit(X, Y)
