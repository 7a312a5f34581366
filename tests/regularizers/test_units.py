"""Which weights go into a unit, and which come from an input."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from skreg.modules import MLP
from skreg.regularizers.units import hidden_layers, hidden_units, incoming, inputs

CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3),
    "groups": nn.Conv1d(4, 6, 3, groups=2),
    "transposed": nn.ConvTranspose1d(4, 6, 3),
    "transposed groups": nn.ConvTranspose2d(4, 6, (2, 3), groups=2),
    "linear": nn.Linear(4, 6),
}


def reach(layer, x):
    """Return which weights the outputs of a layer depend on, by output or by input."""
    (slopes,) = torch.autograd.grad(x, layer.weight)
    return slopes != 0


def samples(layer, channels):
    """Return inputs of ones, long enough, with zeros but in some channels."""
    n_axes = layer.weight.ndim - 2
    x = torch.zeros(1, 4, *[7] * n_axes)
    x[:, channels] = torch.rand(x[:, channels].shape) + 1
    return x


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_weights_of_an_input_are_those_that_it_reaches(name):
    layer = CONVOLUTIONS[name]
    units = inputs(nn.Sequential(nn.Flatten(0, 0), layer), "lambda_group=1")
    assert units.name == "1.weight"
    for i in range(4):
        reached = reach(layer, layer(samples(layer, [i])).sum())
        mine = torch.zeros_like(layer.weight)
        rows = units.rows(mine).clone()
        rows[i] = 1
        units.write_rows(mine, rows)
        assert torch.equal(mine != 0, reached)
    assert units.rows(layer.weight).shape == (4, units.size)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_weights_and_the_bias_of_a_unit_are_those_that_reach_it(name):
    layer = CONVOLUTIONS[name]
    module = nn.Sequential(layer, nn.Linear(6, 2))
    ((weight, bias),) = hidden_units(module, "lambda_group=1")
    assert (weight.name, bias.name) == ("0.weight", "0.bias")
    for i in range(6):
        outputs = layer(samples(layer, range(4)))
        reached = reach(layer, outputs[:, i].sum())
        mine = torch.zeros_like(layer.weight)
        rows = weight.rows(mine).clone()
        rows[i] = 1
        weight.write_rows(mine, rows)
        assert torch.equal(mine != 0, reached)
    assert bias.rows(layer.bias).shape == (6, 1)
    assert torch.equal(bias.rows(layer.bias)[:, 0], layer.bias)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_in_a_stack_each_net_has_its_rows(name):
    layer = CONVOLUTIONS[name]
    module = nn.Sequential(layer, nn.Linear(6, 2))
    every = [*hidden_units(module, "x=1")[0], inputs(module, "x=1")]
    for units in every:
        one = dict(module.named_parameters())[units.name].detach()
        stack = torch.stack([one, 2 * one, 3 * one])
        for i, rows in enumerate(units.rows(stack)):
            assert torch.equal(rows, (i + 1) * units.rows(one))
        written = torch.zeros_like(stack)
        units.write_rows(written, units.rows(stack))
        assert torch.equal(written, stack)


def test_hidden_units_are_those_of_all_layers_but_the_last():
    module = MLP(4, 3, hidden_layer_sizes=(5, 6))
    layers = hidden_units(module, "x=1", 3)
    names = [[units.name for units in layer] for layer in layers]
    assert names == [["fc1.weight", "fc1.bias"], ["fc2.weight", "fc2.bias"]]
    hidden, (last, output) = hidden_layers(module, "x=1")
    assert [name for name, _ in hidden] == ["fc1", "fc2"]
    assert (last, output.out_features) == ("fc3", 3)


def test_norms_of_samples_and_frozen_or_missing_weights_are_left_out():
    layers = nn.Linear(4, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 5)
    module = nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm([4]), *layers)
    module.append(nn.Linear(5, 2))
    layers[0].weight.requires_grad_(False)
    layers[2].bias.requires_grad_(False)
    names = [
        [units.name for units in layer] for layer in hidden_units(module, "x=1", 2)
    ]
    assert names == [["3.weight"], ["4.weight"]]
    assert len(list(incoming(module, "x"))) == 3
    with pytest.raises(ValueError, match="x=1: the weights of '2', the first layer"):
        inputs(module, "x=1")


def test_a_tied_weight_counts_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    module = nn.Sequential(first, second, nn.Linear(4, 1))
    ((weight, bias),) = hidden_units(module, "x=1")
    assert (weight.name, bias.name) == ("0.weight", "0.bias")


class Backwards(nn.Module):
    """Holds its layers the other way round."""

    def __init__(self):
        super().__init__()
        self.output = nn.Linear(5, 2)
        self.hidden = nn.Linear(4, 5)


MISFITS = [
    (nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), "'0', of class Embedding"),
    (nn.Sequential(nn.LSTM(4, 3)), "'0', of class LSTM"),
    (nn.Sequential(nn.ReLU()), "Sequential has none"),
]


@pytest.mark.parametrize(("module", "message"), MISFITS)
def test_other_modules_are_errors(module, message):
    for find in (inputs, hidden_units):
        with pytest.raises(ValueError, match=f"x=1 is for the weights of.*{message}"):
            find(module, "x=1")


def test_layers_in_another_order_are_errors_where_they_can_be_told():
    with pytest.raises(ValueError, match="'output', has 5 inputs, but a sample has 4"):
        inputs(Backwards(), "x=1", (4,))
    with pytest.raises(ValueError, match="'hidden', has 5 outputs, but the module has"):
        hidden_units(Backwards(), "x=1", 2)


def test_no_hidden_layer_and_computed_weights_are_errors():
    with pytest.raises(ValueError, match="Sequential has no hidden layer with trained"):
        hidden_units(nn.Sequential(nn.Linear(4, 2)), "x=1")
    module = nn.Sequential(weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2))
    for find in (inputs, hidden_units):
        with pytest.raises(ValueError, match="x=1 cannot change the weights of a"):
            find(module, "x=1")
