"""Rules for the values of parameters, and the words for them."""

from collections.abc import Callable
from math import isfinite
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Rule", "is_bool", "is_coefficient", "is_integer", "is_number"]


class Rule(NamedTuple):
    """What a parameter may be, the words for it, and a value that is not the default.

    Tests try each parameter with its example.
    """

    accepts: Callable[[Any], bool]
    allowed: str
    remedy: str
    example: Any


def is_number(value) -> bool:
    """Return whether a value is a real number, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def is_integer(value) -> bool:
    """Return whether a value is an integer, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def is_bool(value) -> bool:
    """Return whether a value is a bool."""
    return isinstance(value, bool | np.bool_)


def is_coefficient(value) -> bool:
    """Return whether a value is a finite number >= 0."""
    return is_number(value) and isfinite(value) and value >= 0
