"""Data that parameters hold: they are counted once, and clones share them.

``train_split=predefined_split(dataset)`` is a parameter that holds a data set, and a
sampler, a callback or an augmentation may be others.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MethodType,
    ModuleType,
)

import numpy as np
import torch
from torch.utils.data import Dataset

from skreg._utils.sparse import is_sparse

__all__ = ["arrays_in", "clone_of_callbacks", "copy_sharing_data", "holds_data"]

LARGE = 2**20  # bytes, from which on arrays and tensors are data
_ARRAYS = np.ndarray | torch.Tensor
_SIMPLE = (
    *(bool, int, float, complex, str, bytes, type, type(None), np.generic),
    *(torch.dtype, torch.device, torch.Generator, np.random.RandomState),
    *(ModuleType, BuiltinFunctionType),
)


def _parts(value) -> Iterator:
    """Yield what an object consists of."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, FunctionType):
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        for cell in value.__closure__ or ():
            if cell != CellType():  # of a name that is not assigned yet
                yield cell.cell_contents
    elif isinstance(value, MethodType):
        yield value.__self__
    else:
        if isinstance(value, partial):
            yield from (value.func, value.args, value.keywords)
        yield from getattr(value, "__dict__", {}).values()


def _found(value, is_leaf, seen: dict) -> Iterator:
    """Yield the parts of an object, at any depth, for which `is_leaf` is true."""
    if isinstance(value, _SIMPLE) or id(value) in seen:
        return
    seen[id(value)] = value
    if is_leaf(value):
        yield value
    elif not isinstance(value, _ARRAYS) and not is_sparse(value):
        for part in _parts(value):
            yield from _found(part, is_leaf, seen)


def arrays_in(value) -> Iterator:
    """Yield the arrays, tensors and sparse matrices that an object holds."""
    return _found(value, lambda part: isinstance(part, _ARRAYS) or is_sparse(part), {})


def _is_dataset(value) -> bool:
    return isinstance(value, Dataset)


def _is_data(value) -> bool:
    is_large = isinstance(value, _ARRAYS) and value.nbytes >= LARGE
    return _is_dataset(value) or is_large or is_sparse(value)


def holds_data(value) -> bool:
    """Tell whether an object holds data sets, or large arrays."""
    if value is None or isinstance(value, _SIMPLE):
        return False
    return any(True for _ in _found(value, _is_data, {}))


def copy_sharing_data(value):
    """Return a deep copy of a parameter, but for the data that it holds."""
    return deepcopy(value, _memo(value, _is_data))


def clone_of_callbacks(value):
    """Return a clone of callbacks, but for the data sets that they hold.

    Large arrays are copied: callbacks may write into theirs.
    """
    if type(value) in (list, tuple):
        return type(value)(map(clone_of_callbacks, value))
    if hasattr(value, "get_params") and not isinstance(value, type):
        params = value.get_params(deep=False)
        return type(value)(**{k: clone_of_callbacks(v) for k, v in params.items()})
    return deepcopy(value, _memo(value, _is_dataset))


def _memo(value, is_shared) -> dict:
    """Return what ``deepcopy`` takes for copies that it has made already."""
    return {id(data): data for data in _found(value, is_shared, {})}
