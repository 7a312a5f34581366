import json
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from made_images import made_bunch
from sklearn.utils import Bunch

from skreg.datasets import load_digit_images
from skreg.studies import l1_l2, load_study
from skreg.studies.common.files import (
    _checksum,
    load_result,
    save_result,
    write_atomically,
)
from skreg.studies.common.fitting import CURVES
from skreg.studies.common.report import Report, readable_table
from skreg.studies.common.sampling import choose_sizes, draw_sample
from skreg.studies.common.session import run_studies


@pytest.fixture(scope="module")
def digits():
    return load_digit_images()


@pytest.fixture(scope="module")
def result(digits):
    return l1_l2.run(digits, train_sizes=[30], seeds=range(3), epochs=60, device="cpu")


# -- sampling -----------------------------------------------------------------------


def test_samples_are_disjoint_stratified_and_decided_by_the_seed(digits):
    a, b, c = (draw_sample(digits, 30, 100, seed) for seed in (0, 0, 1))
    assert a.X_train.shape == (30, 1, 8, 8)
    assert a.X_valid.shape == (100, 1, 8, 8)
    assert (a.X_train.min(), a.X_train.max()) == (-1, 1)
    assert np.bincount(a.y_train).tolist() == [3] * 10
    assert set(np.bincount(a.y_valid)) <= {9, 10, 11}
    train = {image.tobytes() for image in a.X_train}
    assert not train & {image.tobytes() for image in a.X_valid}
    assert all(map(np.array_equal, a, b))
    assert not np.array_equal(a.X_train, c.X_train)


def test_validation_images_come_from_the_split_of_the_data():
    n = 60
    data = Bunch(
        data=np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1) / n,
        target=np.arange(n) % 2,
        target_names=["a", "b"],
        split=np.array(["train"] * 40 + ["val"] * 20),
    )
    sample = draw_sample(data, 30, 20, 0)
    assert sample.X_train.max() < 2 * 40 / n - 1
    assert sample.X_valid.min() >= 2 * 40 / n - 1
    assert len(sample.y_valid) == 20


def test_too_few_images_are_named(digits):
    with pytest.raises(ValueError, match=r"2100 images are wanted .* offers 1797"):
        draw_sample(digits, 2000, 100, 0)
    with pytest.raises(
        ValueError, match="sample of 5 images cannot show all 10 classes"
    ):
        draw_sample(digits, 5, 100, 0)


def test_a_test_set_has_no_image_in_common_with_the_others(digits):
    sample = draw_sample(digits, 30, 50, 0, n_test=200)
    parts = [
        {image.tobytes() for image in X}
        for X in (sample.X_train, sample.X_valid, sample.X_test)
    ]
    assert [len(p) for p in parts] == [30, 50, 200]  # digits has no image twice
    assert len(set.union(*parts)) == 280


def test_where_the_validation_split_is_too_small_both_come_from_the_training_part():
    data = made_bunch(60, 2, n_valid=10)
    sample = draw_sample(data, 20, 20, 0)
    valid_images = {image.tobytes() for image in 2 * data.data[50:] - 1}
    assert not valid_images & {image.tobytes() for image in sample.X_valid}
    assert len(draw_sample(data, 30, 30, 0).y_valid) == 30  # all there are


def test_rare_classes_are_in_proportion_and_no_obstacle():
    data = made_bunch(200, 2)
    data.target = (np.arange(200) < 3).astype(int)
    counts = [draw_sample(data, 50, 50, s).y_train.sum() for s in range(5)]
    assert set(counts) <= {0, 1}


@pytest.mark.parametrize(
    ("wanted", "sizes"),
    [
        ({"train": 30, "valid": 20}, {"train": 30, "valid": 20}),
        ({"train": 2, "valid": 20}, {"train": 4, "valid": 20}),
        ({"train": 104, "valid": 104}, {"train": 50, "valid": 50}),
    ],
)
def test_default_sizes_adapt_to_the_data(wanted, sizes):
    assert choose_sizes(made_bunch(100, 4), wanted) == sizes


def test_sizes_that_were_asked_for_stay():
    data = made_bunch(100, 4)
    sizes = choose_sizes(data, {"train": 60, "valid": 100}, fixed=["train"])
    assert sizes == {"train": 60, "valid": 40}
    with pytest.raises(ValueError, match=r"104 images are wanted .* offers 100"):
        choose_sizes(data, {"train": 100, "valid": 100}, fixed=["train"])


# -- the study ----------------------------------------------------------------------


def test_penalties_shrink_the_norm_and_only_those_in_the_net(result):
    norms = l1_l2.table(result)["final norm", "mean"]
    none, l1, l2, both = (norms[30, name] for name in l1_l2.NETS)
    assert both < l1 < none
    assert both < l2 < none


def test_the_number_of_threads_is_put_back(digits):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    l1_l2.run(digits, train_sizes=[10], n_valid=10, seeds=[0], epochs=1, device="cpu")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_seed_is_the_same_start_for_all_four_nets(result):
    for seed in range(3):
        runs = [run for run in result["runs"] if run["seed"] == seed]
        first = {
            run["labels"]["penalty"]: run["curves"]["valid_loss"][0] for run in runs
        }
        assert len(runs) == 4
        # After one small step from the same weights the nets have hardly parted.
        np.testing.assert_allclose(list(first.values()), first["none"], rtol=1e-3)


def test_table_is_mean_and_standard_error_over_seeds(result):
    runs = [run for run in result["runs"] if run["labels"]["penalty"] == "L1"]
    best = [max(run["curves"]["valid_acc"]) for run in runs]
    row = l1_l2.table(result).loc[(30, "L1"), "best validation accuracy"]
    assert row["mean"] == pytest.approx(np.mean(best))
    assert row["sem"] == pytest.approx(np.std(best, ddof=1) / np.sqrt(3))
    text = readable_table(l1_l2.table(result)).loc[(30, "L1")].iloc[0]
    assert text == f"{100 * row['mean']:.1f} ± {100 * row['sem']:.1f}"


def test_curves_hold_every_epoch_of_every_fit(result):
    curves = l1_l2.curves(result)
    assert len(curves) == 3 * 4 * 60
    one = curves[(curves["penalty"] == "L2") & (curves["seed"] == 1)]
    labels = {"training images": 30, "penalty": "L2"}
    run = next(r for r in result["runs"] if (r["labels"], r["seed"]) == (labels, 1))
    assert one["epoch"].tolist() == list(range(1, 61))
    assert one["param_norm"].tolist() == run["curves"]["param_norm"]


def made_up(differences):
    """A result in which L1 differs from no penalty by so much in each seed."""
    runs = []
    for seed, difference in enumerate(differences):
        for name in l1_l2.NETS:
            accuracy = 0.5 + 0.1 * seed + difference * (name == "L1")
            curves = {key: [accuracy] for key in CURVES}
            labels = {"training images": 30, "penalty": name}
            run = {"labels": labels, "seed": seed, "curves": curves, "diverged": False}
            runs.append(run)
    return {"settings": {"training images": [30]}, "runs": runs}


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.10, 0.11, 0.09], r"L1 \+10\.0 ± 0\.6 points \(higher\)"),
        ([-0.10, -0.11, -0.09], r"L1 -10\.0 ± 0\.6 points \(lower\)"),
        # 2.1 standard errors of three seeds: not enough for a t test.
        ([0.01, 0.10, 0.05], r"L1 \+5\.3 ± 2\.6 points \(no clear effect\)"),
        ([0.10], r"L1 \+10\.0 points \(one seed, no error bar\)"),
    ],
)
def test_findings_claim_no_more_than_the_seeds_show(differences, verdict):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sentence = l1_l2.findings(made_up(differences))[0]
    assert re.search(verdict, sentence), sentence
    if len(differences) > 1:
        assert "L2 +0.0 ± 0.0 points (no clear effect)" in sentence


@pytest.mark.filterwarnings("ignore:Training diverged")
def test_a_diverging_fit_leaves_a_result_that_can_be_written(digits, tmp_path):
    result = l1_l2.run(
        digits, train_sizes=[30], seeds=[0, 1], epochs=5, lr=1e20, device="cpu"
    )
    json.loads(json.dumps(result, allow_nan=False))
    assert {len(run["curves"]["valid_acc"]) for run in result["runs"]} == {5}
    assert "8 of 8 fits diverged" in l1_l2.findings(result)[-1]
    Report(tmp_path).add(l1_l2, result)


# -- the report ---------------------------------------------------------------------


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.open, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.images.append(attrs)
        if tag in ("link", "script", "iframe") or "href" in attrs:
            self.links.append(tag)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report_is_one_page_with_every_figure_and_file(result, tmp_path):
    report = Report(tmp_path / "new" / "folder")
    report.add(l1_l2, result)
    page = Page(report.path.read_text())
    names = list(l1_l2.captions(result))
    assert not page.open
    assert not page.links
    assert len(page.images) == len(names) == 4
    assert all(i["src"].startswith("data:image/png;base64,") for i in page.images)
    assert all(i["alt"] for i in page.images)
    assert l1_l2.QUESTION in page.text
    for sentence in l1_l2.findings(result):
        assert sentence in page.text
    files = {path.name for path in report.output.iterdir()}
    figures = {f"l1-l2-{name}.png" for name in names}
    assert files == {"report.html", "l1-l2-curves.csv"} | figures


def test_report_on_several_studies_lists_them_and_says_what_was_left_out(
    result, tmp_path
):
    report = Report(tmp_path)
    report.leave_out(l1_l2, "too few <images>")
    report.add(l1_l2, result)
    page = Page(report.path.read_text())
    assert not page.open
    assert page.links == ["a", "a"]
    assert "This study was not run: too few <images>" in page.text
    assert len(page.images) == 4


def test_names_of_classes_cannot_inject_html(result, tmp_path):
    evil = "<script>alert(1)</script>"
    settings = result["settings"] | {"classes": [evil]}
    report = Report(tmp_path)
    report.add(l1_l2, result | {"settings": settings})
    assert evil not in report.path.read_text()


def test_figures_are_closed(result, tmp_path):
    import matplotlib.pyplot as plt

    plt.close("all")
    Report(tmp_path).add(l1_l2, result)
    assert not plt.get_fignums()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_atomically(path, b"old")

    def full_disk(*args):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# -- results on disk, and going on --------------------------------------------------


def test_a_result_is_read_back_only_if_it_is_sound_and_answers_the_request(tmp_path):
    path, request, answer = tmp_path / "a.json", {"epochs": 3}, {"runs": [0.1, None]}
    assert load_result(path, request) == (None, "it was not finished")
    save_result(path, answer, request)
    assert load_result(path, request) == (answer, "")
    assert load_result(path, {"epochs": 4}) == (None, "a.json has other settings")
    whole = path.read_bytes()
    damages = {
        "half-written": whole[: len(whole) // 2],
        "empty": b"",
        "not text": b"\xff\xfe" + whole,
        "a changed number": whole.replace(b"0.1", b"0.2"),
        "a changed request": whole.replace(b": 3", b": 4"),
        "no checksum": b'{"format": 1, "request": {"epochs": 3}, "result": {}}',
        "infinity": whole.replace(b"0.1", b"1e999"),
        "not a number": b'{"format": 1, "a": NaN}',
        "too deep": b"[" * 100_000,
        "no request": json.dumps(
            {
                "format": 1,
                "result": {},
                "sha256": _checksum({"format": 1, "result": {}}),
            }
        ).encode(),
    }
    for damage, content in damages.items():
        assert content != whole
        path.write_bytes(content)
        asked = {"epochs": 4} if damage == "a changed request" else request
        assert load_result(path, asked) == (None, "a.json is damaged"), damage
    path.write_text("[]")
    assert load_result(path, request) == (None, "a.json has another format")
    path.unlink()
    path.mkdir()
    assert load_result(path, request) == (None, "a.json is damaged")


class Tiny:
    """A study that takes no time."""

    TITLE, QUESTION, FULL = "Tiny", "Is it small?", {"epochs": 9}
    n_runs = 0

    @classmethod
    def run(
        cls,
        data,
        *,
        train_sizes=(30, 100),
        n_valid=100,
        seeds=range(2),
        epochs=3,
        device="auto",
        name="images",
        progress=iter,
    ):
        cls.n_runs += 1
        settings = {"data": name, "epochs": epochs, "seeds": seeds}
        settings["training images"] = train_sizes
        return {"study": "tiny", "settings": settings, "runs": [0.1] * len(seeds)}

    @staticmethod
    def table(result):
        return pd.DataFrame({("runs", "mean"): [0.1], ("runs", "sem"): [np.nan]})

    @staticmethod
    def curves(result):
        return pd.DataFrame(result["runs"])

    @staticmethod
    def findings(result):
        return ["It is."]

    @staticmethod
    def plot(result):
        return {}

    captions = plot


class Interrupted(Tiny):
    TITLE = "Interrupted"

    @staticmethod
    def run(data, *, device="auto", name="images", seeds=1, progress=iter):
        raise KeyboardInterrupt


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Run tiny studies, and resume what was left in the folder."""
    studies = {"tiny": Tiny, "other": Tiny, "interrupted": Interrupted}
    studies["fails"] = Fails
    monkeypatch.setattr("skreg.studies.common.session.load_study", studies.get)

    def run(*names, data=None, **options):
        data = made_bunch(400, 2) if data is None else data
        options = {"device": "cpu", "resume": True} | options
        return list(run_studies(names or ["tiny"], data, tmp_path, **options))

    return run


class Fails(Tiny):
    TITLE = "Fails"

    @classmethod
    def captions(cls, result):
        raise IndexError("no such figure")


def test_a_study_that_fails_does_not_end_the_others(quick, tmp_path):
    failed, other = quick("fails", "other")
    assert failed.result is None
    assert failed.note == "it failed with IndexError: no such figure"
    assert isinstance(failed.error, IndexError)
    assert other.result is not None
    assert failed.note in Page((tmp_path / "report.html").read_text()).text


def test_sizes_that_are_given_twice_count_once(quick):
    (outcome,) = quick(train_sizes=[30, 20, 30])
    assert outcome.result["settings"]["training images"] == [30, 20]
    sizes = l1_l2.run(
        made_bunch(100, 2), train_sizes=[10, 10], n_valid=10, seeds=[0], epochs=1
    )["settings"]["training images"]
    assert sizes == [10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, r"seeds=\[\] must be different integers, at least one"),
        ({"seeds": [0, 0]}, r"seeds=\[0, 0\] must be different integers"),
        ({"epochs": 0}, "epochs=0 must be a positive integer"),
    ],
)
@pytest.mark.parametrize("name", ["l1-l2", "lambda-tuning", "tuning-danger"])
def test_seeds_and_epochs_are_checked(name, options, message):
    options = {"seeds": [0], "epochs": 1} | options
    with pytest.raises(ValueError, match=message):
        load_study(name).run(made_bunch(600, 2), device="cpu", **options)


def test_names_of_studies_are_checked():
    with pytest.raises(ValueError, match="no study 'nope'; choose from l1-l2, lambda"):
        load_study("nope")


def test_few_images_for_the_folds_are_named():
    with pytest.raises(ValueError, match="2 training images cannot be cut into 3 fold"):
        load_study("lambda-tuning").run(
            made_bunch(60, 2), n_train=2, n_test=10, seeds=[0], epochs=1, device="cpu"
        )


def test_dollars_in_names_of_classes_and_classes_that_are_not_shown(tmp_path):
    names = [rf"$\frob{i}$" for i in range(12)]
    data = made_bunch(120, 12)
    data.target_names = np.array(names)
    result = l1_l2.run(
        data, train_sizes=[24], n_valid=24, seeds=[0], epochs=1, device="cpu"
    )
    Report(tmp_path).add(l1_l2, result)  # draws
    assert l1_l2.captions(result)["images"] == "Images of the first 10 of 12 classes."


def test_a_finished_study_is_kept_and_a_damaged_one_computed_anew(quick, tmp_path):
    (first,) = quick(resume=False)
    assert not first.kept
    sound = (tmp_path / "tiny.json").read_bytes()
    n_runs = Tiny.n_runs
    (again,) = quick()
    assert again.kept
    assert again.result == first.result
    assert Tiny.n_runs == n_runs
    (tmp_path / "tiny.json").write_bytes(sound[:-100])
    (repaired,) = quick()
    assert not repaired.kept
    assert repaired.note == "tiny.json is damaged"
    assert (tmp_path / "tiny.json").read_bytes() == sound
    assert not quick(resume=False)[0].kept


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 4},
        {"seeds": 1},
        {"full": True},
        {"n_valid": 20},
        {"data": made_bunch(400, 2, seed=1)},
        {"data": made_bunch(100, 2)},
        {"data_name": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_result_of_other_settings_is_not_taken_for_this_one(quick, change):
    quick()
    (other,) = quick(**change)
    assert not other.kept
    assert other.note == "tiny.json has other settings"


def test_an_interruption_keeps_the_finished_studies(quick, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        quick("tiny", "interrupted", "other")
    assert Page((tmp_path / "report.html").read_text()).text.count("It is.") == 1
    assert [outcome.kept for outcome in quick("tiny", "other")] == [True, False]
    assert Page((tmp_path / "report.html").read_text()).text.count("It is.") == 2


def test_defaults_of_the_course_and_options(quick):
    def epochs(**options):
        return quick(**options)[0].result["settings"]["epochs"]

    assert epochs() == 3
    assert epochs(full=True) == 9
    assert epochs(full=True, epochs=4) == 4


def test_data_too_small_for_a_study_are_named_and_the_rest_goes_on(quick, tmp_path):
    (outcome,) = quick(data=made_bunch(12, 10))
    assert outcome.result is None
    wanted = "20 images are wanted (10 for training, 10 for validation)"
    assert f"{wanted}, but the data set offers 12" in outcome.note
    assert outcome.note in Page((tmp_path / "report.html").read_text()).text
    (outcome,) = quick(data=made_bunch(40, 2))
    assert outcome.result["settings"]["training images"] == [20]
    assert "100 training, 100 validation" in outcome.result["settings"]["note"]
    (outcome,) = quick(data=made_bunch(400, 2))
    assert "note" not in outcome.result["settings"]
    with pytest.raises(ValueError, match="device='gpu' cannot be used"):
        quick(device="gpu")
