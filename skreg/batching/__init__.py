"""The joblib backend "skreg": every fit of a search is trained in one program."""

from skreg import _register_backend
from skreg.batching._backend import SkregBackend

__all__ = ["SkregBackend"]

_register_backend()
