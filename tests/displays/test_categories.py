"""Displays of searches over parameters that are no numbers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, validation_curve

from skreg import RegularizedNetClassifier
from skreg.displays import HeatMapDisplay, ValidationCurveDisplay


class Silent:
    """Has no name and nothing to say."""


VALUES = {
    "none": ("dropout", [None, 0, 0.5], ["None", "0", "0.5"]),
    "bool": ("shuffle", [True, False], ["True", "False"]),
    "class": ("optimizer", [torch.optim.SGD, torch.optim.Adam], ["SGD", "Adam"]),
    "tuples": ("hidden_layer_sizes", [(8, 4), (2, 4)], ["(8, 4)", "(2, 4)"]),
    "ragged": (
        "hidden_layer_sizes",
        [(8,), (), (4, 2), 3],
        ["(8,)", "()", "(4, 2)", "3"],
    ),
    "mixed": ("penalize", ["weights", ["fc1.*"]], ["weights", "['fc1.*']"]),
}


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def search(grid, iris):
    net = RegularizedNetClassifier(max_epochs=1, random_state=0)
    return GridSearchCV(net, grid, cv=2, return_train_score=True).fit(*iris)


def words(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def assert_nothing_overlaps(ax):
    ax.figure.canvas.draw()
    labels = [label for label in ax.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    if labels[0].get_rotation() == 0:
        for left, right in pairwise(boxes):
            assert left.x1 <= right.x0
    name = ax.xaxis.label.get_window_extent()
    assert max(name.y1 - box.y0 for box in boxes) <= 1
    for box in boxes:
        assert box.y0 >= 0
        assert box.x0 >= 0


@pytest.mark.parametrize("kind", VALUES)
def test_a_curve_over_categories_in_the_order_of_the_grid(kind, iris):
    name, values, expected = VALUES[kind]
    found = search({name: values}, iris)
    display = ValidationCurveDisplay.from_cv_results(found.cv_results_)
    assert words(display.ax_.xaxis) == expected
    mean = found.cv_results_["mean_test_score"]  # GridSearchCV keeps the order
    for line, part in zip(display.lines_, ("train", "test"), strict=True):
        assert line.get_xdata().tolist() == list(range(len(values)))
        np.testing.assert_allclose(
            line.get_ydata(), found.cv_results_[f"mean_{part}_score"]
        )
    assert display.best_ == (values[int(np.argmax(mean))], pytest.approx(mean.max()))
    assert display.ax_.get_xlabel() == name
    assert_nothing_overlaps(display.ax_)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("style", ["fill_between", "errorbar"])
def test_a_curve_from_an_estimator(kind, style, iris):
    name, values, expected = VALUES[kind]
    net = RegularizedNetClassifier(max_epochs=1, random_state=0)
    options = {"param_name": name, "cv": 2}
    display = ValidationCurveDisplay.from_estimator(
        net, *iris, param_range=values, std_display_style=style, **options
    )
    assert words(display.ax_.xaxis) == expected
    assert list(display.param_range) == values
    scores = [
        validation_curve(net, *iris, param_range=one, **options)[1].mean()
        for one in ([value] for value in values)
    ]
    np.testing.assert_allclose(display.lines_[1].get_ydata(), scores)
    again = display.plot(score_type="test")
    assert words(again.ax_.xaxis) == expected


def test_a_display_of_values_that_the_user_holds():
    display = ValidationCurveDisplay(
        param_name="part",
        param_range=[Silent(), "a", "x" * 50, float("nan")],
        train_scores=np.zeros((4, 2)),
        test_scores=np.array([[0, 1], [1, 1], [0, 1], [0, 0]]),
    ).plot()
    assert words(display.ax_.xaxis) == [
        "Silent",
        "a",
        "x" * 13 + "..." + "x" * 13,
        "nan",
    ]
    assert display.best_ == ("a", 1)
    assert display.ax_.get_ylabel() == "Score"
    assert_nothing_overlaps(display.ax_)


def test_numbers_stay_numbers(iris):
    found = search({"lr": [0.1, 0.001, 1]}, iris)
    display = ValidationCurveDisplay.from_cv_results(found.cv_results_)
    assert display.lines_[0].get_xdata().tolist() == [0.001, 0.1, 1]
    assert display.ax_.get_xscale() == "log"
    assert isinstance(display.best_[0], float)


@pytest.mark.parametrize("kind", VALUES)
def test_a_heat_map_over_categories(kind, iris):
    name, values, expected = VALUES[kind]
    found = search({name: values, "lr": [0.1, 0.01]}, iris)
    options = {"row": "lr", "column": name}
    display = HeatMapDisplay.from_cv_results(found.cv_results_, **options)
    assert words(display.ax_.xaxis) == expected
    assert words(display.ax_.yaxis) == ["0.01", "0.1"]
    assert_nothing_overlaps(display.ax_)
    turned = HeatMapDisplay.from_cv_results(
        found.cv_results_, row=name, column="lr", score_name="accuracy"
    )
    assert words(turned.ax_.yaxis) == expected
    np.testing.assert_array_equal(turned.scores, display.scores.T)


@pytest.mark.parametrize("n", [4, 9, 16])
def test_long_labels_do_not_overlap(n):
    values = [tuple(range(100, 100 + k)) for k in range(1, n + 1)]
    scores = np.random.default_rng(0).random((n, 2))
    curve = ValidationCurveDisplay(
        param_name="hidden_layer_sizes",
        param_range=values,
        train_scores=scores,
        test_scores=scores,
    ).plot()
    heat = HeatMapDisplay(
        scores=scores.T,
        row_name="dropout",
        row_values=[None, 0.5],
        column_name="hidden_layer_sizes",
        column_values=values,
    ).plot()
    for display in (curve, heat):
        assert_nothing_overlaps(display.ax_)
        labels = words(display.ax_.xaxis)
        assert max(map(len, labels)) <= 30
        assert len(set(labels)) == n


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.1, "lambda1": 0.2}], "varied"),
        ([{"dropout": None}, {"dropout": 0.5}, {"lr": 0.2}], "varied"),
        ([{"lr": 0.1}, {"lr": 0.1}, {"lr": 0.2}], "there twice"),
    ],
)
def test_candidates_that_make_no_curve(params, words):
    scores = np.linspace(0, 1, len(params))
    results = {"params": params, **{f"split{i}_test_score": scores for i in range(2)}}
    with pytest.raises(ValueError, match=words):
        ValidationCurveDisplay.from_cv_results(results)
