import os
import signal
import subprocess
import sys
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from skreg.__main__ import main
from skreg.studies import NAMES, load_study

QUICK = ["--seeds", "1", "--epochs", "2", "--train-sizes", "10", "--device", "cpu"]


def test_main_job_prints_a_table_and_writes_a_report(tmp_path, capsys):
    assert main([*QUICK, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "best validation accuracy (%)" in printed.out
    for name in ("none", "L1", "L2", "L1 + L2"):
        assert f"| {name} " in printed.out
    assert str(tmp_path / "out" / "report.html") in printed.out
    assert "1/1" in printed.err  # progress
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_studies_are_listed_with_what_they_ask(capsys):
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    for name in NAMES:
        question = " ".join(load_study(name).QUESTION.split())
        assert f"\n{name}\n" in "\n" + printed
        assert question in " ".join(printed.split())


def test_images_of_the_user(tmp_path, capsys):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for split, n in (("train", 20), ("val", 60)):
            for label in ("ape", "bee"):
                for i in range(n):
                    buffer = BytesIO()
                    pixels = rng.integers(0, 255, (9, 7, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(buffer, "PNG")
                    archive.writestr(f"{split}/{label}/{i}.png", buffer.getvalue())
    options = ["--data", str(tmp_path / "mine.zip"), "--output", str(tmp_path / "out")]
    assert main([*QUICK, "--val-size", "40", *options]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "ape, bee" in page
    assert "mine.zip" in page
    assert "<dd>40</dd>" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere.zip"], "--data nowhere.zip: there is no such file"),
        (
            ["--train-sizes", "5000"],
            "5010 images are wanted (5000 for training, 10 for validation), but the "
            "data set offers 1797",
        ),
        (["--device", "gpu"], "device='gpu' cannot be used on this machine"),
        (["--output", "FILE"], "is a file; name a folder"),
        (["--output", "/proc"], "--output /proc cannot be written to ("),
        (["--device", "meta"], "device='meta' cannot be used on this machine"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_2(options, message, tmp_path, capsys):
    (tmp_path / "FILE").write_text("kept")
    options = [str(tmp_path / "FILE") if o == "FILE" else o for o in options]
    out = [] if "--output" in options else ["--output", str(tmp_path / "out")]
    assert main([*QUICK, *out, *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("skreg: error: ")
    assert message in error
    assert (tmp_path / "FILE").read_text() == "kept"


@pytest.mark.parametrize("option", ["--seeds", "--epochs", "--train-sizes"])
@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5"])
def test_numbers_must_be_positive(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        main([option, value])
    assert stop.value.code == 2
    assert option in capsys.readouterr().err


def test_interruption_says_so(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("skreg.studies.l1_l2.fit_all", interrupted)
    assert main(["--output", str(tmp_path)]) == 130
    error = capsys.readouterr().err
    assert "interrupted; the studies that were finished are kept" in error
    assert not list(tmp_path.iterdir())


def test_an_unknown_study_is_named_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["l1l2"])
    assert stop.value.code == 2
    assert "there is no study 'l1l2'; choose from all, l1-l2" in capsys.readouterr().err


@pytest.mark.slow
def test_several_studies_one_report_and_going_on(tmp_path, capsys):
    command = ["learning-rate", "l1-l2", *QUICK, "--val-size", "10"]
    command += ["--output", str(tmp_path)]
    assert main(command) == 0
    page = (tmp_path / "report.html").read_text()
    # In the order of the report, whatever that of the command.
    assert page.index("<h1>L1 and L2 penalties") < page.index("<h1>The learning rate")
    assert "kept from an earlier run" not in capsys.readouterr().out
    path = tmp_path / "l1-l2.json"
    path.write_bytes(path.read_bytes()[:-1])
    assert main([*command, "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "learning-rate: kept from an earlier run" in printed
    assert "l1-l2: run, since l1-l2.json is damaged" in printed


NEVER_ENDING = """
import sys, time
from skreg.__main__ import main
from skreg.studies import NAMES, load_study
from skreg.studies import memorization

def wait(*args):
    print("waiting", file=sys.stderr, flush=True)
    time.sleep(600)

memorization.fit_all = wait
sys.exit(main(["l1-l2", "memorization", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_finished_study_outlives_its_program(tmp_path, stop, capsys):
    options = [*QUICK, "--val-size", "10", "--output", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-c", NEVER_ENDING, *options], stderr=subprocess.PIPE
    ) as program:
        while b"waiting" not in (line := program.stderr.readline()):
            assert line
        program.send_signal(stop)
        program.stderr.read()
    assert program.returncode == (130 if stop == signal.SIGINT else -stop)
    assert "<h1>L1 and L2 penalties" in (tmp_path / "report.html").read_text()
    assert main(["l1-l2", *options, "--resume"]) == 0
    assert "l1-l2: kept from an earlier run" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left


def test_python_m_skreg():
    done = subprocess.run(
        [sys.executable, "-m", "skreg", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--data digits|animal-faces|PATH" in done.stdout
