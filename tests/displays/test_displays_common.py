"""What all displays have in common: means, palettes, axes."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from display_data import make_heat_map, make_validation_curve
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from numpy.testing import assert_allclose, assert_array_equal

from skreg.displays import (
    ImageGridDisplay,
    LearningCurvesDisplay,
    NormDisplay,
    RobustnessDisplay,
)
from skreg.displays.common import MARKERS, OKABE_ITO, mean_and_error, net_styles


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
