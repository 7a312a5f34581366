"""Regularisers of a net: made of its parameters and of the user's own objects."""

import inspect
from collections.abc import Callable

from sklearn.base import clone

from skreg.regularizers import REGULARIZERS, Regularizer
from skreg.training.regularizing import Active

__all__ = [
    "PARAMETERS",
    "are_regularizers",
    "make_regularizers",
    "named",
    "params_of",
    "strengths",
    "with_parameters",
]

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
    before, after = [], []
    for parameter in signature.parameters.values():
        (after if after or parameter.name == "regularizers" else before).append(
            parameter
        )
    return signature.replace(parameters=[*before, *own, *after])


def strengths(net) -> tuple:
    """Return the parameters of a net that its regularisers are made of."""
    own = net._get_params_for("regularizers")
    return (*(getattr(net, name) for name in PARAMETERS), net.regularizers, own)


def make_regularizers(net, module) -> Active:
    """Return the regularisers of a net, which have seen the module.

    Parameters
    ----------
    net : RegularizedNet
    module : nn.Module
    """
    members = [
        kind(**{name: getattr(net, name) for name in kind.parameters})
        for kind in REGULARIZERS
    ]
    members += _own_regularizers(net)
    active = Active(members)
    active.begin(module)
    return active


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
    """
    names, found = [], {}
    for item in regularizers or ():
        is_pair = isinstance(item, tuple | list)
        name, member = item if is_pair else (type(item).__name__, item)
        names.append(name)
        found[name if names.count(name) == 1 else f"{name}_{names.count(name)}"] = (
            member
        )
    return found


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
