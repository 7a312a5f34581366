"""CutMix: boxes of images and features of rows, and the shares that stay."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from same_nets import assert_a_stack, assert_same, on_paths, tensors
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.regularizers import Mixing, TrainingData
from skreg.regularizers._mixing import cut

DIGITS, Y = load_digits(n_class=3, return_X_y=True)
DIGITS, Y = DIGITS[:120] / 16, Y[:120]
IMAGES = DIGITS.reshape(-1, 1, 8, 8)
SIGNALS = DIGITS.reshape(-1, 2, 32)
INPUTS = {"rows": DIGITS, "signals": SIGNALS, "images": IMAGES}
SMALL = {"hidden_layer_sizes": 6, "max_epochs": 3, "batch_size": 50}
SMALL |= {"random_state": 0, "dtype": "float64", "lr": 0.01}


def net(make=RegularizedNetClassifier, **params):
    return make(**SMALL | params)


def mixed(X, y=None, seed=0, n_classes=10, **params):
    """Return mixtures, their partners, and the shares that targets tell."""
    member = Mixing(**params)
    member.data_ = TrainingData("classes", n_classes, None)
    torch.manual_seed(seed)
    partners = torch.randperm(len(X))
    torch.manual_seed(seed)
    y = torch.arange(len(X)) % n_classes if y is None else y
    X, targets, _ = member.weighted_batch(X, y, None)
    return X, partners, targets


SHAPES = st.one_of(
    st.tuples(st.integers(1, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(*[st.integers(1, 2), *[st.integers(1, 4)] * 3]),
)


@settings(max_examples=50)
@given(shape=SHAPES, seed=st.integers(0, 1000), alpha=st.floats(0.05, 5))
def test_each_number_is_of_one_of_both_and_targets_are_their_shares(shape, seed, alpha):
    n = 7
    X = torch.arange(n * int(np.prod(shape)), dtype=torch.float64).view(n, *shape)
    X_mixed, partners, targets = mixed(X, seed=seed, n_classes=n, cutmix=alpha)
    own = X_mixed == X
    assert (own | (X_mixed == X[partners])).all()
    for i in range(n):
        if partners[i] == i:
            assert targets[i, i] == 1
            continue
        share = own[i].double().mean()
        torch.testing.assert_close(targets[i, i], share)
        torch.testing.assert_close(targets[i, partners[i]], 1 - share)
        if len(shape) > 1 and share < 1:
            taken = ~own[i]
            assert (taken == taken[:1]).all()  # in all channels alike
            places = taken[0].nonzero()
            sides = places.max(0).values - places.min(0).values + 1
            assert sides.prod() == len(places)  # a box


@pytest.mark.parametrize(("shape", "size"), [((1, 40, 20), 0.25), ((2, 100), 0.25)])
def test_boxes_have_the_proportions_of_the_image_and_any_middle(shape, size):
    n = 20_000
    share = torch.full((n,), 1 - size, dtype=torch.float64)
    torch.manual_seed(0)
    found, stays = cut(torch.zeros(n, *shape), torch.ones(n, *shape), share)
    torch.testing.assert_close(1 - found[:, 0].flatten(1).mean(1), stays.float())
    n_axes = len(shape) - 1
    side = size ** (1 / n_axes)
    for axis, length in enumerate(shape[1:]):
        others = [2 + a for a in range(n_axes) if a != axis]
        along = found[:, 0:1].amax(others) if others else found[:, 0:1]
        lengths = along[:, 0].sum(1)
        assert lengths.max() == int(side * length)  # and less at the border
        # A place is in the box if the middle is within half a side of it.
        middle = along[:, 0, length // 2].mean()
        assert middle == pytest.approx(int(side * length) / length, abs=0.02)


def test_the_expected_share_of_a_row_is_the_one_drawn():
    share = torch.linspace(0, 1, 5).double().repeat_interleave(4000)
    torch.manual_seed(0)
    rows, stays = cut(torch.zeros(20_000, 6), torch.ones(20_000, 6), share)
    torch.testing.assert_close(1 - rows.mean(1), stays)
    means = stays.view(5, -1).mean(1)
    torch.testing.assert_close(
        means, torch.linspace(0, 1, 5).to(means), atol=0.01, rtol=0
    )


def test_with_mixup_each_batch_takes_one_of_the_two():
    X = torch.rand(30, 5, dtype=torch.float64)
    n_cut = 0
    for seed in range(200):
        found, *_ = mixed(X, seed=seed, mixup=1.0, cutmix=1.0)
        is_cut = torch.isin(found, X).all()
        assert is_cut or not torch.isin(found, X).any(dim=1).all()
        n_cut += int(is_cut)
    assert binomtest(n_cut, 200, 0.5).pvalue > 0.01


# -- on every path, and in stacks -----------------------------------------------------


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("params", [{}, {"mixup": 0.5}], ids=["cutmix", "both"])
def test_every_path_trains_the_same_net(name, params):
    estimator = net(cutmix=1.0, **params)
    nets = on_paths(estimator, INPUTS[name], Y, sample_weight=1.0 + Y)
    assert_same(nets[1:], [nets[0]] * 2, rtol=1e-10)
    plain = net().fit(INPUTS[name], Y)
    assert not torch.allclose(tensors(nets[0])[0], tensors(plain)[0])


def test_zero_is_absence_bit_for_bit():
    assert_same([net(cutmix=0.0).fit(IMAGES, Y)], [net().fit(IMAGES, Y)], rtol=0)


class Convolution(nn.Module):
    def __init__(self, out_features):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU())
        self.dropout = nn.Dropout2d(0.2)
        self.out = nn.Linear(36, out_features)

    def forward(self, x):
        return self.out(self.dropout(self.layers(x)).flatten(1))


@pytest.mark.parametrize("module", [None, Convolution])
@pytest.mark.usefixtures("stacks")
def test_each_net_of_a_stack_has_its_own(module):
    nets = [
        net(module=module, mixup=mixup, cutmix=cutmix, label_smoothing=smoothing)
        for mixup, cutmix, smoothing in [
            *((0.0, 1.0, 0.0), (0.2, 0.0, 0.0), (0.2, 1.0, 0.1), (0.2, 1.0, 0.2)),
        ]
    ]
    assert_a_stack(nets, IMAGES, Y)


@pytest.mark.usefixtures("stacks")
def test_numbers_are_mixed_too():
    targets = np.stack([IMAGES.mean((1, 2, 3)), IMAGES.std((1, 2, 3))], axis=1)
    nets = [net(RegularizedNetRegressor, cutmix=alpha) for alpha in (0.0, 0.3, 1.0)]
    assert_a_stack(nets, DIGITS, targets, sample_weight=1.0 + Y)


def test_both_are_named_in_an_error():
    estimator = net(mixup=0.2, cutmix=1.0, criterion=nn.MultiMarginLoss)
    message = r"mixup=0.2 and cutmix=1.0 makes .*, or mixup=0 and cutmix=0"
    with pytest.raises(ValueError, match=message):
        estimator.fit(DIGITS, Y)
    with pytest.raises(
        ValueError, match=r"cutmix=1.0 makes .*=MultiMarg.*, or cutmix=0"
    ):
        estimator.set_params(mixup=0.0).fit(DIGITS, Y)
