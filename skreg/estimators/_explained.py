"""Errors of a module, in words about what the user has passed."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches

import numpy as np
import torch

from skreg.estimators._integers import holds_embedding

__all__ = ["check_forward_params", "check_same_length", "explained_error"]

OF_FIT = "sample_weight", "X_val", "y_val", "groups"


def explained_error(error: Exception, module, x, expected) -> Exception:
    """Return a clearer error for one that a module raised; itself if none is known.

    Parameters
    ----------
    error : Exception
    module : nn.Module
    x : Tensor or other
        What the module was called with.
    expected : tuple of int or None
        The shape of the samples that the net was fitted on.
    """
    if not isinstance(x, torch.Tensor) or isinstance(error, torch.OutOfMemoryError):
        return error
    shape = tuple(x.shape[1:])
    if expected is not None and shape != tuple(expected):
        return ValueError(
            f"X has samples of shape {shape}, but the net was fitted on samples of "
            f"shape {tuple(expected)}; reshape or resize X. (module="
            f"{type(module).__name__} cannot take them: {error})"
        )
    is_integer = not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
    looks_up = isinstance(error, IndexError) and holds_embedding(module)
    if is_integer and looks_up and x.numel():
        return ValueError(
            f"X holds integers from {int(x.min())} to {int(x.max())}, and module="
            f"{type(module).__name__} has no row for one of them in an nn.Embedding, "
            "which holds rows 0, ..., num_embeddings - 1. Encode X, e.g. with sklearn."
            "preprocessing.OrdinalEncoder (its unknown_value=-1 needs a row, too: add "
            f"1 to X), or set a larger num_embeddings. (torch says: {error})"
        )
    return error


def check_forward_params(module: torch.nn.Module, fit_params: Mapping) -> None:
    """Raise a TypeError for an argument of ``fit`` that nobody knows.

    Parameters
    ----------
    module : nn.Module
        Its ``forward`` gets `fit_params`.
    fit_params : dict
    """
    module = getattr(module, "_orig_mod", module)  # what was compiled
    if isinstance(module, torch.jit.ScriptModule):
        return  # it tells its arguments to torch alone
    accepted = inspect.signature(module.forward).parameters
    if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        return
    unknown = [name for name in fit_params if name not in accepted]
    if not unknown:
        return
    name, kind = unknown[0], type(module).__name__
    close = get_close_matches(name, OF_FIT, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise TypeError(
        f"fit got an unexpected argument {name!r}.{hint} Its own arguments are X, y, "
        f"{', '.join(OF_FIT)}; all others go to the forward of the module, and "
        f"{kind}.forward takes {', '.join(accepted) or 'none'}."
    )


def check_same_length(y) -> None:
    """Raise a ValueError for targets that are lists of different lengths, or sets.

    Parameters
    ----------
    y : object
        As the user passes it.
    """
    rows = y
    kind = getattr(getattr(y, "dtype", None), "kind", None)
    if kind == "O" and getattr(y, "ndim", 0) == 1:
        rows = np.asarray(y)
    elif not isinstance(y, list | tuple):
        return
    if not len(rows) or not isinstance(rows[0], list | tuple | set | frozenset):
        return
    sized = [row for row in rows if hasattr(row, "__len__")]
    lengths = sorted({len(row) for row in sized})
    are_sets = isinstance(rows[0], set | frozenset)
    if len(sized) == len(rows) and len(lengths) == 1 and not are_sets:
        return
    raise ValueError(
        f"y holds lists of different lengths, such as {rows[0]!r}. If they are the "
        "labels of each sample, pass a 0/1 matrix: sklearn.preprocessing."
        "MultiLabelBinarizer().fit_transform(y); else each sample needs as many "
        "targets as the others."
    )
