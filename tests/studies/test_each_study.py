"""What each study finds, on small settings with fixed seeds."""

import inspect
import json

import numpy as np
import pandas as pd
import pytest
import torch
from made_images import made_bunch
from torch import nn

from skreg.datasets import load_digit_images
from skreg.modules import MLP, AnimalNet
from skreg.studies import (
    NAMES,
    adversarial,
    augmentation,
    dropout_images,
    dropout_line,
    early_stopping,
    lambda_tuning,
    learning_rate,
    load_study,
    memorization,
    overview,
    tuning_danger,
)
from skreg.studies.common import fitting, regularizers, tables
from skreg.studies.common.report import readable_table
from skreg.studies.common.sampling import draw_sample


@pytest.fixture(scope="module")
def digits():
    return load_digit_images()


def curve(run, key):
    return np.array(run["curves"][key], dtype=float)


def of(result, **labels):
    return tables.chosen(result["runs"], **labels)


# -- what all have in common --------------------------------------------------------

SMALL = {
    "n_train": 12,
    "train_sizes": [12],
    "n_valid": 9,
    "n_test": 15,
    "n_candidates": 2,
    "n_made": 12,
    "every": 1,
    "steps": 2,
    "batch_size": 6,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_seeds", [1, 2])
def test_every_study_has_the_same_form(name, n_seeds):
    import matplotlib.pyplot as plt

    study, data = load_study(name), made_bunch(60, 3, n_valid=30, shape=(3, 6, 5))
    parameters = inspect.signature(study.run).parameters
    assert set(study.FULL) <= set(parameters)
    assert {"seeds", "epochs", "device", "name", "progress"} <= set(parameters)
    arguments = {key: value for key, value in SMALL.items() if key in parameters}
    wrapped = []
    result = study.run(
        data,
        **arguments,
        seeds=[*range(n_seeds)],
        epochs=2,
        device="cpu",
        name="made",
        progress=lambda fits: wrapped.extend(fits) or fits,
    )
    assert wrapped
    assert result["study"] == name
    assert result["settings"]["seeds"] == [*range(n_seeds)]
    # As it will be when it is read from its file.
    kept = json.loads(json.dumps(result, allow_nan=False))
    assert kept == result
    sentences = study.findings(kept)
    assert all(isinstance(s, str) and s[-1] in ".!" for s in sentences)
    if n_seeds == 1:
        assert not any("(higher)" in s or "(lower)" in s for s in sentences)
        assert "±" not in " ".join(sentences)
    table = study.table(kept)
    assert set(table.columns.get_level_values(1)) == {"mean", "sem"}
    assert len(readable_table(table)) == len(table) >= 2
    assert len(study.curves(kept))
    if n_seeds == 2:
        drawn = study.plot(kept)
        assert set(study.captions(kept)) == set(drawn) != set()
        plt.close("all")


def test_holm_asks_more_of_many_comparisons():
    values = np.array([1.0, 1.2, 0.7, 1.5])  # p = 0.01
    noise = {f"n{i}": np.array([-1.0, 1.0, -0.5, 0.6]) for i in range(6)}
    assert tables.judge({"a": values}) == {"a": "higher"}
    assert tables.judge({"a": -values}) == {"a": "lower"}
    assert set(tables.judge({"a": values} | noise).values()) == {"no clear effect"}


def test_seeds_whose_fit_diverged_are_left_out_of_a_comparison():
    rows = [("a", s, 0.0) for s in range(4)]
    rows += [("b", s, [1.0, 1.1, 0.9, np.nan][s]) for s in range(4)]
    frame = pd.DataFrame(rows, columns=["net", "seed", "norm"])
    assert tables.compare(frame, "norm", "net", "a") == "b +1.00 ± 0.06 (higher)"


# -- memorization -------------------------------------------------------------------


@pytest.fixture(scope="module")
def memorized(digits):
    return memorization.run(digits, n_train=40, seeds=range(2), epochs=70, device="cpu")


def test_random_labels_are_learnt_by_heart_and_validation_stays_at_chance(memorized):
    runs = of(memorized, labels="random", regulariser="none")
    assert [curve(run, "train_acc")[-1] for run in runs] == [1, 1]
    valid = [curve(run, "valid_acc")[-1] for run in runs]
    # Images of a digit tend to get the same answer: 200 of them vary like far fewer.
    assert np.mean(valid) == pytest.approx(0.1, abs=0.08)
    true = of(memorized, labels="true", regulariser="none")
    assert min(curve(run, "valid_acc")[-1] for run in true) > 0.6


def test_a_penalty_does_not_keep_a_net_from_learning_by_heart(memorized):
    for run in of(memorized, labels="random", regulariser="L2"):
        assert curve(run, "train_acc")[-1] > 0.9


def test_random_labels_take_longer_and_larger_weights(memorized):
    for seed in range(2):
        true, random = (
            next(
                run
                for run in of(memorized, labels=labels, regulariser="none")
                if run["seed"] == seed
            )
            for labels in ("true", "random")
        )
        assert np.argmax(curve(true, "train_acc") == 1) < np.argmax(
            curve(random, "train_acc") == 1
        )
        assert curve(true, "param_norm")[-1] < curve(random, "param_norm")[-1]


def test_findings_of_memorization_are_those_of_the_numbers(memorized):
    text = " ".join(memorization.findings(memorized))
    assert "Labels random: 2 of 2 nets without regularisation reach 100 %" in text


# -- early stopping -----------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(digits):
    return early_stopping.run(
        digits, n_train=80, seeds=range(2), epochs=70, patiences=[4, 15], device="cpu"
    )


def test_early_stopping_returns_the_weights_of_the_best_epoch(stopped):
    for run in stopped["runs"]:
        if "best_epoch" not in run:
            continue
        valid = curve(run, "valid_acc")
        assert run["best_epoch"] == np.nanargmax(valid) + 1
        assert run["final_valid_acc"] == np.nanmax(valid)
        assert run["norm"] == curve(run, "param_norm")[run["best_epoch"] - 1]


def test_it_is_the_same_net_up_to_where_it_stops(stopped):
    for labels in ("true", "25 % random"):
        long = of(stopped, labels=labels, stopping="no stopping")
        for patience in (4, 15):
            short = of(stopped, labels=labels, stopping=f"patience {patience}")
            for a, b in zip(long, short, strict=True):
                n = np.isfinite(curve(b, "valid_acc")).sum()
                assert n == min(70, b["best_epoch"] + patience + 1)
                np.testing.assert_allclose(
                    curve(a, "param_norm")[:n], curve(b, "param_norm")[:n], rtol=1e-4
                )


def test_with_noisy_labels_stopping_pays(stopped):
    long = of(stopped, labels="25 % random", stopping="no stopping")
    short = of(stopped, labels="25 % random", stopping="patience 15")
    assert np.mean([r["test_acc"] for r in short]) > 0.05 + np.mean(
        [r["test_acc"] for r in long]
    )


# -- lambda -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(digits):
    return lambda_tuning.run(
        digits, n_train=60, n_test=100, seeds=[0], epochs=25, n_folds=2, device="cpu"
    )


@pytest.mark.parametrize("parameter", ["lambda1", "lambda2"])
def test_lambda_up_norm_down(tuned, parameter):
    norms = tuned["runs"][0]["validation curves"][parameter]["norm"]
    assert (np.diff(norms) < 0).all()


def test_the_grid_holds_the_validation_curves_and_the_best_value_is_chosen(tuned):
    run, ranges = tuned["runs"][0], tuned["settings"]
    curves, grid = run["validation curves"], np.array(run["grid"])
    np.testing.assert_allclose(grid[:, 0], curves["lambda1"]["valid"])
    np.testing.assert_allclose(grid[0], curves["lambda2"]["valid"])
    for parameter in ("lambda1", "lambda2"):
        valid = curves[parameter]["valid"]
        best = run["chosen"][f"best {parameter}"]["parameters"][parameter]
        assert valid[ranges[parameter].index(best)] == max(valid)
    both = run["chosen"]["best of both"]["parameters"]
    places = [ranges[name].index(both[name]) for name in ("lambda1", "lambda2")]
    assert grid[tuple(places)] == grid.max()


# -- augmentation -------------------------------------------------------------------


def test_augmentation_is_off_in_validation(digits):
    seen = []

    def spy(x):
        seen.append(len(x))
        return torch.zeros_like(x)

    net = fitting.image_net(
        AnimalNet, digits, lr=1e-2, epochs=4, device="cpu", augment=spy
    )
    case = fitting.Case(
        {"net": "spied"}, net, lambda s: draw_sample(digits, 20, 30, s, 40)
    )
    fitting.fit_all([case], [0])
    assert seen == [20] * 4


def test_what_moves_into_sight_is_black():
    moves = augmentation.make_augmentations(0.1, 0.4, 30)["shifts, rotations"].train()
    assert (moves(torch.full((5, 1, 8, 8), -1.0)) == -1).all()
    moved = moves(torch.ones(50, 1, 8, 8))
    assert moved.min() == -1
    assert moved.max() <= 1 + 1e-6


def test_the_picture_shows_the_same_images_changed(digits):
    result = augmentation.run(
        digits, n_train=20, n_valid=10, n_test=10, seeds=[0], epochs=1, device="cpu"
    )
    samples = result["samples"]
    images = np.array(samples["images"]).reshape(3, samples["columns"], -1)
    plain, flips, moves = images
    assert (plain != flips).any(axis=1).sum() < (plain != moves).any(axis=1).sum()
    assert sorted(plain[0]) == sorted(flips[0])  # the same pixels elsewhere


# -- dropout ------------------------------------------------------------------------


def test_dropout_on_images_slows_learning_by_heart_and_keeps_weights_small(digits):
    result = dropout_images.run(
        digits, n_train=50, n_test=50, seeds=[0], epochs=15, p=(0, 0.8), device="cpu"
    )
    none, much = (of(result, part="sweep", net=f"p = {p}")[0] for p in ("0", "0.8"))
    assert curve(none, "train_acc")[-1] > curve(much, "train_acc")[-1]
    assert curve(none, "param_norm")[-1] > curve(much, "param_norm")[-1]
    # All begin with the same weights: those of the net with the course's dropout.
    course = of(result, part="course", net="AnimalNetDropout")[0]
    assert curve(course, "param_norm")[0] == pytest.approx(
        curve(none, "param_norm")[0], rel=1e-2
    )


def test_without_dropout_the_line_runs_through_every_point():
    result = dropout_line.run(seeds=[0, 1], epochs=300, every=100, device="cpu")
    none, dropout = (of(result, net=net) for net in dropout_line.NETS)
    for run in none:
        x, y = run["points"]
        predicted = np.interp(x, result["line"][0], run["predictions"][-1])
        assert np.abs(predicted - y).max() < 0.5
        assert len(run["predictions"]) == 3
    distance = [
        np.mean([curve(r, "valid_loss")[-1] for r in n]) for n in (none, dropout)
    ]
    assert distance[0] > distance[1]
    # The last prediction is the one whose loss the curve ends with.
    error = np.subtract(none[0]["predictions"][-1], result["line"][1])
    assert np.mean(error**2) == pytest.approx(
        curve(none[0], "valid_loss")[-1], rel=1e-4
    )


def test_the_animation_is_a_gif_with_a_frame_for_each_picture():
    from io import BytesIO

    from PIL import Image

    result = dropout_line.run(seeds=[0], epochs=6, every=2, device="cpu")
    with Image.open(BytesIO(dropout_line.plot(result)["animation"])) as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == 3


# -- the learning rate --------------------------------------------------------------


def test_a_rate_that_reads_well_has_one_digit():
    rates = [learning_rate.round_to_one_digit(r) for r in (0.0123, 0.96, 4.4e-5)]
    assert rates == [0.01, 1.0, 4e-5]


def test_the_suggested_rate_is_better_than_one_far_below(digits):
    result = learning_rate.run(
        digits, n_train=300, n_valid=100, seeds=[0, 1], epochs=6, device="cpu"
    )
    suggested = f"{result['settings']['suggested learning rate']:g}, suggested"
    valid = {
        label: np.mean(
            [curve(r, "valid_acc")[-1] for r in of(result, learning_rate=label)]
        )
        for label in ("0.0005", suggested)
    }
    assert valid[suggested] > valid["0.0005"] + 0.3


# -- the danger of tuning -----------------------------------------------------------


def test_growth_is_the_mean_over_orders_of_best_so_far():
    valid, test = [0.1, 0.4, 0.2], [0.3, 0.2, 0.5]
    grown = tuning_danger.growth(valid, test, seed=0)
    # Exactly: over all six orders.
    assert grown["best"] == pytest.approx([0.7 / 3, (2 * 0.4 + 0.2) / 3, 0.4], abs=0.02)
    assert grown["test"] == pytest.approx([1 / 3, (2 * 0.2 + 0.5) / 3, 0.2], abs=0.02)
    assert (np.diff(grown["best"]) >= 0).all()
    # Of equal scores the first is kept, as in a search.
    tied = tuning_danger.growth([0.5, 0.5], [0.0, 1.0], seed=0)
    assert tied["test"][0] == tied["test"][1]


def test_permuted_labels_best_score_rises_above_chance_while_nested_stays():
    sizes = {"n_train": 24, "n_valid": 16, "n_test": 100}
    noise = made_bunch(400, 3)
    noise.data = np.random.default_rng(0).random((400, 1, 5, 5)).astype(np.float32)
    result = tuning_danger.run(
        noise, **sizes, n_candidates=8, seeds=range(5), epochs=4, device="cpu"
    )
    runs = of(result, labels="permuted")
    for run in runs:  # the more candidates, the better the best looks
        assert run["growth"]["best"][-1] > run["growth"]["best"][0] + 0.05
    chance = np.mean([run["chance"] for run in runs])
    best, test = (np.mean([r["growth"][k][-1] for r in runs]) for k in ("best", "test"))
    nested = np.mean([run["nested"] for run in runs])
    assert best > chance + 0.05
    assert test == pytest.approx(chance, abs=0.05)
    assert nested == pytest.approx(chance, abs=0.08)
    text = " ".join(tuning_danger.findings(result))
    assert "8 candidates instead of one: best validation accuracy +" in text


def test_where_there_is_something_to_learn_it_is_learnt():
    sizes = {"n_train": 24, "n_valid": 16, "n_test": 100}
    result = tuning_danger.run(
        made_bunch(200, 2), **sizes, n_candidates=2, seeds=[0], epochs=5, device="cpu"
    )
    (run,) = of(result, labels="true")
    assert run["growth"]["test"][-1] > 0.9
    assert run["nested"] > 0.9


def test_permuted_labels_are_the_same_labels_elsewhere(digits):
    sample = draw_sample(digits, 30, 20, 0, 50)
    permuted = tuning_danger._permuted(sample, 0)

    def labels(s):
        return np.concatenate([s.y_train, s.y_valid, s.y_test])

    assert (
        np.bincount(labels(permuted)).tolist() == np.bincount(labels(sample)).tolist()
    )
    assert (labels(permuted) == labels(sample)).mean() < 0.3
    assert permuted.X_train is sample.X_train


# -- attacks, and all together ------------------------------------------------------


@pytest.fixture(scope="module")
def attacked(digits):
    return adversarial.run(
        digits,
        n_train=100,
        n_valid=20,
        n_test=100,
        seeds=[0, 1],
        epochs=35,
        device="cpu",
    )


def test_robust_accuracy_begins_with_the_score_and_falls(attacked):
    for run in attacked["runs"]:
        for accuracies in run["robust"].values():
            assert accuracies[0] == run["test_acc"]
            assert (np.diff(accuracies) <= 0).all()
        # Several steps find at least about what one does.
        pgd, fgsm = (np.array(run["robust"][name]) for name in ("PGD", "FGSM"))
        assert (pgd <= fgsm + 0.03).all()


def test_adversarial_training_withstands_attacks_better(attacked):
    place = attacked["settings"]["sizes in the L-infinity norm"].index(0.1)
    none, trained = (
        np.array(
            [run["robust"]["PGD"][place] for run in of(attacked, regulariser=name)]
        )
        for name in ("none", "adversarial")
    )
    assert (trained > none).all()


def test_pictures_differ_by_no_more_than_the_size_of_the_attack(attacked):
    assert set(attacked["pictures"]) == {"none", "adversarial"}
    for pictures in attacked["pictures"].values():
        clean, changed = (np.array(pictures[k], int) for k in ("clean", "attacked"))
        # 0.1 in [-1, 1] is 12.75 of 255, and each of the two is rounded.
        assert 10 < np.abs(clean - changed).max() <= 13


def test_overview_compares_nets_that_begin_alike(digits):
    result = overview.run(
        digits, n_train=30, n_valid=20, n_test=30, seeds=[0], epochs=3, device="cpu"
    )
    first = {
        r["labels"]["regulariser"]: curve(r, "param_norm")[0] for r in result["runs"]
    }
    np.testing.assert_allclose(list(first.values()), first["none"], rtol=0.1)
    net = fitting.image_net(MLP, digits, lr=1e-3, epochs=1, device="cpu")
    assert isinstance(net.classes, np.ndarray)
    assert len(result["runs"]) == len({*first}) == 1 + len(regularizers.TECHNIQUES)
    assert nn.Sequential in augmentation.OnBlack.__mro__
