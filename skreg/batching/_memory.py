"""How much memory training data that waits may take."""

import os
from pathlib import Path

from skreg.estimators._sparse import is_sparse

__all__ = ["memory", "size_of"]

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use


def memory() -> int:
    """Return the bytes of memory that this process can count on."""
    if not hasattr(os, "sysconf"):  # Windows; a machine that can train has that
        return 8 * 2**30
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text().strip() if _CGROUP.exists() else "max"
    return total if limit == "max" else min(total, int(limit))


def size_of(X) -> int:
    """Return the bytes of the data of a fit; 0 if they are not in memory."""
    if isinstance(X, dict):
        return sum(map(size_of, X.values()))
    if isinstance(X, (list, tuple)):
        return sum(size_of(x) for x in X)
    if is_sparse(X):
        return sum(part.nbytes for part in (X.data, X.indices, X.indptr))
    return getattr(X, "nbytes", 0)
