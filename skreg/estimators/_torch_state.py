"""What a program may have set for all of torch, and what fits must not depend on."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["plain_torch", "without_plain_dtype"]

# torch has one default dtype for all threads. The first that wants float32 notes
# the user's, and the last that wanted it puts that back.
_lock = threading.Lock()
_holders = 0
_of_user = torch.float32
_mine = threading.local()  # how many of the holders are this thread's


@contextmanager
def plain_torch() -> Iterator[None]:
    """Compute as torch does in a new process, whatever the program has set.

    Numbers are float32 and on the CPU if nothing else is said, gradients are recorded,
    and nothing is computed in lower precision. Random numbers depend on the first.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                # A cache would keep weights until the program's autocast ends.
                off = torch.autocast(device, enabled=False, cache_enabled=False)
                stack.enter_context(off)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if _hold_dtype():
            stack.callback(_let_go_dtype)
        yield


@contextmanager
def without_plain_dtype() -> Iterator[None]:
    """Give the default dtype back inside `plain_torch`, while others compute."""
    n_held = getattr(_mine, "n_held", 0)
    for _ in range(n_held):
        _let_go_dtype()
    try:
        yield
    finally:
        for _ in range(n_held):
            _hold_dtype(always=True)


def _hold_dtype(always: bool = False) -> bool:
    """Make float32 the default dtype; return whether that is to be undone."""
    global _holders, _of_user
    with _lock:
        current = torch.get_default_dtype()
        if _holders == 0 and current == torch.float32 and not always:
            return False
        if _holders == 0:
            _of_user = current
            torch.set_default_dtype(torch.float32)
        _holders += 1
    _mine.n_held = getattr(_mine, "n_held", 0) + 1
    return True


def _let_go_dtype() -> None:
    global _holders
    with _lock:
        _holders -= 1
        if _holders == 0:
            torch.set_default_dtype(_of_user)
    _mine.n_held -= 1
