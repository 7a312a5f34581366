"""Scores of a search over two parameters."""

import numpy as np

from skreg.displays._searches import (
    distinct,
    index_of,
    read_scores,
    score_words,
    value_words,
)
from skreg.displays.common import (
    SMALL,
    WIDTH,
    as_numbers,
    check_axes,
    turn_if_long,
)

CELL = 0.42  # inches: the least height of a row of cells with text in it


class HeatMapDisplay:
    r"""Scores of a search over two parameters, one cell for each pair of values.

    scikit-learn has displays for one parameter, but none for two.

    Parameters
    ----------
    scores : array-like of shape (n_rows, n_columns)
        NaN leaves a cell empty.
    errors : array-like of shape (n_rows, n_columns), default=None
        Standard errors, written behind the scores.
    row_values, column_values : sequence
        Values of the two parameters.
    row_name, column_name : str
        Names of the two parameters.
    score_name : str, default="Score"

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    image_ : matplotlib AxesImage
    colorbar_ : matplotlib Colorbar
    texts_ : ndarray of shape (n_rows, n_columns) of Text or None
        None in empty cells.
    best_ : (row value, column value, float)
        Parameters and score of the framed cell, the highest one.

    Raises
    ------
    ValueError
        If lengths do not fit, or all scores are NaN.

    See Also
    --------
    ValidationCurveDisplay : The same for one parameter.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> from skreg.displays import HeatMapDisplay
    >>> display = HeatMapDisplay(
    ...     scores=[[0.7, 0.8, 0.6], [0.7, 0.9, 0.5]],
    ...     row_name="lambda1",
    ...     row_values=[0, 1e-3],
    ...     column_name="lambda2",
    ...     column_values=[0, 1e-3, 1e-1],
    ... ).plot()
    >>> display.best_
    (0.001, 0.001, 0.9)
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        *,
        scores,
        row_name,
        row_values,
        column_name,
        column_values,
        errors=None,
        score_name="Score",
    ):
        self.row_values, self.column_values = list(row_values), list(column_values)
        shape = len(self.row_values), len(self.column_values)
        self.scores = as_numbers(scores, "scores", shape)
        self.errors = None if errors is None else as_numbers(errors, "errors", shape)
        if not np.isfinite(self.scores).any():
            raise ValueError(
                "scores must hold at least one finite number; got none. Look at "
                "error_score='raise' of the search for what went wrong."
            )
        self.row_name, self.column_name = row_name, column_name
        self.score_name = score_name

    def plot(self, ax=None, *, cmap="cividis", score_format=None):
        """Draw the cells, with their scores, and a frame around the best.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure 7 inches wide.
        cmap : str or Colormap, default="cividis"
            The default looks the same to the colour blind.
        score_format : str, default=None
            How scores and errors are written; None is ".3f" if all scores are between
            -10 and 10, and else ".4g".

        Returns
        -------
        HeatMapDisplay
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is no Axes.
        """
        ax = self._new_axes() if ax is None else check_axes(ax)
        self.ax_, self.figure_ = ax, ax.figure
        finite = np.isfinite(self.scores)
        masked = np.ma.array(self.scores, mask=~finite)
        # The first row lies at the bottom, as on any axis that grows upwards.
        self.image_ = ax.imshow(masked, cmap=cmap, origin="lower", aspect="auto")
        self.colorbar_ = self.figure_.colorbar(
            self.image_, ax=ax, label=self.score_name
        )
        words = value_words(self.column_values)
        ax.set_xticks(range(len(words)), words)
        turn_if_long(ax, words)
        ax.set_yticks(range(len(self.row_values)), value_words(self.row_values))
        ax.set(xlabel=self.column_name, ylabel=self.row_name)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if score_format is None:
            score_format = ".3f" if np.abs(masked).max() < 10 else ".4g"
        self.texts_ = np.full(self.scores.shape, None)
        for row, column in np.argwhere(finite):
            self.texts_[row, column] = ax.text(
                column,
                row,
                self._text(row, column, score_format),
                ha="center",
                va="center",
                fontsize=SMALL,
                color=self._ink(self.scores[row, column].item()),
            )
        row, column = np.unravel_index(
            np.nanargmax(masked.filled(np.nan)), masked.shape
        )
        score = float(self.scores[row, column])
        self.best_ = (self.row_values[row], self.column_values[column], score)
        self._frame(int(row), int(column))
        return self

    @classmethod
    def from_cv_results(
        cls,
        cv_results,
        *,
        row=None,
        column=None,
        metric="score",
        score_name=None,
        ax=None,
        cmap="cividis",
        score_format=None,
    ):
        """Draw the results of a search.

        Parameters
        ----------
        cv_results : dict or DataFrame
            ``search.cv_results_`` of a ``GridSearchCV`` or its like.
        row, column : str, default=None
            Names of the parameters. None takes the two that the search has varied. Of
            the values of any others, those with the best mean score are drawn.
        metric : str, default="score"
            The metric, if the search has several.
        score_name : str, default=None
            Label of the colours; None makes it of `metric`.
        ax, cmap, score_format
            As in :meth:`plot`.

        Returns
        -------
        HeatMapDisplay
            The display, drawn: means over splits, with standard errors if there is
            more than one split.

        Raises
        ------
        KeyError
            If there is no such metric or parameter.
        ValueError
            If there are not two parameters to draw.
        """
        means, errors = read_scores(cv_results, "test", metric)
        params = list(cv_results["params"])
        names = dict.fromkeys(name for candidate in params for name in candidate)
        varied = [n for n in names if len(distinct(params, n)) > 1]
        free = [name for name in varied if name not in (row, column)]
        if row is None and free:
            row = free.pop(0)
        if column is None and free:
            column = free.pop(0)
        for name in (row, column):
            if name is not None and name not in names:
                raise KeyError(f"{name!r} is no parameter of the search: {[*names]}.")
        if row is None or column is None or row == column:
            raise ValueError(
                f"A heat map needs two parameters, but the search varied {varied}; "
                "pass row and column, or draw one parameter with "
                "ValidationCurveDisplay.from_cv_results."
            )
        row_values, column_values = distinct(params, row), distinct(params, column)
        shape = len(row_values), len(column_values)
        scores, spread = np.full(shape, np.nan), np.full(shape, np.nan)
        for candidate, mean, error in zip(params, means, errors, strict=True):
            if row not in candidate or column not in candidate:
                continue
            cell = (
                index_of(row_values, candidate[row]),
                index_of(column_values, candidate[column]),
            )
            if np.isnan(scores[cell]) or mean > scores[cell]:
                scores[cell], spread[cell] = mean, error
        display = cls(
            scores=scores,
            errors=spread if np.isfinite(spread).any() else None,
            row_name=row,
            row_values=row_values,
            column_name=column,
            column_values=column_values,
            score_name=score_name or score_words(metric),
        )
        return display.plot(ax, cmap=cmap, score_format=score_format)

    def _new_axes(self):
        import matplotlib.pyplot as plt

        height = max(3.0, 1 + CELL * len(self.row_values))
        return plt.subplots(figsize=(WIDTH, height), layout="constrained")[1]

    def _text(self, row: int, column: int, score_format: str) -> str:
        text = format(self.scores[row, column], score_format)
        if self.errors is None or not np.isfinite(self.errors[row, column]):
            return text
        error = format(self.errors[row, column], score_format)
        return f"{text}\n\N{PLUS-MINUS SIGN} {error}"

    def _ink(self, score: float) -> str:
        """Return black or white, whichever reads better on the colour of a score."""
        rgb = np.array(self.image_.to_rgba(np.array([score]))[0, :3])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance = linear @ (0.2126, 0.7152, 0.0722)
        # Where both inks have the same contrast, as WCAG 2 defines it.
        return "black" if luminance > 0.179 else "white"

    def _frame(self, row: int, column: int) -> None:
        from matplotlib.patches import Rectangle

        corner, size = (column - 0.47, row - 0.45), (0.94, 0.9)
        # White around colour: it is seen on light cells and on dark ones.
        for color, width in (("white", 4), ("#D55E00", 2)):
            frame = Rectangle(corner, *size, edgecolor=color, linewidth=width)
            frame.set(fill=False, clip_on=False)
            self.ax_.add_patch(frame)
