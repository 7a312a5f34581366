"""Augmentations: images keep what they should keep, and luck is drawn per sample."""

import copy
import pickle

import numpy as np
import pytest
import torch
from images_and_transforms import AUGMENTATIONS, images_3d_and_4d, name_of
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import GridSearchCV
from torch import nn
from torchvision.transforms import v2

from skreg.transforms import (
    GaussianNoise,
    RandomFlip,
    RandomRotation,
    RandomShift,
    as_augmentation,
)

# -- augmentation: one sample, exactly ----------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_flips_are_exact(dtype):
    for x in images_3d_and_4d():
        x = (255 * x).to(dtype)
        assert torch.equal(RandomFlip(1, 0)(x), x.flip(-1))
        assert torch.equal(RandomFlip(0, 1)(x), x.flip(-2))
        assert torch.equal(RandomFlip(1, 1)(x), x.flip(-1, -2))


@pytest.mark.parametrize(
    "nothing", [RandomFlip(0, 0), RandomShift(0), RandomRotation(0), GaussianNoise(0)]
)
def test_strength_0_changes_nothing_and_draws_nothing(nothing):
    for x in images_3d_and_4d():
        state = torch.get_rng_state()
        assert torch.equal(nothing(x), x)
        assert torch.equal(torch.get_rng_state(), state)


def shifted(x, down, right):
    """Move the last two axes by whole pixels, zeros behind."""
    height, width = x.shape[-2:]
    out = torch.zeros_like(x)
    rows, cols = range(height), range(width)
    for i in rows:
        for j in cols:
            if i - down in rows and j - right in cols:
                out[..., i, j] = x[..., i - down, j - right]
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
def test_shifts_are_exact_and_all_occur(dtype):
    for x in images_3d_and_4d(n=1, height=3, width=4):
        x = (1 + 100 * x).to(dtype)
        moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        expected = [shifted(x[0], *move) for move in moves]
        counts = [0] * len(moves)
        for image in RandomShift(1)(x.expand(900, *x.shape[1:])):
            [k] = [k for k, move in enumerate(expected) if torch.equal(image, move)]
            counts[k] += 1
        # Binomial(900, 1/9): mean 100, deviation 9.4.
        assert all(100 - 5 * 9.4 < count < 100 + 5 * 9.4 for count in counts)


@pytest.mark.parametrize(
    ("share", "limits"),
    [(0.09, (1, 2)), (0.12, (1, 2)), (0.99, (9, 19)), (0.02, (0, 0))],
)
def test_a_share_is_one_of_height_and_width(share, limits):
    moved = RandomShift(share)(torch.ones(2000, 1, 10, 20))[:, 0]
    rows, cols = moved.amax(2).sum(1), moved.amax(1).sum(1)  # that are in sight
    assert (10 - rows.min(), 20 - cols.min()) == limits


@pytest.mark.parametrize("k", [-1, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_quarter_turns_are_exact(k, dtype):
    for x in images_3d_and_4d(height=7, width=7, dtype=dtype):
        rotated = RandomRotation((90 * k, 90 * k))(x)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        expected = torch.rot90(x, k, dims=(-2, -1))
        torch.testing.assert_close(rotated, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("angle", [-30.0, 12.5, 90.0])
def test_rotation_keeps_the_aspect_of_oblong_images(angle):
    x = images_3d_and_4d(height=9, width=15)[0]
    rotated = RandomRotation((angle, angle))(x)
    bilinear = v2.InterpolationMode.BILINEAR
    expected = v2.functional.rotate(x, angle, interpolation=bilinear)
    torch.testing.assert_close(rotated, expected, rtol=0, atol=1e-4)


def test_angles_are_uniform_in_their_range():
    # Of a line that runs right from the centre, see where it points.
    x = torch.zeros(400, 1, 41, 41)
    x[:, :, 20, 25:] = 1.0
    image = RandomRotation((10, 40))(x)[:, 0]
    axis = torch.arange(41) - 20.0
    up, right = (-axis[:, None] * image).sum((1, 2)), (axis * image).sum((1, 2))
    angles = torch.rad2deg(torch.atan2(up, right))
    assert angles.min() > 9.5
    assert angles.max() < 40.5
    assert abs(angles.mean() - 25) < 5 * 30 / 12**0.5 / 20
    assert abs(angles.std() - 30 / 12**0.5) < 1.5


def test_noise_has_its_deviation_and_is_independent():
    x = torch.rand(200, 2, 16, 16)
    noise = GaussianNoise(0.3)(x) - x
    assert abs(noise.mean()) < 5 * 0.3 / noise.numel() ** 0.5
    assert abs(noise.std() - 0.3) < 5 * 0.3 / (2 * noise.numel()) ** 0.5
    between = torch.corrcoef(noise.flatten(1)[:2])[0, 1]
    assert abs(between) < 5 / 512**0.5
    assert GaussianNoise(0.3)(torch.zeros(4, 7)).shape == (4, 7)  # rows will do


# -- augmentation: a batch ----------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("axis", [-1, -2])
def test_each_sample_is_flipped_by_its_own_luck(p, axis):
    torch.manual_seed(0)
    x = torch.rand(1, 3, 4, 5).expand(2000, -1, -1, -1)
    flipped = (RandomFlip(p, 0) if axis == -1 else RandomFlip(0, p))(x)
    is_flipped = (flipped == x.flip(axis)).flatten(1).all(1)
    is_same = (flipped == x).flatten(1).all(1)
    assert (is_flipped ^ is_same).all()
    deviation = (2000 * p * (1 - p)) ** 0.5
    assert abs(is_flipped.sum() - 2000 * p) < 5 * deviation


def test_the_two_flips_are_independent():
    torch.manual_seed(0)
    x = torch.arange(4.0).view(1, 1, 2, 2).expand(4000, -1, -1, -1)
    corner = RandomFlip(0.5, 0.5)(x)[:, 0, 0, 0].long()  # tells the flips
    counts = torch.bincount(corner, minlength=4)
    assert (counts - 1000).abs().max() < 5 * (4000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=name_of)
def test_samples_differ_and_a_seed_repeats_them(augment):
    x = torch.rand(1, 3, 8, 8).expand(16, -1, -1, -1)
    torch.manual_seed(1)
    first = augment(x)
    assert len(first.flatten(1).unique(dim=0)) > 1
    torch.manual_seed(1)
    assert torch.equal(augment(x), first)
    assert not torch.equal(augment(x), first)


@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=name_of)
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_shape_dtype_and_input_stay(augment, dtype):
    for x in images_3d_and_4d(dtype=dtype):
        before = x.clone()
        augmented = augment(x)
        assert (augmented.shape, augmented.dtype) == (x.shape, dtype)
        assert torch.equal(x, before)


@pytest.mark.cuda
@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=name_of)
def test_the_device_s_own_generator(augment, cuda):
    x = torch.rand(16, 3, 8, 8, device=cuda)
    torch.cuda.manual_seed(0)
    state, first = torch.get_rng_state(), augment(x)
    assert first.device == x.device
    assert torch.equal(torch.get_rng_state(), state)
    torch.cuda.manual_seed(0)
    assert torch.equal(augment(x), first)


@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=name_of)
def test_in_eval_mode_nothing_happens(augment):
    x = torch.rand(16, 3, 8, 8)
    assert copy.deepcopy(augment).eval()(x) is x


@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=name_of)
def test_copies_do_the_same(augment):
    x = torch.rand(16, 3, 8, 8)
    copies = [copy.deepcopy(augment), pickle.loads(pickle.dumps(augment))]
    for other in [*copies, clone(augment, safe=False)]:
        torch.manual_seed(0)
        expected = augment(x)
        torch.manual_seed(0)
        assert torch.equal(other(x), expected)


def test_reprs_show_the_parameters():
    assert repr(RandomFlip()) == "RandomFlip(horizontal=0.1, vertical=0.1)"
    assert repr(RandomShift(2)) == "RandomShift(max_shift=2)"
    assert repr(RandomRotation((-5, 10))) == "RandomRotation(degrees=(-5, 10))"
    assert repr(GaussianNoise(0.3)) == "GaussianNoise(std=0.3)"


class Augmented(ClassifierMixin, BaseEstimator):
    def __init__(self, augment=None):
        self.augment = augment

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_.repeat(len(X))[: len(X)]


def test_augmentations_are_values_of_a_grid():
    both = nn.Sequential(RandomFlip(), RandomShift(2))
    grid = {"augment": [None, RandomFlip(0.5, 0), both, v2.RandomHorizontalFlip()]}
    search = GridSearchCV(Augmented(), grid, cv=2)
    search.fit(np.zeros((8, 1, 4, 4)), np.arange(8) % 2)
    assert list(search.cv_results_["param_augment"]) == grid["augment"]


# -- augmentation: errors -----------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomFlip(1.1), r"horizontal=1.1 is not a probability .*pass e\.g\."),
        (lambda: RandomFlip(True), r"horizontal=True is not"),
        (lambda: RandomFlip(vertical=-0.1), r"vertical=-0.1 is not"),
        (lambda: RandomFlip("0.1"), r"horizontal='0.1' is not"),
        (lambda: RandomFlip(float("nan")), r"horizontal=nan is not"),
        (lambda: RandomShift(-1), r"max_shift=-1 is neither an int >= 0.*pass e\.g\."),
        (lambda: RandomShift(1.0), r"max_shift=1.0 is neither"),
        (lambda: RandomShift(True), r"max_shift=True is neither"),
        (lambda: RandomShift(None), r"max_shift=None is neither"),
        (lambda: RandomRotation(-1), r"degrees=-1 is neither a finite .*pass e\.g\."),
        (lambda: RandomRotation((5, 1)), r"degrees=\(5, 1\) is neither"),
        (lambda: RandomRotation((1, 2, 3)), r"degrees=\(1, 2, 3\) is neither"),
        (lambda: RandomRotation(float("inf")), r"degrees=inf is neither"),
        (lambda: RandomRotation("ab"), r"degrees='ab' is neither"),
        (lambda: GaussianNoise(-1), r"std=-1 is not a finite number .*pass e\.g\."),
        (lambda: GaussianNoise(float("inf")), r"std=inf is not"),
        (lambda: GaussianNoise(None), r"std=None is not"),
    ],
)
def test_parameters_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("augment", AUGMENTATIONS[:3], ids=name_of)
def test_rows_are_no_images(augment):
    with pytest.raises(ValueError, match=r"takes batches of images.*got \(4, 12\)"):
        augment(torch.zeros(4, 12))


@pytest.mark.parametrize(
    "augment", [*AUGMENTATIONS[:3], v2.RandomHorizontalFlip()], ids=name_of
)
def test_channels_come_first(augment):
    flip = as_augmentation(augment)
    for shape in ((2, 8, 9, 3), (2, 8, 9, 1)):
        with pytest.raises(ValueError, match="looks like channels last; bring them to"):
            flip(torch.zeros(shape))
    # Images of few rows or columns, and the feature maps of a net.
    for shape in ((2, 3, 8, 3), (2, 1, 8, 9), (2, 16, 8, 9), (2, 16, 4, 4)):
        assert flip(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("augment", AUGMENTATIONS[2:], ids=name_of)
def test_integers_cannot_be_rotated_or_noisy(augment):
    with pytest.raises(TypeError, match=r"torch\.uint8; convert them with x\.float"):
        augment(torch.zeros(4, 1, 3, 3, dtype=torch.uint8))


def test_images_must_stay_in_sight():
    assert RandomShift(3)(torch.ones(50, 1, 4, 4)).flatten(1).any(1).all()
    with pytest.raises(ValueError, match=r"max_shift=4 pixels .* 4 pixels .*at most 3"):
        RandomShift(4)(torch.ones(1, 1, 4, 4))
