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


# -- batch normalisation and skip connections ------------------------------------------

CONFIGURATIONS = {
    "norm": {"batch_norm": True},
    "skip": {"skip_connections": True},
    "both": {"batch_norm": True, "skip_connections": True, "activation": "tanh"},
}


def deep(name, seed=0):
    torch.manual_seed(seed)
    module = MLP(5, 3, hidden_layer_sizes=(4, 4, 6, 6), **CONFIGURATIONS[name]).double()
    with torch.no_grad():  # no zeros and ones, which would hide errors
        for w in module.parameters():
            w.add_(0.1 * torch.randn(w.shape, dtype=w.dtype))
    return module


def backprop_of(modules):
    """Return the modules as one, or a stack if there are several; and its tensors."""
    first, stacked = modules[0], len(modules) > 1
    layers = fully_connected_layers(first, (5,))
    assert layers is not None
    of_all = zip(*(m.parameters() for m in modules), strict=True)
    weights = {
        own[0]: torch.stack(own).detach() if stacked else own[0].detach()
        for own in of_all
    }
    gradients = {w: torch.full_like(t, 7.0) for w, t in weights.items()}
    of_all = zip(*(m.buffers() for m in modules), strict=True)
    buffers = {b[0]: torch.stack(b) if stacked else b[0].clone() for b in of_all}
    model = Backprop(layers, weights, gradients, no_noise, buffers)
    return model, gradients, buffers


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("n_nets", [1, 3])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_norms_and_skips_are_differentiated_as_by_autograd(name, n_nets, accumulate):
    modules = [deep(name, seed) for seed in range(n_nets)]
    model, gradients, buffers = backprop_of(modules)
    x = torch.randn(n_nets, 9, 5, dtype=torch.float64)
    y = torch.randint(3, (n_nets, 9))
    for _ in range(2):  # running statistics move twice
        outputs = model.forward(x if n_nets > 1 else x[0], training=True)
        gradient = cross_entropy(outputs, y if n_nets > 1 else y[0], 1 / 9)[1]
        model.backward(gradient, accumulate)
        for i, module in enumerate(modules):
            module.zero_grad()
            expected = module.train()(x[i])
            F.cross_entropy(expected, y[i]).backward()
            mine = outputs[i] if n_nets > 1 else outputs
            torch.testing.assert_close(mine, expected.detach())
    n_written = 2 if accumulate else 1
    offset = 7.0 if accumulate else 0.0
    names = dict(modules[0].named_parameters())
    for i, module in enumerate(modules):
        for name, w in module.named_parameters():
            own = gradients[names[name]]
            own = own[i] if n_nets > 1 else own
            torch.testing.assert_close(own, offset + n_written * w.grad)
        own_buffers = zip(modules[0].buffers(), module.buffers(), strict=True)
        for first, own in own_buffers:
            if n_nets > 1:
                torch.testing.assert_close(buffers[first][i], own)
    inputs = x.clone().requires_grad_()
    evaluated = model.attached(inputs if n_nets > 1 else inputs[0])
    evaluated.square().sum().backward()
    for i, module in enumerate(modules if n_nets > 1 else ()):
        own = x[i].clone().requires_grad_()
        outputs = module.eval()(own)
        torch.testing.assert_close(evaluated[i], outputs)
        outputs.square().sum().backward()
        torch.testing.assert_close(inputs.grad[i], own.grad)


def test_skips_lead_around_layers_as_wide_as_the_one_before():
    torch.manual_seed(0)
    module = MLP(3, 2, hidden_layer_sizes=(4, 4, 5), skip_connections=True)
    x = torch.randn(6, 3)
    h = module.fc1(x).relu()
    h = h + module.fc2(h).relu()
    h = module.fc3(h).relu()
    torch.testing.assert_close(module(x), module.fc4(h))
    with pytest.raises(ValueError, match="skip_connections='yes' must be True or"):
        MLP(3, 2, skip_connections="yes")


@pytest.mark.parametrize("change", ["momentum", "affine", "statistics", "hook"])
def test_norms_with_other_options_are_not_written_out(change):
    options = {
        "momentum": {"momentum": None},
        "affine": {"affine": False},
        "statistics": {"track_running_stats": False},
    }
    norm = nn.BatchNorm1d(4, **options.get(change, {}))
    if change == "hook":
        norm.register_forward_hook(lambda *args: None)
    module = nn.Sequential(nn.Linear(5, 4), norm, nn.ReLU(), nn.Linear(4, 2))
    assert fully_connected_layers(module, (5,)) is None
