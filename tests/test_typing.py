"""Static tools see what a constructor takes. Needs pyright, as .ci/run has it."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import skreg

CASES = '''
import numpy as np
import torch
from torch import nn
from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.regularizers import MaxNorm

RegularizedNetClassifier(lr="x")
RegularizedNetRegressor(max_norm="a")
RegularizedNetClassifier(adversarial_norm="l1")
RegularizedNetClassifier(
    nn.Linear, module__num_units=3, optimizer=torch.optim.SGD, optimizer__momentum=0.9,
    lr=1, lambda1=1e-3, penalize=["fc.*"], max_norm=None, regularizers=[MaxNorm(3)],
    hidden_layer_sizes=(8, 8), classes=np.array([0, 1]), class_weight={0: 1.0, 1: 2.0},
    dtype=np.float64, device=torch.device("cpu"), random_state=np.random.RandomState(0),
)
'''  # fmt: skip
ESTIMATORS = skreg.RegularizedNetClassifier, skreg.RegularizedNetRegressor


def calls():
    """Yield a wrong call for each parameter of each estimator."""
    for estimator in ESTIMATORS:
        for parameter in inspect.signature(estimator).parameters.values():
            if parameter.kind is not parameter.VAR_KEYWORD:
                yield f"skreg.{estimator.__name__}({parameter.name}=Nothing())"


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """Return the parameters that pyright complains of, by file and line."""
    pytest.importorskip("pyright", reason="pyright is not installed")
    folder = tmp_path_factory.mktemp("static")
    (folder / "cases.py").write_text(CASES)
    wrong = "import skreg\nclass Nothing: ...\n" + "\n".join(calls())
    (folder / "wrong.py").write_text(wrong)
    settings = {"extraPaths": [str(Path(skreg.__file__).parents[1])]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, "--outputjson", "-p", str(folder)], capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    found = {"cases.py": {}, "wrong.py": {}}
    for problem in json.loads(done.stdout)["generalDiagnostics"]:
        line = problem["range"]["start"]["line"]
        found[Path(problem["file"]).name][line] = problem["message"]
    return found


def test_does_pyright_find_wrong_types_and_no_others(problems):
    lines = CASES.splitlines()
    found = {lines[n]: message for n, message in problems["cases.py"].items()}
    assert list(found) == [line for line in lines if line.endswith('")')]
    assert len(found) == 3
    for line, message in found.items():
        name = line.partition("(")[2].partition("=")[0]
        assert f'to parameter "{name}"' in message


def test_does_pyright_know_every_parameter_of_the_signatures(problems):
    lines = ["", "", *calls()]
    assert len(lines) > 70
    found = {lines[n] for n in problems["wrong.py"]}
    assert [call for call in lines[2:] if call not in found] == []
