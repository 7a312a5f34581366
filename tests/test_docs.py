"""The documentation names what there is; the site itself is built by Sphinx."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PUBLIC = ("modules", "datasets", "transforms", "penalties", "objective", "backprop")
PUBLIC += ("callbacks", "batching", "robustness", "attacks", "displays")


def names_in(page):
    return set(re.findall(r"skreg(?:\.\w+)+", (DOCS / page).read_text()))


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_lists_all_that_is_public(module):
    public = {
        f"skreg.{module}.{name}"
        for name in import_module(f"skreg.{module}").__all__
        if name.upper() != name or name == "MLP"  # constants are explained where used
    }
    listed = {name for name in names_in("api.rst") if name.split(".")[1] == module}
    assert listed == public


@pytest.mark.parametrize(
    "page", ["api.rst", "notebook.rst", "guide/regularization.rst"]
)
def test_pages_name_what_exists(page):
    for name in names_in(page):
        path, _, attribute = name.rpartition(".")
        assert hasattr(import_module(path), attribute), name


EXAMPLES = sorted((DOCS / "gallery").glob("plot_*.py"))


def test_there_is_a_gallery():
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_import_what_exists(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    for node in imports:
        for alias in node.names:
            assert hasattr(import_module(node.module), alias.name), alias.name
