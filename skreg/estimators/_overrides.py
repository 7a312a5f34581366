"""What a subclass, or somebody who patches a net, has put in place of our methods.

The fast paths stand in for methods of the net. They may do so only if all these are the
package's and skorch's; so what is listed here is what they need not know of. Any other
override, known to us or not, makes a net take the loop with all of its methods.
"""

from functools import cache

__all__ = ["AROUND_BATCHES", "AROUND_EPOCHS", "OUTSIDE", "note_names", "overrides"]

PACKAGE = "skreg.estimators."
NAMES = "_names_at_first"
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


def note_names(cls: type) -> None:
    """Write into a class of the package's what it defines, before others patch it."""
    if cls.__module__.startswith(PACKAGE):
        setattr(cls, NAMES, frozenset({*vars(cls), NAMES}))


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
    base = _base(kind)
    names = list(_methods(base).intersection(vars(net)))
    at_first = vars(base).get(NAMES, vars(base))
    if len(at_first) != len(vars(base)):
        names += vars(base).keys() - at_first
    if kind is not base:
        own = set(base.__mro__)
        for cls in kind.__mro__:
            if cls not in own:
                names += [name for name in vars(cls) if hasattr(base, name)]
    return [name for name in dict.fromkeys(names) if not _is_outside(name)]


def _base(kind: type) -> type:
    return next(c for c in kind.__mro__ if c.__module__.startswith(PACKAGE))


@cache
def _methods(base: type) -> frozenset[str]:
    return frozenset(name for name in dir(base) if callable(getattr(base, name, None)))


def _is_outside(name: str) -> bool:
    # Python's own, such as __doc__; scikit-learn gives each class set_fit_request, ...
    is_special = name.startswith("__") and name != "__getattribute__"
    is_request = name.startswith("set_") and name.endswith("_request")
    return is_special or is_request or name in OUTSIDE
