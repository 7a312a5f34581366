"""A hash of code that may change from one run to the next."""

import functools
import hashlib
import site
import sys
import sysconfig
import types
from pathlib import Path

__all__ = ["code_digest", "is_installed"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_FUNCTION = types.FunctionType


def code_digest(obj) -> str:
    """Return a hash of a function or class, and of the user's code that it refers to.

    Followed are base classes, and functions, classes and constants that code refers to
    by name. Installed packages are not looked into: they have versions.
    """
    seen = {}
    _collect(obj, seen)
    return hashlib.sha256("\n".join(seen.values()).encode()).hexdigest()


def is_installed(module: str) -> bool:
    """Tell modules of Python and of installed packages from those of the user."""
    return _is_installed(module) if module in sys.modules else False


def _collect(obj, seen: dict) -> None:
    """Describe `obj`, and what it refers to, in the order of reference."""
    if obj in seen:
        return
    seen[obj] = f"{obj.__module__}.{obj.__qualname__}"
    if is_installed(obj.__module__):
        return
    if isinstance(obj, type):
        members = {base.__qualname__: base for base in obj.__bases__} | dict(vars(obj))
    else:
        obj = _without_wrapper(obj)
        seen.setdefault(obj, "")
        seen[obj] += _text(obj.__code__)
        members = _globals_of(obj)
    for name, member in members.items():
        if _is_plain(member) and not name.startswith("__"):
            seen[obj] += f"{name}={member!r}"
        for part in _parts(member):
            _collect(part, seen)


def _globals_of(function) -> dict:
    names = dict.fromkeys(n for c in _codes(function.__code__) for n in c.co_names)
    found = {n: function.__globals__[n] for n in names if n in function.__globals__}
    modules = [m for m in found.values() if isinstance(m, types.ModuleType)]
    for module in modules:
        if not is_installed(module.__name__):
            found |= {n: vars(module)[n] for n in names if n in vars(module)}
    return found


def _parts(member) -> list:
    if isinstance(member, property):
        accessors = member.fget, member.fset, member.fdel
        return [f for f in accessors if isinstance(f, _FUNCTION)]
    member = getattr(member, "__func__", member)  # of static and class methods
    return [member] if isinstance(member, (type, _FUNCTION)) else []


def _without_wrapper(function):
    while isinstance(getattr(function, "__wrapped__", None), _FUNCTION):
        function = function.__wrapped__
    return function


def _is_plain(value) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


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
