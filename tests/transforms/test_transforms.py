"""skreg.transforms: images keep what they should keep, and luck is drawn per sample."""

import copy
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from skreg import RegularizedNetClassifier
from skreg.transforms import (
    GaussianNoise,
    Grayscale,
    ImageFlattener,
    ImageResizer,
    ImageScaler,
    ImageStandardizer,
    ImageUnflattener,
    RandomFlip,
    RandomRotation,
    RandomShift,
    as_augmentation,
)

TRANSFORMERS = [
    Grayscale(),
    ImageFlattener(),
    ImageResizer(),
    ImageScaler(),
    ImageStandardizer(),
    ImageUnflattener(),
]
STATELESS = [t for t in TRANSFORMERS if not isinstance(t, ImageStandardizer)]
AUGMENTATIONS = [
    RandomFlip(0.5, 0.5),
    RandomShift(2),
    RandomRotation(30),
    GaussianNoise(0.5),
]


def name_of(value):
    return type(value).__name__


def random_images(shape=(6, 3, 5, 7), dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 256, size=shape).astype(dtype)
    return rng.uniform(size=shape).astype(dtype)


def channels_last(images):
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def batches_of_images(dtype=np.float64, **limits):
    """Arrays of shape (n, channels, height, width), values in [0, 1]."""
    shapes = hnp.array_shapes(min_dims=4, max_dims=4, max_side=6)
    width = 8 * np.dtype(dtype).itemsize
    return hnp.arrays(dtype, shapes, elements=st.floats(0, 1, width=width, **limits))


# -- scikit-learn's contract --------------------------------------------------------


@parametrize_with_checks(TRANSFORMERS)
def test_estimator_checks_of_scikit_learn(estimator, check):
    check(estimator)


# scikit-learn runs these on its own transformers, outside `check_estimator`.
CHECKS_OF_NAMES = [
    "check_dataframe_column_names_consistency",
    "check_get_feature_names_out_error",
    "check_inplace_ensure_writeable",
    "check_set_output_transform",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
]
CHECKS_OF_FRAMES = [
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
]


@pytest.mark.parametrize("check", CHECKS_OF_NAMES)
@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=name_of)
def test_checks_that_scikit_learn_keeps_for_its_own(transformer, check):
    getattr(estimator_checks, check)(name_of(transformer), transformer)


# They fit on frames and transform arrays, and the other way round, on purpose.
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.filterwarnings("ignore:X has feature names, but")
@pytest.mark.parametrize("check", CHECKS_OF_FRAMES)
@pytest.mark.parametrize(
    "transformer",
    # Of rows this one makes images, which no frame can hold.
    [t for t in TRANSFORMERS if not isinstance(t, ImageUnflattener)],
    ids=name_of,
)
def test_set_output_passes_the_checks_of_scikit_learn(transformer, check):
    getattr(estimator_checks, check)(name_of(transformer), transformer)


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=name_of)
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("float16", "float32"),
        ("uint8", "float32"),
        ("int64", "float32"),
        ("bool", "float32"),
    ],
)
@pytest.mark.parametrize(
    "shape", [(6, 12), (6, 5, 7), (6, 3, 5, 7), (6, 5, 7, 3)], ids=str
)
def test_dtypes_and_inputs_stay(transformer, dtype, expected, shape):
    X = random_images(shape, dtype)
    before = X.copy()
    X.flags.writeable = False
    transformed = clone(transformer).fit_transform(X)
    assert transformed.dtype == expected
    assert np.array_equal(X, before)


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=name_of)
def test_float32_needs_no_float64_copy(transformer):
    X = random_images((2000, 3, 32, 32))
    tracemalloc.start()
    clone(transformer).fit_transform(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * X.nbytes


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=name_of)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_images_must_be_finite(transformer, bad):
    X = random_images()
    X[1, 2, 3, 4] = bad
    with pytest.raises(ValueError, match="NaN" if np.isnan(bad) else "infinity"):
        clone(transformer).fit(X)


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=name_of)
@pytest.mark.parametrize("shape", [(2, 3, 0, 4), (2, 3, 4, 5, 6)], ids=str)
def test_shapes_that_are_no_images(transformer, shape):
    with pytest.raises(ValueError, match=r"X has shape .*expected flat rows"):
        clone(transformer).fit(np.zeros(shape))


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=name_of)
def test_images_of_another_shape_than_in_fit(transformer):
    fitted = clone(transformer).fit(random_images())
    with pytest.raises(ValueError, match=r"\(3, 5, 8\).*fitted on .*\(3, 5, 7\)"):
        fitted.transform(random_images((2, 3, 5, 8)))


@pytest.mark.parametrize("transformer", STATELESS, ids=name_of)
def test_the_stateless_need_no_fit(transformer):
    X = random_images()
    fitted = clone(transformer).fit(X)
    assert np.array_equal(clone(transformer).transform(X), fitted.transform(X))


def test_the_standardizer_needs_fit():
    with pytest.raises(NotFittedError):
        ImageStandardizer().transform(random_images())


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=name_of)
def test_pickle_and_shapes(transformer):
    X = random_images()
    fitted = clone(transformer).fit(X)
    again = pickle.loads(pickle.dumps(fitted))
    transformed = again.transform(X)
    assert np.array_equal(transformed, fitted.transform(X))
    assert again.input_shape_ == X.shape[1:]
    assert again.output_shape_ == transformed.shape[1:]


# -- DataFrames and names -----------------------------------------------------------


@pytest.fixture
def frame():
    rows = random_images((6, 12), np.float32)
    return pd.DataFrame(rows, columns=[f"pixel_{i}" for i in range(12)], index=range(6))


@pytest.mark.parametrize("transformer", [ImageScaler(), ImageStandardizer()])
def test_names_stay_where_columns_stay(transformer, frame):
    frame.index += 10
    out = clone(transformer).set_output(transform="pandas").fit_transform(frame)
    assert list(out.columns) == list(frame.columns)
    assert list(out.index) == list(frame.index)
    assert set(out.dtypes) == {np.dtype("float32")}


def test_new_columns_get_new_names(frame):
    gray = Grayscale(image_shape=(3, 2, 2)).set_output(transform="pandas")
    out = gray.fit_transform(frame)
    assert list(gray.feature_names_in_) == list(frame.columns)
    assert list(out.columns) == [f"grayscale{i}" for i in range(4)]
    flattener = ImageFlattener().fit(random_images((2, 3, 2, 2)))
    names = flattener.get_feature_names_out()
    assert list(names) == [f"imageflattener{i}" for i in range(12)]


def test_polars():
    pl = pytest.importorskip("polars")
    X = pl.DataFrame({"a": [0.0, 1.0], "b": [0.5, 0.25]})
    out = ImageScaler().set_output(transform="polars").fit_transform(X)
    assert isinstance(out, pl.DataFrame)
    assert out.to_numpy().tolist() == [[-1.0, 0.0], [1.0, -0.5]]


def test_images_are_arrays_whatever_set_output_says(frame):
    pipeline = make_pipeline(
        ImageUnflattener((3, 2, 2)), ImageStandardizer(), ImageResizer(4)
    )
    plain = clone(pipeline).fit_transform(frame)
    pipeline.set_output(transform="pandas")
    assert np.array_equal(pipeline.fit_transform(frame), plain)
    pipeline.set_output(transform="polars")  # fitted on images, it can still be asked
    assert isinstance(pipeline.transform(frame), np.ndarray)
    with sklearn.config_context(transform_output="pandas"):
        images = random_images()
        assert isinstance(ImageScaler().transform(images), np.ndarray)
        assert isinstance(ImageFlattener().fit_transform(images), pd.DataFrame)


def test_names_go_through_a_pipeline_of_images():
    pipeline = make_pipeline(ImageScaler(), ImageResizer(2), ImageFlattener())
    pipeline.fit(random_images())
    assert len(pipeline.get_feature_names_out()) == 3 * 2 * 2


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


# -- with nets ----------------------------------------------------------------------


def tiny_net():
    return RegularizedNetClassifier(
        hidden_layer_sizes=4, max_epochs=1, random_state=0, device="cpu"
    )


def test_pipeline_and_search():
    X, y = random_images((30, 3, 8, 8), np.uint8), np.arange(30) % 3
    pipeline = make_pipeline(
        ImageScaler(), Grayscale(), ImageResizer(), ImageStandardizer(), tiny_net()
    )
    search = GridSearchCV(
        pipeline, {"imageresizer__size": [4, (5, 6)]}, cv=2, error_score="raise"
    )
    search.fit(X, y)
    net = search.best_estimator_[-1]
    assert net.input_shape_ in {(1, 4, 4), (1, 5, 6)}
    again = pickle.loads(pickle.dumps(search))
    assert np.array_equal(again.predict_proba(X), search.predict_proba(X))


def test_a_frame_of_pixels_reaches_the_net_as_images(frame):
    pipeline = make_pipeline(ImageUnflattener((3, 2, 2)), tiny_net())
    scores = cross_validate(pipeline, frame, np.arange(6) % 2, cv=2)["test_score"]
    assert np.isfinite(scores).all()
    assert pipeline.fit(frame, np.arange(6) % 2)[-1].input_shape_ == (3, 2, 2)


# -- augmentation: one sample, exactly ----------------------------------------------


def images_3d_and_4d(n=5, height=6, width=8, dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.rand(n, 3, height, width, dtype=dtype)
    return [x, x[:, 0]]


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


# -- as_augmentation ----------------------------------------------------------------


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
