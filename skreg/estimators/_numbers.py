"""Numbers of NumPy and torch among parameters, made numbers of Python.

Searches draw parameters from arrays and from distributions of SciPy, and optimizers of
torch do not take all of these.
"""

from functools import wraps

import numpy as np
import torch

__all__ = ["plain", "plain_options", "with_plain_numbers"]

_PLAIN = (bool, int, float, str, type(None))


def plain(value):
    """Return a number for a number of NumPy, or of torch; others are returned as such.

    These are scalars and arrays without dimensions.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.generic | np.ndarray):
        is_number = value.ndim == 0 and value.dtype.kind in "biuf"
        return value.item() if is_number else value
    if isinstance(value, torch.Tensor) and value.ndim == 0:
        return value if value.is_complex() else value.item()
    return value


def plain_options(value, *, tensors: bool = True):
    """Return `value` with the numbers that it holds made `plain`.

    Looked into are lists, tuples and dicts. What holds no such number is returned as it
    is, and not copied.

    Parameters
    ----------
    value : object
    tensors : bool, default=True
        Also of torch. A module may want a tensor where it is given one.
    """
    if isinstance(value, torch.Tensor) and not tensors:
        return value
    if type(value) in (list, tuple):
        parts = [plain_options(part, tensors=tensors) for part in value]
        same = all(new is old for new, old in zip(parts, value, strict=True))
        return value if same else type(value)(parts)
    if type(value) is dict:
        parts = {k: plain_options(v, tensors=tensors) for k, v in value.items()}
        same = all(parts[name] is value[name] for name in value)
        return value if same else parts
    return plain(value)


def with_plain_numbers(method):
    """Let a method of a net see the net's parameters with their numbers made `plain`.

    When it is left, the parameters are again what the user has given.
    """

    @wraps(method)
    def wrapped(net, *args, **kwargs):
        params = vars(net)
        given = {
            name: params[name]
            for name in net._explicit_params()
            if name in params and type(params[name]) not in _PLAIN
        }
        made = {name: plain(value) for name, value in given.items()}
        made = {name: value for name, value in made.items() if value is not given[name]}
        params.update(made)
        try:
            return method(net, *args, **kwargs)
        finally:
            for name, value in made.items():
                if params[name] is value:  # nobody has set another
                    params[name] = given[name]

    return wrapped
