"""How the predictions of nets change while they are trained: stills and animation."""

from collections.abc import Iterable, Mapping
from itertools import cycle
from numbers import Integral
from typing import Any, cast

import numpy as np
from sklearn.base import clone

from skreg.displays._animation import write_animation
from skreg.displays._histories import default_name
from skreg.displays.common import (
    WIDTH,
    as_named,
    as_numbers,
    check_axes,
    draw_legend,
    draw_mean,
    key_line,
    light_grid,
    net_styles,
)

# Markers are for the points of data; nets are told apart by these.
LINESTYLES = ("-", "--", "-.", ":")
POINTS = (("o", True), ("s", False), ("^", False))  # marker, and whether it is filled
TRUTH = {"color": "0.5", "linewidth": 1}


class PredictionEvolutionDisplay:
    r"""Predictions of one or several nets on a line, at several times of training.

    Over several seeds the line is the mean and the band is the mean plus and minus one
    standard error, :math:`s / \sqrt{n}`.

    Parameters
    ----------
    x : array-like of shape (n_points,)
        Where the nets have predicted, ascending.
    predictions : mapping of str to array-like
        Net's name to its predictions, in shape (n_frames, n_points) or
        (n_seeds, n_frames, n_points).
    epochs : array-like of shape (n_frames,)
        After how many epochs.
    points : mapping of str to (array-like, array-like), default=None
        Name of a sample, such as "train", to its x and y, each of shape (n_samples,).
    truth : array-like of shape (n_points,), default=None
        What would be right at `x`.
    xlabel, ylabel : str, default="x" and "y"

    Attributes
    ----------
    ax_ : matplotlib Axes or None
        The axes, if :meth:`plot` has drawn one frame.
    axes_ : ndarray of Axes or None
        The axes, if it has drawn several.
    figure_ : matplotlib Figure
    lines_ : list of dict of str to Line2D
        For each frame drawn, net's name to its line.

    Raises
    ------
    ValueError
        If a parameter has another form.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> from skreg.displays import PredictionEvolutionDisplay
    >>> display = PredictionEvolutionDisplay(
    ...     x=[-1, 0, 1],
    ...     predictions={"net": [[0, 0, 0], [-1, 0, 1], [-2, 0, 2]]},
    ...     epochs=[0, 10, 20],
    ...     points={"train": ([-1, 1], [-2, 2])},
    ... ).plot()
    >>> display.ax_.get_title()
    'Epoch 20'
    >>> display.lines_[0]["net"].get_ydata().tolist()
    [-2.0, 0.0, 2.0]
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        *,
        x,
        predictions,
        epochs,
        points=None,
        truth=None,
        xlabel="x",
        ylabel="y",
    ):
        self.x = as_numbers(x, "x", ("n_points",))
        self.epochs = as_numbers(epochs, "epochs", ("n_frames",)).astype(int)
        shape = len(self.epochs), len(self.x)
        predictions = as_named(predictions, "predictions", "an array of predictions")
        self.predictions = {
            name: as_numbers(
                values, f"predictions[{name!r}]", shape, ("n_seeds", *shape)
            )
            for name, values in predictions.items()
        }
        self.points = {}
        for name, pair in ({} if points is None else dict(points)).items():
            pair = as_numbers(pair, f"points[{name!r}]", (2, "n_samples"))
            self.points[name] = pair
        self.truth = truth
        if truth is not None:
            self.truth = as_numbers(truth, "truth", (len(self.x),))
        self.xlabel = xlabel
        self.ylabel = ylabel

    def plot(self, ax=None, *, frames: int | Iterable[int] = -1, palette=None):
        """Draw one moment of training, or several side by side.

        Parameters
        ----------
        ax : matplotlib Axes, or sequence of one per frame, default=None
            Where to draw; None makes a figure 7 inches wide.
        frames : int or sequence of int, default=-1
            Which of `epochs`, counted from 0, or from the end if negative.
        palette : sequence of colours or mapping of net to colour, default=None
            None is the colour-blind-safe palette of Okabe and Ito (2008).

        Returns
        -------
        PredictionEvolutionDisplay
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is no Axes, or not one for each of several frames.
        ValueError
            If there is no such frame, or `palette` has no colour for a net.
        """
        styles = net_styles(self.predictions, palette)
        is_single = not isinstance(frames, Iterable)
        several = [frames] if is_single else frames
        frames = [self._frame(i) for i in several]
        is_new = ax is None
        axes = _new_axes(len(frames)) if is_new else _as_axes(ax, len(frames))
        self.lines_ = [
            self._draw(one, frame, styles)
            for one, frame in zip(axes, frames, strict=True)
        ]
        self.ax_, self.axes_ = (axes[0], None) if is_single else (None, axes)
        self.figure_ = axes[0].figure
        for one in axes[1:]:
            one.set_ylabel("")
        whole_figure = is_new and len(axes) > 1
        draw_legend(axes[0], *self._keys(styles), whole_figure=whole_figure)
        return self

    def save(self, path, *, interval=300, dpi=100, palette=None):
        """Write an animation, one picture per moment of training.

        Parameters
        ----------
        path : str or path-like
            ``*.gif``, which repeats, or ``*.html``, a page with a button and a slider
            that needs no other file and no network.
        interval : float, default=300
            Milliseconds a picture; the last stays on four times as long.
        dpi : float, default=100
            Pixels per inch; a picture is 7 by 4 inches.
        palette
            As in :meth:`plot`.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        ValueError
            If the name ends otherwise, or a number is not positive.
        """
        styles = net_styles(self.predictions, palette)
        captions = [f"Epoch {epoch:,}" for epoch in self.epochs]
        title = f"Predictions of {', '.join(self.predictions)}"
        pictures = self._pictures(styles, dpi)
        return write_animation(path, pictures, captions, interval, title)

    @classmethod
    def from_estimator(
        cls,
        net,
        X,
        y,
        *,
        every,
        x=None,
        test=None,
        truth=None,
        name=None,
        ax=None,
        frames=-1,
        palette=None,
    ):
        """Train nets, and draw what they predict after every so many epochs.

        Parameters
        ----------
        net : estimator, list of estimators, or mapping of str to either
            One regressor, several seeds of one, or several by name, with
            ``partial_fit`` and ``max_epochs``. They are cloned.
        X : array-like of shape (n_samples, 1)
        y : array-like of shape (n_samples,)
        every : int
            Epochs between two predictions; the last are those after the largest
            multiple of it that is not above ``max_epochs``.
        x : array-like of shape (n_points,), default=None
            Where to predict; None takes 200 points from the smallest to the largest of
            `X`.
        test : (array-like, array-like), default=None
            X and y that the nets are not trained on, to be drawn.
        truth : callable, default=None
            Maps the x to what would be right.
        name : str, default=None
            The net's name, where `net` gives none; None is its class.
        ax, frames, palette
            As in :meth:`plot`.

        Returns
        -------
        PredictionEvolutionDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `X` has more than one column, or `every` is no positive integer that is
            at most ``max_epochs``.
        """
        points = {"train": _columns(X, y, "X")}
        if test is not None:
            points["test"] = _columns(*test, parameter="test")
        if x is None:
            x = np.linspace(points["train"][0].min(), points["train"][0].max(), 200)
        x = as_numbers(x, "x", ("n_points",))
        nets = net if isinstance(net, Mapping) else {name or default_name(net): net}
        nets = {name: _seeds(one) for name, one in nets.items()}
        n_frames = {_n_frames(seed, every) for seeds in nets.values() for seed in seeds}
        if len(n_frames) != 1:
            raise ValueError(
                "The nets must have the same number of epochs; give them all one "
                "max_epochs."
            )
        n_frames = n_frames.pop()
        predictions = {
            name: [_predictions(seed, X, y, x, every, n_frames) for seed in seeds]
            for name, seeds in nets.items()
        }
        display = cls(
            x=x,
            predictions=predictions,
            epochs=every * np.arange(1, n_frames + 1),
            points=points,
            truth=None if truth is None else truth(x),
        )
        return display.plot(ax, frames=frames, palette=palette)

    def _frame(self, i) -> int:
        n = len(self.epochs)
        if not isinstance(i, Integral) or not -n <= int(i) < n:
            raise ValueError(
                f"frames must count the {n} frames from 0 to {n - 1}, or from the end "
                f"from -1 to {-n}; got {i!r}."
            )
        return int(i) % n

    def _draw(self, ax, frame: int, styles) -> dict:
        """Draw one frame; return the line of each net."""
        if self.truth is not None:
            ax.plot(self.x, self.truth, **TRUTH)
        lines = {}
        looks = zip(self.predictions.items(), cycle(LINESTYLES))
        for (name, values), linestyle in looks:
            values = values[..., frame, :]
            line, _ = draw_mean(ax, values, styles[name], linestyle, self.x)
            line.set_marker("")
            lines[name] = line
        for (x, y), look in zip(self.points.values(), self._point_looks(), strict=True):
            ax.plot(x, y, zorder=3, **look)
        ax.set(title=f"Epoch {self.epochs[frame]:,}", xlabel=self.xlabel)
        ax.set(ylabel=self.ylabel, ylim=self._limits())
        ax.margins(x=0.02)
        light_grid(ax)
        return lines

    def _limits(self) -> tuple[float, float]:
        """Return the same limits for all frames: where the data are, if there are any.

        A net that runs far away from them would flatten everything else.
        """
        values = [y for _, y in self.points.values()]
        values += [] if self.truth is None else [self.truth]
        values = values or list(self.predictions.values())
        finite = np.concatenate([v[np.isfinite(v)].ravel() for v in values] or [[0.0]])
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        margin = 0.2 * (high - low) or 1.0
        return low - margin, high + margin

    def _point_looks(self) -> list[dict]:
        looks = []
        for i in range(len(self.points)):
            marker, is_filled = POINTS[i % len(POINTS)]
            face = "black" if is_filled else "none"
            looks.append(
                {
                    "linestyle": "none",
                    "marker": marker,
                    "markersize": 5,
                    "markerfacecolor": face,
                    "markeredgecolor": "black",
                }
            )
        return looks

    def _keys(self, styles) -> tuple[list, ...]:
        data = [
            key_line(name, **look)
            for name, look in zip(self.points, self._point_looks(), strict=True)
        ]
        if self.truth is not None:
            data.append(key_line("truth", **TRUTH))
        nets = [
            key_line(name, color=style.color, linestyle=linestyle)
            for (name, style), linestyle in zip(styles.items(), cycle(LINESTYLES))
        ]
        return (nets, data) if data else (nets,)

    def _pictures(self, styles, dpi):
        """Yield one picture per frame, all of one layout."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image

        figure = Figure(figsize=(WIDTH, 4), dpi=dpi, layout="constrained")
        canvas, ax = FigureCanvasAgg(figure), figure.add_subplot()
        for frame in range(len(self.epochs)):
            ax.clear()
            self._draw(ax, frame, styles)
            draw_legend(ax, *self._keys(styles))
            canvas.draw()
            yield Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _new_axes(n_columns: int) -> np.ndarray:
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(
        1,
        n_columns,
        figsize=(WIDTH, 4 if n_columns == 1 else 3.2),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    return axes[0]


def _as_axes(ax, n_frames: int) -> np.ndarray:
    axes = np.asarray(ax, dtype=object).ravel()
    if len(axes) != n_frames:
        raise TypeError(
            f"ax must be None or one matplotlib Axes for each of {n_frames} frames; "
            f"got {len(axes)}."
        )
    for one in axes:
        check_axes(one)
    return axes


def _seeds(net) -> list:
    return list(net) if isinstance(net, list | tuple) else [net]


def _columns(X, y, parameter: str) -> np.ndarray:
    """Return x and y of points in a plane, as an array of shape (2, n_samples)."""
    X = as_numbers(X, parameter, ("n_samples", 1))
    return np.stack([X[:, 0], as_numbers(y, f"y of {parameter}", (len(X),))])


def _n_frames(net, every) -> int:
    is_integer = isinstance(every, Integral) and not isinstance(every, bool)
    if not is_integer or not 1 <= int(every) <= net.max_epochs:
        raise ValueError(
            f"every must be a positive integer that is at most max_epochs="
            f"{net.max_epochs}; got {every!r}."
        )
    return net.max_epochs // every


def _predictions(net, X, y, x, every: int, n_frames: int) -> np.ndarray:
    net = cast(Any, clone(net)).set_params(max_epochs=every)
    X, y = np.asarray(X), np.asarray(y)
    grid = x[:, None].astype(X.dtype)
    return np.stack(
        [net.partial_fit(X, y).predict(grid).ravel() for _ in range(n_frames)]
    )
