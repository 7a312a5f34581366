"""The documentation leaves nothing out, and what it shows runs. Needs no Sphinx."""

import ast
import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

import skreg
from skreg.regularizers import REGULARIZERS
from skreg.studies import NAMES

DOCS = Path(__file__).parents[1] / "docs"
API = DOCS / "api"
# Pages whose examples are doctests; test_guide.py looks after the others.
PAGES = [
    page.stem
    for page in sorted((DOCS / "guide").glob("*.rst"))
    if ">>>" in page.read_text(encoding="utf-8")
]
MODULES = (
    "attacks",
    "backprop",
    "batching",
    "callbacks",
    "datasets",
    "displays",
    "losses",
    "modules",
    "penalties",
    "regularizers",
    "robustness",
    "selection",
    "transforms",
)
DEVELOPMENT = sorted((DOCS / "development").glob("*.rst"))
EXAMPLES = sorted((DOCS / "gallery").glob("plot_*.py"))


def listed(page):
    """Return the names in the tables of an API page."""
    text = (API / f"{page}.rst").read_text(encoding="utf-8")
    if f"automodule:: skreg.{page}\n   :members:\n" in text:
        return list(import_module(f"skreg.{page}").__all__)
    tables = re.findall(r"autosummary::\n(?:   :.+\n)*\n((?:   \S+\n)+)", text + "\n")
    return [name for table in tables for name in table.split()]


@pytest.mark.parametrize("name", MODULES)
def test_all_that_is_public_is_in_the_reference(name):
    names = listed(name)
    module = import_module(f"skreg.{name}")
    assert len(names) == len(set(names))
    assert set(module.__all__) == set(names)
    assert all(hasattr(module, one) for one in names)


def test_the_reference_has_the_estimators_and_the_studies():
    assert listed("estimators") == skreg.__all__
    studies = [name.replace("-", "_") for name in NAMES]
    assert [name for name in listed("studies") if name in studies] == studies


def test_no_module_is_missing_from_the_reference():
    pages = {page.stem for page in API.glob("*.rst")} - {"index"}
    assert pages == {*MODULES, "estimators", "studies"}
    package = Path(skreg.__file__).parent
    paths = [path for path in package.iterdir() if path.suffix in ("", ".py")]
    layers = {path.stem for path in paths if path.name[0] not in "_."}
    assert layers - {"training"} == pages


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("_plain_figures")
def test_the_guide_runs(page):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    path = DOCS / "guide" / f"{page}.rst"
    outcome = doctest.testfile(
        str(path), module_relative=False, optionflags=flags, encoding="utf-8"
    )
    assert outcome.attempted > 5
    assert outcome.failed == 0


@pytest.mark.parametrize("page", DEVELOPMENT, ids=lambda page: page.stem)
def test_the_pages_for_developers_run_and_name_what_there_is(page):
    text = page.read_text(encoding="utf-8")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome = doctest.testfile(
        str(page), module_relative=False, optionflags=flags, encoding="utf-8"
    )
    assert outcome.failed == 0
    assert outcome.attempted == text.count(">>> ")
    root = DOCS.parent
    for path in re.findall(r"``((?:skreg|tests|docs)/[\w/.]+)``", text):
        assert (root / path).exists(), path
    for name in re.findall(r"``(skreg(?:\.\w+)+)``", text):
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name
    for path, name in re.findall(
        r"``(\w+)``(?: in| of)\s+``skreg/([\w/]+)(?:/__init__)?\.py``", text
    ):
        module = import_module("skreg." + name.replace("/", "."))
        assert hasattr(module, path), path


def test_the_list_of_pages_for_developers_is_complete():
    text = (DOCS / "development" / "index.rst").read_text(encoding="utf-8")
    assert {page.stem for page in DEVELOPMENT} <= {*text.split(), "index"}
    assert len(DEVELOPMENT) > 4


def test_pre_commit_has_the_ruff_of_the_tests():
    root = DOCS.parent
    hooks = (root / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    settings = (root / "pyproject.toml").read_text(encoding="utf-8")
    allowed = re.search(r'"ruff>=(\d+\.\d+),', settings)[1]
    assert re.search(r"ruff-pre-commit\s+rev: v(\d+\.\d+)", hooks)[1] == allowed


@pytest.fixture
def _plain_figures():
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_use_what_there_is(path):
    """It runs when the site is built; here names and parameters are looked at."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    compile(tree, str(path), "exec")
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("skreg"):
            module = import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        name = getattr(getattr(node, "func", None), "id", None)
        if name in skreg.__all__:
            given = {k.arg for k in node.keywords if k.arg and "__" not in k.arg}
            estimator: type[BaseEstimator] = getattr(skreg, name)
            assert given <= set(estimator._explicit_params())


def test_there_are_examples_and_the_guide_shows_them():
    assert len(EXAMPLES) == 8
    text = "".join(
        p.read_text(encoding="utf-8") for p in (DOCS / "guide").glob("*.rst")
    )
    for path in EXAMPLES:
        assert f"sphx_glr_auto_gallery_{path.name}`" in text, path.name


def test_the_map_of_the_notebooks_leads_somewhere():
    text = (DOCS / "notebook.rst").read_text(encoding="utf-8")
    names = set(re.findall(r"(?<!`)`(skreg\.[\w.]+)`", text))
    assert len(names) > 30
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name
    studies = set(re.findall(r"study\s+``([\w-]+)``", text))
    assert studies == set(NAMES)


def regularizer_parameters():
    return [name for kind in REGULARIZERS for name in kind.parameters]


def test_the_table_of_the_guide_holds_every_regularizer():
    text = (DOCS / "guide" / "regularizers.rst").read_text(encoding="utf-8")
    table = text.partition(".. list-table::")[2].partition("\n\nHere")[0]
    rows = table.split("   * - ")[2:]
    first_cells = " ".join(row.partition("\n")[0] for row in rows)
    assert set(regularizer_parameters()) <= set(re.findall(r"``(\w+)``", first_cells))
    assert {row.count("\n     - ") for row in rows} == {5}


def test_the_readme_names_every_regularizer():
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    table = text.partition("| You want | You write |")[2].partition("\n\n")[0]
    codes = " ".join(re.findall(r"`([^`]+)`", table))
    names = [*regularizer_parameters(), "dropout", "early_stopping"]
    assert [name for name in names if not re.search(rf"\b{name}\b", codes)] == []


def test_each_regularizer_has_a_section_of_the_guide():
    text = (DOCS / "guide" / "regularizers.rst").read_text(encoding="utf-8")
    head, _, sections = text.partition("\n\nHere")
    assert "\n---" not in head  # the table is at the top
    names = [*regularizer_parameters(), "dropout", "early_stopping"]
    assert [n for n in names if not re.search(rf"``{n}(=[^`]+)?``", sections)] == []
    # That one is in the table as well is asked above, of those with parameters.
    assert {"dropout", "early_stopping"} <= {*re.findall(r"\* - ``(\w+)``", head)}
