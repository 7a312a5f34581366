"""skreg: regularised neural networks with scikit-learn's manners."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what static tools read; at run time, see __getattr__
    from skreg.estimators import RegularizedNetClassifier, RegularizedNetRegressor

# Both are imported on first use: `python -m skreg --help` need not wait for torch.
_CLASSES = {
    "RegularizedNetClassifier": "skreg.estimators",
    "RegularizedNetRegressor": "skreg.estimators",
}
_SUBMODULES = (
    "attacks",
    "backprop",
    "batching",
    "callbacks",
    "datasets",
    "displays",
    "estimators",
    "losses",
    "modules",
    "penalties",
    "regularizers",
    "robustness",
    "selection",
    "studies",
    "transforms",
)

__all__ = ["RegularizedNetClassifier", "RegularizedNetRegressor"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module(_CLASSES[name]), name)
    if name in _SUBMODULES:
        return import_module(f"skreg.{name}")
    raise AttributeError(f"module 'skreg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES, "__version__"])


def _make_backend(**params):
    return import_module("skreg.batching").SkregBackend(**params)


def _register_backend():
    """Tell joblib of the backend "skreg", without loading it."""
    joblib = sys.modules.get("joblib")
    if joblib is not None:  # else whoever loads it, loads an estimator first
        joblib.register_parallel_backend("skreg", _make_backend)


_register_backend()
