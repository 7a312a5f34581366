"""A hash of code that may change from one run to the next."""

import functools
import hashlib
import site
import sys
import sysconfig
import types
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path

import joblib
import numpy as np
import torch

__all__ = ["code_digest", "is_installed", "numbers_of"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_FUNCTION = types.FunctionType


def code_digest(obj) -> str:
    """Return a hash of a function or class, and of the user's code that it refers to.

    Followed are base classes, and what code refers to by name: functions, classes and
    constants, which are numbers, text, arrays, enums, and what is made of constants:
    containers, data classes, namespaces, partial functions. Installed packages are not
    looked into: they have versions.
    """
    seen = {}
    _collect(obj, seen)
    return hashlib.sha256("\n".join(seen.values()).encode()).hexdigest()


def is_installed(module: str) -> bool:
    """Tell modules of Python and of installed packages from those of the user."""
    return _is_installed(module) if module in sys.modules else False


def _collect(obj, seen: dict) -> None:
    """Describe a function or class and what it refers to, in the order of reference."""
    if obj in seen:
        return
    seen[obj] = f"{obj.__module__}.{obj.__qualname__}"
    if isinstance(obj, type):
        if is_installed(obj.__module__):
            return
        members = {base.__qualname__: base for base in obj.__bases__} | dict(vars(obj))
    else:
        if is_installed(obj.__globals__.get("__name__", "")):
            # The module of a wrapper is that of what it wraps; its globals are its own.
            _describe(getattr(obj, "__wrapped__", None), seen)
            return
        seen[obj] += _text(obj.__code__)
        members = _globals_of(obj)
        if hasattr(obj, "__wrapped__"):  # by a decorator of the user's
            members |= _enclosed_by(obj)
    for name, member in members.items():
        if not name.startswith("__") or _is_code(member):
            seen[obj] += f"{name}={_describe(member, seen)}"


def _describe(value, seen: dict, within=()) -> str | None:
    """Return what a constant is, the same in every process; None for other objects.

    Other objects may be in any state, such as a list of what has been fitted so far.
    """
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, (types.ModuleType, types.BuiltinFunctionType, np.ufunc)):
        return value.__name__
    if isinstance(value, (type, _FUNCTION)):
        _collect(value, seen)
        return value.__qualname__
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return _hash(value)
    if id(value) in within:  # it holds itself
        return "..."
    parts = _parts(value)
    if parts is None:
        return None
    if isinstance(value, (set, frozenset)):
        parts.sort(key=_order)  # theirs depends on where in memory their members lie
    within = *within, id(value)
    texts = [_describe(part, seen, within) for part in parts]
    if None in texts:
        return None
    if isinstance(value, (set, frozenset)):
        texts.sort()
    return f"{type(value).__qualname__}({', '.join(texts)})"


def _order(value) -> str:
    """Return what tells the members of a set apart, the same in every process."""
    if isinstance(value, _FUNCTION):
        return f"{value.__module__}.{value.__qualname__}{_text(value.__code__)}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    parts = None if isinstance(value, _PLAIN) else _parts(value)
    if parts is None:
        return repr(value) if isinstance(value, _PLAIN) else type(value).__qualname__
    keys = map(_order, parts)
    if isinstance(value, frozenset):
        keys = sorted(keys)
    return f"{type(value).__qualname__}({', '.join(keys)})"


def _hash(value) -> str:
    return joblib.hash(numbers_of(value) if isinstance(value, torch.Tensor) else value)


def numbers_of(tensor: torch.Tensor) -> tuple:
    """Return what makes a tensor equal to another, as something that can be hashed."""
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return "tensor", type(tensor), str(tensor.dtype), [*tensor.shape], values.numpy()


def _is_code(member) -> bool:
    return callable(member) or isinstance(member, (classmethod, property))


def _globals_of(function) -> dict:
    names = dict.fromkeys(n for c in _codes(function.__code__) for n in c.co_names)
    found = {n: function.__globals__[n] for n in names if n in function.__globals__}
    modules = [m for m in found.values() if isinstance(m, types.ModuleType)]
    for module in modules:
        if not is_installed(module.__name__):
            found |= {n: vars(module)[n] for n in names if n in vars(module)}
    return found


def _enclosed_by(function) -> dict:
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    return {n: cell.cell_contents for n, cell in zip(names, cells, strict=True)}


def _parts(value) -> list | None:
    """Return what a constant holds that is made of others; None for other objects."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, Enum):
        return [value.name, value.value]
    if isinstance(value, types.SimpleNamespace):
        return [*vars(value).items()]
    if is_dataclass(value):
        return [type(value), *(getattr(value, field.name) for field in fields(value))]
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, (functools.partial, functools.partialmethod)):
        return [value.func, value.args, value.keywords]
    if isinstance(value, functools.cached_property):
        return [value.func]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, (staticmethod, classmethod, functools._lru_cache_wrapper)):
        return [value.__wrapped__]
    return None


def _codes(code) -> list:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [code, *(c for part in inner for c in _codes(part))]


def _text(code) -> str:
    constants = [
        _text(value)
        if isinstance(value, types.CodeType)
        else repr(sorted(value, key=repr) if isinstance(value, frozenset) else value)
        for value in code.co_consts
    ]
    names = code.co_names, code.co_varnames, code.co_freevars
    return f"{code.co_code!r}{names!r}[{', '.join(constants)}]"


@functools.cache
def _is_installed(module: str) -> bool:
    if module == "__main__":
        return False
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        return module in sys.builtin_module_names
    return any(Path(file).resolve().is_relative_to(place) for place in _places())


@functools.cache
def _places() -> list[Path]:
    names = "stdlib", "platstdlib", "purelib", "platlib"
    paths = {sysconfig.get_path(name) for name in names}
    if site.ENABLE_USER_SITE:
        paths.add(site.getusersitepackages())
    return [Path(path).resolve() for path in paths]
