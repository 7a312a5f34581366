"""Transformers are scikit-learn's: its checks, DataFrames, names, nets."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import sklearn
from images_and_transforms import (
    STATELESS,
    TRANSFORMERS,
    name_of,
    random_images,
    tiny_net,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skreg.transforms import (
    Grayscale,
    ImageFlattener,
    ImageResizer,
    ImageScaler,
    ImageStandardizer,
    ImageUnflattener,
)

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


# -- with nets ----------------------------------------------------------------------


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
