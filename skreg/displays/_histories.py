"""From the histories of fitted nets to arrays."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from sklearn.exceptions import NotFittedError

from skreg.displays.common import shorten

# How a key gets into the history; the library's own keys, longest prefix first.
REMEDIES = {
    "train_acc": "give the net callbacks=[AccuracyTracker(on_train=True)], of "
    "skreg.callbacks, or pass train=None to draw without it",
    "valid_": "pass X_val and y_val to fit, or set train_split, or pass valid=None to "
    "draw without it",
    "param_norm": "give the net callbacks=[NormTracker()], of skreg.callbacks",
    "": "give the net a callback that records it",
}


class Runs(NamedTuple):
    """The histories of one net: one list of epochs a seed."""

    name: str
    seeds: list[list[Mapping]]
    is_single: bool  # given as one history, not as a list of them

    def holds(self, key: str) -> bool:
        """Return whether every seed has recorded `key`."""
        return all(any(key in epoch for epoch in seed) for seed in self.seeds)

    def curve(self, key: str) -> np.ndarray:
        """Return `key` by epoch, NaN after the end of a shorter run.

        Returns
        -------
        ndarray of shape (n_epochs,) or (n_seeds, n_epochs)
        """
        self._require(key)
        curve = np.full((len(self.seeds), max(map(len, self.seeds))), np.nan)
        for row, seed in zip(curve, self.seeds, strict=True):
            row[: len(seed)] = [epoch.get(key, np.nan) for epoch in seed]
        return curve[0] if self.is_single else curve

    def last(self, key: str) -> dict[str, np.ndarray]:
        """Return the last value of `key`, a dict, with one array over seeds a name."""
        self._require(key)
        seeds = [_last(seed, key) for seed in self.seeds]
        names = dict.fromkeys(name for values in seeds for name in values)
        return {
            name: np.array([values.get(name, np.nan) for values in seeds], dtype=float)
            for name in names
        }

    def _require(self, key: str) -> None:
        if self.holds(key):
            return
        known = {k for seed in self.seeds for epoch in seed for k in epoch}
        known = sorted(k for k in known - {"batches"} if self.holds(k))
        remedy = next(r for start, r in REMEDIES.items() if key.startswith(start))
        raise KeyError(
            f"The history of {self.name!r} has no {key!r}; it has {known}. To get it: "
            f"{remedy}."
        )


class DrawsEstimators:
    """Mixin of the displays that draw histories: draws those of fitted nets."""

    from_history: ClassVar[Callable[..., Any]]

    @classmethod
    def from_estimator(cls, net, *, name=None, **kwargs):
        """Draw what fitted nets have recorded.

        Parameters
        ----------
        net : estimator, list of estimators, or mapping of str to either
            One fitted net, several seeds of one, or several nets by name.
        name : str, default=None
            The net's name, where `net` gives none; None is its class.
        **kwargs
            The other parameters of ``from_history``.

        Returns
        -------
        LearningCurvesDisplay or NormDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If a net has not been fitted.
        TypeError
            If `net` is no net.
        KeyError
            If its history lacks a key.
        """
        name = default_name(net) if name is None else name
        return cls.from_history(read_estimators(net), name=name, **kwargs)


def read_histories(history, name: str | None) -> list[Runs]:
    """Bring one or several histories into one form.

    Parameters
    ----------
    history : History, list of History, or mapping of name to either
        A history is a list of dict, one an epoch; a list of histories is several
        seeds of one net.
    name : str or None
        Name of the net, if `history` is no mapping; None is "net".
    """
    if isinstance(history, Mapping):
        if not history or name is not None:
            raise ValueError(
                "history must be a non-empty mapping of net to history, without name; "
                f"got {len(history)} nets and name={name!r}. The keys are the names."
            )
        return [_runs(value, str(key)) for key, value in history.items()]
    return [_runs(history, "net" if name is None else name)]


def read_estimators(net):
    """Return the histories of one or several fitted nets, in the shape they came in.

    Parameters
    ----------
    net : estimator, list of estimators, or mapping of name to either
    """
    if isinstance(net, Mapping):
        return {name: read_estimators(value) for name, value in net.items()}
    if isinstance(net, list | tuple):
        return [read_estimators(value) for value in net]
    history = getattr(net, "history", None)
    if history is not None and len(history):
        return history
    if hasattr(net, "history_") or hasattr(net, "initialize"):
        raise NotFittedError(
            f"This {type(net).__name__} has no history yet. Call fit first."
        )
    raise TypeError(
        f"net must be a fitted net with a history; got {shorten(net)}. Of a search "
        "pass search.best_estimator_, of a pipeline its last step, pipeline[-1]."
    )


def default_name(net) -> str | None:
    """Return the class of a net, or of the first of a list of nets."""
    if isinstance(net, Mapping):
        return None
    return type(net[0] if isinstance(net, list | tuple) and net else net).__name__


def _last(seed: list[Mapping], key: str):
    return next(epoch[key] for epoch in reversed(seed) if key in epoch)


def _runs(history, name: str) -> Runs:
    is_single = not _is_list_of_histories(history)
    seeds = [_epochs(seed, name) for seed in ([history] if is_single else history)]
    return Runs(name, seeds, is_single)


def _is_list_of_histories(history) -> bool:
    # A skorch History is itself a list: of epochs, which are dicts.
    return (
        isinstance(history, Sequence)
        and len(history) > 0
        and not isinstance(history, str)
        and not isinstance(history[0], Mapping | str)
    )


def _epochs(history, name: str) -> list[Mapping]:
    # skorch's DistributedHistory is no list, but makes one.
    to_list = getattr(history, "to_list", None)
    if to_list is not None:
        history = to_list()
    if (
        not isinstance(history, list | tuple)
        or not history
        or not all(isinstance(epoch, Mapping) for epoch in history)
    ):
        raise ValueError(
            f"The history of {name!r} must be a non-empty list with one dict per epoch"
            f", as net.history is after fit; got {shorten(history)}. Fit the net first."
        )
    return list(history)
