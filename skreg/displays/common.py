"""What the displays share: checks, means over seeds, colours, axes and legends."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# The palette of Okabe and Ito (2008), which stays apart under every common form of
# colour blindness, without its yellow, which is too pale for a line on white paper.
OKABE_ITO = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SMALL = 9  # points: the smallest text of a display
WIDTH = 7  # inches: the text width of a report
N_MARKERS = 8  # marks along a line: enough to tell the nets apart in black and white


class NetStyle(NamedTuple):
    """How one net is drawn: `shift`, in [0, 1), keeps the nets' markers apart."""

    color: object
    marker: str
    shift: float

    def line(self, n_points: int) -> dict:
        """Return the keywords of ``ax.plot`` for a line of `n_points`."""
        step = max(1, n_points // N_MARKERS)
        return {
            "color": self.color,
            "marker": self.marker,
            "markersize": 4,
            "markevery": (int(self.shift * step), step),
        }


def net_styles(names: Iterable[str], palette=None) -> dict[str, NetStyle]:
    """Give every net its own pair of colour and marker.

    Parameters
    ----------
    names : iterable of str
        Names of the nets.
    palette : sequence of colours or mapping of name to colour, default=None
        None is :data:`OKABE_ITO`. A sequence that is shorter than `names` starts again;
        the markers then tell the nets apart.

    Returns
    -------
    dict of str to NetStyle
    """
    names = list(names)
    palette = OKABE_ITO if palette is None else palette
    if isinstance(palette, Mapping):
        missing = [name for name in names if name not in palette]
        if missing:
            raise ValueError(
                f"palette must hold a colour for every net; got {list(palette)}, "
                f"without {missing}. Add them, or pass a sequence of colours."
            )
        colors = [palette[name] for name in names]
    elif isinstance(palette, str) or not len(palette):
        raise ValueError(
            "palette must be None, a non-empty sequence of colours or a mapping of "
            f"net to colour; got {palette!r}. Pass for example ['C0', 'C1']."
        )
    else:
        colors = [palette[i % len(palette)] for i in range(len(names))]
    # When the colours come round again, each takes the marker of its neighbour.
    turns = [sum(divmod(i, len(palette))) % len(MARKERS) for i in range(len(names))]
    return {
        name: NetStyle(color, MARKERS[turns[i]], i / len(names))
        for i, (name, color) in enumerate(zip(names, colors, strict=True))
    }


def as_named(value, parameter: str, holds: str) -> dict:
    """Return the mapping `value` as a dict, or say what `parameter` must be."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"{parameter} must be a non-empty mapping of a net's name to {holds}; got "
            f"{shorten(value)}. Pass for example {{'L2': ...}}."
        )
    return dict(value)


def as_curve(values, parameter: str) -> np.ndarray:
    """Return `values` as a float array of shape (n_epochs,) or (n_seeds, n_epochs)."""
    try:
        curve = np.array(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{parameter} must hold numbers, in shape (n_epochs,) or "
            f"(n_seeds, n_epochs); got {shorten(values)}. Pad runs of different "
            "lengths with NaN, or use from_history, which does."
        ) from error
    if curve.ndim not in (1, 2) or not curve.size:
        raise ValueError(
            f"{parameter} must have shape (n_epochs,) or (n_seeds, n_epochs) with at "
            f"least one of each; got shape {curve.shape}. Pass one value per epoch, "
            "seeds along the first axis."
        )
    return curve


def as_numbers(values, parameter: str, *shapes: tuple) -> np.ndarray:
    """Return `values` as a float array of one of the shapes, and not empty.

    A shape consists of lengths, or of names for lengths that are free.

    Examples
    --------
    >>> from skreg.displays.common import as_numbers
    >>> as_numbers([0, 1], "eps", ("n_eps",))
    array([0., 1.])
    """
    try:
        array = np.array(values, dtype=float)
    except (TypeError, ValueError):
        array = None
    if array is not None and array.size:
        for shape in shapes:
            lengths = [
                n if isinstance(name, str) else name
                for name, n in zip(shape, array.shape, strict=False)
            ]
            if (*lengths,) == array.shape and len(shape) == array.ndim:
                return array
    allowed = " or ".join(str(shape).replace("'", "") for shape in shapes)
    got = shorten(values) if array is None else f"shape {array.shape}"
    raise ValueError(
        f"{parameter} must hold numbers, in shape {allowed} and not empty; got {got}."
    )


def shorten(value) -> str:
    """Return the repr of `value`, on one line and cut to fit into an error message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error over the first axis, of the finite values only.

    Parameters
    ----------
    values : ndarray of shape (n_seeds, ...)
        What is not finite is left out: NaN pads the runs that stopped early.

    Returns
    -------
    mean : ndarray of shape (...)
        NaN where there is no finite value.
    error : ndarray of shape (...)
        Standard deviation (with n - 1) divided by the square root of n, the number of
        finite values; NaN where n < 2.

    Examples
    --------
    >>> import numpy as np
    >>> from skreg.displays.common import mean_and_error
    >>> mean, error = mean_and_error(np.array([[1.0, 2.0], [3.0, np.nan]]))
    >>> mean.tolist(), error.tolist()
    ([2.0, 2.0], [1.0, nan])
    """
    finite = np.isfinite(values)
    n = finite.sum(axis=0)
    nan = np.full(n.shape, np.nan)
    # np.nanmean and np.nanstd warn about empty columns; these divisions skip them.
    total = np.where(finite, values, 0).sum(axis=0)
    mean = np.divide(total, n, out=nan.copy(), where=n > 0)
    squares = (np.where(finite, values - mean, 0) ** 2).sum(axis=0)
    variance = np.divide(squares, (n - 1) * n, out=nan.copy(), where=n > 1)
    return mean, np.sqrt(variance)


def draw_mean(ax, values: np.ndarray, style: NetStyle, linestyle: str, x=None):
    """Draw the mean of `values`, and its band of one standard error.

    Parameters
    ----------
    ax : matplotlib Axes
    values : ndarray of shape (n_points,) or (n_seeds, n_points)
    style : NetStyle
    linestyle : str
    x : ndarray of shape (n_points,), default=None
        None counts epochs from 1.

    Returns
    -------
    line : matplotlib.lines.Line2D
    band : matplotlib.collections.PolyCollection or None
        None if no point has two seeds.
    """
    mean, error = mean_and_error(np.atleast_2d(values))
    x = np.arange(1, len(mean) + 1) if x is None else x
    look = {"linestyle": linestyle, "linewidth": 1.4}
    (line,) = ax.plot(x, mean, **look, **style.line(len(mean)))
    if not np.isfinite(error).any():
        return line, None
    low, high = mean - error, mean + error
    band = ax.fill_between(x, low, high, color=style.color, alpha=0.2, linewidth=0)
    return line, band


def new_axes(n_columns: int = 1) -> np.ndarray:
    """Make a figure of the width of a report; return its axes, of one scale."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(
        1,
        n_columns,
        figsize=(WIDTH, 4),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for ax in axes[0]:
        ax.tick_params(labelleft=True)
    return axes[0]


def check_axes(ax):
    """Return `ax` if it is one matplotlib Axes, else say what to pass."""
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(
            f"ax must be None or one matplotlib Axes; got {shorten(ax)}. Of an array "
            "of axes pass one, for example axes[0]."
        )
    return ax


def label_epochs(ax, ylabel: str) -> None:
    """Label axes whose abscissa counts epochs."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("Epoch")
    ax.set_ylabel(ylabel)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    ax.margins(x=0.02)
    light_grid(ax)


def light_grid(ax) -> None:
    """Draw pale horizontal rules behind the data."""
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)


def turn_if_long(ax, labels) -> None:
    """Turn the tick labels if the longest does not fit into its share of the axis."""
    share = ax.bbox.width * 72 / ax.figure.dpi / len(labels)
    size = ax.xaxis.get_major_ticks()[0].label1.get_fontsize()
    if 0.65 * size * max(map(len, labels)) <= share:
        return
    # Slanting lines of text lie 1 / sin(40 degrees) = 1.6 of their height apart.
    is_dense = share < 1.6 * 1.2 * size
    ax.tick_params(axis="x", rotation=90 if is_dense else 40)
    for label in ax.get_xticklabels():
        label.set(
            ha="right",
            va="center" if is_dense else "top",
            rotation_mode="anchor",
        )


def key_line(label: str, **kwargs):
    """Return a line that stands in a legend only; grey unless told otherwise."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"color": "0.3", "label": label}
    return Line2D([], [], **(look | kwargs))


def net_keys(styles: Mapping[str, NetStyle]) -> list:
    """Return one legend handle a net: its colour and its marker."""
    return [
        key_line(name, color=style.color, marker=style.marker, markersize=5)
        for name, style in styles.items()
    ]


def draw_legend(ax, *groups: Sequence, whole_figure: bool = False) -> None:
    """Draw one legend where it hides no data; every group of handles starts a row.

    It goes below the axes if the figure has a layout engine that makes room for it,
    and otherwise inside, where matplotlib finds the least data.

    Parameters
    ----------
    ax : matplotlib Axes
    *groups : sequence of legend handles
    whole_figure : bool, default=False
        Draw it below all axes of the figure of `ax`.
    """
    from matplotlib.transforms import ScaledTranslation

    figure = ax.figure
    to_points = 72 / figure.dpi
    # A layout engine has yet to widen the axes, and there is room beside them.
    width = (figure.bbox.width if whole_figure else 1.2 * ax.bbox.width) * to_points
    rows = _legend_rows(groups, width)
    look = {
        # A legend fills its columns first.
        "handles": [handle for column in zip(*rows, strict=True) for handle in column],
        "ncols": len(rows[0]),
        "fontsize": SMALL,
        "handlelength": 2.4,
        "columnspacing": 1.2,
    }
    if whole_figure:
        figure.legend(loc="outside lower center", frameon=False, **look)
    elif figure.get_layout_engine() is None:
        ax.legend(loc="best", **look)
    else:
        decoration = (ax.bbox.y0 - ax.xaxis.get_tightbbox().y0) * to_points
        down = ScaledTranslation(0, -(decoration + 2) / 72, figure.dpi_scale_trans)
        ax.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=ax.transAxes + down,
            frameon=False,
            **look,
        )


def _legend_rows(groups: Sequence[Sequence], width: float) -> list[list]:
    """Break the groups of handles into equally long rows that fit into `width` points.

    The last row of a group is filled up with empty handles.
    """
    empty = key_line("", linestyle="none")
    for n_columns in range(max(map(len, groups)), 0, -1):
        rows = [
            [*group[start : start + n_columns]]
            for group in groups
            for start in range(0, len(group), n_columns)
        ]
        rows = [row + [empty] * (n_columns - len(row)) for row in rows]
        longest = [
            max(len(handle.get_label()) for handle in column)
            for column in zip(*rows, strict=True)
        ]
        # The line, the spaces beside it, and about 0.55 em a letter.
        if sum(40 + 0.55 * SMALL * n_letters for n_letters in longest) <= width:
            break
    return rows
