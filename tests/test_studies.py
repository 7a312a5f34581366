import json
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from sklearn.utils import Bunch

from skreg.datasets import load_digit_images
from skreg.studies import l1_l2
from skreg.studies.report import readable_table, write_atomically, write_report
from skreg.studies.sampling import draw_sample


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
        first = {run["net"]: run["curves"]["valid_loss"][0] for run in runs}
        assert len(runs) == 4
        # After one small step from the same weights the nets have hardly parted.
        np.testing.assert_allclose(list(first.values()), first["none"], rtol=1e-3)


def test_table_is_mean_and_standard_error_over_seeds(result):
    best = [max(r["curves"]["valid_acc"]) for r in result["runs"] if r["net"] == "L1"]
    row = l1_l2.table(result).loc[(30, "L1"), "best validation accuracy"]
    assert row["mean"] == pytest.approx(np.mean(best))
    assert row["sem"] == pytest.approx(np.std(best, ddof=1) / np.sqrt(3))
    text = readable_table(l1_l2.table(result)).loc[(30, "L1")].iloc[0]
    assert text == f"{100 * row['mean']:.1f} ± {100 * row['sem']:.1f}"


def test_curves_hold_every_epoch_of_every_fit(result):
    curves = l1_l2.curves(result)
    assert len(curves) == 3 * 4 * 60
    one = curves[(curves["net"] == "L2") & (curves["seed"] == 1)]
    run = next(r for r in result["runs"] if (r["net"], r["seed"]) == ("L2", 1))
    assert one["epoch"].tolist() == list(range(1, 61))
    assert one["param_norm"].tolist() == run["curves"]["param_norm"]


def made_up(differences):
    """A result in which L1 differs from no penalty by so much in each seed."""
    runs = []
    for seed, difference in enumerate(differences):
        for name in l1_l2.NETS:
            accuracy = 0.5 + 0.1 * seed + difference * (name == "L1")
            curves = {key: [accuracy] for key in l1_l2.CURVES}
            runs.append({"net": name, "n_train": 30, "seed": seed, "curves": curves})
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
    write_report({l1_l2: result}, tmp_path)


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
    report = write_report({l1_l2: result}, tmp_path / "new" / "folder")
    page = Page(report.read_text())
    names = list(l1_l2.captions(result))
    assert not page.open
    assert not page.links
    assert len(page.images) == len(names) == 4
    assert all(i["src"].startswith("data:image/png;base64,") for i in page.images)
    assert all(i["alt"] for i in page.images)
    assert l1_l2.QUESTION in page.text
    for sentence in l1_l2.findings(result):
        assert sentence in page.text
    files = {path.name for path in report.parent.iterdir()}
    figures = {f"l1-l2-{name}.png" for name in names}
    assert files == {"report.html", "l1-l2-curves.csv", "l1-l2.json"} | figures
    assert json.loads((report.parent / "l1-l2.json").read_text()) == result


def test_names_of_classes_cannot_inject_html(result, tmp_path):
    evil = "<script>alert(1)</script>"
    settings = result["settings"] | {"classes": [evil]}
    report = write_report({l1_l2: result | {"settings": settings}}, tmp_path)
    assert evil not in report.read_text()


def test_figures_are_closed(result, tmp_path):
    import matplotlib.pyplot as plt

    plt.close("all")
    write_report({l1_l2: result}, tmp_path)
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
