import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import nn

from skreg.modules import MLP
from skreg.penalties import (
    add_elastic_net,
    elastic_net,
    frobenius_norm,
    l1_penalty,
    l2_penalty,
    parameter_norms,
    penalized_parameters,
    soft_threshold,
)

coefficients = st.floats(0, 10) | st.just(0.0)
arrays = npst.arrays(
    np.float64,
    npst.array_shapes(max_dims=3, max_side=4, min_side=0),
    elements=st.floats(-100, 100) | st.just(0.0),
)


def plain_elastic_net(params, lambda1, lambda2):
    """The definition, in operations that autograd differentiates itself."""
    l1 = sum(w.abs().sum() for w in params)
    return lambda1 * l1 + lambda2 * sum((w**2).sum() for w in params)


@pytest.fixture
def linear():
    torch.manual_seed(2021)
    return nn.Linear(20, 20)


def test_reference_values_of_the_course(linear):
    assert l1_penalty(linear.parameters()).item() == 48.445133209228516
    assert l2_penalty(linear.parameters()).item() == 7.328375816345215


def test_frobenius_norm_is_the_norm_of_all_entries(linear):
    entries = torch.cat([w.flatten() for w in linear.parameters()]).double()
    assert frobenius_norm(linear) == pytest.approx(entries.norm().item(), rel=1e-6)
    assert frobenius_norm(linear) == pytest.approx(
        math.hypot(*parameter_norms(linear.parameters())), rel=1e-12
    )
    assert frobenius_norm(nn.ReLU()) == 0


@given(st.lists(arrays, min_size=1, max_size=3), coefficients, coefficients)
def test_the_gradient_that_is_added_is_that_of_the_definition(ws, lambda1, lambda2):
    weights = [torch.tensor(w) for w in ws]
    plain = [torch.tensor(w, requires_grad=True) for w in ws]
    gradients = [torch.ones_like(w) for w in weights]
    value = add_elastic_net(gradients, weights, lambda1, lambda2)
    expected = plain_elastic_net(plain, lambda1, lambda2)
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
    for gradient, w in zip(gradients, plain, strict=True):
        torch.testing.assert_close(gradient, 1 + w.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("lambda1", "lambda2"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
def test_gradient_is_the_numerical_derivative(lambda1, lambda2):
    torch.manual_seed(0)
    params = [torch.randn(s, dtype=torch.float64) for s in [(4, 3), (5,), (2, 2, 2)]]
    for w in params:
        w.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *ws: elastic_net(ws, lambda1, lambda2), params
    )
    assert torch.autograd.gradgradcheck(
        lambda *ws: elastic_net(ws, lambda1, lambda2), params
    )


def test_subgradient_at_zero_is_zero():
    w = torch.zeros(3, requires_grad=True)
    elastic_net([w], lambda1=1.0, lambda2=1.0).backward()
    assert torch.equal(w.grad, torch.zeros(3))


def test_the_elastic_net_can_be_transformed():
    torch.manual_seed(0)
    w, lambda1 = torch.randn(3, 4, 2), torch.tensor([0.0, 0.1, 1.0])

    def gradient(w, lambda1):
        return torch.func.grad(lambda v: elastic_net([v], lambda1, 0.5))(w)

    stacked = torch.func.vmap(gradient)(w, lambda1)
    for i in range(3):
        one = w[i].clone().requires_grad_()
        elastic_net([one], float(lambda1[i]), 0.5).backward()
        torch.testing.assert_close(stacked[i], one.grad)


def test_no_parameters_is_an_error():
    with pytest.raises(ValueError, match="holds no tensor"):
        elastic_net([], 1.0, 1.0)


class WithNormalization(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.layer_norm = nn.LayerNorm(4)
        self.rnn = nn.GRU(4, 2)


def test_penalize_all_and_weights():
    module = WithNormalization()
    assert list(penalized_parameters(module, "all")) == [
        name for name, _ in module.named_parameters()
    ]
    assert list(penalized_parameters(module, "weights")) == [
        "conv.weight",
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
    ]


def test_penalize_patterns_and_frozen_parameters():
    module = MLP(4, 3, hidden_layer_sizes=(5, 5))
    assert list(penalized_parameters(module, ["fc1.*", "*2.weight"])) == [
        "fc1.weight",
        "fc1.bias",
        "fc2.weight",
    ]
    module.fc1.weight.requires_grad_(False)
    assert list(penalized_parameters(module, ["fc1.*"])) == ["fc1.bias"]


class Tied(nn.Module):
    """Encoder and decoder share a matrix, and a bias goes by another name first."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(4, 4)
        self.offset = self.decoder.bias
        self.decoder.weight = self.encoder.weight


def test_tied_weights_count_once_and_match_by_any_name():
    module = Tied()
    assert list(penalized_parameters(module)) == [
        name for name, _ in module.named_parameters()
    ]
    assert list(penalized_parameters(module, "weights")) == ["encoder.weight"]
    assert set(penalized_parameters(module, ["decoder.*"])) == {
        "encoder.weight",
        "offset",
    }
    found = penalized_parameters(module, ["decoder.weight", "encoder.weight"])
    assert list(found) == ["encoder.weight"]
    assert found["encoder.weight"] is module.decoder.weight
    with pytest.raises(ValueError, match=r"parameter; .*'decoder\.weight'"):
        penalized_parameters(module, ["head.*"])


def test_names_are_those_of_the_original_module_when_it_is_compiled():
    module = MLP(4, 3)
    compiled = nn.Module()
    compiled._orig_mod = module
    assert list(penalized_parameters(compiled, "weights")) == [
        "fc1.weight",
        "fc2.weight",
    ]


@pytest.mark.parametrize(
    ("penalize", "message"),
    [
        ("fc1.*", r"penalize='fc1\.\*' must be .* write penalize=\['fc1\.\*'\]"),
        (["fc9.*"], r"\['fc9\.\*'\] matches no parameter; .*'fc1\.weight'"),
        ([], "an empty list matches no parameter"),
        (3, "penalize=3 must be 'all', 'weights' or a list"),
        ([3], r"penalize=\[3\] must be 'all', 'weights' or a list"),
    ],
)
def test_unknown_penalize_says_what_there_is(penalize, message):
    with pytest.raises(ValueError, match=message):
        penalized_parameters(MLP(4, 3), penalize)


@pytest.mark.parametrize("with_l1", [True, False])
@pytest.mark.parametrize("with_l2", [True, False])
def test_each_net_of_a_stack_has_the_penalty_it_has_alone(with_l1, with_l2):
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 4), (4,), ()
    params = [
        torch.randn(5, *shape, generator=generator, dtype=torch.float64)
        for shape in shapes
    ]
    params[0][:, 0] = 0.0  # where the gradient of |w| is 0
    lambdas = [
        torch.rand(3, 5, generator=generator, dtype=torch.float64) if wanted else None
        for wanted in (with_l1, with_l2)
    ]
    coefficients = [0.0 if each is None else list(each) for each in lambdas]
    for _ in range(2):
        gradients = [torch.full_like(w, 7.0) for w in params]
        values = add_elastic_net(gradients, params, *coefficients)
        for net in range(5):
            expected = 0.0
            for i, w in enumerate(params):
                gradient = torch.full_like(w[net], 7.0)
                l1, l2 = (
                    0.0 if each is None else float(each[i, net]) for each in lambdas
                )
                expected += float(add_elastic_net([gradient], [w[net]], l1, l2))
                torch.testing.assert_close(gradients[i][net], gradient)
            value = values[net] if with_l1 or with_l2 else values
            assert value == pytest.approx(expected)
        for w in params:
            w.mul_(-0.5)  # the next call sees the weights as they are by then


def test_a_net_of_a_stack_pays_nothing_for_what_it_does_not_penalise():
    w = torch.tensor([[torch.inf], [2.0]])
    gradient, coefficients = torch.zeros(2, 1), [torch.tensor([0.0, 0.5])]
    value = add_elastic_net([gradient], [w], coefficients, coefficients)
    torch.testing.assert_close(value, torch.tensor([0.0, 3.0]))


@pytest.mark.parametrize("l1", [0.0, 0.3])
@pytest.mark.parametrize("l2", [0.0, 0.7])
@pytest.mark.parametrize("stacked", [False, True])
def test_to_overwrite_is_to_add_to_nothing(l1, l2, stacked):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=generator), torch.zeros(4)]
    factors = torch.tensor([0.0, 1.0, 2.0, 3.0])
    coefficients = [[x * factors, None] if stacked else x for x in (l1, l2)]
    added = [torch.zeros_like(w) for w in weights]
    written = [torch.full_like(w, torch.nan) for w in weights]
    expected = add_elastic_net(added, weights, *coefficients)
    value = add_elastic_net(written, weights, *coefficients, overwrite=True)
    for a, b in zip(added, written, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(torch.as_tensor(value), torch.as_tensor(expected))


@pytest.mark.parametrize("stacked", [False, True])
def test_what_proximal_steps_see_to_costs_the_same_and_has_no_gradient(stacked):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=generator), torch.randn(4)]
    factors = torch.tensor([0.0, 1.0, 2.0, 3.0])
    l1 = [0.3 * factors, None] if stacked else 0.3
    l2 = [None, 0.7 * factors] if stacked else 0.7
    none = [None, None] if stacked else 0.0
    ignored, by_step, of_l2 = ([torch.zeros_like(w) for w in weights] for _ in range(3))
    expected = add_elastic_net(ignored, weights, l1, l2)
    value = add_elastic_net(by_step, weights, none, l2, proximal=l1)
    torch.testing.assert_close(value, expected)
    add_elastic_net(of_l2, weights, none, l2)
    for a, b in zip(by_step, of_l2, strict=True):
        assert torch.equal(a, b)


@given(arrays, st.floats(0, 10) | st.just(0.0))
def test_soft_thresholding_is_the_proximal_step(ws, threshold):
    """The minimum z of (z - w)^2 / 2 + t |z|: w - z is t times a subgradient."""
    w = torch.from_numpy(ws)
    z = soft_threshold(w, threshold)
    moved = w - z
    assert (moved[z == 0].abs() <= threshold).all()
    torch.testing.assert_close(moved[z != 0], threshold * z.sign()[z != 0])
    assert ((z == 0) == (w.abs() <= threshold)).all()
    assert torch.equal(soft_threshold(w, torch.full_like(w, threshold)), z)
    assert torch.equal(soft_threshold(w, 0.0), w)
