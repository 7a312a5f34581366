"""What the loaders share: checks of their arguments and the form of their answer."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from sklearn.utils import Bunch

__all__ = ["as_answer", "check_one_of", "check_size", "is_positive_int"]


def as_answer(bunch: Bunch, return_X_y: bool) -> Any:
    """Return `bunch`, or its ``(data, target)``."""
    return (bunch.data, bunch.target) if return_X_y else bunch


def check_one_of(name: str, value, allowed: Sequence) -> None:
    """Raise a ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(
            f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}; "
            f"pass e.g. {name}={allowed[0]!r}."
        )


def check_size(size) -> tuple[int, int]:
    """Return `size` as (height, width) in pixels; an int stands for a square."""
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(map(is_positive_int, pair)):
        raise ValueError(
            f"size={size!r} is neither a positive int nor a pair (height, width) of "
            "positive ints, in pixels; pass e.g. size=32."
        )
    return int(pair[0]), int(pair[1])


def is_positive_int(value) -> bool:
    """Tell whether `value` is an int of at least 1; a bool is none."""
    return (
        isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
    )
