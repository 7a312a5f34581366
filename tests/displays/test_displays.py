import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgba
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, validation_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import Bunch
from skorch.history import History

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker
from skreg.datasets import make_noisy_line
from skreg.displays import (
    AttackedImagesDisplay,
    HeatMapDisplay,
    ImageGridDisplay,
    LearningCurvesDisplay,
    NormDisplay,
    PredictionEvolutionDisplay,
    RobustnessDisplay,
    ValidationCurveDisplay,
)
from skreg.displays.common import MARKERS, OKABE_ITO, mean_and_error, net_styles

N_SEEDS, N_EPOCHS = 3, 40
PARAMETERS = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def curves(rng):
    shape = (N_SEEDS, N_EPOCHS)
    return {
        name: {"train": rng.random(shape), "valid": rng.random(shape)}
        for name in ("none", "L2")
    }


@pytest.fixture
def norms(rng):
    return {name: 1 + rng.random((N_SEEDS, N_EPOCHS)) for name in ("none", "L2")}


@pytest.fixture
def layer_norms(rng):
    return {
        name: {p: 1 + rng.random(N_SEEDS) for p in PARAMETERS}
        for name in ("none", "L2")
    }


def make_history(rng, n_epochs, scale=1.0):
    history = History()
    for _ in range(n_epochs):
        history.new_epoch()
        history.new_batch()
        history.record_batch("train_loss", 1.0)
        history.record("epoch", len(history))
        for key in ("train_acc", "valid_acc", "train_loss", "valid_loss", "param_norm"):
            history.record(key, scale * rng.random())
        history.record("param_norms", {p: scale * rng.random() for p in PARAMETERS})
    return history


def band_limits(band, n_epochs):
    """Return the lower and upper edge of a fill_between over epochs 1, 2, ..."""
    points = band.get_paths()[0].vertices
    edges = [points[points[:, 0] == epoch, 1] for epoch in range(1, n_epochs + 1)]
    return np.array([e.min() for e in edges]), np.array([e.max() for e in edges])


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts() if text.get_text()]


def assert_texts_are_legible(figure):
    figure.canvas.draw()
    for ax in figure.axes:
        legend = ax.get_legend()
        texts = [ax.xaxis.label, ax.yaxis.label, ax.title, *ax.texts]
        texts += ax.get_xticklabels() + ax.get_yticklabels()
        texts += legend.get_texts() if legend else []
        assert all(t.get_fontsize() >= 9 for t in texts if t.get_text())


# Shared


def test_import_does_not_import_matplotlib():
    code = "import sys, skreg.displays; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(
    st.lists(
        st.lists(st.floats(-1e3, 1e3) | st.just(np.nan), min_size=4, max_size=4),
        min_size=1,
        max_size=6,
    )
)
def test_mean_and_error_are_those_of_the_finite_values(rows):
    values = np.array(rows)
    mean, error = mean_and_error(values)
    for column, m, e in zip(values.T, mean, error, strict=True):
        finite = column[np.isfinite(column)]
        assert_allclose(m, finite.mean() if len(finite) else np.nan, atol=1e-9)
        expected = np.nan
        if len(finite) > 1:
            expected = finite.std(ddof=1) / np.sqrt(len(finite))
        assert_allclose(e, expected, atol=1e-9)


def test_infinite_values_are_left_out():
    mean, error = mean_and_error(np.array([[1.0, np.inf], [3.0, 5.0]]))
    assert_array_equal(mean, [2, 5])
    assert_array_equal(error, [1, np.nan])


def test_every_net_has_its_own_pair_of_colour_and_marker():
    styles = net_styles([str(i) for i in range(len(OKABE_ITO) * len(MARKERS))])
    pairs = {(style.color, style.marker) for style in styles.values()}
    assert len(pairs) == len(styles)


@pytest.mark.parametrize("palette", [["red", "0.5"], {"L2": "0.5", "none": "red"}])
def test_palette(curves, norms, palette):
    lines = LearningCurvesDisplay(curves=curves).plot(palette=palette).lines_
    assert to_rgba(lines["none"]["valid"].get_color()) == to_rgba("red")
    assert to_rgba(lines["L2"]["train"].get_color()) == to_rgba("0.5")
    lines = NormDisplay(norms=norms).plot(palette=palette).lines_
    assert to_rgba(lines["L2"].get_color()) == to_rgba("0.5")


@pytest.mark.parametrize(
    ("palette", "match"),
    [({"L2": "red"}, r"without \['none'\]"), ([], "got \\[\\]"), ("red", "got 'red'")],
)
def test_palette_errors(curves, palette, match):
    display = LearningCurvesDisplay(curves=curves)
    with pytest.raises(ValueError, match=f"palette must.*{match}"):
        display.plot(palette=palette)
    assert not plt.get_fignums()


def test_ax_must_be_axes(curves, norms, rng):
    _, axes = plt.subplots(1, 2)
    displays = (
        LearningCurvesDisplay(curves=curves),
        NormDisplay(norms=norms),
        ImageGridDisplay(images=rng.random((2, 4, 4))),
        make_heat_map(),
        make_validation_curve(rng),
        RobustnessDisplay(eps=[0, 1], accuracies={"net": [1, 0.5]}),
    )
    for display in displays:
        with pytest.raises(TypeError, match=r"ax must be None or one .*axes\[0\]"):
            display.plot(axes)


# Learning curves


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


# From histories


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


# Norms


def test_norms_by_epoch(norms):
    display = NormDisplay(norms=norms)
    assert display.plot() is display
    for name, values in norms.items():
        line = display.lines_[name]
        assert_array_equal(line.get_xdata(), np.arange(1, N_EPOCHS + 1))
        assert_allclose(line.get_ydata(), values.mean(axis=0))
        error = values.std(axis=0, ddof=1) / np.sqrt(N_SEEDS)
        low, high = band_limits(display.bands_[name], N_EPOCHS)
        assert_allclose(high, values.mean(axis=0) + error)
        assert_allclose(low, values.mean(axis=0) - error)
    assert display.axes_ is None
    assert display.ax_.get_xlabel() == "Epoch"
    assert display.ax_.get_ylabel() == "Frobenius norm"
    assert legend_texts(display.ax_.get_legend()) == ["none", "L2"]
    assert display.bars_ == display.totals_ == {}


def test_bars_are_means_with_standard_errors(norms, layer_norms):
    display = NormDisplay(norms=norms, layer_norms=layer_norms).plot(kind="layers")
    ax = display.ax_
    ends = [s for c in ax.collections for s in c.get_segments()]
    assert len(ends) == 2 * len(PARAMETERS)
    for name, layers in layer_norms.items():
        means = [values.mean() for values in layers.values()]
        assert_allclose([bar.get_height() for bar in display.bars_[name]], means)
        for bar, values in zip(display.bars_[name], layers.values(), strict=True):
            error = values.std(ddof=1) / np.sqrt(N_SEEDS)
            x = bar.get_x() + bar.get_width() / 2
            (whisker,) = [s for s in ends if abs(s[0, 0] - x) < 1e-9]
            assert_allclose(whisker[:, 1], values.mean() + np.array([-error, error]))
    assert [label.get_text() for label in ax.get_xticklabels()] == PARAMETERS
    assert ax.get_ylabel() == "Frobenius norm"
    assert ax.get_xlabel() == "Parameter"
    assert legend_texts(ax.get_legend()) == ["none", "L2", "all parameters"]
    assert display.lines_ == {}


def test_bars_of_a_group_stand_side_by_side(norms, layer_norms):
    display = NormDisplay(norms=norms, layer_norms=layer_norms).plot(kind="layers")
    for i in range(len(PARAMETERS)):
        left, right = display.bars_["none"][i], display.bars_["L2"][i]
        assert left.get_x() + left.get_width() == pytest.approx(right.get_x())
        assert right.get_x() == pytest.approx(i)


def test_totals_are_the_final_norms(norms, layer_norms):
    norms["L2"][0, -1] = np.nan  # this seed stopped an epoch early
    display = NormDisplay(norms=norms, layer_norms=layer_norms).plot(kind="layers")
    final = {
        "none": norms["none"][:, -1].mean(),
        "L2": (norms["L2"][0, -2] + norms["L2"][1:, -1].sum()) / N_SEEDS,
    }
    for name, line in display.totals_.items():
        assert_allclose(line.get_ydata(), final[name])
        assert line.get_linestyle() == "--"
        assert (
            line.get_color() == to_hex(display.bars_[name][0].get_facecolor()).upper()
        )
    assert display.ax_.get_ylim()[1] > max(final.values())
    assert display.ax_.get_ylim()[0] == 0


def test_layers_of_one_seed_have_no_whiskers_and_nets_may_differ():
    display = NormDisplay(
        norms={"deep": [3.0, 2.0], "flat": [1.0]},
        layer_norms={"deep": {"fc1": 1.0, "fc2": 2.0}, "flat": {"fc2": [3.0]}},
    ).plot(kind="layers")
    assert not display.ax_.collections
    assert [bar.get_height() for bar in display.bars_["flat"]] == [3]
    assert display.bars_["flat"][0].get_x() == pytest.approx(1)
    assert_array_equal(display.totals_["flat"].get_ydata(), [1, 1])


def test_a_diverged_net_is_drawn_as_far_as_it_goes():
    display = NormDisplay(
        norms={"none": [1.0, 2.0, np.inf]}, layer_norms={"none": {"fc1": np.inf}}
    ).plot(kind="both")
    assert_array_equal(display.lines_["none"].get_ydata(), [1, 2, np.nan])
    assert np.isnan(display.totals_["none"].get_ydata()).all()
    display.figure_.canvas.draw()


def test_both_kinds_side_by_side(norms, layer_norms):
    display = NormDisplay(norms=norms, layer_norms=layer_norms).plot(kind="both")
    assert display.ax_ is None
    assert display.axes_.shape == (2,)
    assert display.figure_.axes == [*display.axes_]
    assert [ax.get_xlabel() for ax in display.axes_] == ["Epoch", "Parameter"]
    assert {ax.get_ylabel() for ax in display.axes_} == {"Frobenius norm"}
    assert display.axes_[0].get_ylim() == display.axes_[1].get_ylim()
    assert display.lines_["L2"].axes is display.axes_[0]
    assert display.totals_["L2"].axes is display.axes_[1]
    (legend,) = display.figure_.legends
    assert legend_texts(legend) == ["none", "L2", "all parameters"]
    assert isinstance(display.figure_.get_layout_engine(), ConstrainedLayoutEngine)
    assert_texts_are_legible(display.figure_)


@pytest.mark.parametrize("as_sequence", [list, tuple, np.array])
def test_both_kinds_on_given_axes(norms, layer_norms, as_sequence):
    figure, axes = plt.subplots(2, 1)
    display = NormDisplay(norms=norms, layer_norms=layer_norms)
    display.plot(as_sequence(list(axes)), kind="both")
    assert [*display.axes_] == [*axes]
    assert plt.get_fignums() == [figure.number]
    assert not figure.legends
    assert legend_texts(axes[0].get_legend()) == ["none", "L2"]
    assert legend_texts(axes[1].get_legend()) == ["none", "L2", "all parameters"]


def test_both_kinds_need_two_axes(norms, layer_norms):
    display = NormDisplay(norms=norms, layer_norms=layer_norms)
    figure, ax = plt.subplots()
    for wrong in (ax, [ax], [ax, ax, ax]):
        with pytest.raises(TypeError, match="sequence of two matplotlib Axes"):
            display.plot(wrong, kind="both")
    with pytest.raises(TypeError, match="got 3"):
        display.plot([ax, 3], kind="both")
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize(("n_names", "rotation"), [(2, 0), (8, 40), (25, 90)])
def test_long_parameter_names_are_turned(norms, n_names, rotation):
    names = [f"module.blocks.{i}.weight" for i in range(n_names)]
    layer_norms = {net: dict.fromkeys(names, 1.0) for net in norms}
    display = NormDisplay(norms=norms, layer_norms=layer_norms).plot(kind="layers")
    display.figure_.canvas.draw()
    labels = display.ax_.get_xticklabels()
    assert {label.get_rotation() for label in labels} == {rotation}
    assert all(label.get_window_extent().y0 >= 0 for label in labels)


def test_norms_from_history(rng):
    runs = [make_history(rng, n, scale=3) for n in (2, 4)]
    display = NormDisplay.from_history({"L2": runs}, kind="both")
    assert_array_equal(display.norms["L2"][0, :2], runs[0][:, "param_norm"])
    assert np.isnan(display.norms["L2"][0, 2:]).all()
    for name in PARAMETERS:
        expected = [run[-1, "param_norms"][name] for run in runs]
        assert_array_equal(display.layer_norms["L2"][name], expected)
    final = np.mean([run[-1, "param_norm"] for run in runs])
    assert_allclose(display.totals_["L2"].get_ydata(), final)


def test_norms_by_epoch_do_without_layers():
    display = NormDisplay.from_history([{"param_norm": 2.0}])
    assert display.layer_norms is None
    with pytest.raises(ValueError, match=r"layer_norms=None\. Pass layer_norms"):
        display.plot(kind="layers")
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'bars'"):
        display.plot(kind="bars")
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'bars'"):
        NormDisplay.from_history([{"param_norm": 2.0}], kind="bars")
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    ("norms", "layer_norms", "match"),
    [
        ([1.0], None, "norms must be a non-empty mapping"),
        ({"L2": 1.0}, None, r"norms\['L2'\] must have shape.*got shape \(\)"),
        ({"L2": [1.0]}, {}, "layer_norms must be a non-empty mapping"),
        ({"L2": [1.0]}, {"L1": {"fc1": 1}}, r"nets of norms.*\['L2'\]; got \['L1'\]"),
        ({"L2": [1.0]}, {"L2": [1]}, r"layer_norms\['L2'\] must be.*got \[1\]"),
        ({"L2": [1.0]}, {"L2": {"fc1": "a"}}, r"\['fc1'\] must be a number.*got 'a'"),
        ({"L2": [1.0]}, {"L2": {"fc1": [[1]]}}, r"n_seeds.*got shape \(1, 1\)"),
        ({"L2": [1.0]}, {"L2": {"fc1": []}}, r"n_seeds.*got shape \(0,\)"),
    ],
)
def test_norm_errors(norms, layer_norms, match):
    with pytest.raises(ValueError, match=match):
        NormDisplay(norms=norms, layer_norms=layer_norms)


# Images


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4, 5, 6), None),
        ((4, 1, 5, 6), 1),
        ((4, 3, 5, 6), 1),
        ((4, 5, 6, 3), 3),
        ((4, 3, 5, 3), 1),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_pixels_are_those_of_the_images(rng, shape, axis, dtype):
    is_integer = np.issubdtype(dtype, np.integer)
    images = (
        rng.integers(256, size=shape) if is_integer else rng.random(shape)
    ).astype(dtype)
    display = ImageGridDisplay(images=images)
    assert display.plot() is display
    expected = images if axis is None else np.moveaxis(images, axis, -1)
    for ax, image in zip(display.axes_.flat, expected, strict=True):
        (artist,) = ax.images
        pixels = np.asarray(artist.get_array())
        assert_array_equal(pixels, image[..., 0] if shape[1] == 1 else image)
        assert artist.get_clim() == (0, 255 if is_integer else 1)
        assert artist.get_interpolation() == "nearest"
        assert artist.get_cmap().name == "gray"
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert display.ax_ is None
    assert isinstance(display.figure_.get_layout_engine(), ConstrainedLayoutEngine)


@pytest.mark.parametrize(
    ("n_columns", "shape"), [(None, (2, 6)), (3, (3, 3)), (9, (1, 7))]
)
def test_grid_of_subplots(rng, n_columns, shape):
    labels = ["cat", "dog", "cat", "cow", "cat", "dog", "hen"]
    display = ImageGridDisplay(images=rng.random((7, 4, 4)), labels=labels)
    display.plot(n_columns=n_columns)
    assert display.axes_.shape == shape
    titles = [ax.get_title() for ax in display.axes_.flat]
    assert titles == labels + [""] * (len(titles) - 7)
    assert not any(ax.axison for ax in display.axes_.flat[7:])
    assert_texts_are_legible(display.figure_)
    for ax in display.axes_.flat[:7]:
        assert ax.title.get_window_extent().y1 <= display.figure_.bbox.y1


def test_titles_stand_in_place_of_labels(rng):
    titles = ["cat, not dog", "cow, not horse"]
    display = ImageGridDisplay(
        images=rng.random((2, 4, 4)), labels=[0, 1], titles=titles
    )
    drawn = [ax.get_title() for ax in display.plot().axes_.flat]
    assert drawn == titles


def test_titles_and_rows_of_one_class(rng):
    images, titles = rng.random((4, 8, 8)), ["a", "b", "c", ""]
    display = ImageGridDisplay(
        images=images, labels=["clean", "clean", "noisy", "noisy"], titles=titles
    ).plot(n_columns=2)
    assert [ax.get_title() for ax in display.axes_.flat] == titles
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["clean", "noisy"]
    assert_texts_are_legible(display.figure_)
    _, ax = plt.subplots(layout="constrained")
    display.plot(ax, n_columns=2)
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c", "clean", "noisy"]


def test_long_titles_are_wrapped_and_not_cut(rng):
    labels = ["a", "a few words that do not fit above one image"]
    display = ImageGridDisplay(images=rng.random((2, 8, 8)), labels=labels).plot()
    display.figure_.canvas.draw()
    title = display.axes_[0, 1].title
    assert title.get_text().replace("\n", " ") == labels[1]
    assert "\n" in title.get_text()
    assert title.get_window_extent().y1 <= display.figure_.bbox.y1


def test_rows_of_one_class_are_labelled_once(rng):
    images, labels = rng.random((6, 4, 4)), ["cat", "cat", "dog", "dog", "hen", "hen"]
    display = ImageGridDisplay(images=images, labels=labels).plot(n_columns=2)
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["cat", "dog", "hen"]
    assert not any(ax.get_title() for ax in display.axes_.flat)
    display.figure_.canvas.draw()
    for ax in display.axes_[:, 0]:
        assert ax.yaxis.label.get_window_extent().x0 >= 0
    display.plot(n_columns=3)
    assert [ax.get_title() for ax in display.axes_.flat] == labels


@pytest.mark.parametrize("labels", [None, ["cat", "dog", "cat", "cow", "hen"]])
@pytest.mark.parametrize("shape", [(5, 6, 4), (5, 6, 4, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, float])
def test_mosaic_on_given_axes(rng, labels, shape, dtype):
    white = 255 if dtype is np.uint8 else 1
    images = (white * rng.random(shape)).astype(dtype)
    figure, (ax, other) = plt.subplots(1, 2)
    display = ImageGridDisplay(images=images, labels=labels).plot(ax, n_columns=3)
    assert display.ax_ is ax
    assert display.axes_ is None
    assert plt.get_fignums() == [figure.number]
    assert len(figure.axes) == 2
    assert not other.images
    (artist,) = ax.images
    assert artist.get_interpolation() == "nearest"
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    mosaic = np.array(artist.get_array())
    gap = mosaic.shape[0] // 2 - 6
    rule = (mosaic.shape[1] - 3 * 4) // 2
    assert gap > 0
    assert rule > 0
    for i, image in enumerate(images):
        top, left = i // 3 * (6 + gap) + gap, i % 3 * (4 + rule)
        tile = mosaic[top : top + 6, left : left + 4]
        assert_array_equal(tile, image)
        tile[:] = white
        if labels is not None:
            x, y = ax.texts[i].xy
            assert (x, y) == (left + 1.5, top - 0.5)
    assert (mosaic == white).all()
    assert [text.get_text() for text in ax.texts] == (labels or [])


@pytest.mark.parametrize("figsize", [(7, 7), (3, 7), (7, 3)])
def test_texts_of_a_mosaic_cover_no_image(rng, figsize):
    figure, ax = plt.subplots(figsize=figsize)
    labels = ["cat", "dog", "cow", "hen"]
    display = ImageGridDisplay(images=rng.random((4, 8, 8)), labels=labels)
    display.plot(ax, n_columns=2)
    figure.canvas.draw()
    n_pixels = display.image_artists_[0].get_array().shape[0]
    for text in ax.texts:
        # Upward in the figure is downward in the rows of the mosaic.
        top, bottom = (
            ax.transData.inverted().transform((0, y))[1]
            for y in text.get_window_extent().intervaly[::-1]
        )
        above = n_pixels // 2 - 0.5 if text.xy[1] > n_pixels / 2 else -0.5
        assert above - 0.01 <= top < bottom <= text.xy[1]


def test_mosaic_labels_rows_of_one_class_once(rng):
    _, ax = plt.subplots()
    labels = ["cat", "cat", "dog", "dog"]
    ImageGridDisplay(images=rng.random((4, 8, 8)), labels=labels).plot(ax, n_columns=2)
    assert [text.get_text() for text in ax.texts] == ["cat", "dog"]
    assert {text.xy[0] for text in ax.texts} == {-0.5}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_value_range_maps_to_black_and_white(dtype):
    images = np.array([[[0, 4], [8, 16]]], dtype=dtype)
    display = ImageGridDisplay(images=images, value_range=(0, 16))
    assert_array_equal(display.images, [[[0, 0.25], [0.5, 1]]])


def test_images_may_be_boolean_or_a_rounding_error_outside():
    images = ImageGridDisplay(images=[[[True, False]]]).images
    assert_array_equal(images, [[[1, 0]]])
    images = ImageGridDisplay(images=np.full((1, 2, 2), 1 + 1e-7)).images
    assert_array_equal(images, np.ones((1, 2, 2)))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"images": np.zeros((4, 4))}, r"shape \(n, H, W\).*got shape \(4, 4\)"),
        ({"images": np.zeros((2, 2, 4, 4))}, r"got shape \(2, 2, 4, 4\).*Reshape"),
        ({"images": np.zeros((0, 4, 4))}, r"at least 1; got shape \(0, 4, 4\)"),
        ({"images": [np.zeros((2, 2)), np.zeros((3, 3))]}, "one array.*one size"),
        ({"images": np.full((1, 2, 2), "a")}, "must hold numbers; got dtype"),
        ({"images": np.full((1, 2, 2), 1.5)}, r"lie in \[0, 1\].*1.5.*value_range"),
        ({"images": np.full((1, 2, 2), -0.5)}, r"lie in \[0, 1\].*-0.5"),
        ({"images": np.full((1, 2, 2), np.nan)}, "be finite; got values from nan"),
        ({"images": np.full((1, 2, 2), 256)}, r"lie in \[0, 255\].*256.*int64"),
        ({"value_range": (1, 0)}, r"value_range must.*got \(1, 0\)"),
        ({"value_range": 3}, "value_range must.*got 3"),
        ({"labels": ["cat"]}, r"labels must.*shape \(2,\); got\s+shape \(1,\)"),
        ({"titles": "cat"}, r"titles must.*got\s+shape \(\)"),
    ],
)
def test_image_errors(params, match):
    with pytest.raises(ValueError, match=match):
        ImageGridDisplay(**{"images": np.zeros((2, 4, 4))} | params)


@pytest.mark.parametrize("n_columns", [0, -1, 1.5, "3"])
def test_n_columns_must_be_positive(n_columns):
    with pytest.raises(ValueError, match=f"n_columns must.*got {n_columns!r}"):
        ImageGridDisplay(images=np.zeros((2, 4, 4))).plot(n_columns=n_columns)


# From a Bunch


@pytest.fixture
def bunch():
    """Ten samples a class; the value of every pixel is the index of its sample."""
    target = np.arange(30) % 3
    data = np.broadcast_to(np.arange(30)[:, None, None, None], (30, 3, 4, 4))
    return Bunch(data=data, target=target, target_names=["cat", "dog", "hen"])


def test_from_bunch_draws_a_row_a_class(bunch):
    display = ImageGridDisplay.from_bunch(bunch, n_per_class=4, random_state=0)
    assert display.axes_.shape == (3, 4)
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["cat", "dog", "hen"]
    drawn = display.images[:, 0, 0, 0].reshape(3, 4)
    for code, row in enumerate(drawn):
        assert (row % 3 == code).all()
        assert len(set(row)) == 4
    assert display.labels.tolist() == ["cat"] * 4 + ["dog"] * 4 + ["hen"] * 4
    # Drawn again, elsewhere, it keeps its rows.
    figure, ax = plt.subplots()
    assert [t.get_text() for t in display.plot(ax).ax_.texts] == ["cat", "dog", "hen"]
    assert plt.get_fignums()[-1] == figure.number


def test_from_bunch_on_given_axes(bunch):
    figure, ax = plt.subplots()
    assert ImageGridDisplay.from_bunch(bunch, ax=ax).ax_ is ax
    assert plt.get_fignums() == [figure.number]


def test_from_bunch_random_state(bunch):
    def drawn(seed):
        return ImageGridDisplay.from_bunch(
            bunch, n_per_class=2, random_state=seed
        ).images

    assert_array_equal(drawn(0), drawn(0))
    assert (drawn(0) != drawn(1)).any()


def test_from_bunch_without_names_or_with_named_targets(bunch):
    del bunch["target_names"]
    labels = ImageGridDisplay.from_bunch(bunch, n_per_class=1).labels
    assert labels.tolist() == [0, 1, 2]
    bunch.target_names = ["never", "looked", "at"]
    bunch.target = np.array(["x", "y", "z"])[bunch.target]
    labels = ImageGridDisplay.from_bunch(bunch, n_per_class=1).labels
    assert labels.tolist() == ["x", "y", "z"]


def test_from_bunch_takes_images_where_data_is_flat(bunch):
    flat = Bunch(
        data=bunch.data.reshape(30, -1), images=bunch.data[:, 0], target=bunch.target
    )
    assert ImageGridDisplay.from_bunch(flat).images.shape == (18, 4, 4)
    del flat["images"]
    with pytest.raises(
        ValueError, match=r"\(30, 48\) and the keys \['data', 'target'\]"
    ):
        ImageGridDisplay.from_bunch(flat)


def test_from_bunch_errors(bunch):
    with pytest.raises(ValueError, match=r"at most.*10 images of class 0; got 11"):
        ImageGridDisplay.from_bunch(bunch, n_per_class=11)
    with pytest.raises(
        ValueError, match="n_per_class must be a positive integer; got 0"
    ):
        ImageGridDisplay.from_bunch(bunch, n_per_class=0)
    bunch.target_names = ["cat", "dog"]
    with pytest.raises(
        ValueError, match=r"count the 2 bunch\.target_names.*from 0 to 2"
    ):
        ImageGridDisplay.from_bunch(bunch)
    bunch.target = bunch.target[:-1]
    with pytest.raises(ValueError, match=r"bunch.target must.*got\s+shape \(29,\)"):
        ImageGridDisplay.from_bunch(bunch)


# Robustness


EPS = [0, 0.05, 0.1, 0.3]


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return MinMaxScaler().fit_transform(X), y


def test_accuracies_by_eps(rng):
    accuracies = {"none": rng.random((3, 4)), "one seed": rng.random(4)}
    display = RobustnessDisplay(eps=EPS, accuracies=accuracies, norm="l2", chance=0.1)
    assert display.plot() is display
    for name, values in accuracies.items():
        line = display.lines_[name]
        assert_array_equal(line.get_xdata(), EPS)
        assert_allclose(line.get_ydata(), np.atleast_2d(values).mean(axis=0))
    (band,) = display.bands_.values()
    vertices = band.get_paths()[0].vertices
    error = accuracies["none"].std(axis=0, ddof=1) / np.sqrt(3)
    for i, eps in enumerate(EPS):
        low, high = np.sort(vertices[vertices[:, 0] == eps, 1])[[0, -1]]
        assert_allclose(high - low, 2 * error[i])
    assert display.chance_line_.get_ydata()[0] == 0.1
    assert "L2 norm, in units of X" in display.ax_.get_xlabel()
    texts = legend_texts(display.ax_.get_legend())
    assert texts == ["none", "one seed", "chance"]
    assert_texts_are_legible(display.figure_)
    _, ax = plt.subplots()
    assert RobustnessDisplay(eps=EPS, accuracies=accuracies).plot(ax).ax_ is ax
    assert "L\N{INFINITY} norm" in ax.get_xlabel()


def test_robustness_from_estimators(iris):
    X, y = iris
    nets = [RegularizedNetClassifier(max_epochs=20, random_state=s) for s in (0, 1)]
    nets = {"nets": [net.fit(X, y) for net in nets]}
    nets["pipeline"] = make_pipeline(MinMaxScaler(), clone(nets["nets"][0])).fit(X, y)
    display = RobustnessDisplay.from_estimator(nets, X, y, eps=EPS, attack="fgsm")
    assert display.accuracies["nets"].shape == (2, 4)
    assert display.accuracies["pipeline"].shape == (1, 4)
    clean = [net.score(X, y) for net in nets["nets"]]
    assert_array_equal(display.accuracies["nets"][:, 0], clean)
    assert (np.diff(display.accuracies["nets"], axis=1) <= 0).all()
    assert display.accuracies["nets"][:, -1].max() < min(clean) - 0.1
    by_pgd = RobustnessDisplay.from_estimator(nets["nets"][0], X, y, eps=EPS, norm="l2")
    assert list(by_pgd.lines_) == ["RegularizedNetClassifier"]
    assert by_pgd.norm == "l2"


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"eps": 0.1}, r"eps must hold numbers, in shape \(n_eps,\)"),
        ({"eps": []}, "eps must hold numbers"),
        ({"eps": [0, 0.2, 0.1, 0.3]}, "eps must ascend"),
        ({"norm": "linfinity"}, r"norm must be one of \('linf', 'l2'\)"),
        ({"accuracies": {"net": [1, 2]}}, r"in shape \(4,\) or \(n_seeds, 4\)"),
        ({"accuracies": {"net": [[1], [1, 2]]}}, r"accuracies\['net'\] must hold"),
        ({"accuracies": [1, 2, 3, 4]}, "accuracies must be a non-empty mapping"),
    ],
)
def test_robustness_errors(params, match):
    params = {"eps": EPS, "accuracies": {"net": [1, 0.5, 0.2, 0]}} | params
    with pytest.raises(ValueError, match=match):
        RobustnessDisplay(**params)


# Attacked images


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 1, 8, 8), (3, 3, 8, 8), (3, 8, 8, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_attacked_images_stand_below_clean_ones(rng, shape, dtype):
    white = 255 if dtype is np.uint8 else 1
    clean = (white * rng.uniform(0.2, 0.8, shape)).astype(dtype)
    attacked = clean.copy()
    attacked[0] += dtype(white * 0.1)
    titles = ["cat", "dog", "cow"], ["dog", "dog", "cow"]
    display = AttackedImagesDisplay(
        clean=clean,
        attacked=attacked,
        clean_titles=titles[0],
        attacked_titles=titles[1],
    ).plot()
    assert display.axes_.shape == (3, 3)
    rows = [ax.get_ylabel() for ax in display.axes_[:, 0]]
    assert rows[:2] == ["clean", "attacked"]
    assert rows[2].startswith("change")
    written = [ax.get_title() for ax in display.axes_.flat]
    assert written == [*titles[0], *titles[1], "", "", ""]
    drawn = np.stack([np.asarray(a.get_array()) for a in display.image_artists_])
    assert_allclose(drawn[3], drawn[0] + 0.1, atol=0.002)
    assert_allclose(drawn[6], 1, rtol=1e-6)  # the largest change of all
    assert_allclose(drawn[7:], 0.5)  # none
    assert_allclose(display.factor_, 5, rtol=0.02)
    assert_texts_are_legible(display.figure_)


def test_images_that_no_attack_has_changed(rng):
    images = rng.random((2, 4, 4))
    display = AttackedImagesDisplay(clean=images, attacked=images).plot()
    assert_array_equal(display.image_artists_[-1].get_array(), 0.5)


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_attacked_images_from_estimator(rng, attack):
    X = rng.random((60, 1, 4, 4)).astype(np.float32)
    y = np.where(X[:, 0, :2].mean((1, 2)) > X[:, 0, 2:].mean((1, 2)), "up", "down")
    net = RegularizedNetClassifier(max_epochs=30, lr=0.01, random_state=0).fit(X, y)
    display = AttackedImagesDisplay.from_estimator(
        net, X, y, eps=0.2, attack=attack, n_images=4, value_range=(0, 1)
    )
    right = np.flatnonzero(net.predict(X) == y)[:4]
    titles = [ax.get_title() for ax in display.axes_.flat]
    assert titles[:4] == y[right].tolist()
    assert titles[4:8] != titles[:4]
    drawn = np.stack([np.asarray(a.get_array()) for a in display.image_artists_])
    assert_allclose(drawn[:4], X[right, 0])
    assert_allclose(np.abs(drawn[4:8] - drawn[:4]).max(), 0.2, rtol=1e-5)
    _, ax = plt.subplots()
    names = {"up": "above"}
    options = {"eps": 0.2, "n_images": 4, "class_names": names, "ax": ax}
    display = AttackedImagesDisplay.from_estimator(net, X, y, **options)
    assert display.ax_ is ax
    expected = [names.get(label, label) for label in y[right]]
    assert [text.get_text() for text in ax.texts][:4] == expected


def test_attacked_images_errors(rng):
    images = rng.random((2, 4, 4))
    with pytest.raises(
        ValueError, match=r"same shape; got \(2, 4, 4\) and \(1, 4, 4\)"
    ):
        AttackedImagesDisplay(clean=images, attacked=images[:1])
    with pytest.raises(
        ValueError, match="clean_titles must hold one text for each of 2"
    ):
        AttackedImagesDisplay(clean=images, attacked=images, clean_titles=["a"])
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        AttackedImagesDisplay(clean=images, attacked=images + 1)
    with pytest.raises(ValueError, match=r"attack must be one of \('pgd', 'fgsm'\)"):
        AttackedImagesDisplay.from_estimator(None, images, [0, 1], eps=1, attack="x")
    y = np.array([0, 1])
    net = RegularizedNetClassifier(max_epochs=1).fit(images, y)
    wrong = 1 - net.predict(images)
    with pytest.raises(ValueError, match="gets none of the 2 images right"):
        AttackedImagesDisplay.from_estimator(net, images, wrong, eps=0.1)


# Predictions during training


@pytest.fixture
def evolution(rng):
    return PredictionEvolutionDisplay(
        x=np.linspace(-1, 1, 20),
        predictions={"none": rng.random((2, 5, 20)), "dropout": rng.random((5, 20))},
        epochs=[10, 20, 30, 40, 1000],
        points={"train": ([-1, 0, 1], [0, 1, 2]), "test": ([0.5], [-1])},
        truth=np.linspace(-2, 2, 20),
    )


def test_one_frame(evolution):
    assert evolution.plot() is evolution
    assert evolution.ax_.get_title() == "Epoch 1,000"
    assert evolution.axes_ is None
    (lines,) = evolution.lines_
    expected = evolution.predictions["none"].mean(axis=0)[-1]
    assert_allclose(lines["none"].get_ydata(), expected)
    assert_allclose(lines["dropout"].get_ydata(), evolution.predictions["dropout"][-1])
    assert lines["none"].get_linestyle() != lines["dropout"].get_linestyle()
    assert len(evolution.ax_.collections) == 1  # the band of the net with two seeds
    drawn = [line.get_xydata().tolist() for line in evolution.ax_.lines]
    assert [[-1, 0], [0, 1], [1, 2]] in drawn
    assert [[0.5, -1]] in drawn
    texts = legend_texts(evolution.ax_.get_legend())
    assert texts[:1] + sorted(texts[1:]) == [
        "none",
        "dropout",
        "test",
        "train",
        "truth",
    ]
    assert_texts_are_legible(evolution.figure_)
    assert evolution.plot(frames=1).ax_.get_title() == "Epoch 20"


def test_several_frames_have_one_scale(evolution):
    evolution.plot(frames=(0, 2, -1))
    assert [ax.get_title() for ax in evolution.axes_] == [
        *("Epoch 10", "Epoch 30", "Epoch 1,000")
    ]
    assert len({ax.get_ylim() for ax in evolution.axes_}) == 1
    assert evolution.ax_ is None
    for frame, lines in zip((0, 2, 4), evolution.lines_, strict=True):
        expected = evolution.predictions["dropout"][frame]
        assert_array_equal(lines["dropout"].get_ydata(), expected)
    figure, axes = plt.subplots(1, 2)
    assert evolution.plot(axes, frames=[0, 1]).figure_ is figure
    with pytest.raises(TypeError, match="one matplotlib Axes for each of 3 frames"):
        evolution.plot(axes, frames=[0, 1, 2])
    with pytest.raises(TypeError, match="ax must be None or one"):
        evolution.plot([1], frames=[0])
    for frames in (5, [-6], [0.5]):
        with pytest.raises(ValueError, match="frames must count the 5 frames from 0"):
            evolution.plot(frames=frames)


def test_limits_are_those_of_the_data_whatever_a_net_predicts():
    display = PredictionEvolutionDisplay(
        x=[0, 1],
        predictions={"net": [[0, 1e6], [0, np.nan]]},
        epochs=[1, 2],
        points={"train": ([0, 1], [-1, 1])},
    )
    low, high = display.plot(frames=0).ax_.get_ylim()
    assert -2 < low < -1 < 1 < high < 2
    alone = PredictionEvolutionDisplay(
        x=[0, 1], predictions={"net": [[3, 3], [3, 3]]}, epochs=[1, 2]
    )
    low, high = alone.plot().ax_.get_ylim()
    assert low < 3 < high


def test_animation_as_gif(evolution, tmp_path):
    path = evolution.save(tmp_path / "a.gif", interval=200, dpi=50)
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]
    assert not plt.get_fignums()
    with Image.open(path) as gif:
        assert gif.n_frames == 5
        assert gif.size == (350, 200)
        assert gif.info["loop"] == 0
        frames, times = [], []
        for i in range(5):
            gif.seek(i)
            frames.append(np.asarray(gif.convert("RGB")))
            times.append(gif.info["duration"])
    assert times == [200] * 4 + [800]
    assert all((frame[0, 0] == 255).all() for frame in frames)  # paper stays white
    assert len({frame.tobytes() for frame in frames}) == 5
    # The first frame is what a still shows.
    figure = plt.figure(figsize=(7, 4), dpi=50, layout="constrained")
    evolution.plot(figure.add_subplot(), frames=0)
    figure.canvas.draw()
    still = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    assert np.abs(still - frames[0]).mean() < 2


def test_animation_as_a_page_that_needs_nothing_else(evolution, tmp_path):
    path = evolution.save(tmp_path / "a.html", dpi=50)
    page = path.read_text()
    assert page.count("data:image/png;base64,") == 6  # five, and the first at once
    assert '"Epoch 10", "Epoch 20"' in page
    assert "http" not in page
    assert "%(" not in page


def test_a_file_is_there_whole_or_not_at_all(evolution, tmp_path, monkeypatch):
    path = tmp_path / "a.gif"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        evolution.save(path, dpi=30)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("a.mp4", {}, r"path must end in .gif or .html; got .*a.mp4"),
        (
            "a.gif",
            {"interval": 0},
            "interval must be a positive number of milliseconds",
        ),
        ("a.gif", {"dpi": -1}, "dpi must be"),
    ],
)
def test_animation_errors(evolution, tmp_path, name, options, match):
    with pytest.raises(ValueError, match=match):
        evolution.save(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_evolution_from_estimators():
    X, y = make_noisy_line(6, random_state=0)
    nets = {
        "net": RegularizedNetRegressor(max_epochs=25, random_state=0, lr=0.1),
        "penalty": [
            RegularizedNetRegressor(max_epochs=25, random_state=seed, lambda2=0.1)
            for seed in (0, 1)
        ],
    }
    display = PredictionEvolutionDisplay.from_estimator(
        nets, X, y, every=10, test=(X[:2], y[:2]), truth=np.square, frames=(0, -1)
    )
    assert display.epochs.tolist() == [10, 20]
    assert display.predictions["net"].shape == (1, 2, 200)
    assert display.predictions["penalty"].shape == (2, 2, 200)
    assert_allclose(display.truth, display.x**2)
    assert_array_equal(display.points["train"], [X[:, 0], y])
    after_20 = clone(nets["net"]).set_params(max_epochs=20).fit(X, y)
    grid = display.x[:, None].astype(np.float32)
    assert_allclose(display.predictions["net"][0, 1], after_20.predict(grid), rtol=1e-4)
    assert not nets["net"].initialized_
    with pytest.raises(
        ValueError, match="every must be a positive integer that is at "
    ):
        PredictionEvolutionDisplay.from_estimator(nets, X, y, every=26)
    nets["net"].set_params(max_epochs=50)
    with pytest.raises(ValueError, match="the same number of epochs"):
        PredictionEvolutionDisplay.from_estimator(nets, X, y, every=10)
    with pytest.raises(
        ValueError, match=r"X must hold numbers, in shape \(n_samples, 1"
    ):
        PredictionEvolutionDisplay.from_estimator(nets["net"], [[1, 2]], [1], every=1)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"x": [[0, 1]]}, "x must hold numbers"),
        (
            {"epochs": [1]},
            r"predictions\['net'\] must .* \(1, 2\) or \(n_seeds, 1, 2\)",
        ),
        ({"truth": [1]}, r"truth must hold numbers, in shape \(2,\)"),
        ({"points": {"train": [1, 2]}}, r"points\['train'\] must .* \(2, n_samples\)"),
        ({"predictions": {}}, "predictions must be a non-empty mapping"),
    ],
)
def test_evolution_errors(params, match):
    params = {
        "x": [0, 1],
        "predictions": {"net": [[0, 1]] * 3},
        "epochs": [1, 2, 3],
    } | (params)
    with pytest.raises(ValueError, match=match):
        PredictionEvolutionDisplay(**params)


# Searches


def make_heat_map(**params):
    params = {
        "scores": [[0.1, 0.2, np.nan], [0.3, 0.9, 0.4]],
        "row_name": "lambda1",
        "row_values": [0, 1e-3],
        "column_name": "optimizer",
        "column_values": [torch.optim.SGD, None, "adam"],
        **params,
    }
    return HeatMapDisplay(**params)


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


@pytest.fixture(scope="module")
def search(iris):
    net = RegularizedNetClassifier(max_epochs=3, lr=0.01, random_state=0)
    grid = {"lambda2": [1e-2, 0, 1e-3], "lambda1": [0, 1e-2], "batch_size": [16]}
    scoring = ["accuracy", "neg_log_loss"]
    options = {"cv": 3, "return_train_score": True, "refit": False}
    return GridSearchCV(net, grid, scoring=scoring, **options).fit(*iris)


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


# Validation curves


def make_validation_curve(rng, values=(0, 1e-4, 1e-3, 1e-2), **params):
    shape = len(values), 5
    scores = {"train_scores": rng.random(shape), "test_scores": rng.random(shape)}
    params = {"param_name": "lambda2", "param_range": values, **scores, **params}
    return ValidationCurveDisplay(**params)


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
