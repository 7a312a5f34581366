"""Hooks of torch: functions of others that a module or a parameter calls."""

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

__all__ = ["has_hooks"]

MODULE_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks"),
    *("_backward_hooks", "_backward_pre_hooks"),
)
TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def has_hooks(thing: nn.Module | Tensor) -> bool:
    """Return whether a module or parameter calls functions of others as it is used."""
    if isinstance(thing, nn.Module):
        own = any(getattr(thing, name) for name in MODULE_HOOKS)
        return own or bool(_has_any_global_hook())
    return any(getattr(thing, name, None) for name in TENSOR_HOOKS)
