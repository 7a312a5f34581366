"""skreg: regularised neural networks with scikit-learn's manners."""

from importlib import import_module

# Imported on first use: `python -m skreg --help` need not wait for torch.
_HOME = {
    "RegularizedNetClassifier": "skreg.estimators",
    "RegularizedNetRegressor": "skreg.estimators",
}

__all__ = ["RegularizedNetClassifier", "RegularizedNetRegressor"]
__version__ = "0.1.0"


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'skreg' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
