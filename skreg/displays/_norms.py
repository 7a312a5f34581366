"""Frobenius norm of the parameters, by epoch and by layer."""

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
    light_grid,
    mean_and_error,
    net_keys,
    net_styles,
    new_axes,
    shorten,
    turn_if_long,
)

KINDS = ("epochs", "layers", "both")
YLABEL = "Frobenius norm"
SPARSITY = "Share of zeros"


class NormDisplay(DrawsEstimators):
    r"""Frobenius norm of the parameters of one or several nets.

    The norm of all parameters together, by epoch, as a line; and that of every
    parameter after the last epoch, as a bar. Over several seeds the line and the bar
    are means, and band and whisker are one standard error, :math:`s / \sqrt{n}`, up
    and down. The sparsity, if there is one, is a dotted line with an axis on the right.

    Parameters
    ----------
    norms : mapping of str to array-like
        Net's name to the norm of all its parameters after each epoch, in shape
        (n_epochs,) or (n_seeds, n_epochs). What is not finite is left out of mean and
        band, so NaN pads the seeds that stopped early.
    layer_norms : mapping of str to mapping, default=None
        Net's name to a mapping of parameter name to its norm after the last epoch: a
        float, or an array-like of shape (n_seeds,). The nets are those of `norms`;
        their parameters may differ. ``kind="layers"`` and ``"both"`` need it.
    sparsity : mapping of str to array-like, default=None
        Net's name to the share of its weights that are zero after each epoch, of a
        shape as in `norms`; for all nets, or for some of them.

    Attributes
    ----------
    ax_ : matplotlib Axes or None
        None for ``kind="both"``.
    axes_ : ndarray of shape (2,) of Axes, or None
        Epochs and layers; None unless ``kind="both"``.
    figure_ : matplotlib Figure
    sparsity_ax_ : matplotlib Axes or None
        Those of the sparsity, which lie on those of the epochs; None without one, and
        for ``kind="layers"``.
    lines_ : dict of str to Line2D
        Net's name to its norm by epoch; empty for ``kind="layers"``.
    sparsity_lines_ : dict of str to Line2D
        Net's name to its sparsity by epoch.
    bands_ : dict of str to PolyCollection
        The bands of the nets with at least two seeds.
    bars_ : dict of str to BarContainer
        Net's name to its bars, one a parameter; empty for ``kind="epochs"``.
    totals_ : dict of str to Line2D
        Net's name to the dashed line at the norm of all its parameters after the last
        epoch; empty for ``kind="epochs"``.

    Raises
    ------
    ValueError
        If `norms`, `layer_norms` or `sparsity` has another form.

    See Also
    --------
    LearningCurvesDisplay : Training and validation score by epoch.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> from skreg.displays import NormDisplay
    >>> display = NormDisplay(
    ...     norms={"none": [4.0, 4.5, 5.0], "L2": [4.0, 3.0, 2.5]},
    ...     layer_norms={
    ...         "none": {"fc1.weight": 4.0, "fc1.bias": 3.0},
    ...         "L2": {"fc1.weight": 2.0, "fc1.bias": 1.5},
    ...     },
    ... ).plot(kind="both")
    >>> [float(bar.get_height()) for bar in display.bars_["L2"]]
    [2.0, 1.5]
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, norms, layer_norms=None, sparsity=None):
        norms = as_named(norms, "norms", "an array of norms")
        self.norms = {
            name: as_curve(values, f"norms[{name!r}]") for name, values in norms.items()
        }
        if layer_norms is not None:
            layer_norms = as_named(layer_norms, "layer_norms", "{parameter: norm}")
            if set(layer_norms) != set(norms):
                raise ValueError(
                    "layer_norms must have the nets of norms, which are "
                    f"{list(norms)}; got {list(layer_norms)}. Name the nets alike."
                )
            layer_norms = {name: _as_layers(layer_norms[name], name) for name in norms}
        self.layer_norms = layer_norms
        self.sparsity = None if sparsity is None else _as_shares(sparsity, norms)

    def plot(self, ax=None, *, kind="epochs", palette=None):
        """Draw the norms.

        Parameters
        ----------
        ax : matplotlib Axes, or sequence of two for ``kind="both"``, default=None
            Where to draw; None makes a figure 7 inches wide.
        kind : {"epochs", "layers", "both"}, default="epochs"
            The norm of all parameters by epoch; that of each parameter after the last
            epoch, with a dashed line at that of all together; or both side by side.
        palette : sequence of colours or mapping of net to colour, default=None
            None is the colour-blind-safe palette of Okabe and Ito (2008).

        Returns
        -------
        NormDisplay
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is neither an Axes nor, for ``kind="both"``, two of them.
        ValueError
            If `kind` is unknown or needs `layer_norms`, or `palette` lacks a colour.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}; got {kind!r}.")
        if kind != "epochs" and self.layer_norms is None:
            raise ValueError(
                f"kind={kind!r} needs the norm of every parameter; got "
                "layer_norms=None. Pass layer_norms, or kind='epochs'."
            )
        styles = net_styles(self.norms, palette)
        is_new = ax is None
        if is_new:
            ax = new_axes(2) if kind == "both" else new_axes()[0]
        axes = _as_two(ax) if kind == "both" else [check_axes(ax)]
        self.ax_, self.axes_ = (None, axes) if kind == "both" else (axes[0], None)
        self.figure_ = axes[0].figure
        self.lines_, self.bands_, self.bars_, self.totals_ = {}, {}, {}, {}
        self.sparsity_ax_, self.sparsity_lines_ = None, {}
        zeros = []
        if kind != "layers":
            self._draw_epochs(axes[0], styles)
        if kind != "layers" and self.sparsity:
            self._draw_sparsity(axes[0], styles)
            zeros = [key_line("norm"), key_line(SPARSITY.lower(), linestyle=":")]
        if kind != "epochs":
            self._draw_layers(axes[-1], styles)
        nets, total = net_keys(styles), [key_line("all parameters", linestyle="--")]
        if kind == "both" and is_new:
            groups = [[*nets, *total], zeros] if zeros else [[*nets, *total]]
            draw_legend(axes[0], *groups, whole_figure=True)
            return self
        if kind != "layers":
            draw_legend(axes[0], *([nets, zeros] if zeros else [nets]))
        if kind != "epochs":
            draw_legend(axes[-1], [*_bar_keys(styles), *total])
        return self

    @classmethod
    def from_history(
        cls,
        history,
        *,
        norm="param_norm",
        layers="param_norms",
        sparsity="sparsity",
        name=None,
        ax=None,
        kind="epochs",
        palette=None,
    ):
        """Draw the norms that fitted nets have recorded.

        Parameters
        ----------
        history : History, list of History, or mapping of str to either
            ``net.history`` of one net, of several seeds of one net, or of several nets
            by name. Seeds may differ in epochs: the mean goes on with those that run.
        norm : str, default="param_norm"
            Key of the norm of all parameters.
        layers : str, default="param_norms"
            Key of the dict of parameter name to norm. For ``kind="epochs"`` it may be
            missing.
        sparsity : str, default="sparsity"
            Key of the share of zeros; nets whose history lacks it have no such line.
        name : str, default=None
            The net's name, where `history` gives none; None is "net".
        ax, kind, palette
            As in :meth:`plot`.

        Returns
        -------
        NormDisplay
            The display, drawn.

        Raises
        ------
        KeyError
            If a history lacks a key.
        ValueError
            If `history` has no epochs, or `kind` is unknown.

        Examples
        --------
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import matplotlib.pyplot as plt
        >>> from skreg.displays import NormDisplay
        >>> short = [{"param_norm": 2.0}]
        >>> long = [{"param_norm": 4.0}, {"param_norm": 3.0}]
        >>> display = NormDisplay.from_history({"L2": [short, long]})
        >>> display.lines_["L2"].get_ydata().tolist()
        [3.0, 3.0]
        >>> plt.close(display.figure_)
        """
        nets = read_histories(history, name)
        norms = {runs.name: runs.curve(norm) for runs in nets}
        layer_norms = None
        if kind in ("layers", "both") or all(runs.holds(layers) for runs in nets):
            layer_norms = {runs.name: runs.last(layers) for runs in nets}
        sparse = {r.name: r.curve(sparsity) for r in nets if r.holds(sparsity)}
        display = cls(norms=norms, layer_norms=layer_norms, sparsity=sparse or None)
        return display.plot(ax, kind=kind, palette=palette)

    def _draw_epochs(self, ax, styles) -> None:
        for name, values in self.norms.items():
            self.lines_[name], band = draw_mean(ax, values, styles[name], "-")
            if band is not None:
                self.bands_[name] = band
        label_epochs(ax, YLABEL)

    def _draw_sparsity(self, ax, styles) -> None:
        right = self.sparsity_ax_ = ax.twinx()
        for name, values in (self.sparsity or {}).items():
            self.sparsity_lines_[name], _ = draw_mean(right, values, styles[name], ":")
        right.set_ylim(0, 1.02)
        right.set_ylabel(SPARSITY)
        right.margins(x=0.02)

    def _draw_layers(self, ax, styles) -> None:
        by_name = self.layer_norms or {}
        # In the order of the first net that has them.
        parameters = list(dict.fromkeys(p for norms in by_name.values() for p in norms))
        width = 0.8 / len(styles)
        right = len(parameters) - 0.5
        for i, (name, layers) in enumerate(by_name.items()):
            center = (i - (len(styles) - 1) / 2) * width
            places = np.array([parameters.index(p) for p in layers]) + center
            heights, errors = _heights(layers)
            self.bars_[name] = ax.bar(
                places,
                heights,
                width,
                color=styles[name].color,
                edgecolor="white",
                linewidth=0.5,
            )
            drawn = np.isfinite(errors)
            if drawn.any():
                ax.errorbar(
                    places[drawn],
                    heights[drawn],
                    errors[drawn],
                    fmt="none",
                    ecolor="0.2",
                    elinewidth=1,
                    capsize=2,
                )
            (self.totals_[name],) = ax.plot(
                [-0.5, right],
                [_final(self.norms[name])] * 2,
                color=styles[name].color,
                linestyle="--",
                linewidth=1.2,
                marker=styles[name].marker,
                markersize=4,
                markevery=[1],
                clip_on=False,
            )
        ax.set_xlim(-0.5, right)
        ax.set_xlabel("Parameter")
        ax.set_ylabel(YLABEL)
        ax.set_xticks(range(len(parameters)), parameters)
        ax.tick_params(axis="x", length=0)
        turn_if_long(ax, parameters)
        light_grid(ax)


def _as_layers(layers, net: str) -> dict[str, np.ndarray]:
    if not isinstance(layers, Mapping) or not layers:
        raise ValueError(
            f"layer_norms[{net!r}] must be a non-empty mapping of parameter name to "
            f"norm; got {shorten(layers)}. Pass for example {{'fc1.weight': 3.2}}."
        )
    arrays = {}
    for name, values in layers.items():
        where = f"layer_norms[{net!r}][{name!r}]"
        allowed = "must be a number, or numbers of shape (n_seeds,)"
        try:
            arrays[name] = np.array(values, dtype=float)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{where} {allowed}; got {shorten(values)}. Pass one norm a seed."
            ) from error
        if arrays[name].ndim > 1 or not arrays[name].size:
            raise ValueError(
                f"{where} {allowed}; got shape {arrays[name].shape}. Pass one norm a "
                "seed, after the last epoch."
            )
    return arrays


def _as_shares(sparsity, norms) -> dict[str, np.ndarray]:
    sparsity = as_named(sparsity, "sparsity", "an array of shares of zeros")
    unknown = [name for name in sparsity if name not in norms]
    if unknown:
        raise ValueError(
            f"sparsity must have nets of norms, which are {list(norms)}; got "
            f"{unknown}. Name the nets alike."
        )
    return {
        name: as_curve(sparsity[name], f"sparsity[{name!r}]")
        for name in norms
        if name in sparsity
    }


def _as_two(ax) -> np.ndarray:
    axes = np.asarray(ax, dtype=object).ravel()
    if len(axes) != 2:
        raise TypeError(
            "ax must be None or a sequence of two matplotlib Axes for kind='both'; got "
            f"{shorten(ax)}. Pass for example those of plt.subplots(1, 2)."
        )
    for one in axes:
        check_axes(one)
    return axes


def _heights(layers: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error over seeds, one each a parameter."""
    pairs = [mean_and_error(np.atleast_1d(values)) for values in layers.values()]
    heights, errors = zip(*pairs, strict=True)
    return np.array(heights), np.array(errors)


def _final(norms: np.ndarray) -> float:
    """Return the norm after the last epoch of each seed, averaged over the seeds."""
    last = [row[~np.isnan(row)][-1:] for row in np.atleast_2d(norms)]
    return float(mean_and_error(np.concatenate([*last, [np.nan]]))[0])


def _bar_keys(styles) -> list:
    from matplotlib.patches import Patch

    return [Patch(color=style.color, label=name) for name, style in styles.items()]
