"""Predictions from epoch to epoch, also as an animation."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from display_data import assert_texts_are_legible, legend_texts
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone

from skreg import RegularizedNetRegressor
from skreg.datasets import make_noisy_line
from skreg.displays import PredictionEvolutionDisplay


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
