"""Layouts of images; resizing, gray, rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from images_and_transforms import (
    batches_of_images,
    channels_last,
    name_of,
    random_images,
)
from sklearn.base import clone
from torchvision.transforms import v2

from skreg.transforms import (
    Grayscale,
    ImageFlattener,
    ImageResizer,
    ImageStandardizer,
    ImageUnflattener,
)

# -- layouts ------------------------------------------------------------------------


BY_CHANNEL = [ImageStandardizer(), ImageResizer((4, 9)), Grayscale()]


@pytest.mark.parametrize("transformer", BY_CHANNEL, ids=name_of)
def test_layouts_and_rows_agree(transformer):
    images = random_images()
    last = channels_last(images)
    expected = clone(transformer).fit_transform(images)
    for params in ({}, {"layout": "channels_last"}):
        out = clone(transformer).set_params(**params).fit_transform(last)
        np.testing.assert_allclose(np.moveaxis(out, -1, 1), expected, rtol=1e-5)
    for X, shape in ((images, (3, 5, 7)), (last, [5, 7, 3])):
        rows = clone(transformer).set_params(image_shape=shape)
        out = rows.fit_transform(X.reshape(len(X), -1))
        assert out.shape == (len(X), expected[0].size)
        in_order = expected if X is images else channels_last(expected)
        np.testing.assert_allclose(out, in_order.reshape(len(X), -1), rtol=1e-5)


@pytest.mark.parametrize("transformer", BY_CHANNEL, ids=name_of)
def test_images_without_an_axis_of_channels(transformer):
    images = random_images((6, 5, 7))
    expected = clone(transformer).fit_transform(images[:, np.newaxis])
    assert np.array_equal(clone(transformer).fit_transform(images), expected[:, 0])
    rows = clone(transformer).set_params(image_shape=(5, 7))
    out = rows.fit_transform(images.reshape(6, -1))
    assert np.array_equal(out, expected.reshape(6, -1))


@pytest.mark.parametrize("transformer", BY_CHANNEL, ids=name_of)
@pytest.mark.parametrize(
    ("shape", "which"), [((3, 8, 3), "both"), ((8, 8, 8), "neither"), ((4, 9, 9), "ne")]
)
def test_an_ambiguous_layout_is_asked_for(transformer, shape, which):
    message = rf"layout='auto' cannot tell.*{which}.*pass layout='channels_first'"
    with pytest.raises(ValueError, match=message):
        clone(transformer).fit(np.zeros((2, *shape)))
    rows = clone(transformer).set_params(image_shape=shape)
    with pytest.raises(ValueError, match=message):
        rows.fit(np.zeros((2, np.prod(shape))))


def test_a_told_layout_is_not_guessed():
    X = random_images((5, 3, 4, 3))
    for layout, axes in (("channels_first", (0, 2, 3)), ("channels_last", (0, 1, 2))):
        standardizer = ImageStandardizer(layout).fit(X)
        np.testing.assert_allclose(standardizer.mean_, X.mean(axes), rtol=1e-5)


@pytest.mark.parametrize("transformer", BY_CHANNEL, ids=name_of)
@pytest.mark.parametrize("layout", ["NCHW", None, 1])
def test_layouts_that_are_none(transformer, layout):
    with pytest.raises(ValueError, match=r"layout=.*'auto', 'channels_first', 'cha"):
        clone(transformer).set_params(layout=layout).fit(random_images())


@pytest.mark.parametrize("transformer", [*BY_CHANNEL, ImageUnflattener()], ids=name_of)
@pytest.mark.parametrize(
    ("image_shape", "message"),
    [
        (7, r"image_shape=7 is neither None nor"),
        ("ab", r"image_shape='ab' is neither None nor"),
        ((105,), r"image_shape=\(105,\) is neither None nor"),
        ((3, 5, -7), r"is neither None nor .*pass e\.g\."),
        ((3.0, 5, 7), r"is neither None nor"),
        ((3, True, 35), r"is neither None nor"),
        ((3, 5, 8), r"image_shape=\(3, 5, 8\) has 120 values, .* X have 105"),
    ],
)
def test_image_shapes_that_do_not_fit(transformer, image_shape, message):
    with pytest.raises(ValueError, match=message):
        clone(transformer).set_params(image_shape=image_shape).fit(np.zeros((2, 105)))


def test_image_shape_is_for_rows():
    with pytest.raises(ValueError, match=r"image_shape=\(3, 4, 4\).*leave image_shape"):
        Grayscale(image_shape=(3, 4, 4)).fit(random_images())


# -- resizing, gray, rows -----------------------------------------------------------


@given(
    st.floats(0, 1, width=32),
    st.tuples(*[st.integers(1, 9)] * 2),
    st.tuples(*[st.integers(1, 9)] * 2),
)
def test_a_constant_image_resized_is_constant(value, old, new):
    X = np.full((2, 3, *old), value, dtype=np.float32)
    resized = ImageResizer(new, "channels_first").fit_transform(X)
    assert resized.shape == (2, 3, *new)
    np.testing.assert_allclose(resized, value, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("size", [4, (3, 11), [5, 7]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_resizing_is_torchvision_s(size, dtype):
    X = random_images(dtype=dtype)
    pair = [size, size] if isinstance(size, int) else list(size)
    expected = v2.functional.resize(torch.from_numpy(X), pair, antialias=True).numpy()
    assert np.array_equal(ImageResizer(size).fit_transform(X), expected)


def test_resizing_takes_any_memory():
    X = random_images()
    expected = ImageResizer(4).fit_transform(X[::-1].copy())
    assert np.array_equal(ImageResizer(4).fit_transform(X[::-1]), expected)
    assert np.array_equal(
        ImageResizer(4).fit_transform(np.asfortranarray(X[::-1])), expected
    )


@pytest.mark.parametrize("size", [0, 2.0, True, (3,), (3, 4, 5), "32", None])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match=r"size=.*pass e\.g\. size=32"):
        ImageResizer(size).fit(random_images())


@given(batches_of_images(), st.floats(0, 1))
def test_gray_stays_gray(X, value):
    assert np.array_equal(Grayscale("channels_first").transform(X[:, :1]), X[:, :1])
    rgb = np.repeat(X[:, :1], 3, axis=1)
    gray = Grayscale("channels_first").transform(rgb)
    np.testing.assert_allclose(gray, X[:, :1], rtol=1e-12)


def test_luma():
    X = random_images(dtype=np.float64)
    expected = 0.299 * X[:, 0] + 0.587 * X[:, 1] + 0.114 * X[:, 2]
    np.testing.assert_allclose(Grayscale().fit_transform(X)[:, 0], expected)


def test_gray_of_other_numbers_of_channels():
    with pytest.raises(ValueError, match=r"2 channels \(layout='channels_first'\)"):
        Grayscale("channels_first").fit(random_images((4, 2, 5, 7)))


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=4, max_side=5),
        elements=st.floats(-10, 10, width=32),
    )
)
def test_unflatten_undoes_flatten(X):
    rows = ImageFlattener().fit_transform(X)
    assert rows.shape == (len(X), X[0].size)
    unflattener = ImageUnflattener(X.shape[1:]).fit(rows)
    assert np.array_equal(unflattener.transform(rows), X)
    assert np.array_equal(unflattener.fit_transform(X), X)


def test_rows_without_a_shape_become_images_of_height_1():
    rows = random_images((6, 12))
    assert ImageUnflattener().fit_transform(rows).shape == (6, 1, 12)
