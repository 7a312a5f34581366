"""What a program may have set for all of torch, and what fits must not depend on."""

import threading
from collections.abc import Iterator
from contextlib import (
    AbstractContextManager,
    ContextDecorator,
    ExitStack,
    contextmanager,
)

import torch

__all__ = ["plain_torch", "without_plain_dtype"]

# torch has one default dtype for all threads. The first that wants float32 notes
# the user's, and the last that wanted it puts that back.
_lock = threading.Lock()
_holders = 0
_of_user = torch.float32
_mine = threading.local()  # how many of the holders are this thread's


class plain_torch(ContextDecorator):
    """Compute as torch does in a new process, whatever the program has set.

    Numbers are float32 and on the CPU if nothing else is said, gradients are recorded,
    and nothing is computed in lower precision. Random numbers depend on the first.
    """

    def _recreate_cm(self):  # a decorated function may run in several threads
        return plain_torch()

    def __enter__(self) -> None:
        contexts, self._stack = list(_contexts()), None
        if contexts or _holders or torch.get_default_dtype() != torch.float32:
            with ExitStack() as stack:
                for context in contexts:
                    stack.enter_context(context)
                if _hold_dtype():
                    stack.callback(_let_go_dtype)
                self._stack = stack.pop_all()

    def __exit__(self, *error) -> None:
        if self._stack is not None:
            self._stack.__exit__(*error)


def _contexts() -> Iterator[AbstractContextManager]:
    """Yield what undoes the settings of the program, but for the default dtype."""
    if torch.is_inference_mode_enabled():
        yield torch.inference_mode(False)
    if not torch.is_grad_enabled():
        yield torch.enable_grad()
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            # A cache would keep weights until the program's autocast ends.
            yield torch.autocast(device, enabled=False, cache_enabled=False)
    if torch.get_default_device().type != "cpu":
        yield torch.device("cpu")


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
