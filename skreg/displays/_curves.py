"""Training and validation score by epoch."""

from collections.abc import Mapping

import numpy as np

from skreg.displays._histories import DrawsEstimators, read_histories
from skreg.displays.common import (
    as_curve,
    as_named,
    check_axes,
    draw_legend,
    draw_mean,
    key_line,
    label_epochs,
    mean_and_error,
    net_keys,
    net_styles,
    new_axes,
    shorten,
)

LINESTYLES = {"train": "-", "valid": "--"}
LABELS = {"train": "train", "valid": "validation"}


class LearningCurvesDisplay(DrawsEstimators):
    r"""Training and validation score by epoch, of one or several nets.

    A net's training score is a solid line and its validation score a dashed one of the
    same colour. Over several seeds the line is the mean and the band is the mean plus
    and minus one standard error, :math:`s / \sqrt{n}`.

    Parameters
    ----------
    curves : mapping of str to mapping
        Net's name to ``{"train": ..., "valid": ...}``, of which one may be left out:
        array-likes of shape (n_epochs,) or (n_seeds, n_epochs), in any unit, usually a
        fraction between 0 and 1. What is not finite is left out of mean and band, so
        NaN pads the seeds that stopped early: the mean goes on with the others.
    score_name : str, default="Accuracy"
        Label of the ordinate.
    greater_is_better : bool, default=True
        False for a loss, whose best epoch is its minimum.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
        The figure that holds `ax_`.
    lines_ : dict of str to dict
        Net's name to ``{"train": Line2D, "valid": Line2D}``.
    bands_ : dict of str to dict
        The same of the bands; those with at least two seeds.
    best_ : dict of str to (int, float)
        Net's name to its best epoch, counted from 1, and the mean validation score
        there; the first epoch of several equal ones. Nets with validation score only.
    best_lines_ : dict of str to Line2D
        The dotted lines at the best scores; empty with ``show_best=False``.

    Raises
    ------
    ValueError
        If `curves` has another form, or a net's two curves differ in epochs.

    See Also
    --------
    NormDisplay : The Frobenius norm of the parameters by epoch.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> from skreg.displays import LearningCurvesDisplay
    >>> curves = {
    ...     "none": {"train": [0.7, 0.9, 1.0], "valid": [0.6, 0.7, 0.6]},
    ...     "L2": {"train": [0.6, 0.8, 0.9], "valid": [0.6, 0.7, 0.8]},
    ... }
    >>> display = LearningCurvesDisplay(curves=curves).plot()
    >>> display.best_
    {'none': (2, 0.7), 'L2': (3, 0.8)}
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, curves, score_name="Accuracy", greater_is_better=True):
        curves = as_named(curves, "curves", "{'train': array, 'valid': array}")
        self.curves = {name: _as_pair(pair, name) for name, pair in curves.items()}
        self.score_name = score_name
        self.greater_is_better = greater_is_better

    def plot(self, ax=None, *, show_best=True, palette=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure 7 inches wide.
        show_best : bool, default=True
            Mark every net's best mean validation score with a thin dotted line, and
            its epoch with an open marker.
        palette : sequence of colours or mapping of net to colour, default=None
            None is the colour-blind-safe palette of Okabe and Ito (2008).

        Returns
        -------
        LearningCurvesDisplay
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is no Axes.
        ValueError
            If `palette` is empty or has no colour for a net.
        """
        styles = net_styles(self.curves, palette)
        ax = new_axes()[0] if ax is None else check_axes(ax)
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_ = {name: {} for name in self.curves}
        self.bands_ = {name: {} for name in self.curves}
        self.best_, self.best_lines_ = {}, {}
        for name, pair in self.curves.items():
            for part, values in pair.items():
                line, band = draw_mean(ax, values, styles[name], LINESTYLES[part])
                self.lines_[name][part] = line
                if band is not None:
                    self.bands_[name][part] = band
            best = self._best(pair)
            if best is None:
                continue
            self.best_[name] = best
            if show_best:
                self.best_lines_[name] = _mark_best(ax, *best, styles[name])
        label_epochs(ax, self.score_name)
        draw_legend(ax, net_keys(styles), self._line_keys())
        return self

    @classmethod
    def from_history(
        cls,
        history,
        *,
        train="train_acc",
        valid="valid_acc",
        name=None,
        score_name=None,
        greater_is_better=None,
        ax=None,
        show_best=True,
        palette=None,
    ):
        """Draw the curves that fitted nets have recorded.

        Parameters
        ----------
        history : History, list of History, or mapping of str to either
            ``net.history`` of one net, of several seeds of one net, or of several nets
            by name. Seeds may differ in epochs: the mean goes on with those that run.
        train, valid : str or None, default="train_acc" and "valid_acc"
            Keys of the history; None leaves the curve out.
        name : str, default=None
            The net's name, where `history` gives none; None is "net".
        score_name : str, default=None
            Label of the ordinate; None makes it from the keys: "Accuracy" of
            ``train_acc``, "Loss" of ``valid_loss``.
        greater_is_better : bool, default=None
            None is False if the keys are those of a loss.
        ax, show_best, palette
            As in :meth:`plot`.

        Returns
        -------
        LearningCurvesDisplay
            The display, drawn.

        Raises
        ------
        KeyError
            If a history lacks a key.
        ValueError
            If `history` has no epochs, or both keys are None.

        Examples
        --------
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import matplotlib.pyplot as plt
        >>> from skreg.displays import LearningCurvesDisplay
        >>> history = [{"epoch": 1, "valid_acc": 0.5}, {"epoch": 2, "valid_acc": 0.75}]
        >>> display = LearningCurvesDisplay.from_history(history, train=None)
        >>> display.best_
        {'net': (2, 0.75)}
        >>> plt.close(display.figure_)
        """
        keys = {"train": train, "valid": valid}
        keys = {part: key for part, key in keys.items() if key is not None}
        if not keys:
            raise ValueError(
                "train and valid must not both be None; pass the key of the history "
                "to draw, for example valid='valid_acc'."
            )
        quantity = list(keys.values())[-1].removeprefix("train_").removeprefix("valid_")
        if score_name is None:
            words = {"acc": "accuracy"}.get(quantity, quantity).replace("_", " ")
            score_name = words[:1].upper() + words[1:]
        if greater_is_better is None:
            greater_is_better = not quantity.endswith("loss")
        curves = {
            runs.name: {part: runs.curve(key) for part, key in keys.items()}
            for runs in read_histories(history, name)
        }
        display = cls(
            curves=curves, score_name=score_name, greater_is_better=greater_is_better
        )
        return display.plot(ax, show_best=show_best, palette=palette)

    def _best(self, pair: Mapping[str, np.ndarray]) -> tuple[int, float] | None:
        if "valid" not in pair:
            return None
        mean, _ = mean_and_error(np.atleast_2d(pair["valid"]))
        if np.isnan(mean).all():
            return None
        best = np.nanargmax(mean if self.greater_is_better else -mean)
        return int(best) + 1, float(mean[best])

    def _line_keys(self) -> list:
        drawn = {part for pair in self.curves.values() for part in pair}
        keys = [
            key_line(LABELS[part], linestyle=linestyle)
            for part, linestyle in LINESTYLES.items()
            if part in drawn
        ]
        if self.best_lines_:
            keys.append(
                key_line(
                    "best validation",
                    linestyle=":",
                    linewidth=1,
                    marker="o",
                    markersize=7,
                    markerfacecolor="white",
                )
            )
        return keys


def _as_pair(pair, name: str) -> dict[str, np.ndarray]:
    if not isinstance(pair, Mapping) or not pair or set(pair) - set(LINESTYLES):
        raise ValueError(
            f"curves[{name!r}] must be a mapping with the keys 'train', 'valid' or "
            f"both; got {shorten(pair)}. Pass for example {{'valid': scores}}."
        )
    # In this order whatever the caller's, so that the validation score lies on top.
    curves = {
        part: as_curve(pair[part], f"curves[{name!r}][{part!r}]")
        for part in LINESTYLES
        if part in pair
    }
    n_epochs = {part: curve.shape[-1] for part, curve in curves.items()}
    if len(set(n_epochs.values())) > 1:
        raise ValueError(
            f"The curves of {name!r} must have the same number of epochs; got "
            f"{n_epochs}. Pad the shorter one with NaN, seeds along the first axis."
        )
    return curves


def _mark_best(ax, epoch: int, score: float, style):
    line = ax.axhline(score, color=style.color, linestyle=":", linewidth=1)
    ax.plot(
        [epoch],
        [score],
        linestyle="none",
        marker=style.marker,
        markersize=7,
        markerfacecolor="white",
        markeredgecolor=style.color,
        zorder=line.get_zorder() + 1,
    )
    return line
