"""Images: their pixels, and where they stand."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from display_data import assert_texts_are_legible
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.testing import assert_array_equal
from sklearn.utils import Bunch

from skreg.displays import ImageGridDisplay


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4, 5, 6), None),
        ((4, 1, 5, 6), 1),
        ((4, 3, 5, 6), 1),
        ((4, 5, 6, 3), 3),
        ((4, 3, 5, 3), 1),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_pixels_are_those_of_the_images(rng, shape, axis, dtype):
    is_integer = np.issubdtype(dtype, np.integer)
    images = (
        rng.integers(256, size=shape) if is_integer else rng.random(shape)
    ).astype(dtype)
    display = ImageGridDisplay(images=images)
    assert display.plot() is display
    expected = images if axis is None else np.moveaxis(images, axis, -1)
    for ax, image in zip(display.axes_.flat, expected, strict=True):
        (artist,) = ax.images
        pixels = np.asarray(artist.get_array())
        assert_array_equal(pixels, image[..., 0] if shape[1] == 1 else image)
        assert artist.get_clim() == (0, 255 if is_integer else 1)
        assert artist.get_interpolation() == "nearest"
        assert artist.get_cmap().name == "gray"
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert display.ax_ is None
    assert isinstance(display.figure_.get_layout_engine(), ConstrainedLayoutEngine)


@pytest.mark.parametrize(
    ("n_columns", "shape"), [(None, (2, 6)), (3, (3, 3)), (9, (1, 7))]
)
def test_grid_of_subplots(rng, n_columns, shape):
    labels = ["cat", "dog", "cat", "cow", "cat", "dog", "hen"]
    display = ImageGridDisplay(images=rng.random((7, 4, 4)), labels=labels)
    display.plot(n_columns=n_columns)
    assert display.axes_.shape == shape
    titles = [ax.get_title() for ax in display.axes_.flat]
    assert titles == labels + [""] * (len(titles) - 7)
    assert not any(ax.axison for ax in display.axes_.flat[7:])
    assert_texts_are_legible(display.figure_)
    for ax in display.axes_.flat[:7]:
        assert ax.title.get_window_extent().y1 <= display.figure_.bbox.y1


def test_titles_stand_in_place_of_labels(rng):
    titles = ["cat, not dog", "cow, not horse"]
    display = ImageGridDisplay(
        images=rng.random((2, 4, 4)), labels=[0, 1], titles=titles
    )
    drawn = [ax.get_title() for ax in display.plot().axes_.flat]
    assert drawn == titles


def test_titles_and_rows_of_one_class(rng):
    images, titles = rng.random((4, 8, 8)), ["a", "b", "c", ""]
    display = ImageGridDisplay(
        images=images, labels=["clean", "clean", "noisy", "noisy"], titles=titles
    ).plot(n_columns=2)
    assert [ax.get_title() for ax in display.axes_.flat] == titles
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["clean", "noisy"]
    assert_texts_are_legible(display.figure_)
    _, ax = plt.subplots(layout="constrained")
    display.plot(ax, n_columns=2)
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c", "clean", "noisy"]


def test_long_titles_are_wrapped_and_not_cut(rng):
    labels = ["a", "a few words that do not fit above one image"]
    display = ImageGridDisplay(images=rng.random((2, 8, 8)), labels=labels).plot()
    display.figure_.canvas.draw()
    title = display.axes_[0, 1].title
    assert title.get_text().replace("\n", " ") == labels[1]
    assert "\n" in title.get_text()
    assert title.get_window_extent().y1 <= display.figure_.bbox.y1


def test_rows_of_one_class_are_labelled_once(rng):
    images, labels = rng.random((6, 4, 4)), ["cat", "cat", "dog", "dog", "hen", "hen"]
    display = ImageGridDisplay(images=images, labels=labels).plot(n_columns=2)
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["cat", "dog", "hen"]
    assert not any(ax.get_title() for ax in display.axes_.flat)
    display.figure_.canvas.draw()
    for ax in display.axes_[:, 0]:
        assert ax.yaxis.label.get_window_extent().x0 >= 0
    display.plot(n_columns=3)
    assert [ax.get_title() for ax in display.axes_.flat] == labels


@pytest.mark.parametrize("labels", [None, ["cat", "dog", "cat", "cow", "hen"]])
@pytest.mark.parametrize("shape", [(5, 6, 4), (5, 6, 4, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, float])
def test_mosaic_on_given_axes(rng, labels, shape, dtype):
    white = 255 if dtype is np.uint8 else 1
    images = (white * rng.random(shape)).astype(dtype)
    figure, (ax, other) = plt.subplots(1, 2)
    display = ImageGridDisplay(images=images, labels=labels).plot(ax, n_columns=3)
    assert display.ax_ is ax
    assert display.axes_ is None
    assert plt.get_fignums() == [figure.number]
    assert len(figure.axes) == 2
    assert not other.images
    (artist,) = ax.images
    assert artist.get_interpolation() == "nearest"
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    mosaic = np.array(artist.get_array())
    gap = mosaic.shape[0] // 2 - 6
    rule = (mosaic.shape[1] - 3 * 4) // 2
    assert gap > 0
    assert rule > 0
    for i, image in enumerate(images):
        top, left = i // 3 * (6 + gap) + gap, i % 3 * (4 + rule)
        tile = mosaic[top : top + 6, left : left + 4]
        assert_array_equal(tile, image)
        tile[:] = white
        if labels is not None:
            x, y = ax.texts[i].xy
            assert (x, y) == (left + 1.5, top - 0.5)
    assert (mosaic == white).all()
    assert [text.get_text() for text in ax.texts] == (labels or [])


@pytest.mark.parametrize("figsize", [(7, 7), (3, 7), (7, 3)])
def test_texts_of_a_mosaic_cover_no_image(rng, figsize):
    figure, ax = plt.subplots(figsize=figsize)
    labels = ["cat", "dog", "cow", "hen"]
    display = ImageGridDisplay(images=rng.random((4, 8, 8)), labels=labels)
    display.plot(ax, n_columns=2)
    figure.canvas.draw()
    n_pixels = display.image_artists_[0].get_array().shape[0]
    for text in ax.texts:
        # Upward in the figure is downward in the rows of the mosaic.
        top, bottom = (
            ax.transData.inverted().transform((0, y))[1]
            for y in text.get_window_extent().intervaly[::-1]
        )
        above = n_pixels // 2 - 0.5 if text.xy[1] > n_pixels / 2 else -0.5
        assert above - 0.01 <= top < bottom <= text.xy[1]


def test_mosaic_labels_rows_of_one_class_once(rng):
    _, ax = plt.subplots()
    labels = ["cat", "cat", "dog", "dog"]
    ImageGridDisplay(images=rng.random((4, 8, 8)), labels=labels).plot(ax, n_columns=2)
    assert [text.get_text() for text in ax.texts] == ["cat", "dog"]
    assert {text.xy[0] for text in ax.texts} == {-0.5}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_value_range_maps_to_black_and_white(dtype):
    images = np.array([[[0, 4], [8, 16]]], dtype=dtype)
    display = ImageGridDisplay(images=images, value_range=(0, 16))
    assert_array_equal(display.images, [[[0, 0.25], [0.5, 1]]])


def test_images_may_be_boolean_or_a_rounding_error_outside():
    images = ImageGridDisplay(images=[[[True, False]]]).images
    assert_array_equal(images, [[[1, 0]]])
    images = ImageGridDisplay(images=np.full((1, 2, 2), 1 + 1e-7)).images
    assert_array_equal(images, np.ones((1, 2, 2)))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"images": np.zeros((4, 4))}, r"shape \(n, H, W\).*got shape \(4, 4\)"),
        ({"images": np.zeros((2, 2, 4, 4))}, r"got shape \(2, 2, 4, 4\).*Reshape"),
        ({"images": np.zeros((0, 4, 4))}, r"at least 1; got shape \(0, 4, 4\)"),
        ({"images": [np.zeros((2, 2)), np.zeros((3, 3))]}, "one array.*one size"),
        ({"images": np.full((1, 2, 2), "a")}, "must hold numbers; got dtype"),
        ({"images": np.full((1, 2, 2), 1.5)}, r"lie in \[0, 1\].*1.5.*value_range"),
        ({"images": np.full((1, 2, 2), -0.5)}, r"lie in \[0, 1\].*-0.5"),
        ({"images": np.full((1, 2, 2), np.nan)}, "be finite; got values from nan"),
        ({"images": np.full((1, 2, 2), 256)}, r"lie in \[0, 255\].*256.*int64"),
        ({"value_range": (1, 0)}, r"value_range must.*got \(1, 0\)"),
        ({"value_range": 3}, "value_range must.*got 3"),
        ({"labels": ["cat"]}, r"labels must.*shape \(2,\); got\s+shape \(1,\)"),
        ({"titles": "cat"}, r"titles must.*got\s+shape \(\)"),
    ],
)
def test_image_errors(params, match):
    with pytest.raises(ValueError, match=match):
        ImageGridDisplay(**{"images": np.zeros((2, 4, 4))} | params)


@pytest.mark.parametrize("n_columns", [0, -1, 1.5, "3"])
def test_n_columns_must_be_positive(n_columns):
    with pytest.raises(ValueError, match=f"n_columns must.*got {n_columns!r}"):
        ImageGridDisplay(images=np.zeros((2, 4, 4))).plot(n_columns=n_columns)


@pytest.fixture
def bunch():
    """Ten samples a class; the value of every pixel is the index of its sample."""
    target = np.arange(30) % 3
    data = np.broadcast_to(np.arange(30)[:, None, None, None], (30, 3, 4, 4))
    return Bunch(data=data, target=target, target_names=["cat", "dog", "hen"])


def test_from_bunch_draws_a_row_a_class(bunch):
    display = ImageGridDisplay.from_bunch(bunch, n_per_class=4, random_state=0)
    assert display.axes_.shape == (3, 4)
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["cat", "dog", "hen"]
    drawn = display.images[:, 0, 0, 0].reshape(3, 4)
    for code, row in enumerate(drawn):
        assert (row % 3 == code).all()
        assert len(set(row)) == 4
    assert display.labels.tolist() == ["cat"] * 4 + ["dog"] * 4 + ["hen"] * 4
    # Drawn again, elsewhere, it keeps its rows.
    figure, ax = plt.subplots()
    assert [t.get_text() for t in display.plot(ax).ax_.texts] == ["cat", "dog", "hen"]
    assert plt.get_fignums()[-1] == figure.number


def test_from_bunch_on_given_axes(bunch):
    figure, ax = plt.subplots()
    assert ImageGridDisplay.from_bunch(bunch, ax=ax).ax_ is ax
    assert plt.get_fignums() == [figure.number]


def test_from_bunch_random_state(bunch):
    def drawn(seed):
        return ImageGridDisplay.from_bunch(
            bunch, n_per_class=2, random_state=seed
        ).images

    assert_array_equal(drawn(0), drawn(0))
    assert (drawn(0) != drawn(1)).any()


def test_from_bunch_without_names_or_with_named_targets(bunch):
    del bunch["target_names"]
    labels = ImageGridDisplay.from_bunch(bunch, n_per_class=1).labels
    assert labels.tolist() == [0, 1, 2]
    bunch.target_names = ["never", "looked", "at"]
    bunch.target = np.array(["x", "y", "z"])[bunch.target]
    labels = ImageGridDisplay.from_bunch(bunch, n_per_class=1).labels
    assert labels.tolist() == ["x", "y", "z"]


def test_from_bunch_takes_images_where_data_is_flat(bunch):
    flat = Bunch(
        data=bunch.data.reshape(30, -1), images=bunch.data[:, 0], target=bunch.target
    )
    assert ImageGridDisplay.from_bunch(flat).images.shape == (18, 4, 4)
    del flat["images"]
    with pytest.raises(
        ValueError, match=r"\(30, 48\) and the keys \['data', 'target'\]"
    ):
        ImageGridDisplay.from_bunch(flat)


def test_from_bunch_errors(bunch):
    with pytest.raises(ValueError, match=r"at most.*10 images of class 0; got 11"):
        ImageGridDisplay.from_bunch(bunch, n_per_class=11)
    with pytest.raises(
        ValueError, match="n_per_class must be a positive integer; got 0"
    ):
        ImageGridDisplay.from_bunch(bunch, n_per_class=0)
    bunch.target_names = ["cat", "dog"]
    with pytest.raises(
        ValueError, match=r"count the 2 bunch\.target_names.*from 0 to 2"
    ):
        ImageGridDisplay.from_bunch(bunch)
    bunch.target = bunch.target[:-1]
    with pytest.raises(ValueError, match=r"bunch.target must.*got\s+shape \(29,\)"):
        ImageGridDisplay.from_bunch(bunch)
