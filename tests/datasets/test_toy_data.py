"""The noisy line, and labels that are drawn anew."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skreg.datasets import make_noisy_line, randomize_labels

# make_noisy_line ----------------------------------------------------------------------


def test_noisy_line_is_the_formula():
    X, y = make_noisy_line(7, noise=0.5, random_state=3)
    x = np.linspace(-1, 1, 7)
    noise = np.random.RandomState(3).standard_normal(7)
    np.testing.assert_array_equal(X, x[:, np.newaxis].astype(np.float32))
    np.testing.assert_array_equal(y, (2 * x + 0.5 * noise).astype(np.float32))
    assert X.dtype == y.dtype == np.float32


def test_noise_has_the_standard_deviation_asked_for():
    X, y = make_noisy_line(20_000, random_state=0)
    residual = y - 2 * X.ravel()
    assert residual.std() == pytest.approx(2, rel=0.02)
    assert residual.mean() == pytest.approx(0, abs=0.05)


def test_noisy_line_leaves_the_global_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_noisy_line(random_state=0)
    randomize_labels([1, 2, 3], random_state=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("n_samples", [0, -1, 2.0, "3", True])
def test_noisy_line_refuses_n_samples(n_samples):
    with pytest.raises(ValueError, match=r"^n_samples=.*positive int; pass e\.g\."):
        make_noisy_line(n_samples)


@pytest.mark.parametrize("noise", [-0.1, np.nan, np.inf, "1", None])
def test_noisy_line_refuses_noise(noise):
    with pytest.raises(ValueError, match=r"^noise=.*finite number >= 0; pass e\.g\."):
        make_noisy_line(noise=noise)


# randomize_labels ---------------------------------------------------------------------


labels = st.one_of(
    st.lists(st.integers(-5, 5), min_size=1, max_size=60),
    st.lists(st.sampled_from(["cat", "dog", "a longer name"]), min_size=1, max_size=60),
    st.lists(st.booleans(), min_size=1, max_size=60),
)
seeds = st.integers(0, 2**32 - 1)


@given(y=labels, fraction=st.floats(0, 1), seed=seeds)
def test_randomized_labels(y, fraction, seed):
    y = np.array(y)
    before = y.copy()
    drawn = randomize_labels(y, fraction, random_state=seed)
    np.testing.assert_array_equal(y, before)
    assert drawn.shape == y.shape
    assert drawn.dtype == y.dtype
    assert set(drawn) <= set(y)
    assert np.sum(drawn != y) <= round(fraction * len(y))
    np.testing.assert_array_equal(
        drawn, randomize_labels(y, fraction, random_state=seed)
    )


@given(y=labels, seed=seeds)
def test_no_fraction_is_a_copy(y, seed):
    y = np.array(y)
    drawn = randomize_labels(y, 0, random_state=seed)
    np.testing.assert_array_equal(drawn, y)
    assert not np.shares_memory(drawn, y)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_share_of_changed_labels(fraction):
    # Of three classes, two draws in three hit another one.
    y = np.repeat(["cat", "dog", "wild"], [1000, 3000, 5000])
    drawn = randomize_labels(y, fraction, random_state=0)
    assert np.mean(drawn != y) == pytest.approx(fraction * 2 / 3, rel=0.05)


def test_labels_are_drawn_uniformly_whatever_their_shares():
    y = np.repeat([0, 1, 2], [8000, 900, 100])
    counts = np.bincount(randomize_labels(y, random_state=0))
    np.testing.assert_allclose(counts / len(y), 1 / 3, atol=0.02)


@pytest.mark.parametrize("dtype", [object, np.int8, np.float64, "U3", "S2"])
def test_dtype_of_labels_is_kept(dtype):
    y = np.array([1, 2, 2, 3] * 5).astype(dtype)
    drawn = randomize_labels(y, random_state=0)
    assert drawn.dtype == y.dtype
    assert set(drawn) <= set(y)


@pytest.mark.parametrize("y", [[], [[1, 2]], 3, np.zeros((3, 1))])
def test_labels_refuse_shape(y):
    with pytest.raises(ValueError, match=r"^y has shape \(.*expected \(n_samples,\)"):
        randomize_labels(y)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, np.nan, "1", None, True])
def test_labels_refuse_fraction(fraction):
    with pytest.raises(ValueError, match=r"^fraction=.*in \[0, 1\]; pass e\.g\."):
        randomize_labels([1, 2], fraction)
