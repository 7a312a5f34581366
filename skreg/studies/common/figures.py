"""The figures that several studies draw."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from skreg.displays import ImageGridDisplay, LearningCurvesDisplay, NormDisplay
from skreg.displays.common import (
    OKABE_ITO,
    WIDTH,
    draw_legend,
    key_line,
    light_grid,
    mean_and_error,
    net_keys,
    net_styles,
    new_axes,
    turn_if_long,
)
from skreg.studies.common.tables import by_factor, stack


def bands(result: dict) -> str:
    """Return what a caption says about the bands, if there are any."""
    n_seeds = len(result["settings"]["seeds"])
    return f"; bands are one standard error over {n_seeds} seeds" if n_seeds > 1 else ""


def bars(result: dict) -> str:
    """Return what a caption says about error bars, if there are any."""
    return bands(result).replace("bands are", "bars are")


def plot_accuracy(runs: Sequence[dict], factor: str, **kwargs):
    """Draw training and validation accuracy by epoch, a colour a case."""
    curves = train_and_valid(runs, "acc", factor)
    return LearningCurvesDisplay(curves=curves).plot(**kwargs).figure_


def train_and_valid(runs: Sequence[dict], kind: str, factor: str) -> dict:
    """Return the curves of each case as `LearningCurvesDisplay` takes them."""
    train, valid = (stack(runs, f"{p}_{kind}", factor) for p in ("train", "valid"))
    return {name: {"train": train[name], "valid": valid[name]} for name in train}


def plot_norms(runs: Sequence[dict], factor: str, kind: str = "epochs"):
    """Draw the norm of the parameters, by epoch or at the end by layer."""
    norms = stack(runs, "param_norm", factor)
    layers = _layer_norms(runs, factor) if kind == "layers" else None
    return NormDisplay(norms=norms, layer_norms=layers).plot(kind=kind).figure_


def plot_against(
    x: Sequence[float],
    values: Mapping[str, np.ndarray],
    *,
    xlabel: str,
    ylabel: str,
    evenly: bool = False,
    levels: Mapping[str, float] | None = None,
    dashed: Sequence[str] = (),
    ax=None,
):
    """Draw means with error bars against a parameter.

    Parameters
    ----------
    x : sequence of float
    values : mapping of str to array-like of shape (n_seeds, len(x))
        NaN is left out.
    xlabel, ylabel : str
    evenly : bool, default=False
        Draw at even distances, whatever the values: for powers of ten, and zero.
    levels : mapping of str to float, default=None
        Horizontal lines, such as chance.
    dashed : sequence of str, default=()
        The names drawn with a dashed line.
    ax : matplotlib Axes, default=None

    Returns
    -------
    matplotlib Figure
    """
    ax = new_axes()[0] if ax is None else ax
    styles = net_styles(values)
    places, labels = _places(x, evenly)
    for name, rows in values.items():
        mean, error = mean_and_error(np.atleast_2d(np.array(rows, float)))
        style = styles[name]
        ax.errorbar(
            places,
            mean,
            np.nan_to_num(error),
            color=style.color,
            marker=style.marker,
            markersize=5,
            linewidth=1.4,
            linestyle="--" if name in dashed else "-",
            capsize=3,
        )
    if labels is not None:
        ax.set_xticks(places, labels)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    light_grid(ax)
    keys = net_keys(styles) if len(styles) > 1 else []
    keys += _draw_levels(ax, levels or {})
    if keys:
        draw_legend(ax, keys)
    return ax.figure


def plot_columns(
    columns: Mapping[str, tuple[Sequence[float], Mapping[str, np.ndarray]]],
    *,
    ylabel: str,
):
    """Draw one `plot_against` beside the other, evenly spaced, of one scale.

    Parameters
    ----------
    columns : mapping of str to (x, values)
        The label of each abscissa to what `plot_against` takes.
    ylabel : str

    Returns
    -------
    matplotlib Figure
    """
    axes = new_axes(len(columns))
    for ax, (xlabel, (x, values)) in zip(axes, columns.items(), strict=True):
        plot_against(x, values, xlabel=xlabel, ylabel=ylabel, evenly=True, ax=ax)
    return axes[0].figure


def plot_bars(
    values: Mapping[str, Mapping[str, np.ndarray]],
    *,
    ylabel: str,
    xlabel: str = "",
    levels: Mapping[str, float] | None = None,
    ax=None,
):
    """Draw groups of bars with error bars, and a point for each seed.

    Parameters
    ----------
    values : mapping of str to mapping of str to array-like of shape (n_seeds,)
        Group, on the abscissa, to bars, by colour.
    ylabel, xlabel : str
    levels : mapping of str to float, default=None
        Horizontal lines, such as chance.
    ax : matplotlib Axes, default=None

    Returns
    -------
    matplotlib Figure
    """
    from matplotlib.patches import Patch

    ax = new_axes()[0] if ax is None else ax
    names = list(dict.fromkeys(name for group in values.values() for name in group))
    styles = net_styles(names)
    width = 0.8 / len(names)
    for place, group in enumerate(values.values()):
        for name, seeds in group.items():
            x = place + (names.index(name) - (len(names) - 1) / 2) * width
            seeds = np.atleast_1d(np.array(seeds, float))
            mean, error = mean_and_error(seeds[:, np.newaxis])
            ax.bar(x, mean, 0.92 * width, color=styles[name].color, alpha=0.75)
            ax.errorbar(x, mean, np.nan_to_num(error), color="0.15", capsize=3)
            ax.plot([x] * len(seeds), seeds, ".", color="0.15", ms=3, alpha=0.5)
    ax.set_xticks(range(len(values)), list(values))
    ax.tick_params(axis="x", length=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    turn_if_long(ax, list(values))
    light_grid(ax)
    keys = [Patch(color=s.color, alpha=0.75, label=n) for n, s in styles.items()]
    keys = (keys if len(names) > 1 else []) + _draw_levels(ax, levels or {})
    if keys:
        draw_legend(ax, keys)
    return ax.figure


def plot_rows(
    values: Mapping[str, np.ndarray],
    *,
    xlabel: str,
    reference: str | None = None,
    level: float | None = None,
    spread: Callable[[np.ndarray], tuple[float, float]] | None = None,
    marked: Collection[str] = (),
    scale_of: Collection[str] | None = None,
):
    """Draw a row for each name: mean, error bar, and a point for each seed.

    Parameters
    ----------
    values : mapping of str to array-like of shape (n_seeds,)
        The first is at the top. NaN is left out.
    xlabel : str
    reference : str, default=None
        The row at whose mean a dotted line is drawn.
    level : float, default=None
        Where else it is drawn.
    spread : callable, default=None
        From the values of a row to the ends of its bar; None is one standard error.
    marked : collection of str, default=()
        Rows of another colour.
    scale_of : collection of str, default=None
        The rows that the scale is made for; of a mean that is beyond, an arrow tells
        the number. None is all rows.

    Returns
    -------
    matplotlib Figure
    """
    figure, ax = _axes_of_rows(values)
    rows = {
        name: row[np.isfinite(row)]
        for name, row in ((n, np.array(v, float).ravel()) for n, v in values.items())
    }
    shown = [row for n, row in rows.items() if scale_of is None or n in scale_of]
    left, right = _ends(np.concatenate(shown))
    for place, (name, seeds) in enumerate(rows.items()):
        if not len(seeds):
            continue
        color = OKABE_ITO[name in marked]
        mean, low, high = float(seeds.mean()), *(spread or _standard_error)(seeds)
        if name == reference:
            level = mean
        if not left <= mean <= right:
            _draw_arrow(ax, left if mean < left else right, place, mean, color)
            continue
        ax.plot(seeds, [place] * len(seeds), ".", color="0.6", ms=5, alpha=0.7)
        if np.isfinite(low):
            ax.plot([low, high], [place, place], color=color, lw=2, zorder=3)
        ax.plot(mean, place, "o", color=color, ms=6, zorder=4)
    if scale_of is not None:
        ax.set_xlim(left, right)
    if level is not None:
        ax.axvline(level, color="0.3", linestyle=":", linewidth=1.2, zorder=1)
    ax.set(xlabel=xlabel)
    return figure


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of an abscissa that holds the values, with some room."""
    if not len(values):
        return -1.0, 1.0
    room = 0.08 * np.ptp(values) or 1.0
    return float(values.min() - room), float(values.max() + room)


def _draw_arrow(ax, end: float, place: int, mean: float, color: str) -> None:
    is_left = mean < end
    ax.annotate(
        f"{mean:.1f}",
        (end, place),
        (40 if is_left else -40, 0),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="center",
        color=color,
        arrowprops={"arrowstyle": "->", "color": color},
    )


def _standard_error(seeds: np.ndarray) -> tuple[float, float]:
    mean, error = mean_and_error(seeds[:, np.newaxis])
    return float((mean - error)[0]), float((mean + error)[0])


def plot_counts(counts: Mapping[str, int], *, total: int, xlabel: str):
    """Draw a horizontal bar for each name, and its number.

    Parameters
    ----------
    counts : mapping of str to int
        The first is at the top.
    total : int
        Where the abscissa ends.
    xlabel : str

    Returns
    -------
    matplotlib Figure
    """
    figure, ax = _axes_of_rows(counts)
    ax.barh(range(len(counts)), [*counts.values()], 0.65, color=OKABE_ITO[0], alpha=0.8)
    for place, count in enumerate(counts.values()):
        ax.annotate(
            str(count), (count, place), (3, 0), textcoords="offset points", va="center"
        )
    ax.set(xlabel=xlabel, xlim=(0, 1.05 * total))
    ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _axes_of_rows(names: Collection[str]):
    import matplotlib.pyplot as plt

    height = 1.0 + 0.26 * len(names)
    figure, ax = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    ax.set_yticks(range(len(names)), [*names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="both", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    return figure, ax


def columns_of(
    summaries: pd.DataFrame, factor: str, column: str
) -> dict[str, np.ndarray]:
    """Return the values of a column, over seeds, as `plot_rows` takes them."""
    groups = summaries.groupby(factor, sort=False)
    return {str(name): part[column].to_numpy() for name, part in groups}


def grouped(
    summaries: pd.DataFrame, groups: str, factor: str, column: str
) -> dict[str, dict[str, np.ndarray]]:
    """Return the values of a column, over seeds, as `plot_bars` takes them."""
    return {
        str(group): {
            str(name): part[column].to_numpy()
            for name, part in rows.groupby(factor, sort=False)
        }
        for group, rows in summaries.groupby(groups, sort=False)
    }


def image_samples(data, n_classes: int = 10, n_columns: int = 12) -> dict:
    """Return a few images of the first classes as bytes, small enough for JSON."""
    rows = [np.flatnonzero(data.target == k) for k in range(len(data.target_names))]
    rows = rows[:n_classes]
    n_columns = min(n_columns, *map(len, rows))
    picked = np.concatenate([row[:n_columns] for row in rows])
    labels = [str(data.target_names[k]) for k in data.target[picked]]
    n_all = len(data.target_names)
    return as_samples(data.data[picked], labels, n_columns) | {"classes": n_all}


def as_samples(images: np.ndarray, labels: Sequence[str], n_columns: int) -> dict:
    """Return images in [0, 1] as bytes, for JSON."""
    pixels = np.uint8(np.round(255 * np.clip(images, 0, 1)))
    return {"images": pixels.tolist(), "labels": [*labels], "columns": n_columns}


def samples_caption(result: dict) -> str:
    """Return what `image_samples` of a result shows."""
    samples = result["samples"]
    n_shown, n_all = len({*samples["labels"]}), samples["classes"]
    if n_shown == n_all:
        return "Images of each class."
    return f"Images of the first {n_shown} of {n_all} classes."


def plot_samples(samples: dict):
    """Draw what `as_samples` returned."""
    images = np.array(samples["images"], np.uint8)
    grid = ImageGridDisplay(images=images, labels=samples["labels"])
    return grid.plot(n_columns=samples["columns"]).figure_


def _layer_norms(runs: Sequence[dict], factor: str) -> dict:
    frames = {
        name: pd.DataFrame([run["layer_norms"] for run in group], dtype=float)
        for name, group in by_factor(runs, factor).items()
    }
    return {
        name: {layer: frame[layer].to_numpy() for layer in frame}
        for name, frame in frames.items()
    }


def _places(x: Sequence[float], evenly: bool):
    """Return where to draw, and what to write there; None leaves it to matplotlib."""
    if not evenly:
        return np.array(x, float), None
    return np.arange(len(x)), [f"{value:g}" for value in x]


def _draw_levels(ax, levels: Mapping[str, float]) -> list:
    keys = []
    for (name, level), linestyle in zip(levels.items(), (":", "-."), strict=False):
        ax.axhline(level, color="0.3", linestyle=linestyle, linewidth=1.2)
        keys.append(key_line(name, linestyle=linestyle))
    return keys
