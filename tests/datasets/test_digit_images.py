"""The digits are those of scikit-learn, exact."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from skreg.datasets import load_digit_images


def test_digits_are_those_of_scikit_learn():
    digits, reference = load_digit_images(), load_digits()
    np.testing.assert_array_equal(digits.data[:, 0] * 16, reference.images)
    np.testing.assert_array_equal(digits.target, reference.target)
    np.testing.assert_array_equal(digits.target_names, range(10))
    assert digits.data.shape == (1797, 1, 8, 8)
    assert digits.data.dtype == np.float32
    assert digits.target.dtype == np.int64
    assert reference.DESCR in digits.DESCR


def test_digits_resized_and_in_colour():
    data, _ = load_digit_images(size=(32, 16), channels=3, return_X_y=True)
    assert data.shape == (1797, 3, 32, 16)
    assert data.dtype == np.float32
    assert data.min() >= 0
    assert data.max() <= 1
    np.testing.assert_array_equal(data[:, 0], data[:, 1])
    np.testing.assert_array_equal(data[:, 0], data[:, 2])
    # Interpolated, not made anew: averaged over the blocks, the originals come back.
    blocks = data[:, 0].reshape(1797, 8, 4, 8, 2).mean(axis=(2, 4))
    assert np.corrcoef(blocks.ravel(), load_digits().images.ravel())[0, 1] > 0.97


def test_digits_are_a_fresh_copy_in_every_call():
    load_digit_images().data[:] = 0
    assert load_digit_images().data.max() == 1


@pytest.mark.parametrize(
    "size", [0, -1, 2.0, True, "32", (8,), (8, 0), (8, 8, 8), None]
)
def test_digits_refuse_size(size):
    with pytest.raises(ValueError, match=r"^size=.* pair \(height, width\) .* size=32"):
        load_digit_images(size=size)


def test_digits_refuse_channels():
    with pytest.raises(ValueError, match=r"channels=2 is not one of 1, 3; pass e\.g\."):
        load_digit_images(channels=2)
