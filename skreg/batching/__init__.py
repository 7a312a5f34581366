"""The joblib backend "skreg": every fit of a search is trained in one program."""

from joblib import register_parallel_backend

from skreg.batching._backend import SkregBackend

__all__ = ["SkregBackend"]

register_parallel_backend("skreg", SkregBackend)
