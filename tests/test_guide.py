"""The guide and the README promise nothing that does not happen."""

import re
from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch.nn import Bilinear
from torch.utils.data import ChainDataset, DataLoader

import skreg
from skreg import RegularizedNetClassifier, transforms
from skreg.modules import AnimalNet

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide" / "estimators.rst"
ROW = re.compile(r"^   \* - ``(.+)``\n     - (.+)$", re.MULTILINE)
ROWS = ROW.findall(GUIDE.read_text(encoding="utf-8"))


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
