"""Learning curves by seeds, and from histories and estimators."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from display_data import (
    N_EPOCHS,
    N_SEEDS,
    assert_texts_are_legible,
    band_limits,
    legend_texts,
    make_history,
)
from matplotlib.colors import to_hex
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from skorch.history import History

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.displays import LearningCurvesDisplay, NormDisplay
from skreg.displays.common import OKABE_ITO


def test_lines_are_the_means_over_seeds(curves):
    display = LearningCurvesDisplay(curves=curves)
    assert display.plot() is display
    for name, pair in curves.items():
        for part, linestyle in (("train", "-"), ("valid", "--")):
            line = display.lines_[name][part]
            assert_array_equal(line.get_xdata(), np.arange(1, N_EPOCHS + 1))
            assert_allclose(line.get_ydata(), pair[part].mean(axis=0))
            assert line.get_linestyle() == linestyle
            assert line.axes is display.ax_
        colors = {to_hex(line.get_color()) for line in display.lines_[name].values()}
        assert len(colors) == 1
    assert display.lines_["none"]["train"].get_color() == OKABE_ITO[0]
    assert display.lines_["L2"]["train"].get_color() == OKABE_ITO[1]


def test_bands_are_one_standard_error_about_the_means(curves):
    display = LearningCurvesDisplay(curves=curves).plot()
    for name, pair in curves.items():
        for part, values in pair.items():
            low, high = band_limits(display.bands_[name][part], N_EPOCHS)
            error = values.std(axis=0, ddof=1) / np.sqrt(N_SEEDS)
            assert_allclose(low, values.mean(axis=0) - error)
            assert_allclose(high, values.mean(axis=0) + error)


@pytest.mark.parametrize("scores", [[0.5, 0.75], [[0.5, 0.75]]])
def test_one_seed_has_no_band(scores):
    display = LearningCurvesDisplay(curves={"net": {"valid": scores}}).plot()
    assert display.bands_ == {"net": {}}
    assert not display.ax_.collections
    assert_array_equal(display.lines_["net"]["valid"].get_ydata(), [0.5, 0.75])


@pytest.mark.parametrize("greater_is_better", [True, False])
def test_best_is_that_of_the_mean_validation_curve(curves, greater_is_better):
    display = LearningCurvesDisplay(curves=curves, greater_is_better=greater_is_better)
    display.plot()
    for name, pair in curves.items():
        mean = pair["valid"].mean(axis=0)
        at = mean.argmax() if greater_is_better else mean.argmin()
        assert display.best_[name] == (at + 1, pytest.approx(mean[at]))
        line = display.best_lines_[name]
        assert_allclose(line.get_ydata(), mean[at])
        assert line.get_linestyle() == ":"
        assert line.get_linewidth() <= 1
        assert line.get_color() == display.lines_[name]["valid"].get_color()
        points = [ln.get_xydata().tolist() for ln in display.ax_.lines]
        assert [[at + 1, pytest.approx(mean[at])]] in points


def test_best_can_be_left_out(curves):
    display = LearningCurvesDisplay(curves=curves).plot(show_best=False)
    assert display.best_lines_ == {}
    assert len(display.ax_.lines) == 4
    assert "best validation" not in legend_texts(display.ax_.get_legend())


def test_best_needs_a_finite_validation_score():
    curves = {"train only": {"train": [0.5]}, "diverged": {"valid": [np.nan, np.inf]}}
    display = LearningCurvesDisplay(curves=curves).plot()
    assert display.best_ == display.best_lines_ == {}


def test_labels_and_one_legend(curves):
    display = LearningCurvesDisplay(curves=curves, score_name="Balanced accuracy")
    ax = display.plot().ax_
    assert ax.get_xlabel() == "Epoch"
    assert ax.get_ylabel() == "Balanced accuracy"
    assert not display.figure_.legends
    keys = {t.get_label(): t for t in ax.get_legend().get_lines() if t.get_label()}
    assert set(keys) == {"none", "L2", "train", "validation", "best validation"}
    assert keys["L2"].get_color() == display.lines_["L2"]["train"].get_color()
    assert keys["L2"].get_marker() == display.lines_["L2"]["train"].get_marker()
    assert keys["train"].get_linestyle() == "-"
    assert keys["validation"].get_linestyle() == "--"
    assert keys["best validation"].get_linestyle() == ":"


def test_legend_names_only_what_is_drawn():
    display = LearningCurvesDisplay(curves={"L2": {"train": [0.5, 0.75]}}).plot()
    assert legend_texts(display.ax_.get_legend()) == ["L2", "train"]


@pytest.mark.parametrize("n_nets", [1, 4, 10])
def test_legend_covers_no_data(rng, n_nets):
    curves = {f"lambda = {i}": {"valid": rng.random(20)} for i in range(n_nets)}
    display = LearningCurvesDisplay(curves=curves).plot()
    display.figure_.canvas.draw()
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.y1 <= display.ax_.xaxis.get_tightbbox().y0
    assert legend.y0 >= 0
    assert legend.x0 >= 0
    assert legend.x1 <= display.figure_.bbox.x1
    assert_texts_are_legible(display.figure_)


def test_figure_of_report_width_in_constrained_layout(curves):
    figure = LearningCurvesDisplay(curves=curves).plot().figure_
    assert isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)
    assert figure.get_figwidth() == 7
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
def test_given_axes_are_drawn_on_and_no_figure_is_made(curves, layout):
    figure, axes = plt.subplots(1, 2, layout=layout)
    display = LearningCurvesDisplay(curves=curves).plot(axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    assert plt.get_fignums() == [figure.number]
    assert not axes[0].lines
    figure.canvas.draw()
    # Without a layout engine a legend below the axes would be cut off.
    legend = axes[1].get_legend().get_window_extent()
    is_inside = legend.y0 >= axes[1].bbox.y0
    assert is_inside == (layout is None)


def test_axes_of_a_subfigure(curves):
    parts = plt.figure(layout="constrained").subfigures(1, 2)
    display = LearningCurvesDisplay(curves=curves).plot(parts[0].subplots())
    assert display.figure_ is parts[0]
    assert len(plt.get_fignums()) == 1


def test_display_keeps_its_own_copy():
    scores = np.array([0.5, 0.75])
    display = LearningCurvesDisplay(curves={"L2": {"valid": scores}})
    scores[:] = 0
    assert_array_equal(display.curves["L2"]["valid"], [0.5, 0.75])


@pytest.mark.parametrize(
    ("curves", "match"),
    [
        ({}, "curves must be a non-empty mapping.*got {}"),
        ([0.5, 0.6], r"curves must be a non-empty mapping.*got \[0.5, 0.6\]"),
        ({"L2": [0.5]}, r"curves\['L2'\] must.*'train', 'valid'.*got \[0.5\]"),
        ({"L2": {}}, r"curves\['L2'\] must.*got {}"),
        ({"L2": {"test": [0.5]}}, r"curves\['L2'\] must.*got {'test'"),
        (
            {"L2": {"valid": 0.5}},
            r"\['L2'\]\['valid'\] must have shape.*got shape \(\)",
        ),
        ({"L2": {"valid": []}}, r"must have shape.*got shape \(0,\)"),
        ({"L2": {"train": np.ones((2, 3, 4))}}, r"got shape \(2, 3, 4\)"),
        ({"L2": {"train": ["a"]}}, r"\['train'\] must hold numbers.*got \['a'\]"),
        ({"L2": {"train": [[1, 2], [3]]}}, "Pad runs of different lengths with NaN"),
        (
            {"L2": {"train": [1, 2], "valid": [1]}},
            "same number of epochs; got {'train': 2, 'valid': 1}",
        ),
    ],
)
def test_curves_errors(curves, match):
    with pytest.raises(ValueError, match=match):
        LearningCurvesDisplay(curves=curves)


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 150])
def test_epochs_are_counted_in_whole_numbers(n_epochs):
    curves = {"L2": {"valid": np.linspace(0, 1, n_epochs)}}
    display = LearningCurvesDisplay(curves=curves).plot()
    left, right = display.ax_.get_xlim()
    ticks = display.ax_.get_xticks()
    ticks = ticks[(ticks >= left) & (ticks <= right)]
    assert len(ticks)
    assert_array_equal(ticks, ticks.round())


def test_from_one_history(rng):
    history = make_history(rng, 5)
    display = LearningCurvesDisplay.from_history(history)
    pair = display.curves["net"]
    assert_array_equal(pair["train"], history[:, "train_acc"])
    assert_array_equal(pair["valid"], history[:, "valid_acc"])
    assert_array_equal(display.lines_["net"]["train"].get_ydata(), pair["train"])
    assert display.ax_.get_ylabel() == "Accuracy"


def test_from_histories_of_several_lengths(rng):
    runs = [make_history(rng, n) for n in (3, 5, 4)]
    display = LearningCurvesDisplay.from_history({"L2": runs, "L1": runs[0]})
    valid = display.curves["L2"]["valid"]
    assert valid.shape == (3, 5)
    for row, run in zip(valid, runs, strict=True):
        assert_array_equal(row[: len(run)], run[:, "valid_acc"])
        assert np.isnan(row[len(run) :]).all()
    line = display.lines_["L2"]["valid"].get_ydata()
    assert_allclose(line, np.nanmean(valid, axis=0))
    assert_allclose(line[4], runs[1][4, "valid_acc"])
    # Two seeds in epoch 4, one in epoch 5: there the band has ended.
    low, high = band_limits(display.bands_["L2"]["valid"], 4)
    last = [runs[1][3, "valid_acc"], runs[2][3, "valid_acc"]]
    error = np.std(last, ddof=1) / np.sqrt(2)
    assert_allclose([low[3], high[3]], [line[3] - error, line[3] + error])
    assert display.bands_["L2"]["valid"].get_paths()[0].vertices[:, 0].max() == 4
    assert display.curves["L1"]["valid"].shape == (3,)


def test_from_list_of_histories_without_a_mapping(rng):
    runs = [make_history(rng, 4), make_history(rng, 4)]
    display = LearningCurvesDisplay.from_history(runs, name="L2")
    expected = [run[:, "train_acc"] for run in runs]
    assert_array_equal(display.curves["L2"]["train"], expected)


@pytest.mark.parametrize(
    ("keys", "label", "greater_is_better"),
    [
        ({}, "Accuracy", True),
        ({"train": "train_loss", "valid": "valid_loss"}, "Loss", False),
        ({"train": "train_loss", "valid": None}, "Loss", False),
        ({"train": None, "valid": "param_norm"}, "Param norm", True),
        ({"score_name": "Rate", "greater_is_better": False}, "Rate", False),
    ],
)
def test_from_history_names_the_score(rng, keys, label, greater_is_better):
    display = LearningCurvesDisplay.from_history(make_history(rng, 3), **keys)
    assert display.ax_.get_ylabel() == display.score_name == label
    assert display.greater_is_better is greater_is_better


def test_from_history_passes_on_what_plot_takes(rng):
    figure, ax = plt.subplots()
    display = LearningCurvesDisplay.from_history(
        make_history(rng, 3), ax=ax, show_best=False, palette=["red"]
    )
    assert display.ax_ is ax
    assert plt.get_fignums() == [figure.number]
    assert display.best_lines_ == {}
    assert display.lines_["net"]["train"].get_color() == "red"
    NormDisplay.from_history(make_history(rng, 3), ax=ax, kind="layers")
    assert plt.get_fignums() == [figure.number]


def test_an_interrupted_epoch_is_a_gap(rng):
    history = make_history(rng, 2)
    history.new_epoch()
    valid = LearningCurvesDisplay.from_history(history).curves["net"]["valid"]
    assert_array_equal(valid, [*history[:2, "valid_acc"], np.nan])


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({}, r"'L2' has no 'valid_acc'; it has \['train_acc'\].*X_val.*valid=None"),
        ({"train": "f1", "valid": None}, "has no 'f1'.*callback that records it"),
    ],
)
def test_missing_keys_are_named(keys, match):
    history = [{"train_acc": 0.5, "batches": []}]
    with pytest.raises(KeyError, match=match):
        LearningCurvesDisplay.from_history(history, name="L2", **keys)
    with pytest.raises(KeyError, match=r"no 'train_acc'.*AccuracyTracker.*train=None"):
        LearningCurvesDisplay.from_history([{"valid_acc": 0.5}])
    # One seed that lacks it is enough.
    with pytest.raises(KeyError, match=r"no 'b'; it has \['a'\]"):
        NormDisplay.from_history([[{"a": 1, "b": 1}], [{"a": 1}]], norm="b")
    with pytest.raises(KeyError, match=r"no 'param_norm'.*NormTracker"):
        NormDisplay.from_history(history)
    with pytest.raises(KeyError, match="no 'param_norms'"):
        NormDisplay.from_history([{"param_norm": 1.0}], kind="both")


@pytest.mark.parametrize("history", [[], History(), [[], []], "valid_acc", 3, [1, 2]])
def test_history_must_be_a_list_of_epochs(history):
    with pytest.raises(ValueError, match="must be a non-empty list with one dict per"):
        LearningCurvesDisplay.from_history(history)


def test_name_goes_with_one_net_only(rng):
    with pytest.raises(ValueError, match="name='L2'"):
        LearningCurvesDisplay.from_history({"L1": make_history(rng, 2)}, name="L2")
    with pytest.raises(ValueError, match="got 0 nets"):
        NormDisplay.from_history({})
    with pytest.raises(ValueError, match="must not both be None"):
        LearningCurvesDisplay.from_history([{}], train=None, valid=None)


def test_from_estimator(rng):
    X, y = rng.normal(size=(40, 3)), np.arange(40) % 2

    def fit(seed, max_epochs):
        net = RegularizedNetClassifier(
            max_epochs=max_epochs,
            random_state=seed,
            callbacks=[AccuracyTracker(on_train=True)],
        )
        return net.fit(X, y, X_val=X, y_val=y)

    short, long = fit(0, 2), fit(1, 3)
    display = LearningCurvesDisplay.from_estimator(short)
    pair = display.curves["RegularizedNetClassifier"]
    assert_array_equal(pair["train"], short.history[:, "train_acc"])

    display = LearningCurvesDisplay.from_estimator(
        [short, long], name="MLP", train=None
    )
    assert display.curves["MLP"]["valid"].shape == (2, 3)
    assert set(display.curves["MLP"]) == {"valid"}

    display = NormDisplay.from_estimator(
        {"a": short, "b": [short, long]}, kind="layers"
    )
    assert_array_equal(display.norms["a"], short.history[:, "param_norm"])
    heights = [bar.get_height() for bar in display.bars_["a"]]
    assert_allclose(heights, list(short.history[-1, "param_norms"].values()))
    means = [
        (short.history[-1, "param_norms"][p] + long.history[-1, "param_norms"][p]) / 2
        for p in short.history[-1, "param_norms"]
    ]
    assert_allclose([bar.get_height() for bar in display.bars_["b"]], means)


@pytest.mark.parametrize("display", [LearningCurvesDisplay, NormDisplay])
def test_from_estimator_errors(display):
    with pytest.raises(NotFittedError, match="Call fit first"):
        display.from_estimator(RegularizedNetClassifier())
    with pytest.raises(TypeError, match=r"got BaseEstimator\(\).*best_estimator_"):
        display.from_estimator(BaseEstimator())
