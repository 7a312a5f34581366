"""Training path: which loop trains a net, and why not a faster one.

From fast to slow: a *stack* of nets, written-out *backprop*, *autograd* without hooks,
and skorch's own loop, which calls all *hooks*. A path declares the methods, parameters,
callbacks and components that it knows. What it does not know sends a net to the next
one: the unknown is slow and right, never fast and wrong.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache

import torch
from skorch.callbacks import Callback, EpochTimer, LRScheduler, PassthroughScoring
from skorch.history import History
from torch import nn

from skreg.backprop import flat, fully_connected_layers
from skreg.callbacks import (
    AccuracyTracker,
    BatchAverage,
    DivergenceGuard,
    EarlyStopping,
    EpochLog,
    NormTracker,
)
from skreg.estimators._overrides import (
    AROUND_BATCHES,
    AROUND_EPOCHS,
    overrides,
    package_class,
    undeclared,
)
from skreg.estimators._regularizers import PARAMETERS, PREFIXES
from skreg.losses import loss_with_gradient

__all__ = [
    "AUTOGRAD",
    "BACKPROP",
    "HOOKS",
    "PATHS",
    "STACK",
    "TrainingPath",
    "choose_path",
    "drops",
    "forced_path",
    "is_known",
    "is_unobserved",
    "loss_with_gradient_of",
    "reason_against",
]

PATHS = STACK, BACKPROP, AUTOGRAD, HOOKS = "stack", "backprop", "autograd", "hooks"

# Constructor parameters that a path takes into account, whatever their values. Those
# that are in no set, such as one that is new, send a net to the next path unless they
# have their default.
_PARAMETERS = {
    AUTOGRAD: frozenset(
        (
            *("module", "criterion", "hidden_layer_sizes", "regularizers"),
            *("dropout", "optimizer", "lr", "max_epochs", "batch_size"),
            *("shuffle", "early_stopping", "patience", "monitor", "holdout"),
            *("validation_fraction", "train_split", "callbacks", "random_state"),
            *("warm_start", "device", "dtype", "amp", "iterator_train"),
            *("iterator_valid", "dataset", "predict_nonlinearity", "compile"),
            *("use_caching", "torch_load_kwargs", "verbose", "class_weight"),
            *("classes", "scale_target"),
        )
    )
    | PARAMETERS.keys(),  # every path runs every method of the regularisers
}
_PARAMETERS[BACKPROP] = _PARAMETERS[AUTOGRAD] - {"amp", "compile"}
_PARAMETERS[STACK] = _PARAMETERS[BACKPROP]
# Parameters with a prefix that a path knows. Others name components of a subclass.
_PREFIXES = (
    *("module", "criterion", "optimizer", "callbacks", "dataset"),
    *("iterator_train", "iterator_valid", "compile", "regularizers", *PREFIXES),
)

# Overrides that a path leaves alone, as it calls these methods.
_CALLED = {
    AUTOGRAD: AROUND_EPOCHS | AROUND_BATCHES,
    BACKPROP: AROUND_EPOCHS | AROUND_BATCHES,
    STACK: frozenset(),
}

BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_grad_computed")
# Callbacks that change no weights before training ends, and no batches.
KNOWN_CALLBACKS = {
    AccuracyTracker,
    BatchAverage,
    DivergenceGuard,
    EarlyStopping,
    EpochLog,
    EpochTimer,
    LRScheduler,
    NormTracker,
    PassthroughScoring,
}

_PLURALS = {STACK: "stacks"}

ALONE = "fit does not run under joblib.parallel_config('skreg')"
FORCED = "a slower path was asked for"

_forced = ContextVar("forced_path", default=None)


@dataclass(frozen=True)
class TrainingPath:
    """The path that trains a net.

    Attributes
    ----------
    name : str
        One of `PATHS`.
    reasons : dict of str to str
        Why not a faster one, by the names of these.
    """

    name: str
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def has_hooks(self) -> bool:
        """Whether it is skorch's own loop."""
        return self.name == HOOKS


@contextmanager
def forced_path(name: str) -> Iterator[None]:
    """Let nets be trained by no faster path than this one; for tests.

    Parameters
    ----------
    name : str
        One of `PATHS`. A net that this path cannot train takes a slower one.
    """
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def choose_path(net, against_stack: str = ALONE) -> TrainingPath:
    """Return the fastest path that can train a net on its own.

    Parameters
    ----------
    net : RegularizedNet
        Initialised, in a session.
    against_stack : str
        Why the net is not in a stack.
    """
    reasons = {STACK: against_stack}
    for path in (BACKPROP, AUTOGRAD):
        reason = reason_against(net, path)
        if reason is None:
            return TrainingPath(path, reasons)
        reasons[path] = reason
    return TrainingPath(HOOKS, reasons)


def reason_against(net, path: str) -> str | None:
    """Return why a path cannot train a net, or None if it can.

    For a stack this is not all: its data, and its company, must do as well.

    Parameters
    ----------
    net : RegularizedNet
        Initialised, in a session.
    path : str
    """
    forced = _forced.get()
    if forced is not None and PATHS.index(path) < PATHS.index(forced):
        return FORCED
    name = type(net).__name__
    session = net._session
    own = session.overrides if session.unobserved else overrides(net)
    changed = [*own, *undeclared(net, path)]
    changed = [method for method in changed if method not in _CALLED[path]]
    if changed:
        return f"{name} overrides {', '.join(changed)}"
    unknown = _unknown_parameters(net, path)
    if unknown:
        return f"{', '.join(unknown)} is not for {_PLURALS.get(path, path)}"
    return _reason_against_components(net, path) or _REASONS[path](net)


def _reason_against_components(net, path: str) -> str | None:
    """Return what stands against all paths but skorch's loop."""
    if type(net.history) is not History:
        return f"its history is a {type(net.history).__name__}"
    parts = [*net._modules, *net._criteria, *net._optimizers]
    more = [part for part in parts if part not in ("module", "criterion", "optimizer")]
    if more:
        return f"it has components of its own: {', '.join(more)}"
    optimizer = type(net.optimizer_)
    if not optimizer.__module__.startswith("torch.optim."):
        return f"optimizer {optimizer.__name__} is none of torch's"
    if optimizer is torch.optim.LBFGS:
        return "optimizer LBFGS wants a batch to be evaluated more than once"
    for _, callback in net.callbacks_:
        if _sees_batches(callback):
            return f"callback {type(callback).__name__} looks at batches"
    return None


def _reason_against_backprop(net) -> str | None:
    layers = fully_connected_layers(net.module_, getattr(net, "input_shape_", ()))
    net._session.layers = layers
    parameters = list(net.module_.parameters())
    if not layers:
        return (
            f"module {type(net.module_).__name__} is no chain of linear layers, "
            "activations and dropout on arrays, or has hooks, or frozen weights"
        )
    if loss_with_gradient_of(net) is None:
        name = type(net.criterion_).__name__
        return f"criterion {name}, or an option of it, has no gradient written out"
    if net._session.fit_params:
        return f"fit was given {', '.join(net._session.fit_params)}"
    if any(w.dtype != net.dtype_ for w in parameters):
        return "some of its weights have another dtype"
    groups = net.optimizer_.param_groups
    optimized = [id(w) for group in groups for w in group["params"]]
    if set(optimized) != set(map(id, parameters)):
        return "its optimizer trains something else than the parameters of the module"
    # On a GPU dropout's own kernel has a stream of its own.
    if net.device_.type != "cpu" and any(map(drops, flat(layers))):
        return "dropout on a GPU draws from the stream of its own kernel"
    return None


def _reason_against_stack(net) -> str | None:
    return net._session.regularizers.reason_against_stack()


_REASONS = {
    STACK: _reason_against_stack,
    BACKPROP: _reason_against_backprop,
    AUTOGRAD: lambda net: None,
}


def loss_with_gradient_of(*nets, training: bool = True):
    """Return the loss of a net, or of a stack, from `loss_with_gradient`, or None.

    Parameters
    ----------
    *nets : RegularizedNet
        In sessions.
    training : bool, default=True
        With the criteria that regularisers make for training, or the plain ones.
    """
    criteria = [net._session.criterion if training else net.criterion_ for net in nets]
    of_numbers = nets[0]._target_checks["y_numeric"]
    return loss_with_gradient(criteria if len(nets) > 1 else criteria[0], of_numbers)


def _unknown_parameters(net, path: str) -> list[str]:
    found = []
    for name, default in _parameters_to_know(package_class(type(net)), path):
        value = getattr(net, name)
        if value is not default and value != default:
            found.append(f"{name}={value!r}")
    extra = vars(net).get("_kwargs")
    if extra:
        found += [f"{n}={v!r}" for n, v in extra.items() if not _is_known_prefix(n)]
    return found


@cache
def _parameters_to_know(base: type, path: str) -> list[tuple[str, object]]:
    """Return the parameters that a path does not know, and their defaults."""
    return [
        (name, parameter.default)
        for name, parameter in inspect.signature(base).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and name not in _PARAMETERS[path]
    ]


def _is_known_prefix(name: str) -> bool:
    return name.split("__")[0] in _PREFIXES


def is_unobserved(net, own: list[str]) -> bool:
    """Return whether nobody but this package sees a net and its batches in training.

    Parameters
    ----------
    net : RegularizedNet
    own : list of str
        What it `overrides`.
    """
    return not set(own) - AROUND_EPOCHS and all(
        is_known(callback) for _, callback in net.callbacks_
    )


def is_known(callback) -> bool:
    """Return whether a callback is one of ours or skorch's, with no hooks added."""
    return (
        type(callback) in KNOWN_CALLBACKS
        and not callable(getattr(callback, "monitor", None))  # code of the user's
        and not any(
            name.startswith("on_") and name != "on_train" for name in vars(callback)
        )
    )


def _sees_batches(callback) -> bool:
    kind = type(callback)
    if not vars(callback).keys().isdisjoint(BATCH_HOOKS):
        return True
    if kind is AccuracyTracker:  # asks for predictions only
        return False
    if kind is LRScheduler and callback.step_every == "epoch":
        return False
    return not (
        getattr(kind, "on_batch_begin", None) is Callback.on_batch_begin
        and getattr(kind, "on_batch_end", None) is Callback.on_batch_end
        and getattr(kind, "on_grad_computed", None) is Callback.on_grad_computed
    )


def drops(layer) -> bool:
    """Return whether a layer of a fully connected net drops anything."""
    return isinstance(layer, nn.Dropout) and layer.p > 0
