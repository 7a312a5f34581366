"""The study of cocktails: what it says of made-up and of real numbers."""

import re
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.model_selection import ParameterSampler

from skreg import RegularizedNetClassifier
from skreg.datasets import load_digit_images
from skreg.modules import MLP
from skreg.regularizers import REGULARIZERS
from skreg.studies import cocktail
from skreg.studies.common import figures, regularizers, tables
from skreg.studies.common.regularizers import FACTOR, NONE, TECHNIQUES
from skreg.studies.common.sampling import draw_sample

CLEAR = [0.100, 0.102, 0.098, 0.101, 0.099]
SMALL = [0.011, 0.009, 0.010, 0.012, 0.008]
NOISE = [0.05, -0.06, 0.01, -0.03, 0.04]


def minus(values):
    return [-value for value in values]


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        # Clear, and the largest.
        (
            {"L1": NOISE, "L2": CLEAR, "SAM": SMALL},
            r"It is L2, which makes the net better: \+10\.0 points .* \+9\.8 to "
            r"\+10\.2\) of test accuracy\. Every other effect is clearly smaller\.$",
        ),
        # A harm as large as it: both are named.
        (
            {"L2": CLEAR, "max-norm": minus(np.subtract(CLEAR, NOISE)), "SAM": SMALL},
            r"It is L2, .* cannot be told from it in size: max-norm\.$",
        ),
        # The largest is a harm.
        (
            {"L2": SMALL, "max-norm": minus(CLEAR)},
            r"It is max-norm, which makes the net worse: -10\.0 points .* "
            r"The largest gain is that of L2: \+1\.0 points",
        ),
        (
            {"L2": NOISE, "max-norm": minus(CLEAR)},
            r"the net worse: .* No technique alone is clearly better than none\.$",
        ),
        # No effect.
        (
            {"L1": NOISE, "L2": minus(NOISE)},
            r"It cannot be told: of 2 comparisons .* none shows a clear difference",
        ),
        ({"L1": [0.0] * 4, "L2": [0.0] * 4}, r"It cannot be told"),
        # Too few seeds.
        (
            {"L1": [0.01], "L2": [0.02]},
            r"cannot be told from one seed\. In this one it is L2: \+2\.0 points "
            r"\(one seed, no interval\)\.$",
        ),
        # Two seeds would do if they agreed.
        ({"L1": [0.1, 0.3], "L2": [0.0, 0.1]}, r"It cannot be told"),
        # Fits that diverged are left out.
        ({"L1": [np.nan] * 5, "L2": [*CLEAR[:4], np.nan]}, r"It is L2, "),
        ({"L1": [np.nan]}, r"It cannot be told: no fit came to an end\."),
    ],
)
def test_the_largest_effect_is_told_only_as_far_as_the_seeds_show(differences, words):
    made = {name: np.array(values, float) for name, values in differences.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sentence = cocktail.largest_effect(made)
    assert sentence.startswith("Which technique alone has the largest effect? ")
    assert re.search(words, sentence), sentence


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (CLEAR, "Yes: test accuracy +10.0 points"),
        (minus(CLEAR), "No: test accuracy -10.0 points"),
        (NOISE, "It cannot be told: test accuracy +0.2 points"),
        ([0.1], "It cannot be told: test accuracy +10.0 points (one seed"),
    ],
)
def test_a_searched_cocktail_is_better_only_if_the_interval_says_so(gain, words):
    assert words in cocktail.searched_is_better(np.array(gain))


def test_verdicts_sort_what_they_are_about():
    text = tables.describe_by_verdict(
        {"a": NOISE, "b": CLEAR, "c": [np.nan], "d": [0.1]}, tables.percent
    )
    assert text == (
        "higher: b +10.0 ± 0.1; no clear effect: a +0.2 ± 2.1; one seed, no error bar: "
        "d +10.0; no fit came to an end: c (points)"
    )


# -- the figures --------------------------------------------------------------------


@pytest.fixture
def _closed_figures():
    yield
    plt.close("all")


@pytest.mark.usefixtures("_closed_figures")
def test_what_is_beyond_the_scale_is_an_arrow_with_its_number():
    rows = {"L1": NOISE, "all": [-70.0, -80.0], "lost": [np.nan], "one": [0.01]}
    (ax,) = figures.plot_rows(
        rows, xlabel="Points", spread=tables.interval, scale_of=["L1", "one", "lost"]
    ).axes
    assert [text.get_text() for text in ax.texts] == ["-75.0"]
    assert ax.get_xlim()[0] > -1
    assert [label.get_text() for label in ax.get_yticklabels()] == [*rows]
    (ax,) = figures.plot_rows(rows, xlabel="Points", reference="one").axes
    assert not ax.texts
    assert ax.get_xlim()[0] < -80
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert dotted[0].get_xdata()[0] == 0.01


@pytest.mark.usefixtures("_closed_figures")
def test_rows_without_a_number_can_be_drawn():
    figures.plot_rows({"lost": [np.nan]}, xlabel="Points").canvas.draw()
    (ax,) = figures.plot_counts({"L1": 0, "L2": 3}, total=5, xlabel="Searches").axes
    assert [text.get_text() for text in ax.texts] == ["0", "3"]
    assert ax.get_xlim()[1] > 5


# -- the techniques -----------------------------------------------------------------


def test_no_regulariser_is_missing():
    """A new one belongs into the list that overview and cocktail take theirs from."""
    on = {name for one in TECHNIQUES.values() for name in one.parameters}
    drawn = set(regularizers.search_space())
    for kind in REGULARIZERS:
        for parameters in (on, drawn):
            assert parameters & set(kind.parameters), kind.__name__
    assert {one.family for one in TECHNIQUES.values()} == {*regularizers.FAMILIES}
    assert {*regularizers.COURSE} < {*TECHNIQUES}


def test_each_technique_turns_something_on():
    plain = RegularizedNetClassifier().get_params()
    for name, technique in TECHNIQUES.items():
        changed = {k: v for k, v in technique.parameters.items() if plain[k] != v}
        assert changed, name


def test_a_tenth_of_all_is_a_tenth_of_each_and_bounds_are_wider():
    full, weak = (regularizers.all_together(share) for share in (1, 0.1))
    assert full.keys() == weak.keys()
    assert weak["lambda1"] == pytest.approx(full["lambda1"] / 10)
    assert weak["max_norm"] == pytest.approx(10 * full["max_norm"])
    assert weak["augment"][0].degrees == pytest.approx(full["augment"][0].degrees / 10)
    assert weak["average"] == full["average"] == "swa"


def test_a_third_of_the_techniques_is_on_in_a_cocktail():
    space = regularizers.search_space()
    draws = [*ParameterSampler(space, 300, random_state=0)]
    found = [regularizers.ingredients(draw) for draw in draws]
    shares = {name: np.mean([name in one for one in found]) for name in TECHNIQUES}
    of_l1 = shares.pop("L1") + shares.pop("proximal L1")
    assert of_l1 == pytest.approx(1 / 3, abs=0.1)
    assert [*shares.values()] == pytest.approx([1 / 3] * len(shares), abs=0.1)


# -- the study ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def result():
    return cocktail.run(
        load_digit_images(),
        n_train=40,
        n_valid=30,
        n_test=60,
        seeds=[0, 1],
        epochs=6,
        n_candidates=2,
        n_folds=2,
        device="cpu",
    )


def test_every_net_begins_alike_and_none_is_missing(result):
    for seed in (0, 1):
        runs = [run for run in result["runs"] if run["seed"] == seed]
        names = [run["labels"][FACTOR] for run in runs]
        others = [cocktail.ALL, cocktail.WEAK, cocktail.SEARCHED]
        assert names == [NONE, *TECHNIQUES, *others]


def test_numbers_of_table_and_sentences_are_those_of_the_runs(result):
    scores = {
        name: np.array([run["test_acc"] for run in cocktail._runs(result, name)])
        for name in (NONE, "L2", cocktail.SEARCHED)
    }
    row = cocktail.table(result).loc["L2"]
    assert row["test accuracy", "mean"] == pytest.approx(scores["L2"].mean())
    difference = scores["L2"] - scores[NONE]
    assert row["test accuracy against none", "mean"] == pytest.approx(difference.mean())
    gain = scores[cocktail.SEARCHED] - scores[NONE]
    sentence = cocktail.findings(result)[2]
    assert tables.with_interval(gain, tables.percent) in sentence


def test_what_was_chosen_is_counted(result):
    chosen = [run["ingredients"] for run in cocktail._runs(result, cocktail.SEARCHED)]
    counts = cocktail._times_chosen(result)
    assert sum(counts.values()) == sum(map(len, chosen))
    assert {*counts} == {*TECHNIQUES}


@pytest.fixture(scope="module")
def digits_sample():
    return draw_sample(load_digit_images(), 100, 20, 3, n_test=20)


def test_held_out_images_have_no_part_in_the_search(digits_sample):
    changed = digits_sample._replace(
        X_test=None, y_test=None, X_valid=None, y_valid=None
    )
    net = RegularizedNetClassifier(MLP, max_epochs=1, batch_size=-1, device="cpu")
    found = [cocktail._search(net, one, 2, 2, 3) for one in (digits_sample, changed)]
    assert found[0].best_params_.keys() == found[1].best_params_.keys()
    scores = [search.cv_results_["mean_test_score"] for search in found]
    np.testing.assert_array_equal(*scores)


def test_where_too_few_images_can_be_held_out_no_search_stops_early(digits_sample):
    net = RegularizedNetClassifier(max_epochs=1, batch_size=-1, device="cpu")
    for n_images, is_asked in ((100, True), (50, False)):
        part = digits_sample._replace(
            X_train=digits_sample.X_train[:n_images],
            y_train=digits_sample.y_train[:n_images],
        )
        best = cocktail._search(net, part, 1, 2, 0).best_params_
        assert ("early_stopping" in best) == is_asked
        assert "early stopping" not in regularizers.ingredients(
            best | {"early_stopping": False}
        )
        regularizers.ingredients(best)


@pytest.mark.filterwarnings("ignore:Training diverged", "ignore:Scoring failed")
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_fits_that_diverge_are_told():
    result = cocktail.run(
        load_digit_images(),
        n_train=20,
        n_valid=20,
        n_test=20,
        seeds=[0],
        epochs=3,
        n_candidates=1,
        n_folds=2,
        lr=1e30,
        device="cpu",
    )
    sentences = cocktail.findings(result)
    assert "It cannot be told" in sentences[0]
    assert "fits diverged" in sentences[-1]
    assert cocktail.plot(result).keys() == cocktail.captions(result).keys()
