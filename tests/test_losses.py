"""Losses with their gradients against torch's own and its autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.losses import LOSSES, OPTIONS, PinballLoss, loss_of, loss_with_gradient

N, K = 6, 4
CRITERIA = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.3),
    "binary": nn.BCEWithLogitsLoss(),
    "squared": nn.MSELoss(),
    "absolute": nn.L1Loss(),
    "huber": nn.HuberLoss(),
    "huber-small": nn.HuberLoss(delta=0.2),
    "pinball": PinballLoss((0.1, 0.5, 0.75, 0.9)),
    "poisson": nn.PoissonNLLLoss(),
    "poisson-full": nn.PoissonNLLLoss(full=True),
    "poisson-means": nn.PoissonNLLLoss(log_input=False),
}


def targets_for(criterion, shape):
    kind = loss_of(criterion)
    if kind.targets == "classes":
        return torch.randint(K, shape[:-1])
    if kind.targets == "labels":
        return (torch.rand(shape) < 0.5).double()
    if kind.target_range[0] == 0:
        return torch.poisson(torch.full(shape, 2.0, dtype=torch.float64))
    return torch.randn(shape, dtype=torch.float64)


def torch_losses(criterion, outputs, y):
    """Return the loss of each sample, as torch computes it."""
    each = {**vars(criterion)}
    if isinstance(criterion, nn.CrossEntropyLoss):
        flat = F.cross_entropy(
            *(outputs.reshape(-1, K), y.reshape(-1)),
            reduction="none",
            label_smoothing=each["label_smoothing"],
        )
        return flat.reshape(outputs.shape[:-1])
    names = "delta", "full", "log_input", "eps", "quantiles"
    options = {name: each[name] for name in names if name in each}
    unreduced = type(criterion)(reduction="none", **options)
    return unreduced(outputs, y).mean(-1)


def drawn(criterion, seed, shape, size):
    torch.manual_seed(seed)
    outputs = size * torch.randn(shape, dtype=torch.float64)
    if getattr(criterion, "log_input", True) is False:
        outputs = outputs.abs() + 0.1  # means
    return outputs


@pytest.mark.parametrize("name", CRITERIA)
@given(
    seed=st.integers(0, 1000),
    stack=st.sampled_from([(), (1,), (3,)]),
    shared=st.booleans(),
    weighted=st.booleans(),
    size=st.floats(0.1, 20),
)
def test_loss_and_gradient_are_those_of_torch(
    name, seed, stack, shared, weighted, size
):
    criterion = CRITERIA[name]
    outputs = drawn(criterion, seed, (*stack, N, K), size)
    y = targets_for(criterion, (*(() if shared else stack), N, K))
    scale = torch.rand(*stack, N, dtype=torch.float64) if weighted else 1 / N
    theirs = outputs.clone().requires_grad_()
    of_all = y.expand(*stack, *y.shape) if shared else y
    losses = torch_losses(criterion, theirs, of_all)
    expected = (losses * scale).sum(-1)
    expected.sum().backward()
    loss, gradient = loss_with_gradient(criterion)(outputs, y, scale)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, theirs.grad)


@given(
    seed=st.integers(0, 1000),
    stack=st.sampled_from([(), (1,), (3,)]),
    shared=st.booleans(),
    weighted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.3]),
    turned=st.booleans(),
)
def test_cross_entropy_of_probabilities_is_that_of_torch(
    seed, stack, shared, weighted, smoothing, turned
):
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    outputs = drawn(criterion, seed, (*stack, N, K), 3.0)
    if turned:  # as stacks return them
        outputs = outputs.mT.contiguous().mT
    y = torch.rand(*(() if shared else stack), N, K, dtype=torch.float64)
    y /= y.sum(-1, keepdim=True)
    scale = torch.rand(*stack, N, dtype=torch.float64) if weighted else 1 / N
    theirs = outputs.clone().requires_grad_()
    losses = F.cross_entropy(
        *(theirs.reshape(-1, K), y.expand(*stack, N, K).reshape(-1, K)),
        reduction="none",
        label_smoothing=smoothing,
    )
    expected = (losses.reshape(*stack, N) * scale).sum(-1)
    expected.sum().backward()
    before = y.clone()
    loss, gradient = loss_with_gradient(criterion)(outputs, y, scale)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, theirs.grad)
    assert torch.equal(y, before)
    one_hot = y.argmax(-1)
    hard = loss_with_gradient(criterion)(outputs, one_hot, scale)
    rows = F.one_hot(one_hot, K).double()
    soft = loss_with_gradient(criterion)(outputs, rows, scale)
    torch.testing.assert_close(soft, hard)


@pytest.mark.parametrize("name", CRITERIA)
def test_the_plain_mean_is_the_criterion_itself(name):
    criterion = CRITERIA[name]
    outputs = drawn(criterion, 0, (N, K), 1.0)
    y = targets_for(criterion, (N, K))
    loss, _ = loss_with_gradient(criterion)(outputs.clone(), y, 1 / N)
    torch.testing.assert_close(loss, criterion(outputs, y))


@pytest.mark.parametrize(
    ("kind", "option", "values", "soft"),
    [
        (nn.CrossEntropyLoss, "label_smoothing", [0.0, 0.1, 0.9], False),
        (nn.CrossEntropyLoss, "label_smoothing", [0.0, 0.1, 0.9], True),
        (nn.HuberLoss, "delta", [0.1, 1.0, 10.0], False),
        (
            PinballLoss,
            "quantiles",
            [(0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8), (0.9, 0.1, 0.2, 0.3)],
            False,
        ),
    ],
)
def test_each_net_of_a_stack_has_its_own_option(kind, option, values, soft):
    criteria = [kind(**{option: value}) for value in values]
    outputs = drawn(criteria[0], 1, (3, N, K), 2.0)
    y = targets_for(criteria[0], (N, K))
    y = torch.rand(N, K, dtype=torch.float64).softmax(-1) if soft else y
    together = loss_with_gradient(criteria)(outputs.clone(), y, 1 / N)
    for i, criterion in enumerate(criteria):
        alone = loss_with_gradient(criterion)(outputs[i].clone(), y, 1 / N)
        torch.testing.assert_close(together[0][i], alone[0], rtol=0, atol=1e-14)
        torch.testing.assert_close(together[1][i], alone[1], rtol=0, atol=1e-14)


def test_options_by_net_are_those_that_the_table_has():
    entries = [loss_of(CRITERIA[name]) for name in CRITERIA]
    assert {option for entry in entries for option in entry.options} == OPTIONS


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(weight=torch.ones(3)),
        nn.CrossEntropyLoss(ignore_index=0),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.BCEWithLogitsLoss(weight=torch.ones(4)),
        nn.BCEWithLogitsLoss(pos_weight=torch.ones(4)),
        nn.L1Loss(reduction="none"),
        nn.NLLLoss(),
        nn.SmoothL1Loss(),
        F.cross_entropy,
        type("Mine", (nn.MSELoss,), {})(),
    ],
    ids=lambda criterion: getattr(criterion, "__name__", type(criterion).__name__),
)
def test_what_is_not_written_out_has_no_function(criterion):
    assert loss_with_gradient(criterion) is None


def test_a_criterion_with_a_hook_has_no_function():
    criterion = nn.MSELoss()
    criterion.register_forward_hook(lambda *args: None)
    assert loss_with_gradient(criterion) is None


def test_cross_entropy_of_shares_has_no_function():
    assert loss_with_gradient(nn.CrossEntropyLoss(), of_numbers=True) is None
    assert loss_with_gradient(nn.BCEWithLogitsLoss(), of_numbers=True) is not None


def test_a_subclass_is_known_by_its_base_and_a_class_like_its_instance():
    mine = type("Mine", (nn.PoissonNLLLoss,), {})
    assert loss_of(mine()).target_range == loss_of(mine).target_range == (0, np.inf)
    assert loss_of(nn.PoissonNLLLoss).mean is torch.exp
    assert loss_of(nn.PoissonNLLLoss(log_input=False)).mean is None
    assert loss_of(nn.Module()) is None
    assert loss_of(F.cross_entropy) is None
    assert set(LOSSES) >= {type(criterion) for criterion in CRITERIA.values()}


@pytest.mark.parametrize("name", ["absolute", "huber-small", "poisson", "poisson-full"])
def test_a_regressor_trains_by_the_written_gradient_as_by_autograd(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    y = rng.poisson(np.exp(X[:, 0])).astype(float)
    criterion = CRITERIA[name]

    def fitted(criterion):
        return RegularizedNetRegressor(
            criterion=criterion,
            hidden_layer_sizes=(5,),
            scale_target=False,
            max_epochs=20,
            batch_size=16,
            dtype="float64",
            random_state=0,
        ).fit(X, y)

    fast = fitted(criterion)
    assert fast.training_path_ == "backprop"
    slow = fitted(type("Mine", (type(criterion),), {})(**_options(criterion)))
    assert slow.training_path_ == "autograd"
    np.testing.assert_allclose(fast.predict(X), slow.predict(X), rtol=1e-9)
    np.testing.assert_allclose(
        *(fast.history[:, "train_loss"], slow.history[:, "train_loss"]), rtol=1e-12
    )


def _options(criterion):
    names = ("delta", "full", "log_input")
    return {n: vars(criterion)[n] for n in names if n in vars(criterion)}


def test_a_classifier_refuses_losses_of_numbers():
    net = RegularizedNetClassifier(criterion=nn.MSELoss)
    X, y = np.eye(4, dtype="float32"), [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"MSELoss is for numbers.*one class per"):
        net.fit(X, y)
