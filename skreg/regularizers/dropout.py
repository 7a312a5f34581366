"""Dropout: the layers of a module that drop, and their probabilities."""

from typing import TypeGuard

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

__all__ = ["dropout_layers", "is_dropout", "set_dropout"]


def is_dropout(layer: nn.Module) -> TypeGuard[_DropoutNd]:
    """Tell whether a layer has a probability of dropping, ``p``."""
    return isinstance(layer, _DropoutNd)


def dropout_layers(module: nn.Module) -> list[_DropoutNd]:
    """Return the layers of a module that drop."""
    return [layer for layer in module.modules() if is_dropout(layer)]


def set_dropout(module: nn.Module, p: float) -> None:
    layers = dropout_layers(module)
    if not layers and p > 0:
        raise ValueError(
            f"dropout={p!r}, but {type(module).__name__} has no dropout layer to set; "
            "add nn.Dropout layers to the module, or leave dropout=None."
        )
    for layer in layers:
        layer.p = float(p)
