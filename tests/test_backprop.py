"""Written-out backpropagation against autograd, for one net and for stacks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from skreg.backprop import (
    ACTIVATION_FORWARD,
    Backprop,
    Parts,
    fully_connected_layers,
)
from skreg.losses import cross_entropy
from skreg.modules import MLP, AnimalNetDropout


def no_noise(layer, x):
    return None


def make(activation=nn.ReLU, bias=True):
    return nn.Sequential(
        nn.Linear(5, 4, bias=bias),
        activation(),
        nn.Linear(4, 17, bias=bias),
        activation(),
        nn.Linear(17, 3, bias=bias),
    ).double()


def by_autograd(module, x, y):
    outputs = module(x)
    F.cross_entropy(outputs, y).backward()
    return outputs.detach(), [w.grad for w in module.parameters()]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("activation", ACTIVATION_FORWARD)
def test_gradients_of_one_net_are_those_of_autograd(activation, accumulate, bias):
    torch.manual_seed(0)
    module = make(activation, bias)
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.arange(7) % 3
    outputs, expected = by_autograd(module, x, y)
    weights = {w: w.detach() for w in module.parameters()}
    gradients = {w: torch.ones_like(w) for w in module.parameters()}
    net = Backprop(fully_connected_layers(module, (5,)), weights, gradients, no_noise)
    with torch.no_grad():
        mine = net.forward(x, training=True)
        torch.testing.assert_close(mine, outputs)
        net.backward(cross_entropy(mine, y, 1 / 7)[1], accumulate)
    for gradient, wanted in zip(gradients.values(), expected, strict=True):
        torch.testing.assert_close(gradient, wanted + accumulate)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("activation", ACTIVATION_FORWARD)
@pytest.mark.parametrize("kind", ["own", "shared", "parts"])
def test_gradients_of_a_stack_are_those_of_its_nets(activation, accumulate, bias, kind):
    torch.manual_seed(0)
    modules = [make(activation, bias) for _ in range(3)]
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    y = torch.randint(3, (3, 7))
    if kind == "shared":
        x[:], y[:] = x[0].clone(), y[0].clone()
        inputs = Parts([x[0]], [slice(0, 3)])
    elif kind == "parts":
        x[1], y[1] = x[0].clone(), y[0].clone()
        inputs = Parts([x[0], x[2]], [slice(0, 2), slice(2, 3)])
    else:
        inputs = x
    expected = [by_autograd(m, x[i], y[i]) for i, m in enumerate(modules)]
    first = list(modules[0].parameters())
    columns = list(zip(*(m.parameters() for m in modules), strict=True))
    weights = {w: torch.stack(c).detach() for w, c in zip(first, columns, strict=True)}
    gradients = {w: torch.ones_like(stack) for w, stack in weights.items()}
    layers = fully_connected_layers(modules[0], (5,))
    stack = Backprop(layers, weights, gradients, no_noise)
    with torch.no_grad():
        mine = stack.forward(inputs, training=True)
        stack.backward(cross_entropy(mine, y, 1 / 7)[1], accumulate)
        mine = stack.forward(inputs, training=True)
    for i, (outputs, wanted) in enumerate(expected):
        torch.testing.assert_close(mine[i], outputs)
        for gradient, w in zip(gradients.values(), wanted, strict=True):
            torch.testing.assert_close(gradient[i], w + accumulate)


def test_parts_of_different_lengths_do_not_touch_each_other():
    torch.manual_seed(0)
    modules = [make() for _ in range(2)]
    x = torch.randn(6, 5, dtype=torch.float64)
    y = torch.randint(3, (2, 6))
    scale = torch.zeros(2, 6, dtype=torch.float64)
    scale[0], scale[1, :4] = 1 / 6, 1 / 4
    expected = [
        by_autograd(modules[0], x, y[0]),
        by_autograd(modules[1], x[:4], y[1, :4]),
    ]
    first = list(modules[0].parameters())
    columns = zip(*(m.parameters() for m in modules), strict=True)
    weights = {w: torch.stack(c).detach() for w, c in zip(first, columns, strict=True)}
    gradients = {w: torch.zeros_like(stack) for w, stack in weights.items()}
    layers = fully_connected_layers(modules[0], (5,))
    stack = Backprop(layers, weights, gradients, no_noise)
    with torch.no_grad():
        mine = stack.forward(Parts([x, x[:4]], [slice(0, 1), slice(1, 2)]), True)
        stack.backward(cross_entropy(mine, y, scale)[1], accumulate=False)
    torch.testing.assert_close(mine[1, :4], expected[1][0])
    for i, (_, wanted) in enumerate(expected):
        for gradient, w in zip(gradients.values(), wanted, strict=True):
            torch.testing.assert_close(gradient[i], w)


def test_noise_acts_on_the_pass_forward_and_backward():
    torch.manual_seed(0)
    module = AnimalNetDropout(5, 3).double()
    noise = {
        module.dropout1: torch.rand(7, 248, dtype=torch.float64),
        module.dropout2: torch.rand(7, 210, dtype=torch.float64),
    }
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.arange(7) % 3
    handles = [
        layer.register_forward_hook(lambda layer, args, _: args[0] * noise[layer])
        for layer in noise
    ]
    outputs, expected = by_autograd(module, x, y)
    for handle in handles:
        handle.remove()
    weights = {w: w.detach() for w in module.parameters()}
    gradients = {w: torch.zeros_like(w) for w in module.parameters()}
    layers = fully_connected_layers(module, (5,))
    net = Backprop(layers, weights, gradients, lambda layer, x: noise[layer])
    with torch.no_grad():
        mine = net.forward(x, training=True)
        net.backward(cross_entropy(mine, y, 1 / 7)[1], accumulate=False)
        torch.testing.assert_close(net.forward(x, training=False), module.eval()(x))
    torch.testing.assert_close(mine, outputs)
    for gradient, wanted in zip(gradients.values(), expected, strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_what_counts_as_fully_connected():
    class Scaled(MLP):
        def forward(self, x):
            return 2 * super().forward(x)

    wide = nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 2))
    halves = nn.Sequential(nn.Flatten(2), nn.Linear(4, 2))
    twice = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    twice.append(twice[0])
    assert fully_connected_layers(MLP(4, 2), (2, 2))
    assert fully_connected_layers(nn.Sequential(nn.Linear(4, 2)), (4,))
    assert fully_connected_layers(nn.Sequential(nn.Linear(4, 2)), (3, 4)) is None
    assert fully_connected_layers(nn.Sequential(), (4,)) is None
    for module in (Scaled(4, 2), wide, halves, twice):
        assert fully_connected_layers(module, (4,)) is None
