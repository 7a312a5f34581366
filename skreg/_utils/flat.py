"""Flat tensors: tensors by name that lie side by side in memory."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["FlatTensors", "NamedTensors", "joined"]


class NamedTensors(dict):
    """Tensors by name, that stay the same tensors.

    What is assigned to a name is copied into its tensor, which others may hold as well.
    """

    def __setitem__(self, name: str, value: Tensor) -> None:
        tensor = self.get(name)
        if tensor is None:
            raise KeyError(
                f"{name!r} is none of the names, which are {list(self)}; tensors can "
                "be changed, not added."
            )
        if tensor is not value:
            tensor.copy_(value)

    def zero_(self) -> None:
        """Fill all with zeros."""
        torch._foreach_zero_(list(self.values()))


class FlatTensors(NamedTensors):
    """Tensors by name that share one flat tensor, in this order.

    Parameters
    ----------
    flat : Tensor of shape (n,)
    like : mapping of str to Tensor
        Names and shapes, in the order in which they lie in `flat`.
    """

    def __init__(self, flat: Tensor, like: Mapping[str, Tensor]):
        self.flat = flat
        parts, self._ends, end = {}, {}, 0
        for name, tensor in like.items():
            start, end = end, end + tensor.numel()
            parts[name] = flat[start:end].view(tensor.shape)
            self._ends[name] = end
        super().__init__(parts)
        self._joined = {}

    def zero_(self) -> None:
        """Fill all with zeros."""
        self.flat.zero_()

    def joined(self, names: tuple[str, ...]) -> list[Tensor]:
        """Return the tensors of these names as few flat tensors, in a fixed order."""
        if names not in self._joined:
            self._joined[names] = list(self._runs(set(names)))
        return self._joined[names]

    def _runs(self, names: set[str]) -> Iterable[Tensor]:
        start = stop = 0
        for name, end in self._ends.items():
            if name in names:
                stop = end
                continue
            if stop > start:
                yield self.flat[start:stop]
            start = stop = end
        if stop > start:
            yield self.flat[start:stop]


def joined(tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> Sequence[Tensor]:
    """Return the tensors of these names, joined where they lie side by side.

    Mappings of the same layout give tensors that belong together.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    names : tuple of str

    Returns
    -------
    list of Tensor
    """
    if isinstance(tensors, FlatTensors):
        return tensors.joined(names)
    return [tensors[name] for name in names]
