"""The studies, one module each, all of one form.

``TITLE`` and ``QUESTION`` say what a study is about; ``run(data, ...)`` returns a dict
that JSON can hold; ``FULL`` holds the arguments of ``run`` with which it repeats the
course; ``table(result)``, ``curves(result)`` and ``findings(result)`` make of a result
a DataFrame to read, a long DataFrame of every curve, and sentences; ``plot(result)``
makes figures by name, and ``captions(result)`` says what they show, in the order to
show them.
"""

from importlib import import_module
from types import ModuleType

# In the order of the report. Names only: the command line need not wait for torch.
NAMES = (
    "l1-l2",
    "lambda-tuning",
    "sparsity",
    "early-stopping",
    "memorization",
    "dropout-line",
    "dropout-images",
    "augmentation",
    "learning-rate",
    "tuning-danger",
    "adversarial",
    "overview",
    "cocktail",
)


def load_study(name: str) -> ModuleType:
    """Import the module of a study.

    Parameters
    ----------
    name : str
        One of `NAMES`.

    Returns
    -------
    module

    Raises
    ------
    ValueError
        If there is no such study.
    """
    if name not in NAMES:
        raise ValueError(f"There is no study {name!r}; choose from {', '.join(NAMES)}.")
    return import_module(f"skreg.studies.{name.replace('-', '_')}")
