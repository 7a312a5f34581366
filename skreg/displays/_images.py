"""A grid of sample images."""

from textwrap import fill

import numpy as np
from sklearn.utils import check_random_state

from skreg.displays.common import SMALL, WIDTH, check_axes, shorten

SHAPES = "(n, H, W), (n, 1, H, W), (n, 3, H, W) or (n, H, W, 3)"
LINE = 1.2 * SMALL  # points: the height of a line of text
MAX_TILE = 1.75  # inches: a few images need not fill the page,
MAX_HEIGHT = 9  # inches: and many should not need a second one
MIN_TILE = 0.25  # inches: below, the figure grows instead
PAD = 0.09  # inches: what constrained layout leaves around an image


class ImageGridDisplay:
    """A grid of images with their classes as titles.

    Parameters
    ----------
    images : array-like of shape (n, H, W), (n, 1, H, W), (n, 3, H, W) or (n, H, W, 3)
        Grey or RGB. Floats lie in [0, 1], integers in [0, 255], unless `value_range`
        says otherwise. Values outside are refused, never stretched: a stretched
        picture would hide that something is wrong with the data. An array whose second
        axis has length 1 or 3 is read as channels first.
    labels : array-like of shape (n,), default=None
        Class of each image, written above it.
    titles : sequence of str of length n, default=None
        Text above each image in place of its label, for example "cat, not dog". If the
        images of each row are of one class, the class stands left of the row as well.
    value_range : (float, float), default=None
        The values of black and white. None is (0, 1) for floats and (0, 255) for
        integers.

    Attributes
    ----------
    images : ndarray of shape (n, H, W) or (n, H, W, 3)
        The images as they are drawn: uint8, or float in [0, 1].
    n_columns : int
        Number of columns that :meth:`plot` takes unless told otherwise.
    ax_ : matplotlib Axes or None
        The axes that :meth:`plot` was given.
    axes_ : ndarray of shape (n_rows, n_columns) of Axes, or None
        The axes that :meth:`plot` made.
    figure_ : matplotlib Figure
    image_artists_ : list of AxesImage
        One an image; or one in all, the mosaic, if :meth:`plot` was given axes.

    Raises
    ------
    ValueError
        If shapes or lengths do not fit, or a value is outside the range.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from skreg.displays import ImageGridDisplay
    >>> images = np.random.default_rng(0).random((3, 8, 8))
    >>> display = ImageGridDisplay(images=images, labels=["cat", "dog", "cat"]).plot()
    >>> display.axes_.shape
    (1, 3)
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, images, labels=None, titles=None, value_range=None):
        self.images = _as_pixels(_channels_last(images), value_range)
        self.labels = _one_each(labels, "labels", len(self.images))
        self.titles = _one_each(titles, "titles", len(self.images))
        self.value_range = value_range
        self.n_columns = min(len(self.images), 6)

    def plot(self, ax=None, *, n_columns=None):
        """Draw the images, row by row, every pixel as it is.

        The text of an image stands above it. If all images of each row are of one
        class, the class is written once, left of the row.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Draw all images on it as one mosaic. None makes a figure of subplots, at
            most 7 inches wide.
        n_columns : int, default=None
            Images a row; None is the attribute `n_columns`.

        Returns
        -------
        ImageGridDisplay
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is no Axes.
        ValueError
            If `n_columns` is no positive integer.
        """
        n_columns = self.n_columns if n_columns is None else n_columns
        if not isinstance(n_columns, int | np.integer) or n_columns < 1:
            raise ValueError(
                f"n_columns must be None or a positive integer; got {n_columns!r}."
            )
        n_columns = min(int(n_columns), len(self.images))
        n_rows = -(-len(self.images) // n_columns)
        if ax is None:
            self._draw_subplots(n_rows, n_columns)
        else:
            self._draw_mosaic(check_axes(ax), n_rows, n_columns)
        return self

    @classmethod
    def from_bunch(
        cls, bunch, *, n_per_class=6, random_state=None, value_range=None, ax=None
    ):
        """Draw images of every class of a data set, one row a class.

        Parameters
        ----------
        bunch : Bunch
            ``data`` holds the images in a shape that :class:`ImageGridDisplay` takes;
            if it is flat, ``images`` does. ``target`` of shape (n,) holds the classes,
            and ``target_names``, if there, the name of class 0, 1, ...
        n_per_class : int, default=6
            Images a class, drawn without replacement.
        random_state : int, RandomState instance or None, default=None
            Decides which; pass an int to see the same images again.
        value_range, ax
            As in :class:`ImageGridDisplay` and :meth:`plot`.

        Returns
        -------
        ImageGridDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the bunch holds no images, or a class has fewer than `n_per_class`.

        Examples
        --------
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import matplotlib.pyplot as plt
        >>> from sklearn.datasets import load_digits
        >>> from skreg.displays import ImageGridDisplay
        >>> display = ImageGridDisplay.from_bunch(
        ...     load_digits(n_class=3), n_per_class=4, value_range=(0, 16)
        ... )
        >>> display.labels.tolist()
        [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
        >>> plt.close(display.figure_)
        """
        images, target = _images_of(bunch), np.asarray(bunch["target"])
        _one_each(target, "bunch.target", len(images))
        rows = _sample(target, n_per_class, check_random_state(random_state))
        display = cls(
            images=images[rows],
            labels=_class_names(bunch, target[rows]),
            value_range=value_range,
        )
        display.n_columns = n_per_class
        return display.plot(ax)

    def _row_labels(self, n_columns: int) -> list[str] | None:
        """Return one label a row, if there are rows and each is of one class."""
        if self.labels is None or n_columns == 1:
            return None
        starts = range(0, len(self.labels), n_columns)
        rows = [self.labels[start : start + n_columns] for start in starts]
        if len(rows) == 1 or any((row != row[0]).any() for row in rows):
            return None
        return [fill(str(row[0]), 20) for row in rows]

    def _titles(self, tile_points: float, row_labels) -> list[str]:
        """Return the text above each image, wrapped to the width of a tile."""
        texts = self.titles
        if texts is None and row_labels is None:
            texts = self.labels
        if texts is None:
            return [""] * len(self.images)
        width = max(6, int(tile_points / (0.55 * SMALL)))
        return [fill(str(text), width, break_long_words=False) for text in texts]

    def _imshow(self, ax, pixels: np.ndarray):
        artist = ax.imshow(
            pixels, cmap="gray", vmin=0, vmax=_white(pixels), interpolation="nearest"
        )
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        return artist

    def _draw_subplots(self, n_rows: int, n_columns: int) -> None:
        import matplotlib.pyplot as plt

        height, width = self.images.shape[1:3]
        row_labels = self._row_labels(n_columns)
        tile = min(WIDTH / n_columns, MAX_TILE, MAX_HEIGHT / n_rows * width / height)
        text_width = 0.0  # inches
        if row_labels is not None:
            lines = "\n".join(row_labels).splitlines()
            text_width = max(map(len, lines)) * 0.6 * SMALL / 72
            tile = min(tile, (WIDTH - text_width) / n_columns)
        tile = max(tile, MIN_TILE)
        titles = self._titles(72 * tile, row_labels)
        text_height = (_n_lines(titles) * LINE + 2) / 72 if any(titles) else 0.0
        figure, axes = plt.subplots(
            n_rows,
            n_columns,
            figsize=(
                n_columns * tile + text_width,
                n_rows * ((tile - PAD) * height / width + PAD + text_height),
            ),
            layout="constrained",
            squeeze=False,
        )
        self.image_artists_ = []
        for ax, image, title in zip(axes.flat, self.images, titles, strict=False):
            self.image_artists_.append(self._imshow(ax, image))
            ax.set_title(title, fontsize=SMALL, pad=2, parse_math=False)
            ax.set_anchor("N")  # or constrained layout misjudges the room for titles
        for ax, label in zip(axes[:, 0], row_labels or (), strict=False):
            ax.set_ylabel(
                label,
                rotation=0,
                ha="right",
                va="center",
                fontsize=SMALL,
                parse_math=False,  # names of classes may hold a $
            )
        for ax in axes.flat[len(self.images) :]:
            ax.set_axis_off()
        self.ax_, self.axes_, self.figure_ = None, axes, figure

    def _draw_mosaic(self, ax, n_rows: int, n_columns: int) -> None:
        height, width = self.images.shape[1:3]
        row_labels = self._row_labels(n_columns)
        rule = gap = max(1, round(width / 16))  # pixels between columns, above rows
        room = np.array([ax.bbox.width, ax.bbox.height]) * 72 / ax.figure.dpi
        room /= n_columns, n_rows  # points a tile, with its title
        tile = min(room[0], (room[1] - LINE) * width / height)
        titles = self._titles(tile, row_labels)
        if any(titles):
            gap = _title_pixels(room, height, width, _n_lines(titles) * LINE + 2)
        shape = (n_rows * (gap + height), n_columns * (width + rule) - rule)
        mosaic = np.full(
            shape + self.images.shape[3:], _white(self.images), self.images.dtype
        )
        look = {"textcoords": "offset points", "fontsize": SMALL}
        for i, (image, title) in enumerate(zip(self.images, titles, strict=True)):
            top = i // n_columns * (gap + height) + gap
            left = i % n_columns * (width + rule)
            mosaic[top : top + height, left : left + width] = image
            if title:
                center = (left + (width - 1) / 2, top - 0.5)
                ax.annotate(title, center, (0, 2), ha="center", va="bottom", **look)
        for i, label in enumerate(row_labels or ()):
            middle = (-0.5, i * (gap + height) + gap + (height - 1) / 2)
            ax.annotate(label, middle, (-4, 0), ha="right", va="center", **look)
        self.image_artists_ = [self._imshow(ax, mosaic)]
        self.ax_, self.axes_, self.figure_ = ax, None, ax.figure


def _channels_last(images) -> np.ndarray:
    try:
        array = np.asarray(images)
    except ValueError as error:  # images of different sizes
        raise ValueError(
            f"images must be one array of shape {SHAPES}; got {shorten(images)}. Bring "
            "all images to one size first."
        ) from error
    if array.ndim == 4 and array.shape[1] in (1, 3):
        array = np.moveaxis(array, 1, -1)
    is_image = array.ndim == 3 or (array.ndim == 4 and array.shape[-1] in (1, 3))
    if not is_image or not array.size:
        raise ValueError(
            f"images must have shape {SHAPES}, with n, H and W at least 1; got shape "
            f"{np.shape(images)}. Reshape flat images; pass one as images[None]."
        )
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array


def _as_pixels(images: np.ndarray, value_range) -> np.ndarray:
    """Return `images` as uint8, or as float in [0, 1]."""
    if images.dtype.kind not in "buif":
        raise ValueError(
            f"images must hold numbers; got dtype {images.dtype}. Convert them to "
            "uint8 or float."
        )
    is_integer = images.dtype.kind in "ui"
    if value_range is None:
        low, high = (0, 255) if is_integer else (0, 1)
    else:
        low, high = _as_range(value_range)
    smallest, largest = images.min(), images.max()
    slack = 0 if is_integer else 1e-6 * (high - low)  # of a division in float32
    # A comparison with NaN is False.
    if not (smallest >= low - slack and largest <= high + slack):
        raise ValueError(
            f"images must lie in [{low}, {high}], black to white, and be finite; got "
            f"values from {smallest} to {largest} of dtype {images.dtype}. Undo the "
            "standardisation, or pass the values of black and white as value_range."
        )
    if is_integer and value_range is None:
        return images.astype(np.uint8)
    images = images.astype(np.result_type(images, np.float32))
    return np.clip((images - low) / (high - low), 0, 1)


def _as_range(value_range) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not low < high:
        raise ValueError(
            "value_range must be None or two numbers, that of black and a larger one "
            f"of white; got {value_range!r}. Pass for example (0, 255)."
        )
    return low, high


def _one_each(values, parameter: str, n_images: int) -> np.ndarray | None:
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (n_images,):
        raise ValueError(
            f"{parameter} must have one entry per image, shape ({n_images},); got "
            f"shape {array.shape}. Pass the entries in the order of the images."
        )
    return array


def _n_lines(texts: list[str]) -> int:
    """Return the number of lines of the longest text, 0 if all are empty."""
    return max(text.count("\n") + bool(text) for text in texts)


def _white(pixels: np.ndarray) -> int:
    return 255 if pixels.dtype == np.uint8 else 1


def _title_pixels(room, height: int, width: int, points: float) -> int:
    """Return how many pixels of a mosaic make room for a title `points` high.

    `room` is the width and height in points that one image has with its title;
    `height` and `width` are those of an image in pixels.
    """
    if_width_limits = points * width / room[0]
    room_below = room[1] - points
    if_height_limits = points * height / room_below if room_below > 0 else np.inf
    # In tiny axes titles may overlap images; the images must not vanish.
    return int(np.ceil(min(max(if_width_limits, if_height_limits), 2 * height)))


def _images_of(bunch) -> np.ndarray:
    data = np.asarray(bunch["data"])
    if data.ndim > 2:
        return data
    if "images" in bunch:
        return np.asarray(bunch["images"])
    raise ValueError(
        f"bunch must hold images of shape {SHAPES} as data or as images; got data of "
        f"shape {data.shape} and the keys {sorted(bunch)}. Reshape bunch.data."
    )


def _class_names(bunch, target: np.ndarray) -> np.ndarray:
    names = bunch.get("target_names")
    if names is None or target.dtype.kind not in "ui":
        return target
    if target.min() < 0 or target.max() >= len(names):
        raise ValueError(
            f"bunch.target must count the {len(names)} bunch.target_names from 0; got "
            f"classes from {target.min()} to {target.max()}. Encode the classes anew."
        )
    return np.asarray(names)[target]


def _sample(target: np.ndarray, n_per_class, rng) -> np.ndarray:
    """Return the rows of `n_per_class` samples of every class, class by class."""
    if not isinstance(n_per_class, int | np.integer) or n_per_class < 1:
        raise ValueError(
            f"n_per_class must be a positive integer; got {n_per_class!r}."
        )
    classes, sizes = np.unique(target, return_counts=True)
    if sizes.min() < n_per_class:
        raise ValueError(
            f"n_per_class must be at most the size of the smallest class, {sizes.min()}"
            f" images of class {classes[sizes.argmin()]}; got {n_per_class}. Ask for "
            "fewer."
        )
    chosen = [
        rng.choice(np.flatnonzero(target == label), n_per_class, replace=False)
        for label in classes
    ]
    return np.concatenate(chosen)
