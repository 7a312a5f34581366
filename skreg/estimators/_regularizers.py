"""Regularisers of a net: made of its parameters and of the user's own objects."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.base import clone

from skreg._utils.arrays import to_numpy
from skreg.regularizers import REGULARIZERS, Regularizer, TrainingData
from skreg.training.regularizing import Active
from skreg.training.step_sizes import reason_against_step_sizes

__all__ = [
    "OPTIONS",
    "PARAMETERS",
    "PREFIXES",
    "are_regularizers",
    "looks_at_input_range",
    "make_regularizers",
    "named",
    "own_members",
    "params_of",
    "problem_of_names",
    "problems_of_options",
    "same",
    "strengths",
    "with_parameters",
]

METHODS = (
    *("batch", "weighted_batch", "perturb", "add_gradients", "gradients"),
    *("project", "average", "schedule", "criterion"),
)
# What has options of its own, such as ``augment__*``.
OPTIONS = {prefix: of for kind in REGULARIZERS for prefix, of in kind.options.items()}
PREFIXES = tuple(OPTIONS)
# The parameters that regularisers of this package add to the estimators.
PARAMETERS = {
    name: parameter
    for kind in REGULARIZERS
    for name, parameter in kind.parameters.items()
}


def with_parameters(function: Callable) -> inspect.Signature:
    """Return the signature of a constructor, with the parameters of regularisers.

    Parameters
    ----------
    function : callable
        It passes them on in ``**kwargs``.
    """
    signature = inspect.signature(function)
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=p.default)
        for name, p in PARAMETERS.items()
    ]
    given = list(signature.parameters.values())
    place = list(signature.parameters).index("regularizers")
    return signature.replace(parameters=[*given[:place], *own, *given[place:]])


def strengths(net) -> tuple:
    """Return the parameters of a net that its regularisers are made of."""
    options = [net._get_params_for(prefix) for prefix in PREFIXES]
    own = net._get_params_for("regularizers")
    values = [getattr(net, name) for name in PARAMETERS]
    return (*values, *options, net.regularizers, own)


def same(a, b) -> bool:
    """Return whether parameters are equal; arrays among them by their numbers."""
    if isinstance(a, np.ndarray | torch.Tensor):
        return type(a) is type(b) and np.array_equal(to_numpy(a), to_numpy(b))
    if isinstance(a, tuple | list) and type(a) is type(b):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a is b or bool(a == b)


def own_members(active: Active) -> list[Regularizer]:
    """Return the regularisers that the user has brought."""
    return active.members[len(REGULARIZERS) :]


def make_regularizers(net, module, own: list[Regularizer] | None = None) -> Active:
    """Return the regularisers of a net, which have seen the module.

    Parameters
    ----------
    net : RegularizedNet
    module : nn.Module
    own : list of Regularizer, default=None
        The user's, as they are in this fit; None makes copies of the parameter's.
    """
    members = [_of_parameters(kind, net) for kind in REGULARIZERS]
    members += _own_regularizers(net) if own is None else own
    data = TrainingData(
        net.target_kind,
        getattr(net, "n_outputs_", None),
        getattr(net, "input_range_", None),
        getattr(net, "input_shape_", None),
    )
    for member in members:
        member.data_ = data
    active = Active(members)  # what they act in may depend on the data
    active.begin(module)
    if net._session is not None:
        _check_step_sizes(active, net.optimizer_)
    return active


def _check_step_sizes(active: Active, optimizer) -> None:
    """Raise a ValueError if proximal steps are to be taken after an unknown metric."""
    proximal = [m for m in active.members if not m.is_neutral and m.proximal_names]
    reason = proximal and reason_against_step_sizes(optimizer)
    if reason:
        raise ValueError(
            f"{proximal[0]!r} takes proximal steps, but {reason}; or turn them off."
        )


def looks_at_input_range(net) -> bool:
    """Return whether a regulariser wants to know the range of the training data."""
    looking = [kind for kind in REGULARIZERS if kind.looks_at_input_range]
    members = [_of_parameters(kind, net) for kind in looking]
    own = named(net.regularizers).values()
    return Active([*members, *own]).looks_at_input_range


def problems_of_options(net) -> Iterator[str]:
    """Yield what is wrong with options such as ``average__decay``."""
    for prefix, known in OPTIONS.items():
        given = {} if known is None else net._get_params_for(prefix)
        for name, value in sorted(given.items()):
            full = f"{prefix}__{name}={value!r}"
            if name not in known:
                choices = ", ".join(f"{prefix}__{n}" for n in known)
                yield f"{full} is no option of {prefix}, which has {choices}."
            elif not known[name].rule.accepts(value):
                rule = known[name].rule
                yield f"{full} must be {rule.allowed}; {rule.remedy}."


def _of_parameters(kind: type[Regularizer], net) -> Regularizer:
    return kind.of(
        {name: getattr(net, name) for name in kind.parameters},
        {prefix: net._get_params_for(prefix) for prefix in kind.options},
    )


def _own_regularizers(net) -> list[Regularizer]:
    if not net.regularizers:
        return []
    own = {name: clone(member) for name, member in named(net.regularizers).items()}
    for name, value in net._get_params_for("regularizers").items():
        member, _, parameter = name.partition("__")
        own[member].set_params(**{parameter: value})
    return list(own.values())


def named(regularizers) -> dict[str, Regularizer]:
    """Return regularisers by their names: those of their classes, numbered if equal.

    Parameters
    ----------
    regularizers : sequence of Regularizer or (str, Regularizer), or None

    Returns
    -------
    dict
        Fewer than there are, if names are not unique; see `problem_of_names`.
    """
    found, counts = {}, Counter()
    for item in regularizers or ():
        if isinstance(item, tuple | list):
            found[item[0]] = item[1]
            continue
        name = type(item).__name__
        counts[name] += 1
        found[name if counts[name] == 1 else f"{name}_{counts[name]}"] = item
    return found


def problem_of_names(regularizers) -> str | None:
    """Return what is wrong with the names of regularisers, if anything is."""
    found = named(regularizers)
    bad = sorted(name for name in found if not name or "__" in name)
    if bad:
        return f"regularizers: the name {bad[0]!r} must not be empty or hold '__'."
    if len(found) != len(regularizers or ()):
        return (
            "regularizers: names must be unique, but some of "
            f"{[item[0] for item in regularizers if isinstance(item, tuple | list)]} "
            "are given twice, or are those of classes in the list."
        )
    idle = [name for name, m in found.items() if not any(map(m.acts_in, METHODS))]
    if idle:
        return (
            f"regularizers: {idle[0]} overrides none of {', '.join(METHODS)}, and so "
            "does nothing; is the name of its method misspelled?"
        )
    return None


def params_of(regularizers) -> dict[str, object]:
    """Return the parameters of a user's regularisers, as a search names them."""
    if not are_regularizers(regularizers):
        return {}
    return {
        f"regularizers__{name}__{parameter}": value
        for name, member in named(regularizers).items()
        for parameter, value in member.get_params().items()
    }


def are_regularizers(value) -> bool:
    """Return whether a value will do as the parameter `regularizers`."""
    if value is None:
        return True
    if not isinstance(value, list | tuple):
        return False
    members = [item[1] if _is_named(item) else item for item in value]
    return all(isinstance(member, Regularizer) for member in members)


def _is_named(item) -> bool:
    is_pair = isinstance(item, list | tuple) and len(item) == 2
    return is_pair and isinstance(item[0], str)
