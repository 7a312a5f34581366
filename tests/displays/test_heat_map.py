"""Heat maps of searches."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from display_data import assert_texts_are_legible, make_heat_map
from matplotlib.colors import to_rgba
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skreg import RegularizedNetClassifier
from skreg.displays import HeatMapDisplay


def test_heat_map_shows_each_score_and_frames_the_best():
    display = make_heat_map(errors=np.full((2, 3), 0.0123))
    assert display.plot() is display
    assert display.best_ == (1e-3, None, 0.9)
    assert display.texts_[1, 1].get_text() == "0.900\n\N{PLUS-MINUS SIGN} 0.012"
    assert display.texts_[0, 2] is None
    assert display.texts_[1, 0].get_position() == (0, 1)
    frames = [patch for patch in display.ax_.patches if not patch.get_fill()]
    assert_allclose([frame.get_center() for frame in frames], 1)
    ticks = [t.get_text() for t in display.ax_.get_xticklabels()]
    assert ticks == ["SGD", "None", "adam"]
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["0", "0.001"]
    assert display.ax_.get_ylim()[0] < display.ax_.get_ylim()[1]
    assert display.colorbar_.ax.get_ylabel() == "Score"
    assert_texts_are_legible(display.figure_)
    _, ax = plt.subplots()
    large = make_heat_map(scores=1e4 * display.scores).plot(ax)
    assert large.ax_ is ax
    assert large.texts_[1, 1].get_text() == "9000"


@pytest.mark.parametrize("cmap", ["cividis", "viridis", "gray"])
def test_scores_are_legible_on_their_colours(cmap):
    scores = np.linspace(0, 1, 12).reshape(2, 6)
    display = make_heat_map(scores=scores, column_values=range(6)).plot(cmap=cmap)
    for score, text in zip(scores.flat, display.texts_.flat, strict=True):
        ground, ink = (
            0.05 + relative_luminance(color)
            for color in (display.image_.to_rgba(score), to_rgba(text.get_color()))
        )
        assert max(ground, ink) / min(ground, ink) > 4  # of 21, black on white


def relative_luminance(color):
    rgb = np.array(color[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_heat_map_from_a_search(search):
    results = search.cv_results_
    display = HeatMapDisplay.from_cv_results(results, metric="neg_log_loss")
    # In the order in which the search names them: GridSearchCV sorts.
    assert (display.row_name, display.column_name) == ("lambda1", "lambda2")
    assert display.column_values == [0, 1e-3, 1e-2]  # ascending
    assert display.score_name == "Neg log loss"
    for candidate, mean, std in zip(
        results["params"],
        results["mean_test_neg_log_loss"],
        results["std_test_neg_log_loss"],
        strict=True,
    ):
        row = [0, 1e-2].index(candidate["lambda1"])
        column = [0, 1e-3, 1e-2].index(candidate["lambda2"])
        assert_allclose(display.scores[row, column], mean)
        # numpy's deviation divides by n, a standard error by n - 1.
        assert_allclose(display.errors[row, column], std / np.sqrt(2))
    best = results["params"][np.argmax(results["mean_test_neg_log_loss"])]
    assert display.best_[:2] == (best["lambda1"], best["lambda2"])
    turned = HeatMapDisplay.from_cv_results(
        pd.DataFrame(results), metric="neg_log_loss", row="lambda2"
    )
    assert_array_equal(turned.scores, display.scores.T)


def test_of_further_parameters_the_best_value_is_drawn(iris):
    grid = {"C": [1e-3, 1], "tol": [1e-2, 1e-3], "fit_intercept": [True, False]}
    search = GridSearchCV(LogisticRegression(max_iter=500), grid, cv=3).fit(*iris)
    results = search.cv_results_
    display = HeatMapDisplay.from_cv_results(results, row="tol", column="C")
    scores = pd.DataFrame(results["params"]).assign(score=results["mean_test_score"])
    best, worst = (
        scores.pivot_table("score", "tol", "C", aggfunc=which)
        for which in ("max", "min")
    )
    assert_allclose(display.scores, best)
    assert (best != worst).any(axis=None)


def test_heat_map_of_failed_fits_has_empty_cells(iris):
    grid = {"lambda1": [0, -1], "lambda2": [0, 1e-3]}
    net = RegularizedNetClassifier(max_epochs=1)
    search = GridSearchCV(net, grid, cv=2, refit=False)
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="non-finite"):
        search.fit(*iris)
    display = HeatMapDisplay.from_cv_results(search.cv_results_)
    assert_array_equal(np.isnan(display.scores), [[True, True], [False, False]])
    assert display.row_values == [-1, 0]


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        (
            {"metric": "recall"},
            KeyError,
            "no test scores of 'recall'; it has those of ",
        ),
        ({"row": "lambda3"}, KeyError, "'lambda3' is no parameter of the search"),
        ({"row": "lambda1", "column": "lambda1"}, ValueError, "needs two parameters"),
    ],
)
def test_errors_of_heat_maps_of_searches(search, params, error, match):
    params = {"metric": "accuracy"} | params
    with pytest.raises(error, match=match):
        HeatMapDisplay.from_cv_results(search.cv_results_, **params)


def test_heat_map_errors():
    with pytest.raises(ValueError, match=r"scores must hold .* shape \(1, 3\)"):
        make_heat_map(row_values=[0])
    with pytest.raises(
        ValueError, match=r"errors must hold numbers, in shape \(2, 3\)"
    ):
        make_heat_map(errors=[1, 2])
    with pytest.raises(ValueError, match="scores must hold at least one finite number"):
        make_heat_map(scores=np.full((2, 3), np.nan))
