"""Robust accuracy by the size of the attack."""

from collections.abc import Mapping

import numpy as np

from skreg.displays._histories import default_name
from skreg.displays.common import (
    as_named,
    as_numbers,
    check_axes,
    draw_legend,
    draw_mean,
    key_line,
    light_grid,
    net_keys,
    net_styles,
    new_axes,
)

NORMS = {"linf": "L\N{INFINITY}", "l2": "L2"}


class RobustnessDisplay:
    r"""Accuracy under attack by the size of the attack, of one or several nets.

    Over several seeds the line is the mean and the band is the mean plus and minus one
    standard error, :math:`s / \sqrt{n}`.

    Parameters
    ----------
    eps : array-like of shape (n_eps,)
        Sizes of the attack, in units of X, ascending.
    accuracies : mapping of str to array-like
        Net's name to its accuracies, fractions between 0 and 1, in shape (n_eps,) or
        (n_seeds, n_eps).
    norm : {"linf", "l2"}, default="linf"
        What `eps` measures.
    chance : float, default=None
        Accuracy of guessing, drawn as a dotted line; None draws none.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : dict of str to Line2D
    bands_ : dict of str to PolyCollection
        The bands of the nets with at least two seeds.
    chance_line_ : Line2D or None

    Raises
    ------
    ValueError
        If a parameter has another form.

    See Also
    --------
    skreg.robustness.robust_accuracy : Computes the accuracies.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> from skreg.displays import RobustnessDisplay
    >>> display = RobustnessDisplay(
    ...     eps=[0, 0.1, 0.2],
    ...     accuracies={"none": [0.9, 0.4, 0.1], "adversarial": [0.9, 0.8, 0.5]},
    ... ).plot()
    >>> display.lines_["none"].get_ydata().tolist()
    [0.9, 0.4, 0.1]
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, eps, accuracies, norm="linf", chance=None):
        self.eps = as_numbers(eps, "eps", ("n_eps",))
        if (np.diff(self.eps) <= 0).any():
            raise ValueError(f"eps must ascend; got {self.eps.tolist()}. Sort it.")
        n = len(self.eps)
        accuracies = as_named(accuracies, "accuracies", "an array of accuracies")
        self.accuracies = {
            name: as_numbers(values, f"accuracies[{name!r}]", (n,), ("n_seeds", n))
            for name, values in accuracies.items()
        }
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {tuple(NORMS)}; got {norm!r}.")
        self.norm = norm
        self.chance = chance

    def plot(self, ax=None, *, palette=None):
        """Draw the accuracies.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure 7 inches wide.
        palette : sequence of colours or mapping of net to colour, default=None
            None is the colour-blind-safe palette of Okabe and Ito (2008).

        Returns
        -------
        RobustnessDisplay
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is no Axes.
        ValueError
            If `palette` is empty or has no colour for a net.
        """
        styles = net_styles(self.accuracies, palette)
        ax = new_axes()[0] if ax is None else check_axes(ax)
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_, self.bands_, self.chance_line_ = {}, {}, None
        for name, values in self.accuracies.items():
            line, band = draw_mean(ax, values, styles[name], "-", self.eps)
            line.set_markevery(None)  # a mark where there is a measurement
            self.lines_[name] = line
            if band is not None:
                self.bands_[name] = band
        keys = net_keys(styles)
        if self.chance is not None:
            look = {"color": "0.3", "linestyle": ":", "linewidth": 1}
            self.chance_line_ = ax.axhline(self.chance, **look)
            keys.append(key_line("chance", **look))
        ax.set_xlabel(
            f"Size of the attack \N{GREEK SMALL LETTER EPSILON} "
            f"({NORMS[self.norm]} norm, in units of X)"
        )
        ax.set_ylabel("Accuracy under attack")
        ax.set_ylim(-0.02, 1.02)
        ax.margins(x=0.02)
        light_grid(ax)
        draw_legend(ax, keys)
        return self

    @classmethod
    def from_estimator(
        cls,
        net,
        X,
        y,
        *,
        eps,
        norm="linf",
        chance=None,
        name=None,
        ax=None,
        palette=None,
        **options,
    ):
        """Attack fitted nets, and draw how they do.

        Parameters
        ----------
        net : estimator, list of estimators, or mapping of str to either
            One fitted classifier, several seeds of one, or several by name. Pipelines
            may be among them.
        X : array-like of shape (n_samples, ...)
            Inputs that the nets have not been trained on.
        y : array-like of shape (n_samples,)
            Class labels.
        eps : array-like of shape (n_eps,)
            Sizes of the attack, ascending; with 0 the curve begins at the accuracy
            without.
        norm : {"linf", "l2"}, default="linf"
        chance : float, default=None
            As in :class:`RobustnessDisplay`.
        name : str, default=None
            The net's name, where `net` gives none; None is its class.
        ax, palette
            As in :meth:`plot`.
        **options
            The other parameters of :func:`skreg.robustness.robust_accuracy`.

        Returns
        -------
        RobustnessDisplay
            The display, drawn.
        """
        from skreg.robustness import robust_accuracy  # torch is loaded only here

        eps = as_numbers(eps, "eps", ("n_eps",))
        nets = net if isinstance(net, Mapping) else {name or default_name(net): net}
        options = {"eps": eps, "norm": norm, **options}
        accuracies = {
            name: [robust_accuracy(seed, X, y, **options) for seed in _seeds(one)]
            for name, one in nets.items()
        }
        display = cls(eps=eps, accuracies=accuracies, norm=norm, chance=chance)
        return display.plot(ax, palette=palette)


def _seeds(net) -> list:
    return list(net) if isinstance(net, list | tuple) else [net]
