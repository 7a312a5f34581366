"""Score by the value of one parameter."""

import numpy as np
from sklearn import model_selection

from skreg.displays._searches import (
    as_values,
    distinct,
    index_of,
    score_words,
    split_scores,
    value_words,
)
from skreg.displays.common import (
    OKABE_ITO,
    check_axes,
    draw_legend,
    key_line,
    light_grid,
    mean_and_error,
    new_axes,
    turn_if_long,
)

LINESTYLES = {"train": "-", "test": "--"}
LABELS = {"train": "train", "test": "validation"}


class ValidationCurveDisplay(model_selection.ValidationCurveDisplay):
    r"""scikit-learn's display, with standard errors and the best value.

    It has the parameters and ``from_estimator`` of
    :class:`sklearn.model_selection.ValidationCurveDisplay`. Bands and error bars are
    one standard error of the mean over the splits, :math:`s / \sqrt{n}`, up and down,
    where scikit-learn's are one standard deviation. The training score is a solid
    line, the validation score a dashed one. On an axis that spans several powers of
    ten, the value 0 has a place of its own. Values that are not all numbers, such as
    None, tuples or classes, are drawn side by side in their order.

    Parameters
    ----------
    param_name : str
    param_range : array-like of shape (n_values,)
        Numbers, ascending; or values of any kind.
    train_scores, test_scores : ndarray of shape (n_values, n_splits)
    score_name : str, default=None

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of Line2D
        Training, validation, or both in this order.
    fill_between_ : list of PolyCollection or None
    errorbar_ : list of ErrorbarContainer or None
    best_ : (float or object, float)
        The value of the best mean validation score, and that score; the first value of
        several equal ones.

    See Also
    --------
    HeatMapDisplay : The same for two parameters.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_iris
    >>> from skreg import RegularizedNetClassifier
    >>> from skreg.displays import ValidationCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> net = RegularizedNetClassifier(max_epochs=20, random_state=0)
    >>> display = ValidationCurveDisplay.from_estimator(
    ...     net, X, y, param_name="lambda2", param_range=[0, 1e-3, 1], cv=3
    ... )
    >>> display.best_[0] < 1
    True
    >>> plt.close(display.figure_)
    """

    def plot(
        self,
        ax=None,
        *,
        negate_score=False,
        score_name=None,
        score_type="both",
        std_display_style="fill_between",
        line_kw=None,
        fill_between_kw=None,
        errorbar_kw=None,
        show_best=True,
        color=OKABE_ITO[0],
    ):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure 7 inches wide.
        negate_score : bool, default=False
            Draw an error in place of its negative score.
        score_name : str, default=None
            Label of the ordinate.
        score_type : {"both", "test", "train"}, default="both"
        std_display_style : {"fill_between", "errorbar"} or None, default="fill_between"
            Whether standard errors are drawn as bands, as bars, or not at all.
        line_kw, fill_between_kw, errorbar_kw : dict, default=None
            Passed to matplotlib's ``plot``, ``fill_between`` and ``errorbar``.
        show_best : bool, default=True
            Mark the best mean validation score with a thin dotted line, and its value
            with an open marker.
        color : colour, default="#0072B2"

        Returns
        -------
        ValidationCurveDisplay
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is no Axes.
        ValueError
            If `score_type` or `std_display_style` is none of what is said here.
        """
        if std_display_style not in ("fill_between", "errorbar", None):
            raise ValueError(
                "std_display_style must be 'fill_between', 'errorbar' or None; got "
                f"{std_display_style!r}."
            )
        places = self._places()
        self._plot_lines(
            places,
            new_axes()[0] if ax is None else check_axes(ax),
            negate_score=negate_score,
            score_name=score_name or self.score_name or "Score",
            score_type=score_type,
            std_display_style=None,
            line_kw={"color": color, "linewidth": 1.4, "marker": "o", "markersize": 4}
            | (line_kw or {}),
        )
        parts = ["train", "test"] if score_type == "both" else [score_type]
        sign = -1 if negate_score else 1
        lines, bands, bars = self.lines_ or [], [], []
        for part, line in zip(parts, lines, strict=True):
            if "linestyle" not in (line_kw or {}):
                line.set_linestyle(LINESTYLES[part])
            mean, error = mean_and_error(sign * getattr(self, f"{part}_scores").T)
            line.set_ydata(mean)  # of the splits that did not fail
            if std_display_style == "fill_between":
                look = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0}
                look |= fill_between_kw or {}
                band = self.ax_.fill_between(places, mean - error, mean + error, **look)
                bands.append(band)
            elif std_display_style == "errorbar":
                look = {"color": line.get_color(), "fmt": "none", "capsize": 3}
                look |= errorbar_kw or {}
                bars.append(self.ax_.errorbar(places, mean, error, **look))
        self.fill_between_ = bands if std_display_style == "fill_between" else None
        self.errorbar_ = bars if std_display_style == "errorbar" else None
        if self.param_range.dtype == object:
            words = value_words(self.param_range)
            self.ax_.set_xticks(places, words)
            turn_if_long(self.ax_, words)
        else:
            self._set_scale(places)
        keys = [
            key_line(
                LABELS[part], color=line.get_color(), linestyle=line.get_linestyle()
            )
            for part, line in zip(parts, lines, strict=True)
        ]
        mean = mean_and_error(sign * self.test_scores.T)[0]
        if np.isfinite(mean).any():
            best = int(np.nanargmax(sign * mean))
            value = self.param_range[best : best + 1].tolist()[0]
            self.best_ = value, float(mean[best])
            if show_best and "test" in parts:
                keys.append(self._mark_best(places[best], color))
        light_grid(self.ax_)
        draw_legend(self.ax_, keys)
        return self

    @classmethod
    def from_estimator(cls, estimator, X, y, *, param_name, param_range, **kwargs):
        """Compute the scores of an estimator, and draw them.

        Parameters
        ----------
        estimator, X, y, **kwargs
            As in :class:`sklearn.model_selection.ValidationCurveDisplay`.
        param_name : str
        param_range : array-like of shape (n_values,)
            Values of the parameter, of any kind.

        Returns
        -------
        ValidationCurveDisplay
            The display, drawn.
        """
        values = as_values(param_range)
        if values.dtype != object:
            values = np.asarray(param_range)  # an integer stays one
        return super().from_estimator(
            estimator, X, y, param_name=param_name, param_range=values, **kwargs
        )

    @classmethod
    def from_cv_results(
        cls, cv_results, *, param_name=None, metric="score", score_name=None, **kwargs
    ):
        """Draw the results of a search over one parameter.

        Parameters
        ----------
        cv_results : dict or DataFrame
            ``search.cv_results_`` of a ``GridSearchCV`` or its like.
        param_name : str, default=None
            The parameter; None takes the one that the search has varied.
        metric : str, default="score"
            The metric, if the search has several.
        score_name : str, default=None
            Label of the ordinate; None makes it of `metric`.
        **kwargs
            The other parameters of :meth:`plot`. `score_type` is "both" by default if
            the search has kept its training scores, and else "test".

        Returns
        -------
        ValidationCurveDisplay
            The display, drawn.

        Raises
        ------
        KeyError
            If there is no such metric.
        ValueError
            If the search has varied no parameter, or several, or repeats a value.
        """
        params = list(cv_results["params"])
        names = dict.fromkeys(name for candidate in params for name in candidate)
        varied = [
            name
            for name in names
            if len(distinct(params, name)) > 1 or not all(name in c for c in params)
        ]
        if varied != [param_name or (varied or [None])[0]]:
            raise ValueError(
                f"A validation curve needs one parameter, but the search varied "
                f"{varied}, and param_name={param_name!r}; draw two with "
                "HeatMapDisplay.from_cv_results."
            )
        (name,) = varied
        values = distinct(params, name)
        places = [index_of(values, candidate[name]) for candidate in params]
        if len(places) > len(values):
            raise ValueError(
                f"The search tried {len(places)} candidates, but {name} has only "
                f"{len(values)} values: some are there twice. Search without repeats."
            )
        order = np.argsort(places, kind="stable")
        scores = {"test": split_scores(cv_results, "test", metric).T[order]}
        has_train = any(key.startswith("split0_train_") for key in cv_results)
        scores["train"] = np.full_like(scores["test"], np.nan)
        if has_train:
            scores["train"] = split_scores(cv_results, "train", metric).T[order]
        display = cls(
            param_name=name,
            param_range=[params[i][name] for i in order],
            train_scores=scores["train"],
            test_scores=scores["test"],
            score_name=score_words(metric) if score_name is None else score_name,
        )
        return display.plot(**{"score_type": "both" if has_train else "test", **kwargs})

    def _places(self) -> np.ndarray:
        """Return where the values lie: of what are not numbers, side by side."""
        self.param_range = as_values(self.param_range)
        if self.param_range.dtype == object:
            return np.arange(len(self.param_range))
        return self.param_range

    def _plot_lines(self, places, ax, **options) -> None:
        """Draw scikit-learn's curves, at the places of the values."""
        values, self.param_range = self.param_range, places
        try:
            super().plot(ax, **options)
        finally:
            self.param_range = values

    def _set_scale(self, values: np.ndarray) -> None:
        """Give 0 a place left of the smallest power of ten, on a logarithmic axis."""
        positive = values[values > 0]
        if self.ax_.get_xscale() != "symlog" or not len(positive) or values.min() < 0:
            return
        start = positive.min()
        self.ax_.set_xscale("symlog", linthresh=start, linscale=0.6)
        self.ax_.set_xlim(-0.2 * start, 1.6 * positive.max())

    def _mark_best(self, place, color):
        score = self.best_[1]
        line = self.ax_.axhline(score, color=color, linestyle=":", linewidth=1)
        look = {"marker": "o", "markersize": 7, "markerfacecolor": "white"}
        self.ax_.plot(
            [place],
            [score],
            linestyle="none",
            markeredgecolor=color,
            zorder=line.get_zorder() + 1,
            **look,
        )
        return key_line("best validation", linestyle=":", linewidth=1, **look)
