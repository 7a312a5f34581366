from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from skreg import modules
from skreg.modules import MLP


@pytest.mark.parametrize(
    ("net", "sizes"),
    [
        (modules.AnimalNet, [3072, 128, 32, 3]),
        (modules.BigAnimalNet, [3072, 124, 64, 3]),
        (modules.AnimalNetDropout, [3072, 248, 210, 3]),
        (modules.ToyNet, [1, 300, 500, 1]),
        (modules.ToyNetDropout, [1, 300, 500, 1]),
        (lambda: MLP(7, 4, (6, 5)), [7, 6, 5, 4]),
    ],
)
def test_seed_gives_the_weights_of_linear_layers_made_in_order(net, sizes):
    torch.manual_seed(2021)
    ours = list(net().named_parameters())
    torch.manual_seed(2021)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    plain = [p for layer in layers for p in layer.parameters()]
    assert [name for name, _ in ours] == [
        f"fc{i}.{kind}" for i in range(1, len(sizes)) for kind in ("weight", "bias")
    ]
    assert all(torch.equal(a, b) for (_, a), b in zip(ours, plain, strict=True))


def reference_forward(net, x, activation, p1, p2):
    """The course's forward pass: dropout first, then the activation."""
    x = x.flatten(1)
    x = activation(F.dropout(net.fc1(x), p1, net.training))
    x = activation(F.dropout(net.fc2(x), p2, net.training))
    return net.fc3(x)


@pytest.mark.parametrize(
    ("net", "activation", "p1", "p2"),
    [
        (modules.AnimalNet, F.relu, 0, 0),
        (modules.BigAnimalNet, F.leaky_relu, 0, 0),
        (modules.AnimalNetDropout, F.leaky_relu, 0.5, 0.3),
        (modules.ToyNet, F.leaky_relu, 0, 0),
        (modules.ToyNetDropout, F.leaky_relu, 0.4, 0.2),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_forward_is_the_one_of_the_course(net, activation, p1, p2, training):
    net = net().train(training)
    shape = (3, 32, 32) if net.fc1.in_features == 3072 else (1,)
    x = torch.randn(4, *shape)
    torch.manual_seed(0)
    ours = net(x)
    torch.manual_seed(0)
    assert torch.equal(ours, reference_forward(net, x, activation, p1, p2))


@pytest.mark.parametrize("net", [modules.AnimalNet, modules.AnimalNetDropout])
def test_sizes_are_arguments(net):
    assert net(in_features=64, out_features=10)(torch.zeros(2, 1, 8, 8)).shape == (
        2,
        10,
    )


def test_mlp_drops_hidden_units_after_the_activation():
    net = MLP(1, 1, hidden_layer_sizes=20_000, activation="logistic", dropout=0.25)
    seen = []
    net.fc2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.zeros(1, 1))
    # A sigmoid is never zero: what is zero was dropped, the rest is scaled up.
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    net.eval()(torch.zeros(1, 1))
    kept = seen[0] != 0
    torch.testing.assert_close(seen[0][kept] * 0.75, seen[1][kept])


def test_mlp_without_hidden_layers_is_linear():
    net = MLP(3, 2, hidden_layer_sizes=())
    x = torch.randn(5, 3)
    assert torch.equal(net(x), F.linear(x, net.fc1.weight, net.fc1.bias))


@pytest.mark.parametrize("name", sorted(modules.ACTIVATIONS))
def test_every_activation_by_name(name):
    assert MLP(3, 2, activation=name)(torch.randn(5, 3)).shape == (5, 2)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hidden_layer_sizes": (10, 0)}, r"hidden_layer_sizes=\(10, 0\) must be"),
        ({"hidden_layer_sizes": 2.5}, "hidden_layer_sizes=2.5 must be"),
        ({"hidden_layer_sizes": "100"}, "hidden_layer_sizes='100' must be"),
        ({"hidden_layer_sizes": None}, "hidden_layer_sizes=None must be"),
        ({"dropout": 1.5}, r"dropout=1.5 must be a probability.*\[0, 1\]"),
        ({"dropout": "half"}, "dropout='half' must be a probability"),
        ({"activation": "rleu"}, "activation='rleu' is unknown; use one of .*'relu'"),
    ],
)
def test_bad_arguments_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        MLP(3, 2, **params)
