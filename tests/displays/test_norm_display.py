"""Norms of nets by epoch, and of their layers."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from display_data import (
    N_EPOCHS,
    N_SEEDS,
    PARAMETERS,
    assert_texts_are_legible,
    band_limits,
    legend_texts,
    make_history,
)
from matplotlib.colors import to_hex
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.testing import assert_allclose, assert_array_equal

from skreg.displays import NormDisplay


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


# -- sparsity -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epochs", "both"])
def test_sparsity_has_an_axis_of_its_own(norms, layer_norms, rng, kind):
    sparsity = {"L2": rng.random((N_SEEDS, N_EPOCHS))}
    display = NormDisplay(norms=norms, layer_norms=layer_norms, sparsity=sparsity)
    display.plot(kind=kind)
    right = display.sparsity_ax_
    left = display.ax_ if kind == "epochs" else display.axes_[0]
    assert right is not left
    assert right.bbox.bounds == left.bbox.bounds
    assert right.get_ylabel() == "Share of zeros"
    assert right.get_ylim()[0] == 0
    assert right.get_ylim()[1] >= 1
    (line,) = display.sparsity_lines_.values()
    assert_array_equal(line.get_xdata(), np.arange(1, N_EPOCHS + 1))
    assert_allclose(line.get_ydata(), sparsity["L2"].mean(axis=0))
    assert line.axes is right
    assert line.get_linestyle() == ":"
    assert line.get_color() == display.lines_["L2"].get_color()
    assert display.lines_["L2"].axes is left
    figure = display.figure_
    legend = left.get_legend() if kind == "epochs" else figure.legends[0]
    assert {"none", "L2", "norm", "share of zeros"} <= {*legend_texts(legend)}
    assert_texts_are_legible(figure)


def test_without_sparsity_or_epochs_there_is_no_such_axis(norms, layer_norms):
    display = NormDisplay(norms=norms, layer_norms=layer_norms).plot()
    assert display.sparsity_ax_ is None
    assert display.sparsity_lines_ == {}
    assert len(display.figure_.axes) == 1
    sparse = NormDisplay(norms=norms, layer_norms=layer_norms, sparsity=norms)
    assert sparse.plot(kind="layers").sparsity_ax_ is None


def test_sparsity_from_history(rng):
    runs = [make_history(rng, 3) for _ in range(2)]
    for run in runs:
        for epoch in run:
            epoch["sparsity"] = rng.random()
    display = NormDisplay.from_history({"L1": runs, "none": [make_history(rng, 3)]})
    assert list(display.sparsity) == list(display.sparsity_lines_) == ["L1"]
    expected = [run[:, "sparsity"] for run in runs]
    assert_allclose(display.sparsity["L1"], expected)
    assert NormDisplay.from_history(make_history(rng, 3)).sparsity is None


@pytest.mark.parametrize(
    ("sparsity", "match"),
    [
        ([1.0], "sparsity must be a non-empty mapping"),
        ({"L1": [1.0]}, r"nets of norms, which are \['L2'\]; got \['L1'\]"),
        ({"L2": 1.0}, r"sparsity\['L2'\] must have shape"),
    ],
)
def test_sparsity_errors(sparsity, match):
    with pytest.raises(ValueError, match=match):
        NormDisplay(norms={"L2": [1.0]}, sparsity=sparsity)
