"""What a module is besides the numbers in its tensors, in a form to be compared."""

import pickle

from torch import nn

__all__ = ["attributes", "signature"]

# What every module has; its tensors are compared apart, and hooks are refused.
_COMMON = vars(nn.Module()).keys()


def signature(module: nn.Module, ignored=()) -> tuple:
    """Return all that decides what a module computes, but for its tensors and p.

    Modules of equal signature compute the same from the same tensors.

    Parameters
    ----------
    module : nn.Module
    ignored : collection of str, default=()
        Names of attributes that may differ.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return (
        tuple((name, t.shape, t.dtype, t.requires_grad) for name, t in tensors),
        tuple(
            (name, type(part), *_settings(part, ignored))
            for name, part in module.named_modules(remove_duplicate=False)
        ),
    )


def _settings(part, ignored) -> list:
    is_dropout = isinstance(part, nn.modules.dropout._DropoutNd)
    skipped = {*ignored, *(["p"] if is_dropout else [])}
    return [item for item in _own(part).items() if item[0] not in skipped]


def attributes(module: nn.Module) -> dict[str, object]:
    """Return the attributes of a module and its parts, p included, by dotted names."""
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, part in module.named_modules()
        for name, value in {"training": part.training, **_own(part)}.items()
    }


def _own(part) -> dict:
    """Return the attributes that not every module has, sorted by name."""
    names = sorted(vars(part).keys() - _COMMON)
    return {name: _frozen(vars(part)[name]) for name in names}


def _frozen(value):
    """Return something hashable that is equal only for equal values."""
    if isinstance(value, bool | int | float | str | type | None):
        return value
    try:
        return pickle.dumps(value)
    except Exception:  # of whatever a class of the user's does when it is pickled
        pass
    if isinstance(value, dict):
        return dict, *((_frozen(key), _frozen(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), *map(_frozen, value)
    return id(value)  # of a function made on the spot: equal only to itself
