"""Overrides: methods that a subclass, or somebody who patches a net, has replaced.

A fast training path stands in for methods of the net. It may do so only for the very
functions that it is declared to know, see `known_to`. Any other function in their
place, the user's or one that this package has added since, sends the net to a path that
calls it.
"""

from collections.abc import Callable
from functools import cache

__all__ = [
    "AROUND_BATCHES",
    "AROUND_EPOCHS",
    "OUTSIDE",
    "known_to",
    "note_methods",
    "overrides",
    "package_class",
    "undeclared",
]

PACKAGE = "skreg.estimators."
# Called before the first epoch, after the last, or on the net's user's demand.
OUTSIDE = frozenset(
    (
        *("fit", "partial_fit", "initialize", "initialize_callbacks"),
        *("initialize_criterion", "initialize_history", "initialize_module"),
        *("initialize_optimizer", "initialize_virtual_params", "initialized_instance"),
        *("on_train_begin", "on_train_end", "torch_compile", "trim_for_prediction"),
        *("get_dataset", "get_default_callbacks", "_default_callbacks", "get_params"),
        *(
            "get_params_for",
            "get_params_for_optimizer",
        ),
        *("get_metadata_routing", "set_params", "set_callbacks", "prefixes_"),
        *("cuda_dependent_attributes_", "check_is_fitted", "check_training_readiness"),
        *("predict", "predict_proba", "predict_log_proba", "decision_function"),
        *("score", "classes_"),
        *("save_params", "load_params", "best_epoch_", "_repr_html_"),
    )
)
# Called by ``fit_loop`` before the first epoch; and between epochs.
AROUND_EPOCHS = frozenset(("check_data", "get_split_datasets"))
AROUND_BATCHES = frozenset(
    ("fit_loop", "get_iterator", "on_epoch_begin", "on_epoch_end")
)
# What the package's own classes may replace of skorch's without a word to the paths.
BEFORE_EPOCHS = OUTSIDE | {
    *("_get_param_names", "_get_params_for", "_get_predict_nonlinearity"),
    *("_initialize_criterion", "_initialize_module", "_yield_callbacks"),
    *("_criteria", "_modules", "_optimizers"),
}

_known: dict[str, set[Callable]] = {}  # functions, by the paths that know them
_at_first: dict[type, dict] = {}  # what classes were like when they were made


def known_to(*paths: str):
    """Declare that training paths call a method, or do all that it does.

    Parameters
    ----------
    *paths : str
        Of `skreg.estimators.paths`.

    Returns
    -------
    callable
        Decorates the method. A wrapper around it is another function, and not known.
    """

    def declare(method):
        for path in paths:
            _known.setdefault(path, set()).add(method)
        return method

    return declare


def note_methods(cls: type) -> None:
    """Note what a class of the package is made of, before others patch it."""
    if cls.__module__.startswith(PACKAGE):
        for part in cls.__mro__[:-1]:
            _at_first.setdefault(part, dict(vars(part)))


def overrides(net) -> list[str]:
    """Return the names that stand in the way of a fast path.

    Parameters
    ----------
    net : RegularizedNet

    Returns
    -------
    list of str
        What the class of `net`, or `net` itself, has put in place of a method or
        attribute of the package's or skorch's, but what is `OUTSIDE` of epochs.
    """
    kind = type(net)
    base = package_class(kind)
    names = list(_methods(base).intersection(vars(net)))
    for part in base.__mro__[:-1]:
        if vars(part) != _at_first[part]:
            names += _patched(part)
    if kind is not base:
        own = set(base.__mro__)
        for cls in kind.__mro__:
            if cls not in own:
                names += [name for name in vars(cls) if hasattr(base, name)]
    return [name for name in dict.fromkeys(names) if not _is_outside(name)]


def undeclared(net, path: str) -> tuple[str, ...]:
    """Return the methods of skorch that this package replaces, unknown to a path.

    Parameters
    ----------
    net : RegularizedNet
    path : str
    """
    return _undeclared(package_class(type(net)), path)


@cache
def _undeclared(base: type, path: str) -> tuple[str, ...]:
    of_skorch = [c for c in base.__mro__ if c.__module__.startswith("skorch.")]
    found = []
    for name in dict.fromkeys(name for cls in of_skorch for name in vars(cls)):
        owner = next(cls for cls in base.__mro__ if name in vars(cls))
        is_replaced = owner not in of_skorch and name not in BEFORE_EPOCHS
        if not is_replaced or _is_outside(name):
            continue
        if _at_first[owner][name] not in _known[path]:
            found.append(name)
    return tuple(found)


def _patched(cls: type) -> list[str]:
    now, at_first = vars(cls), _at_first[cls]
    names = now.keys() | at_first.keys()
    return sorted(name for name in names if now.get(name) is not at_first.get(name))


def package_class(kind: type) -> type:
    """Return the class of the package's that a class is, or inherits from."""
    return next(c for c in kind.__mro__ if c.__module__.startswith(PACKAGE))


@cache
def _methods(base: type) -> frozenset[str]:
    return frozenset(name for name in dir(base) if callable(getattr(base, name, None)))


def _is_outside(name: str) -> bool:
    # Python's own, such as __doc__; scikit-learn gives each class set_fit_request, ...
    is_special = name.startswith("__") and name != "__getattribute__"
    is_request = name.startswith("set_") and name.endswith("_request")
    return is_special or is_request or name in OUTSIDE
