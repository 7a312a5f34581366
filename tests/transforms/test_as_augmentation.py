"""Transforms of torchvision and others as augmentations."""

import pickle
import subprocess
import sys

import pytest
import torch
from images_and_transforms import AUGMENTATIONS, images_3d_and_4d, name_of
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from skreg.transforms import GaussianNoise, RandomFlip, as_augmentation


def n_flipped(augment, n=200):
    """Return how many of `n` identical images come back flipped left to right."""
    x = torch.rand(1, 3, 4, 5).expand(n, -1, -1, -1)
    out = augment(x)
    flipped, same = (
        (out == other).flatten(1).all(1) for other in (x.flip(-1), x.clone())
    )
    assert (flipped ^ same).all()
    return int(flipped.sum())


class HoldsATransform(nn.Module):
    def __init__(self):
        super().__init__()
        self.flip = v2.RandomHorizontalFlip()

    def forward(self, x):
        return self.flip(x)


class OwnFlip(v1.RandomHorizontalFlip):
    pass


@pytest.mark.parametrize(
    "augment",
    [
        v2.RandomHorizontalFlip(),
        v2.Compose([v2.Identity(), v2.RandomHorizontalFlip()]),
        v2.RandomApply([v2.RandomHorizontalFlip(1.0)]),
        v2.Compose([RandomFlip(0.5, 0)]),
        v1.RandomHorizontalFlip(),
        v1.Compose([v1.RandomHorizontalFlip()]),
        OwnFlip(),
        nn.Sequential(v2.RandomHorizontalFlip()),
        nn.Sequential(nn.Sequential(RandomFlip(0, 0), v1.RandomHorizontalFlip())),
        nn.Sequential(GaussianNoise(0), v2.RandomHorizontalFlip(), nn.Identity()),
        HoldsATransform(),
    ],
    ids=name_of,
)
def test_torchvision_s_transforms_are_drawn_per_sample(augment):
    torch.manual_seed(0)
    once = n_flipped(as_augmentation(augment))
    # Binomial(200, 1/2), one draw for the batch would give 0 or 200.
    assert abs(once - 100) < 5 * 50**0.5
    torch.manual_seed(0)
    assert n_flipped(pickle.loads(pickle.dumps(as_augmentation(augment)))) == once


def test_images_without_channels_go_through_torchvision():
    x = images_3d_and_4d()[1]
    out = as_augmentation(v2.RandomHorizontalFlip(1.0))(x)
    assert torch.equal(out, x.flip(-1))
    with pytest.raises(ValueError, match="takes batches of images"):
        as_augmentation(v2.RandomHorizontalFlip())(torch.zeros(4, 12))


def test_ours_and_none_are_used_as_they_are():
    assert as_augmentation(None) is None
    nested = nn.Sequential(nn.Sequential(*AUGMENTATIONS), RandomFlip())
    for augment in [*AUGMENTATIONS, nn.Sequential(*AUGMENTATIONS), nested]:
        assert as_augmentation(augment) is augment


@pytest.mark.parametrize("module", [False, True])
def test_others_get_the_batch(module):
    class Double(nn.Module):
        def forward(self, x):
            seen.append(x.shape)
            return 2 * x

    seen = []
    augment = as_augmentation(Double() if module else lambda x: Double()(x))
    x = torch.rand(4, 3)
    assert torch.equal(augment(x), 2 * x)
    assert seen == [(4, 3)]


def test_dtype_stays_and_the_batch_is_not_changed():
    x = torch.rand(4, 1, 3, 3)
    before = x.clone()
    assert as_augmentation(lambda x: x.double())(x).dtype == torch.float32
    assert as_augmentation(lambda x: x.mul_(2))(x).sum() > x.sum()
    assert as_augmentation(v2.Normalize([0.5], [0.5], inplace=True))(x).min() < 0
    assert as_augmentation(v2.ToDtype(torch.float64))(x).dtype == torch.float32
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (v2.CenterCrop(2), r"augment=CenterCrop.*\(1, 3, 6, 8\) into \(1, 3, 2, 2\)"),
        (v1.Resize(3), r"augment=Resize.*\(1, 3, 6, 8\) into \(1, 3, 3, 4\)"),
        (
            nn.Flatten(),
            r"augment=Flatten.*\(5, 3, 6, 8\) into \(5, 144\).*ImageResizer",
        ),
        (lambda x: x[:2], r"augment=<function.*\(5, 3, 6, 8\) into \(2, 3, 6, 8\)"),
        (lambda x: None, r"into NoneType; an augmentation must return a tensor"),
        (lambda x: x.numpy(), "into ndarray; .* must return a tensor"),
    ],
)
def test_the_shape_must_stay(augment, message):
    with pytest.raises(ValueError, match=message):
        as_augmentation(augment)(images_3d_and_4d()[0])


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("flip", r"augment='flip' is not None, an nn\.Module.*RandomFlip\(\)"),
        (0.1, r"augment=0\.1 is not"),
        ([RandomFlip()], r"augment=\[RandomFlip.*pass nn\.Sequential\(\*augment\)"),
        (RandomFlip, r"augment=<class .*pass an instance, RandomFlip\(\.\.\.\)"),
    ],
)
def test_what_is_no_augmentation(augment, message):
    with pytest.raises(TypeError, match=message):
        as_augmentation(augment)


def test_torchvision_is_imported_by_its_users_only():
    code = (
        "import sys; from skreg.transforms import *; import torch;"
        "as_augmentation(torch.nn.Sequential(RandomFlip(), torch.nn.Identity()));"
        "ImageResizer(2).fit_transform(torch.zeros(1, 1, 4, 4));"
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
