"""The guide and the README promise nothing that does not happen."""

import re
import textwrap
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch.nn import Bilinear
from torch.utils.data import ChainDataset, DataLoader

import skreg
from skreg import RegularizedNetClassifier, transforms
from skreg.datasets import load_digit_images
from skreg.modules import AnimalNet

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide"
ROW = re.compile(r"^   \* - ``(.+)``\n     - (.+)$", re.MULTILINE)
ROWS = ROW.findall((GUIDE / "estimators.rst").read_text(encoding="utf-8"))
# What follows "::" in a page, or is fenced in the README; directives begin with "..".
RST = re.compile(
    r"^ *(?:(?!\.\.| ).*::|\.\. code(?:-block)?:: python)\n\n((?:[ \t]+.*\n|\n)+)", re.M
)
MARKDOWN = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Address of the cluster that the pages speak of.
SCHEDULER = "scheduler:8786"


def snippets(path):
    """Return the Python of a page, where its lines are in the page."""
    text = path.read_text(encoding="utf-8")
    blocks = (RST if path.suffix == ".rst" else MARKDOWN).finditer(text)
    return [
        "\n" * text.count("\n", 0, block.start(1)) + textwrap.dedent(block[1])
        for block in blocks
    ]


# Pages of doctests are run by test_docs.py.
PAGES = [page for page in (ROOT / "README.md", *GUIDE.glob("*.rst")) if snippets(page)]


def test_the_snippets_are_found():
    found = {page.stem: len(snippets(page)) for page in PAGES}
    assert found.keys() == {"README", "batching", "estimators"}
    assert min(found.values()) > 1


@pytest.fixture
def scheduler():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        silence_logs=50,
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_run(page, request, tmp_path, monkeypatch):
    """One after the other, as a reader would run them, on few images of digits."""
    monkeypatch.chdir(tmp_path)
    codes = snippets(page)
    for optional in ("distributed", "sklearn.callback", "safetensors"):
        if any(optional in code for code in codes):
            pytest.importorskip(optional)
    if any(SCHEDULER in code for code in codes):
        address = request.getfixturevalue("scheduler")
        codes = [code.replace(SCHEDULER, address) for code in codes]
    X, y = load_digit_images(return_X_y=True)
    X, y = X[:100], y[:100]
    rows = 16 * X.reshape(len(X), -1)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda return_X_y: (rows, y))
    names = {"X": X, "rows": rows, "y": y, "groups": np.arange(100) % 10}
    with joblib.parallel_config("skreg"):  # the same results, sooner
        for code in codes:
            compiled = compile(code, str(page), "exec")
            if "torch.onnx" in code and find_spec("onnxscript") is None:
                continue  # torch needs it, which is a matter of the reader's
            exec(compiled, names)
            if "client" in names:
                names.pop("client").close()


def test_the_table_is_read():
    assert len(ROWS) > 20


@pytest.mark.parametrize(("code", "message"), ROWS)
def test_bad_input_does_what_the_table_says(code, message):
    rng = np.random.default_rng(0)
    names = {
        "net": lambda **params: RegularizedNetClassifier(max_epochs=1, **params),
        "X": rng.normal(size=(20, 3)),
        "y": np.arange(20) % 2,
        "AnimalNet": AnimalNet,
        "Bilinear": Bilinear,
        "ChainDataset": ChainDataset,
        "DataLoader": DataLoader,
        **{name: getattr(np, name) for name in ("nan", "inf", "where", "zeros")},
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        eval(code, names)


def test_the_readme_counts_the_checks():
    """None of them fails, or their own tests would."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if f"(scikit-learn {sklearn.__version__})" not in readme:
        pytest.skip("the counts in the README are those of another scikit-learn")
    row = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| (\d+)(?: each)? \| 0 \|$", re.M)
    claimed = {
        name: int(n)
        for names, n in row.findall(readme)
        for name in re.findall(r"\w+", names)
    }
    assert len(claimed) == 8
    for name, n in claimed.items():
        make = getattr(transforms if hasattr(transforms, name) else skreg, name)
        assert len(list(estimator_checks_generator(make()))) == n, name
