"""Accuracies under attack, and attacked images."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from display_data import assert_texts_are_legible, legend_texts
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skreg import RegularizedNetClassifier
from skreg.displays import AttackedImagesDisplay, RobustnessDisplay

EPS = [0, 0.05, 0.1, 0.3]


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
