"""Checks of constructor parameters, run by ``fit``: all problems in one error."""

import inspect
from collections.abc import Iterator, Sequence
from math import isfinite
from numbers import Integral

import numpy as np
import torch
from skorch.callbacks import EpochTimer, LRScheduler
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.utils.data import DataLoader

from skreg._utils.rules import Rule, is_bool, is_integer, is_number
from skreg.estimators._amp import AMP_DTYPES
from skreg.estimators._numbers import plain
from skreg.estimators._regularizers import (
    PARAMETERS,
    are_regularizers,
    named,
    problem_of_names,
    problems_of_options,
)
from skreg.estimators.schedules import unknown_schedules
from skreg.modules import MLP
from skreg.regularizers import ElasticNet


def _is_batch_size(value) -> bool:
    return is_integer(value) and (value > 0 or value == -1)


def _are_sizes(value) -> bool:
    is_sequence = isinstance(value, Sequence | np.ndarray | torch.Tensor)
    sizes = map(plain, value if is_sequence else [value])
    return all(is_number(n) and n > 0 and n % 1 == 0 for n in sizes)


def _is_seed(value) -> bool:
    return (
        value is None
        or isinstance(value, np.random.RandomState)
        or (is_integer(value) and 0 <= value < 2**32)
    )


def _is_dtype(value) -> bool:
    if isinstance(value, str) and value == "auto":
        return True
    try:
        return np.dtype(value) in (np.dtype("float32"), np.dtype("float64"))
    except TypeError:
        return False


def _are_callbacks(value) -> bool:
    if value is None or (isinstance(value, str) and value == "disable"):
        return True
    if not isinstance(value, list | tuple):
        return False
    return all(map(_is_callback, value))


def _is_callback(item) -> bool:
    if isinstance(item, list | tuple):  # a name, and a callback or None
        return len(item) == 2 and (item[1] is None or _is_callback(item[1]))
    return hasattr(item, "on_epoch_end")


RULES = {name: parameter.rule for name, parameter in PARAMETERS.items()} | {
    "module": Rule(
        lambda module: module is None or callable(module),
        "None, an nn.Module or a callable that makes one",
        "None builds an MLP",
        MLP,
    ),
    "criterion": Rule(
        callable,
        "a loss class or instance",
        "e.g. nn.CrossEntropyLoss",
        nn.MultiMarginLoss,
    ),
    "regularizers": Rule(
        are_regularizers,
        "None or a list of skreg.regularizers.Regularizer, or of (name, regularizer)",
        "derive yours from Regularizer",
        [ElasticNet(lambda1=0.001, penalize="weights")],
    ),
    "callbacks": Rule(
        _are_callbacks,
        "None, 'disable' or a list of skorch's callbacks",
        "callbacks of scikit-learn are given to set_callbacks",
        [EpochTimer()],
    ),
    "predict_nonlinearity": Rule(
        lambda f: f is None or callable(f) or (isinstance(f, str) and f == "auto"),
        "'auto', None or a callable",
        "'auto' makes probabilities of logits",
        torch.sigmoid,
    ),
    "verbose": Rule(
        lambda v: isinstance(v, Integral | np.bool_) and v >= 0,
        "an integer >= 0",
        "1 prints a line per epoch",
        1,
    ),
    "train_split": Rule(
        lambda split: split is None or callable(split),
        "None or a callable that splits a dataset",
        "e.g. skorch.dataset.ValidSplit(5)",
        ValidSplit(3),
    ),
    "hidden_layer_sizes": Rule(
        _are_sizes,
        "a positive integer or a sequence of them",
        "they are the widths of the hidden layers, e.g. (64, 32), or () for none",
        (64, 32),
    ),
    "dropout": Rule(
        lambda p: p is None or (is_number(p) and 0 <= p <= 1),
        "None or a probability in [0, 1]",
        "None leaves the dropout layers of the module as they are",
        0.5,
    ),
    "lr": Rule(
        lambda lr: is_number(lr) and isfinite(lr) and lr >= 0,
        "a finite number >= 0",
        "1e-3 is a good start for Adam, 1e-2 for SGD",
        0.01,
    ),
    "optimizer": Rule(
        callable,
        "an optimizer class",
        "pass e.g. torch.optim.SGD and its options as optimizer__momentum=0.9",
        torch.optim.SGD,
    ),
    "max_epochs": Rule(
        lambda n: is_integer(n) and n >= 0,
        "an integer >= 0",
        "it counts passes over the training data",
        3,
    ),
    "batch_size": Rule(
        _is_batch_size,
        "a positive integer or -1",
        "-1 puts all samples into one batch",
        16,
    ),
    "compile": Rule(
        is_bool, "a bool", "True runs the module through torch.compile", True
    ),
    "iterator_train": Rule(
        lambda iterator: iterator is None or callable(iterator),
        "None or a class of loaders",
        "None makes batches of arrays itself, and takes a DataLoader for Datasets",
        DataLoader,
    ),
    "iterator_valid": Rule(
        lambda iterator: iterator is None or callable(iterator),
        "None or a class of loaders",
        "None makes batches of arrays itself, and takes a DataLoader for Datasets",
        DataLoader,
    ),
    "dataset": Rule(callable, "a Dataset class", "it is called with X and y", Dataset),
    "shuffle": Rule(is_bool, "a bool", "True draws a new order for each epoch", False),
    "early_stopping": Rule(is_bool, "a bool", "patience= sets how long to wait", True),
    "patience": Rule(
        lambda n: is_integer(n) and n >= 0,
        "an integer >= 0",
        "it counts epochs without a new best",
        3,
    ),
    "monitor": Rule(
        lambda monitor: isinstance(monitor, str) or callable(monitor),
        "a key of the history or a scorer of scikit-learn",
        "e.g. 'valid_loss', 'valid_acc', 'f1_macro' or a callable (net, X, y)",
        "train_loss",
    ),
    "validation_fraction": Rule(
        lambda f: is_number(f) and 0 < f < 1,
        "a number strictly between 0 and 1",
        "it is the share of the training data held out for early stopping",
        0.2,
    ),
    "holdout": Rule(
        lambda part: isinstance(part, str) and part in ("random", "last"),
        "'random' or 'last'",
        "'last' is for samples in the order of time",
        "last",
    ),
    "random_state": Rule(
        _is_seed,
        "None, an integer in [0, 2**32 - 1] or a numpy RandomState",
        "an integer makes the fit reproducible",
        1,
    ),
    "amp": Rule(
        lambda amp: amp is None or (isinstance(amp, str) and amp in AMP_DTYPES),
        "None, 'bfloat16' or 'float16'",
        "None computes in the dtype of the weights",
        "bfloat16",
    ),
    "warm_start": Rule(is_bool, "a bool", "True goes on with the fitted weights", True),
    "dtype": Rule(
        _is_dtype,
        "'auto', 'float32' or 'float64'",
        "'auto' follows X: float64 stays float64, all else becomes float32",
        "float64",
    ),
    "device": Rule(
        lambda device: isinstance(device, str | torch.device | int),
        "'auto' or a device of torch",
        "e.g. 'cpu' or 'cuda'",
        "cpu",
    ),
    "use_caching": Rule(
        lambda value: is_bool(value) or value == "auto",
        "'auto' or a bool",
        "False lets skorch's scoring callbacks predict anew",
        False,
    ),
    "torch_load_kwargs": Rule(
        lambda value: value is None or isinstance(value, dict),
        "None or a dict of options of torch.load",
        "e.g. {'weights_only': True}",
        {"weights_only": True},
    ),
}


def check_parameters(net, rules: dict[str, Rule] = RULES) -> None:
    """Raise one ValueError that lists every parameter of `net` that breaks its rule.

    Parameters such as ``module__x`` must be arguments of the module, and so on.
    """
    broken = [name for name in rules if not rules[name].accepts(getattr(net, name))]
    problems = [
        f"{name}={getattr(net, name)!r} must be {rules[name].allowed}; "
        f"{rules[name].remedy}."
        for name in broken
    ]
    for prefix in ("iterator_train", "iterator_valid"):
        name, rule = f"{prefix}__batch_size", rules["batch_size"]
        given = net.get_params_for(prefix)
        if "batch_size" in given and not rule.accepts(
            size := plain(given["batch_size"])
        ):
            problems.append(f"{name}={size!r} must be {rule.allowed}; {rule.remedy}.")
    for prefix in COMPONENTS:
        if prefix not in broken:
            problems += _unknown_arguments(net, prefix)
    if not broken:
        problems += net._contradictions()
        problems += _contradictory_sizes(net)
        problems += _contradictory_steps(net)
    if "callbacks" not in broken:
        problems += _unknown_callbacks(net)
        problems += unknown_schedules(net)
    problems += problems_of_options(net)
    if "regularizers" not in broken:
        problems += _unknown_regularizers(net)
    if problems:
        raise ValueError(f"{type(net).__name__}: " + "\n".join(problems))


# What takes parameters by prefix, and which of its arguments the net fills in.
COMPONENTS = {
    "module": (),
    "criterion": (),
    "optimizer": ("params",),
    "augment": (),
    "iterator_train": ("dataset",),
    "iterator_valid": ("dataset",),
    "dataset": ("X", "y"),
}
_DEFAULTS = {"module": MLP, "iterator_train": DataLoader, "iterator_valid": DataLoader}


def _unknown_arguments(net, prefix: str) -> Iterator[str]:
    given = net.get_params_for(prefix)
    if prefix == "optimizer":
        given.pop("param_groups", None)  # skorch's own
    if not given:
        return
    component = getattr(net, prefix)
    maker = _DEFAULTS.get(prefix) if component is None else component
    if isinstance(maker, torch.nn.Module):
        maker = type(maker)  # with arguments, a new one is made
    accepted = _arguments(maker)
    if accepted is None:
        return
    known = [f"{prefix}__{name}" for name in accepted if name not in COMPONENTS[prefix]]
    for name in sorted(given.keys() - accepted):
        yield (
            f"{prefix}__{name}={given[name]!r} is no argument of {prefix}="
            f"{getattr(maker, '__name__', maker)}, which accepts "
            f"{', '.join(known) or 'none'}."
        )


def _arguments(maker) -> list[str] | None:
    """Return the names of a callable's arguments, or None if it may take any."""
    if maker is None:
        return []
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):  # not callable, or it does not tell
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [
        p.name
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY)
    ]


def _unknown_callbacks(net) -> Iterator[str]:
    given = net.get_params_for("callbacks")
    if not given or net.callbacks == "disable":
        return
    # Early stopping has its parameters while it is off, too: a search may turn it on.
    names = {name for name, _ in net._uniquely_named_callbacks()} | {"early_stopping"}
    for name, value in sorted(given.items()):
        if name.split("__")[0] not in names:
            yield (
                f"callbacks__{name}={value!r} names no callback; there are "
                f"{', '.join(sorted(names))}."
            )


def _unknown_regularizers(net) -> Iterator[str]:
    problem = problem_of_names(net.regularizers)
    if problem is not None:
        yield problem
        return
    own = named(net.regularizers)
    for name, value in sorted(net.get_params_for("regularizers").items()):
        member, _, parameter = name.partition("__")
        known = own[member].get_params() if member in own else own
        if parameter not in known:
            choices = ", ".join(f"regularizers__{n}__*" for n in own) or "none"
            if member in own:
                choices = ", ".join(f"regularizers__{member}__{n}" for n in known)
            yield f"regularizers__{name}={value!r} names nothing; there are {choices}."


def _contradictory_steps(net) -> Iterator[str]:
    """Yield what is wrong if two parameters want to have a step in their own way."""
    callbacks = net.callbacks if isinstance(net.callbacks, list | tuple) else ()
    callbacks = [cb[1] if isinstance(cb, tuple) else cb for cb in callbacks]
    schedules = [cb for cb in callbacks if isinstance(cb, LRScheduler)]
    if net.lr_schedule is not None and schedules:
        yield (
            f"lr_schedule={net.lr_schedule!r} and the LRScheduler in callbacks both "
            "set the learning rate; keep only one of them."
        )
    if net.sam_rho and net.amp == "float16":
        yield (
            f"sam_rho={net.sam_rho!r} takes two gradients for a step, which "
            "amp='float16' cannot scale; use amp='bfloat16' or None, or sam_rho=0."
        )


def _contradictory_sizes(net) -> Iterator[str]:
    """Yield what is wrong if the widths of hidden layers are given twice."""
    given = net.get_params_for("module").get("hidden_layer_sizes")
    if given is None:
        return
    default = inspect.signature(type(net)).parameters["hidden_layer_sizes"].default
    if net.hidden_layer_sizes not in (default, given):
        yield (
            f"hidden_layer_sizes={net.hidden_layer_sizes!r} and "
            f"module__hidden_layer_sizes={given!r} contradict each other; set only one."
        )
