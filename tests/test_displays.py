import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgba
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import Bunch
from skorch.history import History

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.displays import ImageGridDisplay, LearningCurvesDisplay, NormDisplay
from skreg.displays._common import MARKERS, OKABE_ITO, mean_and_error, net_styles

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
