"""Scaling and standardising."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images_and_transforms import batches_of_images, random_images, tiny_net
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline

from skreg.transforms import ImageScaler, ImageStandardizer

# -- scaling ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "value_range"),
    [
        ("uint8", (0, 255)),
        ("int32", [-7, 255]),
        ("float32", (-3.0, 5.0)),
        ("float64", (0.1, 0.7)),
    ],
)
def test_the_ends_of_the_range_become_minus_one_and_one(dtype, value_range):
    X = np.array([value_range], dtype=dtype)
    scaled = ImageScaler(value_range).fit_transform(X)
    np.testing.assert_allclose(scaled, [[-1, 1]], rtol=1e-15)


def test_the_dtype_tells_the_range():
    for dtype in ("uint8", "uint16", "uint32"):
        X = np.array([[0, np.iinfo(dtype).max]], dtype=dtype)
        assert ImageScaler().transform(X).tolist() == [[-1, 1]]
    for dtype in ("float32", "float64", "int64", "bool"):
        X = np.array([[0, 1]], dtype=dtype)
        assert ImageScaler().transform(X).tolist() == [[-1, 1]]


@given(batches_of_images(), st.floats(-10, 10), st.floats(0.1, 10), st.floats(0, 1))
def test_scaling_is_affine(X, low, length, share):
    scaler = ImageScaler((low, low + length))
    mixed = scaler.transform(share * X + (1 - share) * X[::-1])
    expected = share * scaler.transform(X) + (1 - share) * scaler.transform(X[::-1])
    np.testing.assert_allclose(mixed, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "value_range", ["byte", (1, 0), (0, 0), (0, np.inf), (0, 1, 2), 255, ("a", "b")]
)
def test_ranges_that_are_none(value_range):
    with pytest.raises(ValueError, match=r"value_range=.*pass e\.g\."):
        ImageScaler(value_range).fit(random_images())


# -- standardising ------------------------------------------------------------------


def test_mean_and_deviation_per_channel():
    X = random_images(dtype=np.float64) * [[[1]], [[10]], [[100]]]
    standardizer = ImageStandardizer().fit(X)
    np.testing.assert_allclose(standardizer.mean_, X.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(standardizer.scale_, X.std((0, 2, 3)), rtol=1e-14)


def test_mean_and_deviation_do_not_depend_on_blocks(monkeypatch):
    X = random_images((50, 3, 4, 4), np.float64)
    whole = ImageStandardizer().fit(X).scale_
    monkeypatch.setattr("skreg.transforms._values._BLOCK", 7 * X[0].size)
    np.testing.assert_allclose(ImageStandardizer().fit(X).scale_, whole, rtol=1e-14)


@given(batches_of_images())
def test_training_images_get_mean_0_and_deviation_1(X):
    standardized = ImageStandardizer("channels_first").fit_transform(X)
    varies = X.max((0, 2, 3)) - X.min((0, 2, 3)) > 1e-6
    np.testing.assert_allclose(standardized.mean((0, 2, 3)), 0, atol=1e-8)
    np.testing.assert_allclose(standardized.std((0, 2, 3))[varies], 1, atol=1e-8)
    assert np.isfinite(standardized).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_constant_channels_become_0(dtype, value):
    X = random_images((9, 3, 5, 7), dtype)
    X[:, 1] = value
    standardizer = ImageStandardizer().fit(X)
    assert standardizer.scale_[1] == 1
    np.testing.assert_allclose(standardizer.transform(X)[:, 1], 0, atol=1e-6)


def test_float32_is_summed_in_float64():
    X = np.full((1, 1, 4096, 1024), 0.1, dtype=np.float32)
    X[..., ::2] += np.float32(1e-3)
    standardizer = ImageStandardizer("channels_first").fit(X)
    expected = X.astype(np.float64)
    np.testing.assert_allclose(standardizer.mean_, [expected.mean()], rtol=1e-12)
    np.testing.assert_allclose(standardizer.scale_, [expected.std()], rtol=1e-12)


def test_rows_are_one_channel_unless_image_shape_tells():
    images = random_images(dtype=np.float64)
    rows = images.reshape(len(images), -1)
    one = ImageStandardizer().fit(rows)
    np.testing.assert_allclose(one.mean_, [rows.mean()])
    np.testing.assert_allclose(one.scale_, [rows.std()])
    per_channel = ImageStandardizer(image_shape=(3, 5, 7)).fit_transform(rows)
    expected = ImageStandardizer().fit_transform(images)
    assert np.array_equal(per_channel, expected.reshape(rows.shape))


def test_the_training_fold_alone_is_learned_from():
    X, y = random_images((30, 1, 4, 4)), np.arange(30) % 2
    X[::3] += 100
    pipeline = make_pipeline(ImageStandardizer(), tiny_net())
    result = cross_validate(
        pipeline, X, y, cv=3, return_estimator=True, return_indices=True
    )
    for fitted, train in zip(
        result["estimator"], result["indices"]["train"], strict=True
    ):
        expected = X[train].mean(dtype=np.float64)
        np.testing.assert_allclose(fitted[0].mean_, [expected], rtol=1e-12)
