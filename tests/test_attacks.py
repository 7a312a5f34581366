"""On losses whose worst inputs are known, attacks find them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from skreg.attacks import (
    NORMS,
    evaluation_mode,
    fgsm,
    log_odds_of_error,
    pgd,
    random_start,
)

DUAL = {"linf": 1, "l2": 2}  # the norm of w by which w @ d can grow


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def length(difference, norm):
    order = torch.inf if norm == "linf" else 2
    return torch.linalg.vector_norm(difference.flatten(1), order, dim=1)


@pytest.fixture
def curved():
    """Two layers and a softmax; the inputs are images."""
    w1, w2 = draw(12, 16, seed=1), draw(16, 3, seed=2)
    y = torch.arange(20) % 3

    def loss(X):
        return F.cross_entropy((X.flatten(1) @ w1).tanh() @ w2, y, reduction="none")

    return loss, draw(20, 1, 3, 4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fgsm_is_a_step_along_the_gradient(curved, norm, dtype):
    loss, X = curved
    if dtype is torch.float32:
        w = draw(12, dtype=dtype)
        loss, X = (lambda x: (x.flatten(1) @ w).square()), X.float()
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x).sum(), x)
    direction = gradient.sign()
    if norm == "l2":
        direction = gradient / length(gradient, "l2").reshape(-1, 1, 1, 1)
    attacked = fgsm(loss, X, 0.1, norm=norm)
    torch.testing.assert_close(attacked, X + 0.1 * direction)
    assert not attacked.requires_grad


@given(
    st.integers(0, 10**6),
    st.floats(1e-3, 10),
    st.sampled_from(NORMS),
    st.integers(1, 6),
)
def test_the_worst_input_of_a_linear_loss(seed, eps, norm, n_features):
    w, X = draw(n_features, seed=seed), draw(5, n_features, seed=seed + 1)

    def loss(x):
        return x @ w

    worst = loss(X) + eps * torch.linalg.vector_norm(w, DUAL[norm])
    torch.testing.assert_close(loss(fgsm(loss, X, eps, norm=norm)), worst)
    straight = pgd(loss, X, eps, steps=4, norm=norm)
    torch.testing.assert_close(loss(straight), worst)
    start = random_start(X, eps, norm, torch.Generator().manual_seed(seed))
    climbed = loss(pgd(loss, X, eps, steps=20, norm=norm, starts=[start]))
    # Along the surface of a ball of L2 a climb slows down towards the top.
    atol = 1e-9 if norm == "linf" else 0.05 * eps * torch.linalg.vector_norm(w).item()
    torch.testing.assert_close(climbed, worst, rtol=0, atol=atol)
    elsewhere = X + random_start(X, eps, norm, torch.Generator().manual_seed(seed))
    assert (loss(elsewhere) <= worst + 1e-9).all()


@given(st.integers(0, 10**6), st.floats(1e-3, 3))
def test_the_worst_input_of_a_linear_loss_within_bounds(seed, eps):
    w, X = draw(6, seed=seed), draw(5, 6, seed=seed + 1).clamp(-1, 1)
    low, high = (X - eps).clamp(min=-1), (X + eps).clamp(max=1)
    worst = torch.where(w > 0, high, low)
    for attacked in (
        fgsm(lambda x: x @ w, X, eps, bounds=(-1, 1)),
        pgd(lambda x: x @ w, X, eps, steps=5, bounds=(-1, 1)),
    ):
        torch.testing.assert_close(attacked, worst)


@given(
    st.integers(0, 10**6),
    st.floats(0, 5),
    st.sampled_from(NORMS),
    st.booleans(),
    st.integers(1, 5),
)
def test_attacks_stay_near_and_within_bounds(seed, eps, norm, is_pgd, steps):
    X, w = draw(7, 2, 3, seed=seed), draw(2, 3, seed=seed + 1)
    low, high = X.amin(0), X.amax(0)  # each feature has its own

    def loss(x):
        return (x * w).sum((1, 2)).sin()

    if is_pgd:
        start = random_start(X, eps, norm, torch.Generator().manual_seed(seed))
        options = {"steps": steps, "starts": [start]}
        attacked = pgd(loss, X, eps, norm=norm, bounds=(low, high), **options)
    else:
        attacked = fgsm(loss, X, eps, norm=norm, bounds=(low, high))
    assert attacked.shape == X.shape
    assert (length(attacked - X, norm) <= eps * (1 + 1e-9) + 1e-12).all()
    assert (attacked >= low).all()
    assert (attacked <= high).all()


@pytest.mark.parametrize("bounds", [(0, 1), (torch.tensor(0.0), torch.tensor(1.0))])
def test_inputs_beyond_the_bounds_go_no_further(bounds):
    X = torch.tensor([[-0.5, 0.95, 1.5]])
    down = fgsm(lambda x: -x.sum(1), X, 0.1, bounds=bounds)
    torch.testing.assert_close(down, torch.tensor([[-0.5, 0.85, 1.4]]))
    up = fgsm(lambda x: x.sum(1), X, 0.1, bounds=bounds)
    torch.testing.assert_close(up, torch.tensor([[-0.4, 1.0, 1.5]]))


@pytest.mark.parametrize("norm", NORMS)
def test_several_steps_find_more_than_one(curved, norm):
    loss, X = curved
    eps = {"linf": 0.5, "l2": 1.5}[norm]
    once = loss(fgsm(loss, X, eps, norm=norm))
    often = loss(pgd(loss, X, eps, steps=20, norm=norm))
    assert (often >= once - 1e-3).all()
    assert (often > once + 1e-3).any()
    assert (often > loss(X)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_of_full_length_is_fgsm(curved, norm):
    loss, X = curved
    once = fgsm(loss, X, 1e-3, norm=norm)
    pgd_once = pgd(loss, X, 1e-3, steps=1, step_size=1e-3, norm=norm)
    torch.testing.assert_close(pgd_once, once, rtol=0, atol=1e-15)


@given(st.integers(0, 10**6), st.floats(0, 5), st.sampled_from(NORMS))
def test_pgd_never_ends_below_its_start(seed, eps, norm):
    X, w = draw(9, 4, seed=seed), draw(4, seed=seed + 1)

    def loss(x):
        return torch.sin(5 * x @ w)

    start = random_start(X, eps, norm, torch.Generator().manual_seed(seed))
    assert (loss(pgd(loss, X, eps, steps=3, norm=norm)) >= loss(X)).all()
    attacked = pgd(loss, X, eps, steps=3, norm=norm, starts=[start])
    assert (loss(attacked) >= loss(X + start)).all()
    again = pgd(loss, X, eps, steps=3, norm=norm, starts=[None, start])
    straight = pgd(loss, X, eps, steps=3, norm=norm)
    highest = torch.maximum(loss(attacked), loss(straight))
    torch.testing.assert_close(loss(again), highest)


@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_loss_plays_no_part(norm):
    """The squares of these gradients are zero in float32."""
    X, w = draw(3, 4, dtype=torch.float32), draw(4, dtype=torch.float32)
    for attack in (
        lambda loss: fgsm(loss, X, 0.5, norm=norm),
        lambda loss: pgd(loss, X, 0.5, steps=3, norm=norm),
    ):
        attacked = attack(lambda x: 1e-30 * (x @ w))
        torch.testing.assert_close(attacked, attack(lambda x: x @ w))


@pytest.mark.parametrize("norm", NORMS)
def test_where_nothing_can_be_gained_nothing_changes(norm):
    X = draw(3, 4)
    flat = fgsm(lambda x: 0 * x.sum(1), X, 0.5, norm=norm)
    assert torch.equal(flat, X)
    assert torch.equal(pgd(lambda x: 0 * x.sum(1), X, 0.5, steps=2, norm=norm), X)
    assert torch.equal(pgd(lambda x: x.sum(1), X, 0.0, steps=2, norm=norm), X)


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_the_ball(norm):
    X = torch.zeros(20_000, 1, 3, dtype=torch.float64)
    start = random_start(X, 0.5, norm, torch.Generator().manual_seed(0))
    # The share of the volume within the radius of a point is uniform in [0, 1].
    share = (length(start, norm) / 0.5) ** 3
    assert share.max() <= 1
    quantiles = torch.quantile(share, torch.tensor([0.1, 0.5, 0.9]).double())
    torch.testing.assert_close(
        quantiles, torch.tensor([0.1, 0.5, 0.9]).double(), rtol=0, atol=0.02
    )
    assert start.mean(0).abs().max() < 0.01


@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(0.1, 20))
def test_log_odds_are_those_of_the_cross_entropy(seed, n_classes, scale):
    outputs = (scale * draw(6, n_classes, seed=seed)).requires_grad_()
    y = torch.arange(6) % n_classes
    odds = log_odds_of_error(outputs, y)
    entropy = F.cross_entropy(outputs, y, reduction="none")
    torch.testing.assert_close(F.softplus(odds), entropy)
    (gradient,) = torch.autograd.grad(odds.sum(), outputs, retain_graph=True)
    (usual,) = torch.autograd.grad(entropy.sum(), outputs)
    # d softplus(u) = sigmoid(u) du: the same direction.
    torch.testing.assert_close(odds.sigmoid()[:, None] * gradient, usual)
    log_p = outputs.log_softmax(dim=1)
    torch.testing.assert_close(log_odds_of_error(log_p, y), odds)


@given(seed=st.integers(0, 99), n_classes=st.integers(2, 5), scale=st.floats(0, 60))
def test_log_odds_of_shares_are_shares_of_log_odds(seed, n_classes, scale):
    torch.manual_seed(seed)
    outputs = scale * torch.randn(4, n_classes, dtype=torch.float64)
    outputs.requires_grad_()
    shares = torch.rand(4, n_classes, dtype=torch.float64)
    expected = sum(
        shares[:, k] * log_odds_of_error(outputs, torch.full((4,), k))
        for k in range(n_classes)
    )
    found = log_odds_of_error(outputs, shares)
    torch.testing.assert_close(found, expected)
    slopes = (torch.autograd.grad(odds.sum(), outputs) for odds in (found, expected))
    torch.testing.assert_close(*slopes)


def test_log_odds_are_exact_where_the_net_is_sure():
    logits = torch.tensor([[40.0, 0.0, 1.0]], requires_grad=True)
    y = torch.tensor([0])
    (gradient,) = torch.autograd.grad(log_odds_of_error(logits, y).sum(), logits)
    expected = torch.cat([torch.tensor([-1.0]), torch.tensor([0.0, 1.0]).softmax(0)])
    torch.testing.assert_close(gradient[0], expected)
    # The cross-entropy does not know any more that its own logit counts most.
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), logits)
    assert gradient[0, 0] == 0


def test_gradients_of_weights_are_left_alone():
    layer = torch.nn.Linear(3, 1)
    layer.weight.grad = torch.ones(1, 3)
    with torch.no_grad():
        fgsm(lambda x: layer(x)[:, 0], torch.zeros(2, 3), 0.1)
        pgd(lambda x: layer(x)[:, 0], torch.zeros(2, 3), 0.1, steps=2)
    assert torch.equal(layer.weight.grad, torch.ones(1, 3))
    assert layer.bias.grad is None


def test_evaluation_mode_puts_every_mode_back():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm1d(2))
    module[1].eval()
    with pytest.raises(KeyError), evaluation_mode(module):  # noqa: PT012
        assert not any(part.training for part in module.modules())
        raise KeyError
    assert [part.training for part in module.modules()] == [True, True, False]


@pytest.mark.cuda
@pytest.mark.parametrize("norm", NORMS)
def test_attacks_on_cuda(cuda, curved, norm):
    w, X = draw(12), draw(20, 1, 3, 4)
    expected = pgd(
        lambda x: (x.flatten(1) @ w).sin(), X, 0.1, steps=3, norm=norm, bounds=(-1, 1)
    )
    w = w.to(cuda)
    attacked = pgd(
        lambda x: (x.flatten(1) @ w).sin(),
        X.to(cuda),
        0.1,
        steps=3,
        norm=norm,
        bounds=(-1, 1),
    )
    assert attacked.device.type == "cuda"
    torch.testing.assert_close(attacked.cpu(), expected)
    assert random_start(X.to(cuda), 0.1, norm).device.type == "cuda"
