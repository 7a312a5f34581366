"""Copies and pickles of nets, whose parts stay ordinary objects.

skorch pickles module, criterion and optimizer on their own and puts the bytes into the
pickle of the net. Here the pickler of the net sees the parts themselves: it can carry
classes by value, as joblib and Dask do, and what several parts share stays shared.
"""

import pickle
import types
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy

import torch
from skorch.utils import get_map_location
from torch import Tensor

from skreg._utils.devices import resolve_device

__all__ = ["Pickling"]

# Who asks for the state of a net. All others, such as skops, get the state of skorch,
# which is made of numbers, text and bytes.
_COPY, _PICKLE = "copy", "pickle"
_asked_for = ContextVar("asked_for", default=None)

_BYTES = "__cuda_dependent_attributes__"  # in a state of skorch


class Pickling:
    """Mixin: how a net is pickled and copied."""

    cuda_dependent_attributes_ = ["module_", "criterion_", "optimizer_", "dtype_"]

    def __getstate__(self):
        asked_for = _asked_for.get()
        state = vars(self) if asked_for else super().__getstate__()
        state = {name: value for name, value in state.items() if name != "_session"}
        return _portable(state) if asked_for == _PICKLE else state

    def __reduce_ex__(self, protocol):
        with _asking_for(_PICKLE):
            return super().__reduce_ex__(protocol)

    def __copy__(self):
        """Return a net that shares the parameters, and has its own of all else."""
        with _asking_for(_COPY):
            state = self.__getstate__()
        given = {*self._get_param_names(), "_kwargs"}
        learned = {name: v for name, v in state.items() if name not in given}
        state |= deepcopy(learned, _detached(self._parts_in(state)))
        twin = type(self).__new__(type(self))
        twin.__setstate__(state | {"_kwargs": dict(self._extra_params)})
        return twin

    def __deepcopy__(self, memo):
        with _asking_for(_COPY):
            state = self.__getstate__()
        memo.update(_detached(self._parts_in(state)))
        twin = memo[id(self)] = type(self).__new__(type(self))
        twin.__setstate__(deepcopy(state, memo))
        return twin

    def __setstate__(self, state):
        device = state["device"]
        is_auto = isinstance(device, str) and device == "auto"
        if is_auto:
            device = str(resolve_device("auto"))
        if _BYTES in state:
            super().__setstate__({**state, "device": device})
        else:
            vars(self).update(state)
            self.device = self._check_device(device, get_map_location(device))
            if "device_" in state and self.device_.type != torch.device(device).type:
                _move(self._parts_in(state), resolve_device(self.device))
        if is_auto:
            self.device = "auto"
        if "device_" in state:
            self.device_ = resolve_device(self.device)

    def _parts_in(self, state: dict) -> dict:
        """Return what holds the tensors that lie on the device."""
        prefixes = tuple(self.cuda_dependent_attributes_)
        return {name: v for name, v in state.items() if name.startswith(prefixes)}


@contextmanager
def _asking_for(what: str) -> Iterator[None]:
    token = _asked_for.set(what)
    try:
        yield
    finally:
        _asked_for.reset(token)


def _portable(state: dict) -> dict:
    """Return a state that can be unpickled on a machine without this one's device."""
    if "device_" not in state or state["device_"].type == "cpu":
        return state
    memo = {
        id(tensor): _Travelling.from_device(tensor)
        for tensor in _tensors_in(state)
        if _device_of(tensor) != "cpu"
    }
    return deepcopy(state, memo)


class _Travelling(Tensor):
    """A copy, on the CPU, of a tensor that is unpickled on the device it came from.

    It is a tensor because some optimizers look at theirs while they are copied.
    """

    @classmethod
    def from_device(cls, tensor: Tensor) -> "_Travelling":
        """Return the copy of a tensor, which may be a parameter."""
        on_cpu = tensor.detach().cpu()
        travelling = on_cpu.as_subclass(cls)
        if isinstance(tensor, torch.nn.Parameter):
            on_cpu = torch.nn.Parameter(on_cpu, tensor.requires_grad)
        else:
            on_cpu.requires_grad_(tensor.requires_grad and tensor.is_leaf)
        travelling.plain, travelling.origin = on_cpu, _device_of(tensor)
        return travelling

    def __reduce_ex__(self, protocol):
        return _arrive, (self.plain, self.origin)


def _arrive(tensor: Tensor, origin: str) -> Tensor:
    """Return a tensor that is back on its device, or on the CPU if there is none."""
    if torch.device(origin).type != "cuda" or torch.cuda.is_available():
        tensor.data = tensor.data.to(origin)
    return tensor


def _device_of(tensor: Tensor) -> str:
    return str(tensor.device)


def _move(parts: dict, device: torch.device) -> None:
    for tensor in _tensors_in(parts):
        tensor.data = tensor.data.to(device)


def _detached(parts: dict) -> dict[int, Tensor]:
    """Return copies, by id, of tensors that ``deepcopy`` refuses: results of others.

    A module may keep some, such as a weight that is computed from parameters.
    """
    modules = (part for part in parts.values() if isinstance(part, torch.nn.Module))
    kept = [vars(layer) for module in modules for layer in module.modules()]
    results = (tensor for tensor in _in_containers(kept) if not tensor.is_leaf)
    return {id(tensor): tensor.detach().clone() for tensor in results}


def _in_containers(value) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _in_containers(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _in_containers(item)


def _tensors_in(obj) -> list[Tensor]:
    """Return all tensors that an object would be pickled with."""
    finder = _TensorFinder(_Nowhere())
    finder.dump(obj)
    return list(finder.found.values())


class _Nowhere:
    def write(self, data) -> int:
        return len(data)


class _TensorFinder(pickle.Pickler):
    """Walks through what an object refers to, and writes nothing down."""

    def __init__(self, file):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.found = {}

    def persistent_id(self, obj):
        if isinstance(obj, Tensor):
            self.found[id(obj)] = obj
            return True
        # Some classes and functions cannot be pickled, and none hold tensors of a net.
        code = type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType
        return True if isinstance(obj, code) else None
