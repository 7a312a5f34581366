"""What `warnings` keeps once for all threads, and each task needs for itself."""

import operator
import warnings
from dataclasses import dataclass

__all__ = ["WarningState"]

# All that `warnings.catch_warnings` sets, on whose word tasks rely.
_NAMES = [
    name
    for name in ("filters", "showwarning", "_showwarnmsg_impl")
    if hasattr(warnings, name)
]


@dataclass(frozen=True, eq=False)
class WarningState:
    """The filters of warnings and where warnings go, at one moment.

    `warnings.catch_warnings` puts back what it found. That is right if threads take
    turns and each finds, at its turn, what it has left; scikit-learn opens one such
    context around every task.
    """

    values: tuple

    @classmethod
    def current(cls) -> "WarningState":
        return cls(tuple(getattr(warnings, name) for name in _NAMES))

    def install(self) -> None:
        now = WarningState.current().values
        if all(map(operator.is_, self.values, now)):
            return
        with warnings.catch_warnings():
            pass  # tells the interpreter that filters change
        for name, value in zip(_NAMES, self.values, strict=True):
            setattr(warnings, name, value)
