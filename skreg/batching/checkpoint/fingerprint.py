"""A name for a function call, the same in every process."""

import functools
import sys
import types
from importlib.metadata import version

import numpy as np
import torch
from joblib.hashing import NumpyHasher

from skreg import __version__
from skreg.batching.checkpoint.code_hash import code_digest, is_installed, numbers_of

__all__ = ["Fingerprints"]

# Arguments of scikit-learn's own tasks that do not influence their results.
_FOR_SHOW = {
    "caller",
    "callback_ctx",
    "candidate_progress",
    "split_progress",
    "verbose",
}
_PACKAGES = "joblib", "numpy", "scikit-learn", "skorch", "torch"


class Fingerprints:
    """Names calls by function, arguments, versions, and code that has no version.

    What is an argument of many calls is hashed once.
    """

    def __init__(self):
        self._digests = {}  # id: the object, so that it keeps its id, and its hash

    def of(self, scope: str, function, args: tuple, kwargs: dict) -> str:
        """Return the name of a call, or raise if an argument cannot be pickled.

        Parameters
        ----------
        scope : str
            Something else that the name is to depend on.
        function : callable
        args : tuple
        kwargs : dict
        """
        # scikit-learn's wrapper holds its configuration, and the filters of warnings.
        config = getattr(function, "config", None)
        function = getattr(function, "function", function)
        if (getattr(function, "__module__", None) or "").startswith("sklearn."):
            kwargs = {k: v for k, v in kwargs.items() if k not in _FOR_SHOW}
        positional = [self._digest(arg) for arg in args]
        named = {name: self._digest(arg) for name, arg in kwargs.items()}
        call = _versions(), scope, function, config, positional, named
        return self._hash(call)

    def remember(self, obj, digest) -> str:
        """Return the digest of `obj`, from memory if it was asked for before."""
        if id(obj) not in self._digests:
            self._digests[id(obj)] = obj, digest(obj)
        return self._digests[id(obj)][1]

    def _digest(self, arg) -> str:
        return self.remember(arg, self._hash) if _is_data(arg) else self._hash(arg)

    def _hash(self, obj) -> str:
        return _Hasher(self.remember).hash(obj)


class _Hasher(NumpyHasher):
    """joblib's hash, which also sees into tensors and into code that may change."""

    def __init__(self, remember):
        super().__init__("sha1")
        self._remember = remember

    def save(self, obj):
        if isinstance(obj, np.ndarray) and obj.size > 100 and not obj.dtype.hasobject:
            obj = "array", type(obj), self._remember(obj, NumpyHasher("sha1").hash)
        elif isinstance(obj, torch.Tensor):
            obj = numbers_of(obj)
        elif isinstance(obj, torch.optim.Optimizer):
            # Its own dict has parameters as keys, which have no order.
            obj = "optimizer", type(obj), obj.state_dict()
        elif isinstance(obj, types.FunctionType):
            closure = [cell.cell_contents for cell in obj.__closure__ or ()]
            given = obj.__defaults__, obj.__kwdefaults__, closure
            obj = "function", self._remember(obj, code_digest), given
        elif isinstance(obj, type) and not is_installed(obj.__module__):
            obj = "class", self._remember(obj, code_digest)
        super().save(obj)


def _is_data(arg) -> bool:
    """Tell what calls may share from estimators, of which each has its own."""
    if hasattr(arg, "get_params") or isinstance(arg, (str, dict)):
        return False
    return hasattr(arg, "shape") or hasattr(arg, "__getitem__")


@functools.cache
def _versions() -> tuple:
    packages = [f"{package} {version(package)}" for package in _PACKAGES]
    return "skreg", __version__, *sys.version_info[:2], *packages
