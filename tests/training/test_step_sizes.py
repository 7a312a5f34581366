"""Step sizes: what an optimizer multiplies a constant gradient with."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import optim

from skreg import RegularizedNetRegressor
from skreg.estimators.paths import forced_path
from skreg.regularizers import Regularizer
from skreg.training.step_sizes import StepSizes, reason_against_step_sizes

GRADIENT = torch.tensor([[3.0, -1e-3, 0.2], [-7.0, 1e2, 1.0]], dtype=torch.float64)
AT_ONCE = [
    (optim.SGD, {}),
    (optim.Adam, {}),
    (optim.Adam, {"amsgrad": True, "eps": 1e-2}),
    (optim.AdamW, {"weight_decay": 0.0, "betas": (0.5, 0.7)}),
    (optim.Adamax, {}),
    (optim.NAdam, {"momentum_decay": 0.1}),
    (optim.RAdam, {}),
    (optim.RMSprop, {"alpha": 0.8}),
    (optim.RMSprop, {"centered": True}),
    (optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
]
IN_THE_END = [
    (optim.SGD, {"momentum": 0.9}),
    (optim.SGD, {"momentum": 0.9, "dampening": 0.4}),
    (optim.SGD, {"momentum": 0.8, "nesterov": True}),
    (optim.RMSprop, {"momentum": 0.9, "alpha": 0.8}),
]


def last_step(kind, options, n_steps, gradient=GRADIENT, dtype=torch.float64):
    """Return how far the last of some steps has gone, and its step size."""
    w = torch.zeros(gradient.shape, dtype=dtype).requires_grad_()
    optimizer = kind([w], lr=0.05, **options)
    for _ in range(n_steps):
        before = w.detach().clone()
        w.grad = gradient.to(dtype)
        optimizer.step()
    return before - w.detach(), StepSizes(optimizer, {"w": w})["w"]


@pytest.mark.parametrize(("kind", "options"), AT_ONCE)
@pytest.mark.parametrize("n_steps", [1, 2, 5, 6, 30])  # RAdam adapts from the 6th on
def test_a_constant_gradient_is_multiplied_with_it(kind, options, n_steps):
    moved, size = last_step(kind, options, n_steps)
    torch.testing.assert_close(size * GRADIENT, moved, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("kind", "options"), IN_THE_END)
def test_with_momentum_it_is_once_the_buffer_is_full(kind, options):
    moved, size = last_step(kind, options, 400)
    torch.testing.assert_close(size * GRADIENT, moved, rtol=1e-9, atol=0)


@settings(max_examples=30)
@given(st.floats(0, 0.9), st.floats(0, 1), st.floats(1e-4, 10))
def test_a_buffer_of_any_momentum_and_dampening_fills_up(mu, dampening, size):
    gradient = torch.tensor([size, -size], dtype=torch.float64)
    options = {"momentum": mu, "dampening": dampening}
    moved, told = last_step(optim.SGD, options, 250, gradient)
    torch.testing.assert_close(told * gradient, moved, rtol=1e-7, atol=1e-12)


def test_a_weight_without_a_step_has_the_size_zero():
    w, other = (torch.zeros(2).requires_grad_() for _ in range(2))
    sizes = StepSizes(optim.Adam([w]), {"w": w, "other": other})
    assert sizes["w"] == 0  # no step yet
    assert sizes["other"] == 0  # not trained


UNKNOWN = [
    (optim.Adadelta, {}, "optimizer=Adadelta does not tell"),
    (optim.Rprop, {}, "optimizer=Rprop does not tell"),
    (optim.ASGD, {}, "optimizer=ASGD does not tell"),
    (type("Mine", (optim.Adam,), {}), {}, "optimizer=Mine does not tell"),
    (optim.SGD, {"momentum": 1.0}, r"SGD with momentum=1\.0 does not tell"),
    (optim.Adam, {"maximize": True}, "Adam with maximize=True does not tell"),
]


@pytest.mark.parametrize(("kind", "options", "message"), UNKNOWN)
def test_an_optimizer_without_a_metric_is_an_error_with_a_remedy(
    kind, options, message
):
    w = torch.zeros(2).requires_grad_()
    optimizer = kind([w], lr=0.1, **options)
    with pytest.raises(ValueError, match=f"{message}.*; use SGD, Adam, .* or Adagrad"):
        StepSizes(optimizer, {"w": w})["w"]


def test_one_group_is_enough():
    w, v = torch.zeros(2).requires_grad_(), torch.zeros(2).requires_grad_()
    groups = [{"params": [w]}, {"params": [v], "momentum": 1.5}]
    optimizer = optim.SGD(groups, lr=0.1)
    assert "momentum=1.5" in reason_against_step_sizes(optimizer)


class Notes(Regularizer):
    """Notes steps and their sizes, in a list that the test holds."""

    noted = []

    def project(self, weights, step_sizes):
        kept = {name: w.clone() for name, w in weights.items()}
        self.noted.append((kept, dict(step_sizes)))


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
@pytest.mark.parametrize("path", ["autograd", "hooks"])
def test_a_step_that_mixed_precision_leaves_out_has_the_size_zero(optimizer, path):
    Notes.noted.clear()
    X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    net = RegularizedNetRegressor(
        hidden_layer_sizes=4,
        optimizer=optimizer,
        amp="float16",
        batch_size=-1,
        max_epochs=12,
        random_state=0,
        scale_target=False,
        regularizers=[Notes()],
    )
    with forced_path(path):  # errors of 100 overflow until losses are scaled less
        net.fit(X.numpy(), 100 * X[:, 0].numpy())
    rests = []
    for (before, _), (after, sizes) in zip(
        Notes.noted[:-1], Notes.noted[1:], strict=True
    ):
        rest = all(torch.equal(before[name], after[name]) for name in before)
        assert rest == (not any(torch.as_tensor(s).any() for s in sizes.values()))
        rests.append(rest)
    assert any(rests)
    assert False in rests
