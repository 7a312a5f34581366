"""The study of exact zeros: what it says of made-up and of real numbers."""

import re
import warnings

import numpy as np
import pytest

from skreg.datasets import load_digit_images
from skreg.studies import sparsity
from skreg.studies.common import tables

LAMBDAS = [0.0, 0.1]
N_WEIGHTS = 1000


def made_up(zeros, informative=5, noise=0, accuracy=0.8):
    """Make a result: what proximal steps set to zero, and what features survive.

    Parameters
    ----------
    zeros : sequence of float
        The share of each seed; the subgradient sets none to zero.
    informative, noise : int or sequence of int
        How many features the strongest group lasso keeps, of each seed.
    """
    n_true, n_noise = (np.broadcast_to(n, len(zeros)) for n in (informative, noise))
    runs = []
    for seed, share in enumerate(zeros):
        for penalty in (sparsity.SUBGRADIENT, sparsity.PROXIMAL, sparsity.GROUPS):
            for value in LAMBDAS:
                is_on = value > 0
                kept = np.ones(50)
                if penalty == sparsity.GROUPS and is_on:
                    kept[n_true[seed] : 5] = kept[5 + n_noise[seed] :] = 0
                left = 1 - share * (is_on and penalty == sparsity.PROXIMAL)
                runs.append(
                    {
                        "labels": {"penalty": penalty, "lambda": value},
                        "seed": seed,
                        "diverged": False,
                        "curves": {"valid_acc": [accuracy]},
                        "test_acc": accuracy - 0.1 * is_on,
                        "n_weights": N_WEIGHTS,
                        "nonzero": round(N_WEIGHTS * left),
                        "active_inputs": int(kept.sum()),
                        "importances": kept.tolist(),
                    }
                )
    settings = {"lambda1": LAMBDAS, "lambda_group": LAMBDAS}
    return {"settings": settings | {"seeds": [*range(len(zeros))]}, "runs": runs}


@pytest.mark.parametrize(
    ("zeros", "words"),
    [
        (
            [0.50, 0.52, 0.51],
            r"Yes, with 1 of 1 .* 51\.0 ± 0\.6 % .* and 0\.0 ± 0\.0 %",
        ),
        ([0.0, 0.0, 0.0], r"No: the shares of zeros are the same to a point\."),
        ([0.0, 0.9, 0.1], r"It cannot be told from 3 seeds\."),
        ([0.5], r"It cannot be told from one seed\. .* 50\.0 % of the weights"),
    ],
)
def test_zeros_are_told_only_as_far_as_the_seeds_show(zeros, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sentence = sparsity.exact_zeros(made_up(zeros))
    assert sentence.startswith("Are proximal steps needed for exact zeros? ")
    assert re.search(words, sentence), sentence


@pytest.mark.parametrize(
    ("informative", "noise", "words"),
    [
        ([5, 5, 5], [0, 0, 0], r"Yes\. .* 5\.0 of 5 .* 0\.0 of 45 .* in 3 of 3 seeds"),
        ([5, 5, 5], [3, 0, 2], r"Yes\. .* 5\.0 of 5 .* 1\.7 of 45 .* in 1 of 3 seeds"),
        ([5, 5, 5], [45, 45, 45], r"No: it keeps as large a share of the noise\."),
        ([0, 1, 0], [20, 30, 25], r"No: it rather keeps the noise\."),
        ([5, 0, 1], [0, 10, 20], r"It cannot be told from 3 seeds\."),
        ([5], [0], r"It cannot be told from one seed\. .* in 1 of 1 seeds"),
    ],
)
def test_features_are_told_only_as_far_as_the_seeds_show(informative, noise, words):
    result = made_up([0.5] * len(noise), informative, noise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sentence = sparsity.features_found(result)
    assert re.search(words, sentence), sentence
    assert "lambda_group = 0.1" in sentence  # of equal accuracies, the strongest


def test_answers_come_first():
    starts = ["Are proximal", "What do the zeros cost", "Does the group lasso"]
    sentences = sparsity.findings(made_up([0.5, 0.6], [5, 5], [0, 0]))
    assert all(s.startswith(t) for s, t in zip(sentences, starts, strict=False))


def test_validation_chooses_a_strength_and_test_images_tell_its_cost():
    """Of equal validation accuracies the strongest, which the test images dislike."""
    sentence = sparsity.findings(made_up([0.5, 0.6, 0.55]))[1]
    assert "What do the zeros cost? Some accuracy. With lambda1 = 0.1" in sentence
    assert "450 of 1,000 weights are left" in sentence
    assert "Test accuracy against no penalty: -10.0 points" in sentence


def test_alike_is_said_only_where_the_interval_is_narrow():
    assert tables.answer([0.001, -0.002, 0.0, 0.001], 0.01) == "alike"
    assert tables.answer([0.1, -0.2, 0.0, 0.1], 0.01) == "unclear"
    assert tables.answer([0.1, 0.11, 0.12], 0.01) == "higher"
    assert tables.answer([-0.1, -0.11, -0.12], 0.01) == "lower"
    assert tables.answer([0.1, 0.2, 0.16], 0.01, 20) == "unclear"
    assert tables.answer([0.3], 0.01) == tables.answer([], 0.01) == "unclear"
    assert tables.answer([0.3, np.nan, 0.3], 0.01) == "higher"


def test_an_interval_is_that_of_students_t():
    low, high = tables.interval([1.0, 2.0, 3.0, np.nan])
    # 4.303 is the 97.5 % quantile with two degrees of freedom.
    assert low == pytest.approx(2 - 4.303 / 3**0.5, abs=1e-3)
    assert high == pytest.approx(2 + 4.303 / 3**0.5, abs=1e-3)
    text = tables.with_interval([0.01, 0.02, 0.03], tables.percent)
    assert text == "+2.0 points (95 % interval -0.5 to +4.5)"
    assert tables.with_interval([0.01], tables.percent).endswith("no interval)")


def test_of_models_about_as_good_as_the_best_the_simplest_is_taken():
    scores = np.array([[0.80, 0.90, 0.88, 0.70], [0.84, 0.96, 0.94, 0.70]])
    assert tables.within_one_error(scores) == 2
    assert tables.within_one_error(scores[:1]) == 1  # one seed has no error


@pytest.fixture(scope="module")
def result():
    return sparsity.run(
        load_digit_images(),
        n_train=50,
        n_valid=50,
        n_test=50,
        seeds=[0, 1],
        epochs=60,
        lambda1_range=(0, 3e-3),
        lambda_group_range=(0, 1e-2),
        device="cpu",
    )


def test_only_proximal_steps_make_exact_zeros(result):
    table = sparsity.table(result)[sparsity.ZEROS, "mean"]
    assert table[sparsity.SUBGRADIENT, "0.003"] == 0
    assert table[sparsity.PROXIMAL, "0.003"] > 0.3
    assert table[sparsity.PROXIMAL, "0"] == 0


def test_numbers_of_the_table_are_those_of_the_runs(result):
    runs = tables.chosen(result["runs"], penalty=sparsity.PROXIMAL)
    nonzero = [r["nonzero"] for r in runs if r["labels"]["lambda"] == 3e-3]
    row = sparsity.table(result).loc[(sparsity.PROXIMAL, "0.003")]
    assert row["non-zero weights", "mean"] == np.mean(nonzero)
    assert row[sparsity.ZEROS, "mean"] == pytest.approx(
        1 - np.mean(nonzero) / runs[0]["n_weights"]
    )
    share = f"{100 * row[sparsity.ZEROS, 'mean']:.1f}"
    assert share in sparsity.findings(result)[0]


def test_the_group_lasso_keeps_what_decides_the_class_and_drops_noise(result):
    informative, noise = sparsity._kept(result)
    assert (informative == 1).all()
    assert (noise[:, 0] == 1).all()  # without penalty
    assert (noise[:, 1] < 0.7).all()


def test_made_features_are_what_they_are_called():
    sample = sparsity.make_features(2000, seed=3)
    parts = sample.X_train, sample.X_valid, sample.X_test
    assert {part.shape for part in parts} == {(2000, 50)}
    assert len({part.tobytes() for part in parts}) == 3
    by_class = [sample.X_train[sample.y_train == k].mean(axis=0) for k in (0, 1)]
    apart = np.abs(by_class[1] - by_class[0])
    assert apart[:5].min() > 0.4
    assert apart[5:].max() < 0.2
    assert not np.array_equal(sample.X_train, sparsity.make_features(2000, 4).X_train)
