"""Garbage collection that leaves alone what was there before."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["older_objects_frozen"]


@contextmanager
def older_objects_frozen() -> Iterator[None]:
    """Let garbage collection look at new objects only, meanwhile.

    A full collection goes through all objects of the imported libraries: a third of a
    second, several times in a long search.
    """
    if gc.get_freeze_count():  # somebody else's, who alone may unfreeze them
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
