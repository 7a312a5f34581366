"""Integers as inputs: which modules want them as they are, and what rounding loses.

A net computes in floating-point numbers, so that integers become such. Some modules
look up a row of a table for each integer (``nn.Embedding``), or index with them: these
get integers. Nobody says which a module is: it is asked, with a batch of zeros.
"""

import warnings
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from skreg._utils.randomness import seeded
from skreg._utils.sparse import is_sparse

__all__ = [
    "FITTED",
    "INTEGERS",
    "UNDECIDED",
    "WANTED",
    "as_integers",
    "holds_embedding",
    "holds_integers",
    "input_dtype",
    "takes",
    "warn_if_rounded",
]

INTEGERS = "int64", "bool"
_NONE = MappingProxyType({})
FITTED = "the net was fitted on integers, which its module takes as they are"
WANTED = "the module of the net takes integers alone, as an nn.Embedding does"
UNDECIDED = "undecided"  # there are integers, and no module yet
EXACT = {"float32": 2**24, "float64": 2**53}  # up to here, all integers are numbers


def holds_integers(X) -> bool:
    """Tell whether X, of any container, holds nothing but integers or booleans."""
    if isinstance(X, np.ndarray) and X.dtype == object:
        X = X.tolist()
    if isinstance(X, np.ndarray | torch.Tensor) or is_sparse(X):
        return _kind(X.dtype) in "iub"
    if hasattr(X, "columns"):  # a frame: its first row tells, and costs nothing
        first = np.asarray(X[:1])
        return (
            np.array(first.tolist()) if first.dtype == object else first
        ).dtype.kind in "iub"
    return isinstance(X, list | tuple) and np.asarray(X).dtype.kind in "iub"


def _kind(dtype) -> str:
    if isinstance(dtype, torch.dtype):
        dtype = torch.empty(0, dtype=dtype).numpy().dtype
    return dtype.kind


def holds_embedding(module: nn.Module) -> bool:
    """Tell whether a module has a layer that looks up integers in a table."""
    return any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in module.modules())


def input_dtype(
    module: nn.Module, shape, dtype: str, kind: str, fit_params: Mapping
) -> str | None:
    """Return the dtype in which a module wants integers.

    Parameters
    ----------
    module : nn.Module
    shape : sequence of int
        Of one sample.
    dtype : {"float32", "float64"}
        Of the weights.
    kind : {"i", "u", "b", "f"}
        Of the data.
    fit_params : dict
        What its ``forward`` is called with besides.

    Returns
    -------
    str or None
        The dtype of the weights, unless the module holds an embedding, or cannot take
        it; None if it takes nothing. Numbers of floating point become integers only if
        the module takes nothing else.
    """
    if kind == "f":
        looks_up = not takes(module, shape, dtype, fit_params)
        return (
            "int64" if looks_up and takes(module, shape, "int64", fit_params) else dtype
        )
    own = "bool" if kind == "b" else "int64"
    candidates = [own, "int64", dtype]
    if not holds_embedding(module):
        candidates = [dtype, own, "int64"]
    for candidate in candidates:
        if takes(module, shape, candidate, fit_params):
            return candidate
    return None


def takes(module: nn.Module, shape, dtype: str, fit_params: Mapping = _NONE) -> bool:
    """Tell whether a module computes something from inputs of a dtype."""
    module = getattr(module, "_orig_mod", module)  # not to compile it for a trial
    device = next((w.device for w in module.parameters()), torch.device("cpu"))
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with seeded(0, device), torch.no_grad():
            x = torch.zeros(2, *shape, dtype=getattr(torch, dtype), device=device)
            module(x, **fit_params)
    except Exception:  # whatever a module of the user's may raise
        return False
    finally:
        for part, training in modes.items():
            part.training = training
    return True


def as_integers(X, dtype: np.dtype, reason: str = FITTED):
    """Return X as integers, which it must hold already, in whatever form.

    Parameters
    ----------
    X : ndarray or csr_matrix
    dtype : dtype
        int64 or bool.
    reason : str
        Why X must hold integers.
    """
    if is_sparse(X):
        X = X.copy() if X.dtype != dtype else X
        X.data = as_integers(X.data, dtype, reason)
        return X
    if X.dtype.kind not in "iub":
        X = np.asarray(X, dtype=np.float64)
        whole = np.rint(X) == X
        if not whole.all():
            raise ValueError(
                f"X holds {X[~whole][0]:.3g}, but {reason}; pass whole numbers, e.g. "
                "those that sklearn.preprocessing.OrdinalEncoder makes of categories."
            )
    if X.dtype.kind in "uf" and not -(2.0**63) <= X.min() <= X.max() < 2.0**63:
        raise ValueError(f"X holds {X.max()}, which is too large for int64.")
    return np.ascontiguousarray(X, dtype=dtype)


def warn_if_rounded(X, dtype: str) -> bool:
    """Warn if X holds integers that are other numbers in a floating-point dtype.

    Parameters
    ----------
    X : ndarray, csr_matrix, frame or list
    dtype : {"float32", "float64"}

    Returns
    -------
    bool
        Whether it warned.
    """
    if not holds_integers(X):
        return False
    X = X.data if is_sparse(X) else np.asarray(X)
    if X.dtype.kind == "O":
        X = np.array(X.tolist())
    exact = EXACT[dtype]
    if X.dtype.itemsize <= 2 or X.size == 0 or -exact <= X.min() <= X.max() <= exact:
        return False
    with np.errstate(invalid="ignore"):
        rounded = X.astype(dtype).astype(X.dtype) != X
    if not rounded.any():
        return False
    example = X[rounded][0]
    width = abs(int(np.spacing(np.dtype(dtype).type(example))))
    wider = "set dtype='float64', or " if dtype == "float32" else ""
    warnings.warn(
        f"X holds integers such as {example}, which {dtype} rounds to multiples of "
        f"{width}, so that different samples may become equal. If they are amounts, "
        f"{wider}scale them before; if they name something, encode them, e.g. with "
        "sklearn.preprocessing.OrdinalEncoder, or pass a module that holds an "
        "nn.Embedding, which gets integers as they are.",
        UserWarning,
        stacklevel=2,
    )
    return True
