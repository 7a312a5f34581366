"""What a module is besides the numbers in its tensors, in a form to be compared."""

import pickle
from io import BytesIO

from torch import nn

from skreg.batching.stacking.vmap import named_tensors
from skreg.regularizers.dropout import is_dropout

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
    tensors, places = named_tensors(module).items(), _places(module)
    parts = module.named_modules(remove_duplicate=False)
    return (
        tuple((name, t.shape, t.dtype, t.requires_grad) for name, t in tensors),
        tuple(
            (name, type(part), *_settings(part, places, ignored))
            for name, part in parts
        ),
    )


def _settings(part, places, ignored) -> list:
    skipped = {*ignored, *(["p"] if is_dropout(part) else [])}
    return [item for item in _own(part, places).items() if item[0] not in skipped]


def attributes(module: nn.Module) -> dict[str, object]:
    """Return the attributes of a module and its parts, p included, by dotted names."""
    places = _places(module)
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, part in module.named_modules()
        for name, value in {"training": part.training, **_own(part, places)}.items()
    }


def _places(module) -> dict[int, str]:
    """Return where in the module its parts and tensors are, by their ids."""
    things = *module.named_modules(), *named_tensors(module).items()
    return {id(thing): name for name, thing in things}


def _own(part, places) -> dict:
    """Return the attributes that not every module has, sorted by name."""
    names = sorted(vars(part).keys() - _COMMON)
    return {name: _frozen(vars(part)[name], places) for name in names}


class _Pickler(pickle.Pickler):
    """Writes the places of a module's parts and tensors, instead of these."""

    def __init__(self, file, places):
        super().__init__(file)
        self._places = places

    def persistent_id(self, obj):
        return self._places.get(id(obj))


def _frozen(value, places):
    """Return something hashable that is equal only for equal values."""
    if isinstance(value, bool | int | float | str | type | None):
        return value
    file = BytesIO()
    try:
        _Pickler(file, places).dump(value)
    except Exception:  # of whatever a class of the user's does when it is pickled
        pass
    else:
        return file.getvalue()
    if isinstance(value, dict):
        items = value.items()
        return dict, *((_frozen(k, places), _frozen(v, places)) for k, v in items)
    if isinstance(value, list | tuple):
        return type(value), *(_frozen(item, places) for item in value)
    return id(value)  # of a function made on the spot: equal only to itself
