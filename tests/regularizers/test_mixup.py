"""Mixup: the loss of a mixture is the mixture of two losses, on every path."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from same_nets import (
    PATHS,
    assert_a_stack,
    assert_same,
    on_paths,
    tensors,
    together,
)
from scipy.stats import beta, kstest
from sklearn.datasets import load_iris
from skorch.callbacks import EpochScoring
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg._utils.randomness import epoch_seed
from skreg.callbacks import AccuracyTracker
from skreg.estimators.paths import forced_path
from skreg.losses import loss_with_gradient
from skreg.regularizers import Mixing, TrainingData
from skreg.regularizers._mixing import draw_shares

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
LABELS = np.stack([Y == 0, X[:, 1] > 0], axis=1).astype(int)
NUMBERS = X[:, :2] + 0.1 * X[:, 2:] ** 2
WEIGHT = np.random.default_rng(0).random(len(X))
SMALL = {"hidden_layer_sizes": 6, "max_epochs": 3, "batch_size": 40}
SMALL |= {"random_state": 0, "dtype": "float64", "lr": 0.01}
KINDS = {
    "classes": (RegularizedNetClassifier, Y),
    "labels": (RegularizedNetClassifier, LABELS),
    "numbers": (RegularizedNetRegressor, NUMBERS),
}


def of(kind, **params):
    return KINDS[kind][0](**SMALL | params)


def mixing(kind, n_outputs, *args):
    member = Mixing(args[0], 0.0, *args[1:])
    member.data_ = TrainingData(kind, n_outputs, None)
    return member


def larger(share):
    return torch.maximum(share, 1 - share)


# -- the mathematics ------------------------------------------------------------------


def losses_of(kind, outputs, y):
    """Return the loss of each sample, as torch computes it."""
    if kind == "classes":
        return F.cross_entropy(outputs, y, reduction="none")
    if kind == "labels":
        return F.binary_cross_entropy_with_logits(outputs, y, reduction="none").mean(1)
    return F.mse_loss(outputs, y, reduction="none").mean(1)


CRITERIA = {
    "classes": nn.CrossEntropyLoss(),
    "labels": nn.BCEWithLogitsLoss(),
    "numbers": nn.MSELoss(),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(
    seed=st.integers(0, 1000),
    alpha=st.floats(0.05, 20),
    weighted=st.booleans(),
    per_sample=st.booleans(),
)
def test_the_loss_of_a_mixture_is_the_mixture_of_two_losses(
    kind, seed, alpha, weighted, per_sample
):
    torch.manual_seed(seed)
    n, k = 6, 3
    inputs = torch.randn(n, 2, dtype=torch.float64)
    y = torch.randn(n, k, dtype=torch.float64)
    if kind == "classes":
        y = torch.randint(k, (n,))
    elif kind == "labels":
        y = (y > 0).double()
    weight = None
    if weighted:  # some are zero
        weight = torch.rand(n, dtype=torch.float64).sub_(0.3).clamp_(min=0)
    state = torch.get_rng_state()
    member = mixing(kind, k, alpha, per_sample)
    mixed, soft, total = member.weighted_batch(inputs, y, weight)

    torch.set_rng_state(state)
    partners = torch.randperm(n)
    share = larger(draw_shares(alpha, n if per_sample else 1))
    expected = share[:, None] * inputs + (1 - share[:, None]) * inputs[partners]
    torch.testing.assert_close(mixed, expected)
    outputs = torch.randn(n, k, dtype=torch.float64, requires_grad=True)
    own = losses_of(kind, outputs, y)
    others = losses_of(kind, outputs, y[partners])
    if weighted:
        own, others = own * weight, others * weight[partners]
        torch.testing.assert_close(
            total, share * weight + (1 - share) * weight[partners]
        )
    loss = (share * own + (1 - share) * others).mean()
    (gradient,) = torch.autograd.grad(loss, outputs)

    scale = 1 / n if total is None else total / n
    written = loss_with_gradient(CRITERIA[kind])(outputs.detach(), soft, scale)
    theirs = losses_of(kind, outputs, soft)
    theirs = (theirs if total is None else total * theirs).mean()
    torch.testing.assert_close(written[1], gradient)
    torch.testing.assert_close(torch.autograd.grad(theirs, outputs)[0], gradient)
    if kind != "numbers":  # whose squared errors differ by a constant
        torch.testing.assert_close(written[0], loss.detach())
        torch.testing.assert_close(theirs, loss)


def test_a_step_follows_the_gradient_of_the_mixture():
    module = nn.Linear(4, 3).double()
    before = [w.detach().clone() for w in module.parameters()]
    torch.manual_seed(epoch_seed(0, 1))
    partners, share = torch.randperm(len(X)), larger(draw_shares(0.7, len(X)))
    data, y = torch.from_numpy(X), torch.from_numpy(Y)
    mixed = share[:, None] * data + (1 - share[:, None]) * data[partners]
    outputs = module(mixed)
    losses = [losses_of("classes", outputs, targets) for targets in (y, y[partners])]
    (share * losses[0] + (1 - share) * losses[1]).mean().backward()
    net = of(
        "classes",
        module=nn.Sequential(module),
        optimizer=torch.optim.SGD,
        lr=1.0,
        batch_size=-1,
        max_epochs=1,
        mixup=0.7,
    )
    for fitted in on_paths(net, X, Y):
        pairs = zip(tensors(fitted), before, module.parameters(), strict=True)
        for w, start, parameter in pairs:
            torch.testing.assert_close(w, start - parameter.grad)


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 3.0, 50.0])
def test_shares_are_from_a_beta_distribution(alpha):
    torch.manual_seed(0)
    shares = draw_shares(alpha, 100_000).numpy()
    assert shares.dtype == np.float64
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [1e-320, 1e-12, 1e16, 1e300])
def test_extreme_shares_are_all_or_half(alpha):
    shares = larger(draw_shares(alpha, 1000))
    expected = 1.0 if alpha < 1 else 0.5
    torch.testing.assert_close(shares, torch.full_like(shares, expected))


def test_shares_are_drawn_from_the_default_generator_alone():
    torch.manual_seed(3)
    first = draw_shares(0.3, 100)
    torch.manual_seed(3)
    torch.set_num_threads(2)
    assert torch.equal(draw_shares(0.3, 100), first)
    torch.set_num_threads(1)


def test_mixtures_of_a_linear_regression_have_its_solution(monkeypatch):
    """Over all pairings, moments about the mean are shrunk, X'X and X'y alike."""
    rng = np.random.default_rng(0)
    data = torch.from_numpy(rng.normal(size=(5, 2)))
    y = torch.from_numpy(rng.normal(size=(5, 1)))
    data, y = data - data.mean(0), y - y.mean(0)
    member = mixing("numbers", 1, 1.0, False)
    torch.manual_seed(0)
    share = larger(draw_shares(1.0, 1))
    moments = []
    for order in permutations(range(5)):
        monkeypatch.setattr(
            torch, "randperm", lambda n, order=order: torch.tensor(order)
        )
        torch.manual_seed(0)
        mixed, targets, _ = member.weighted_batch(data, y, None)
        moments.append((mixed.T @ targets, mixed.T @ mixed))
    shrunk = share**2 + (1 - share) ** 2
    mean = [torch.stack(part).mean(dim=0) for part in zip(*moments, strict=True)]
    torch.testing.assert_close(mean[0], shrunk * (data.T @ y))
    torch.testing.assert_close(mean[1], shrunk * (data.T @ data))


# -- on every path, and in stacks -----------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("per_sample", [True, False])
def test_every_path_trains_the_same_net(kind, weight, per_sample):
    net = of(kind, mixup=0.4, mixup__per_sample=per_sample, lambda2=1e-3)
    nets = on_paths(net, X, KINDS[kind][1], sample_weight=weight)
    assert_same(nets[1:], [nets[0]] * 2, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_absence_bit_for_bit_and_a_tiny_alpha_is_absence(kind):
    y = KINDS[kind][1]
    plain, none = of(kind).fit(X, y), of(kind, mixup=0.0).fit(X, y)
    assert_same([none], [plain], rtol=0)
    nets = on_paths(of(kind, mixup=1e-12), X, y)
    assert_same(nets, [plain] * 3, rtol=1e-10)
    some = of(kind, mixup=0.2).fit(X, y)
    assert not torch.allclose(tensors(some)[0], tensors(plain)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_each_net_of_a_stack_has_its_own(kind, weight):
    nets = [
        of(kind, mixup=alpha, mixup__per_sample=per_sample, lambda2=lambda2)
        for alpha, per_sample, lambda2 in [
            *((0.1, True, 0.0), (0.1, True, 1e-2), (0.4, True, 0.0)),
            *((0.4, False, 0.0), (2.0, False, 1e-2)),
        ]
    ]
    assert_a_stack(nets, X, KINDS[kind][1], sample_weight=weight)


def test_nets_whose_targets_are_shares_and_others_train_in_two_stacks(stacks):
    nets = [of("classes", mixup=alpha) for alpha in (0.0, 0.0, 0.2, 0.3, 0.4)]
    assert_a_stack(nets, X, Y)
    assert sorted(stacks) == [2, 3]
    stacks.clear()
    nets = [of("labels", mixup=alpha) for alpha in (0.0, 0.2, 0.3)]
    assert_a_stack(nets, X, LABELS)
    assert stacks == [3]


def with_dropout(in_features, out_features):
    return nn.Sequential(
        nn.Linear(in_features, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, out_features)
    )


class Convolution(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 3, 2), nn.GELU(), nn.Dropout(0.3))
        self.out = nn.Linear(3 * (in_features - 1), out_features)

    def forward(self, x):
        return self.out(self.layers(x.unsqueeze(1)).flatten(1))


@pytest.mark.parametrize("module", [with_dropout, Convolution])
@pytest.mark.usefixtures("stacks")
def test_pairs_and_dropout_draw_in_turns(module):
    nets = [
        of("classes", module=module, mixup=alpha, dropout=p, label_smoothing=smoothing)
        for alpha, p, smoothing in [
            *((0.2, 0.1, 0.0), (0.2, 0.1, 0.2)),
            *((0.2, 0.5, 0.0), (0.5, 0.5, 0.1)),
        ]
    ]
    assert_a_stack(nets, X, Y)


# -- who looks at targets -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_accuracy_is_that_of_the_data(kind):
    y = KINDS[kind][1]
    net = of(kind, mixup=1.0, callbacks=[("acc", AccuracyTracker(on_train=True))])
    split = {"X_val": X[:50], "y_val": y[:50]}
    nets = on_paths(net, X, y, **split)
    nets += together([net] * 4, X, y, **split)
    assert nets[-1].training_path_ == "stack"
    for fitted in nets:
        assert fitted.history[-1, "train_acc"] == pytest.approx(fitted.score(X, y))
        accuracy = fitted.score(X[:50], y[:50])
        assert fitted.history[-1, "valid_acc"] == pytest.approx(accuracy)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("caching", [True, False])
def test_scorers_of_training_see_the_targets_of_the_data(kind, caching):
    y, seen = KINDS[kind][1], []

    def look(net, X, y):
        seen.append(np.asarray(y))
        return 0.0

    scoring = EpochScoring(look, on_train=True, name="look", use_caching=caching)
    net = of(kind, mixup=1.0, callbacks=[scoring], batch_size=-1).fit(X, y)
    assert np.isfinite(net.history[-1, "train_loss"])
    np.testing.assert_allclose(seen[-1], y)


@pytest.mark.parametrize("kind", KINDS)
def test_attacks_are_on_mixtures(kind):
    net = of(kind, mixup=0.4, adversarial_eps=0.1)
    nets = on_paths(net, X, KINDS[kind][1])
    assert_same(nets[1:], [nets[0]] * 2, rtol=1e-10)
    plain = of(kind, mixup=0.4).fit(X, KINDS[kind][1])
    assert nets[0].history[0, "train_loss"] > plain.history[0, "train_loss"]


def test_mixed_precision_takes_shares():
    params = {"dtype": "float32", "mixup": 0.4}
    net = of("classes", **params).fit(X, Y)
    half = of("classes", amp="bfloat16", **params).fit(X, Y)
    for epoch, other in zip(net.history, half.history, strict=True):
        assert epoch["train_loss"] == pytest.approx(other["train_loss"], rel=0.05)


# -- what cannot be mixed -------------------------------------------------------------


class Own(nn.Module):
    """A criterion that skreg does not know."""

    def forward(self, outputs, y):
        return F.cross_entropy(outputs, y)


class Truncating(nn.Module):
    """Takes shares, but not as such."""

    def forward(self, outputs, y):
        return F.cross_entropy(outputs, y if y.ndim == 1 else y.argmax(dim=1))


def test_a_criterion_that_takes_shares_is_found_by_trying():
    own = of("classes", criterion=Own, predict_nonlinearity=None, mixup=0.4)
    assert_same([own.fit(X, Y)], [of("classes", mixup=0.4).fit(X, Y)])


LOG_SOFTMAX = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(dim=1))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"criterion": nn.NLLLoss, "module": LOG_SOFTMAX}, "NLLLoss"),
        ({"criterion": nn.MultiMarginLoss}, "MultiMarginLoss"),
        ({"criterion": Truncating}, "Truncating"),
        ({"criterion__weight": torch.tensor([1.0, 2.0, 3.0])}, "CrossEntropyLoss"),
        ({"criterion__ignore_index": 0}, "CrossEntropyLoss"),
    ],
)
def test_a_criterion_that_does_not_mix_is_an_error(path, params, name):
    net = of("classes", mixup=0.2, **params)
    message = rf"mixup=0.2 .*criterion={name} does not .* or mixup=0"
    with forced_path(path), pytest.raises(ValueError, match=message):
        net.fit(X, Y)


class Embedded(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.out = nn.Linear(3 * in_features, out_features)

    def forward(self, x):
        return self.out(self.table(x).flatten(1))


@pytest.mark.parametrize("backend", [False, True])
def test_integers_are_an_error(backend):
    data = np.random.default_rng(0).integers(5, size=(60, 2))
    net = of("classes", module=Embedded, mixup=0.2)
    message = r"mixup=0.2 needs .*floating-point numbers; got torch.int64.*mixup=0"
    with pytest.raises(ValueError, match=message):
        together([net] * 4, data, Y[:60]) if backend else net.fit(data, Y[:60])


def test_inputs_in_several_tensors_are_an_error():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, a, b):
            return self.fc(torch.cat([a, b], dim=1))

    net = of("classes", module=TwoInputs, mixup=0.2)
    with pytest.raises(ValueError, match=r"mixup=0.2 needs inputs in one tensor"):
        net.fit({"a": X[:, :2], "b": X[:, 2:]}, Y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mixup": -1.0}, "mixup=-1.0 must be a finite number >= 0"),
        ({"mixup": float("inf")}, "0.2 is a good start"),
        ({"mixup__per_sample": 1}, "mixup__per_sample=1 must be a bool"),
        ({"mixup__share": 1}, "no option of mixup, which has mixup__per_sample"),
    ],
)
def test_a_wrong_value_is_an_error(params, message):
    with pytest.raises(ValueError, match=message):
        of("classes", **params).fit(X, Y)
