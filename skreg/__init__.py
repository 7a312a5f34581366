"""skreg: regularised neural networks with scikit-learn's manners."""

import sys
from importlib import import_module

# Imported on first use: `python -m skreg --help` need not wait for torch.
_HOME = {
    "RegularizedNetClassifier": "skreg.estimators",
    "RegularizedNetRegressor": "skreg.estimators",
}

__all__ = ["RegularizedNetClassifier", "RegularizedNetRegressor"]
__version__ = "0.1.0"


def _register_backend():
    """Let joblib know the backend "skreg"."""
    import_module("skreg.batching")


if "joblib.parallel" in sys.modules:
    # Where joblib looks up a backend that it does not know yet, and has it registered.
    sys.modules["joblib.parallel"].EXTERNAL_BACKENDS["skreg"] = _register_backend


def __getattr__(name):
    if name in _HOME:
        _register_backend()
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'skreg' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
