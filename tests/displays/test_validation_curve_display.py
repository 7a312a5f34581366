"""Scores by the values of a parameter."""

import numpy as np
import pytest
from display_data import assert_texts_are_legible, legend_texts, make_validation_curve
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, validation_curve

from skreg import RegularizedNetClassifier
from skreg.displays import ValidationCurveDisplay


def test_validation_curve_is_the_mean_with_standard_errors(rng):
    display = make_validation_curve(rng, score_name="Accuracy")
    assert display.plot() is display
    values = np.array([0, 1e-4, 1e-3, 1e-2])
    parts = display.train_scores, display.test_scores
    for line, band, scores in zip(
        display.lines_, display.fill_between_, parts, strict=True
    ):
        mean, error = scores.mean(axis=1), scores.std(axis=1, ddof=1) / np.sqrt(5)
        assert_array_equal(line.get_xdata(), values)
        assert_allclose(line.get_ydata(), mean)
        vertices = band.get_paths()[0].vertices
        for i, value in enumerate(values):
            low, high = np.sort(vertices[vertices[:, 0] == value, 1])[[0, -1]]
            assert_allclose([low, high], [mean[i] - error[i], mean[i] + error[i]])
    assert [line.get_linestyle() for line in display.lines_] == ["-", "--"]
    best = display.test_scores.mean(axis=1).argmax()
    assert display.best_ == (values[best], display.test_scores.mean(axis=1)[best])
    texts = legend_texts(display.ax_.get_legend())
    assert texts == ["train", "validation", "best validation"]
    assert display.ax_.get_ylabel() == "Accuracy"
    assert_texts_are_legible(display.figure_)


def test_zero_has_a_place_on_the_logarithmic_axis(rng):
    display = make_validation_curve(rng).plot()
    places = display.ax_.transData.transform([(v, 0.5) for v in display.param_range])
    left, right = display.ax_.bbox.intervalx
    gaps = np.diff([left, *places[:, 0], right])
    assert gaps.min() > 0.02 * (right - left)
    assert gaps[1:-1].max() < 2.5 * gaps[1:-1].min()


def test_errors_are_drawn_as_bars_or_negated_or_not_at_all(rng):
    display = make_validation_curve(rng).plot(std_display_style="errorbar")
    assert display.fill_between_ is None
    (bars,) = display.errorbar_[1][2]
    error = display.test_scores.std(axis=1, ddof=1) / np.sqrt(5)
    heights = [np.ptp(segment[:, 1]) for segment in bars.get_segments()]
    assert_allclose(heights, 2 * error)
    display.plot(std_display_style=None, score_type="test", negate_score=True)
    assert display.fill_between_ is display.errorbar_ is None
    (line,) = display.lines_
    means = -display.test_scores.mean(axis=1)
    assert_allclose(line.get_ydata(), means)
    assert_allclose(display.best_[1], means.min())
    display.plot(show_best=False, score_type="train", color="red")
    assert legend_texts(display.ax_.get_legend()) == ["train"]
    assert display.lines_[0].get_color() == "red"
    with pytest.raises(ValueError, match="std_display_style must be 'fill_between'"):
        display.plot(std_display_style="std")


def test_validation_curve_from_estimator_is_that_of_scikit_learn(iris):
    net = LogisticRegression(max_iter=500)
    params = {"param_name": "C", "param_range": [0.01, 1, 100], "cv": 3}
    display = ValidationCurveDisplay.from_estimator(net, *iris, **params)
    assert isinstance(display, ValidationCurveDisplay)
    train, test = validation_curve(net, *iris, **params)
    assert_allclose(display.lines_[0].get_ydata(), train.mean(axis=1))
    assert_allclose(display.lines_[1].get_ydata(), test.mean(axis=1))
    assert display.ax_.get_xscale() == "log"


@pytest.mark.parametrize("has_train", [True, False])
def test_validation_curve_from_a_search(iris, has_train):
    net = RegularizedNetClassifier(max_epochs=3, lr=0.01, random_state=0)
    search = GridSearchCV(
        net, {"lambda2": [0.1, 0, 1e-3]}, cv=3, return_train_score=has_train
    ).fit(*iris)
    display = ValidationCurveDisplay.from_cv_results(search.cv_results_)
    assert display.param_range.tolist() == [0, 1e-3, 0.1]
    expected = search.cv_results_["mean_test_score"][[1, 2, 0]]
    assert_allclose(display.lines_[-1].get_ydata(), expected)
    assert display.best_[0] == search.best_params_["lambda2"]
    assert len(display.lines_) == (2 if has_train else 1)


def test_errors_of_validation_curves_of_searches(search):
    with pytest.raises(
        ValueError, match=r"one parameter, but .* \['lambda1', 'lambda2'"
    ):
        ValidationCurveDisplay.from_cv_results(search.cv_results_, metric="accuracy")
