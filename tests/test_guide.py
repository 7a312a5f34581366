"""The guide promises nothing that does not happen."""

import re
from pathlib import Path

import numpy as np
import pytest
from torch.nn import Bilinear
from torch.utils.data import ChainDataset, DataLoader

from skreg import RegularizedNetClassifier
from skreg.modules import AnimalNet

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "estimators.rst"
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
