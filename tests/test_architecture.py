"""The layers: an import inside the package may point only upward in this list."""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import skreg

LAYERS = [
    "_utils",
    "datasets",
    "transforms",
    "modules",
    "backprop",
    "penalties",
    "losses",
    "attacks",
    "regularizers",
    "training",
    "callbacks",
    "estimators",
    "batching",
    "selection",
    "robustness",
    "displays",
    "studies",
    "__main__",
]
# Files that stand on data and numbers alone.
INDEPENDENT = {"datasets", "modules", "penalties", "attacks", "displays"}
# RobustnessDisplay.from_estimator computes what it draws, as scikit-learn's do.
EXCEPTIONS = {("displays", "robustness")}
PACKAGE = Path(find_spec("skreg").origin).parent
DOCS = Path(__file__).parents[1] / "docs"


def layer_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [
                node.module or "",
                *(f"{node.module}.{a.name}" for a in node.names),
            ]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            root, _, rest = name.partition(".")
            if root == "skreg" and rest and rest.split(".")[0] in LAYERS:
                yield rest.split(".")[0]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_upward(path):
    layer = layer_of(path)
    if layer == "__init__":
        return
    rank = LAYERS.index(layer)
    for imported in imported_layers(path):
        assert imported == layer or LAYERS.index(imported) < rank, imported
        is_free = layer not in INDEPENDENT or (layer, imported) in EXCEPTIONS
        assert imported == layer or is_free, imported


def test_the_reference_begins_with_the_estimators_and_follows_the_layers():
    text = (DOCS / "api" / "index.rst").read_text(encoding="utf-8")
    first, *others = text.partition(":maxdepth: 1")[2].split()
    assert first == "estimators"
    left_out = {"_utils", "training", "estimators", "__main__"}
    assert others == [layer for layer in LAYERS if layer not in left_out]


def test_the_map_for_developers_has_the_layers_in_their_order():
    text = (DOCS / "development" / "architecture.rst").read_text(encoding="utf-8")
    rows = re.findall(r"^``skreg/(\w+)(?:\.py)?`` +\S", text, re.MULTILINE)
    assert rows == LAYERS


def test_the_test_of_imports_sees_them():
    seen = {layer for path in FILES for layer in imported_layers(path)}
    assert {"penalties", "regularizers", "callbacks", "displays", "datasets"} <= seen


def test_every_module_has_its_tests():
    """A file of its name, or a folder of its name with files in it."""
    layers = {layer_of(path) for path in FILES} - {"__init__", "__main__", "_utils"}
    here = Path(__file__).parent
    tests = {path.stem.removeprefix("test_") for path in here.glob("test_*.py")}
    tests |= {path.parent.name for path in here.glob("*/test_*.py")}
    assert layers | {"main"} <= tests


@pytest.mark.parametrize("absent", ["assert ", "print("])
def test_what_the_package_does_without(absent):
    for path in FILES:
        if layer_of(path) == "__main__" and absent == "print(":
            continue
        code = ast.unparse(ast.parse(path.read_text()))
        found = [line for line in code.splitlines() if line.strip().startswith(absent)]
        assert not found, path


def loaded_after(code):
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_does_not_wait_for_torch():
    loaded = loaded_after(
        "from skreg.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    )
    assert not {"torch", "sklearn", "matplotlib", "numpy"} & loaded


def test_displays_do_not_load_torch():
    assert "torch" not in loaded_after("import skreg.displays")


def test_estimators_do_not_load_matplotlib():
    loaded = loaded_after("from skreg import RegularizedNetClassifier")
    assert "skorch" in loaded
    assert "matplotlib" not in loaded


def test_submodules_are_there_on_first_use():
    loaded = loaded_after("import skreg\nskreg.displays.HeatMapDisplay")
    assert "skreg.displays" in loaded
    assert "torch" not in loaded


def test_dir_shows_what_is_public_and_nothing_else():
    layers = {layer_of(path) for path in FILES}
    public = {layer for layer in layers if not layer.startswith("_")} - {"training"}
    assert set(dir(skreg)) == public | {*skreg.__all__, "__version__"}
    assert all(getattr(skreg, name) is not None for name in dir(skreg))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'display'"):
        _ = skreg.display
