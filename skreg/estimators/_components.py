"""The parts of a net, made and kept as skorch does: module, criterion, ..."""

import inspect
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import lru_cache
from itertools import chain
from math import prod
from numbers import Real
from types import MappingProxyType

import torch
from skorch.callbacks import EpochTimer, LRScheduler, PrintLog

from skreg._utils.devices import resolve_device
from skreg._utils.randomness import draw_seed, seeded, torch_seeded
from skreg._utils.threads import threads_for
from skreg._utils.torch_state import plain_torch
from skreg.callbacks import (
    BatchAverage,
    DivergenceGuard,
    EarlyStopping,
    EpochLog,
    NormTracker,
)
from skreg.estimators._integers import UNDECIDED, holds_embedding, takes
from skreg.estimators._lazy import copied, is_uninitialized, without_batch_means
from skreg.estimators._numbers import with_plain_numbers
from skreg.estimators._pickling import Pickling
from skreg.estimators._regularizers import PREFIXES
from skreg.estimators.parameters import check_parameters
from skreg.modules import MLP
from skreg.penalties import penalized_parameters
from skreg.regularizers.dropout import dropout_layers, set_dropout
from skreg.training.output_checks import has_logits

CALLBACK_PARAMETERS = {"callbacks", "early_stopping", "patience", "monitor"}


class Components(Pickling):
    """Mixin: initialises the parts of a net, and saves them.

    Expects the parameters of `RegularizedNet`, and ``input_shape_``, ``n_outputs_``,
    ``dtype_`` once data have been seen.
    """

    # skorch fills these in when it first sees a module, and wants them on the
    # instance; scikit-learn wants an instance that holds its parameters and no more.
    initialized_ = False
    history_ = None
    virtual_params_ = MappingProxyType({})
    prefixes_ = [
        *("iterator_train", "iterator_valid", "callbacks", "dataset", "compile"),
        *("module", "criterion", "optimizer", "regularizers", *PREFIXES),
    ]
    _modules = ["module"]
    _criteria = ["criterion"]
    _optimizers = ["optimizer"]

    @plain_torch()
    @with_plain_numbers
    def initialize(self):
        """Make module, criterion, optimizer and callbacks; ``fit`` does it for you."""
        if self._session is None:  # else fit has checked them
            check_parameters(self, self._rules)
        self.device_ = resolve_device(self.device)
        self.seed_ = draw_seed(self.random_state)
        vars(self).pop("_trimmed_for_prediction", None)
        return super().initialize()

    def trim_for_prediction(self):
        """Drop what predictions do not need: optimizer, gradients, history, callbacks.

        Parameters stay as they are, so that ``clone`` and ``fit`` work as before;
        ``partial_fit`` and warm starts have nothing to go on from. ``best_epoch_`` is
        kept.
        """
        self.check_is_fitted()
        self._trimmed_for_prediction = True
        self._set_training(False)
        self.module_.zero_grad(set_to_none=True)
        self.callbacks_ = [
            (name, callback)
            for name, callback in self.callbacks_
            if isinstance(callback, EarlyStopping)
        ]
        for name in self._optimizers:
            setattr(self, f"{name}_", None)
        self.virtual_params_ = {}  # nothing there that could follow set_params
        self.initialize_history()

    @plain_torch()
    def _renew(self, stale: set[str]) -> None:
        """Make anew what parameters set since the last fit have changed."""
        if stale & {*self._criteria, *self._optimizers}:
            self._initialize_criterion()
            self._initialize_optimizer()
            for _, callback in self.callbacks_:
                if isinstance(callback, LRScheduler):
                    callback.initialize()  # with a new optimizer, it begins anew
        if stale & CALLBACK_PARAMETERS:
            self._initialize_callbacks()
        if self.dropout is not None or "dropout" in stale:
            self._follow_dropout()
        self._follow_dtype()

    def _follow_dropout(self) -> None:
        """Set the probabilities of dropout layers; None gives them back their own."""
        if self.dropout is not None:
            set_dropout(self.module_, self.dropout)
            return
        for layer, p in zip(
            dropout_layers(self.module_), self._own_dropout, strict=True
        ):
            layer.p = p

    def _follow_dtype(self) -> None:
        """Give what was initialised before there were data their dtype."""
        modules = [getattr(self, f"{name}_") for name in self._modules]
        if not any(_has_other_dtypes(m, self.dtype_) for m in modules):
            return
        self._give_dtype((*self._modules, *self._criteria))
        for name in self._optimizers:
            optimizer = getattr(self, f"{name}_")
            optimizer.load_state_dict(optimizer.state_dict())  # it casts

    def _give_dtype(self, names) -> None:
        for name in names:
            component = getattr(self, f"{name}_")
            if isinstance(component, torch.nn.Module):
                component.to(self.dtype_)

    def _adds_components(self) -> bool:
        """Tell whether a subclass may make modules, losses or optimizers of its own."""
        return any(
            getattr(type(self), name) is not getattr(Components, name)
            for name in (
                *("initialize", "initialize_module", "initialize_criterion"),
                "initialize_optimizer",
            )
        )

    def _initialize_module(self, reason=None):
        draws = type(self).initialize_module is not Components.initialize_module
        with self._plain_device(), self._seeded_if(draws):
            super()._initialize_module(reason)
        self._give_dtype(self._modules[1:])  # those that a subclass adds
        return self

    def _initialize_criterion(self, reason=None):
        draws = type(
            self
        ).initialize_criterion is not Components.initialize_criterion or not getattr(
            self.criterion, "__module__", ""
        ).startswith("torch.nn.")
        with self._plain_device(), self._seeded_if(draws):
            super()._initialize_criterion(reason)
        self._give_dtype(self._criteria[1:])
        return self

    def _seeded_if(self, draws: bool):
        """Return a context in which what a user's code draws is the net's own."""
        return seeded(self.seed_, torch.device("cpu")) if draws else nullcontext()

    def initialize_module(self):
        kwargs = self.get_params_for("module")
        if isinstance(self.module, torch.nn.Module) and not kwargs:
            # More threads gain nothing in a copy, and torch's would stay with the one
            # that fits, which may be one of hundreds.
            with threads_for(0):
                module = copied(self.module)  # training must not change a parameter
        else:
            is_ours = not kwargs and has_logits(self.module)  # no code of the user's
            with torch_seeded(self.seed_) if is_ours else self._seeded_if(True):
                module = self._build_module(kwargs)
        self._own_dropout = [layer.p for layer in dropout_layers(module)]
        if self.dropout is not None:
            set_dropout(module, self.dropout)
        if _has_other_dtypes(module, self.dtype_):
            with threads_for(0):
                module = module.to(self.dtype_)
        if is_uninitialized(module):
            self._give_shapes(module)
        self.module_ = module
        penalized_parameters(module, self.penalize)  # an unknown pattern raises here
        return self

    def _give_shapes(self, module) -> None:
        """Show a lazy module one sample, from which its tensors get their shapes."""
        looks_up = holds_embedding(module) and (
            self._integers_as == UNDECIDED
            or not takes(copied(module), self.input_shape_, self._dtype_name)
        )
        dtype = torch.int64 if looks_up else self.dtype_
        x = torch.zeros(1, *self.input_shape_, dtype=dtype)
        cpu = torch.device("cpu")
        with seeded(self.seed_, cpu), torch.no_grad(), without_batch_means(module):
            module(x)

    def initialize_criterion(self):
        kwargs = self.get_params_for("criterion")
        chosen = self._chosen_criterion(kwargs)
        criterion = self.initialized_instance(chosen, kwargs)
        if isinstance(criterion, torch.nn.Module):
            if kwargs or not isinstance(chosen, type):
                criterion = deepcopy(criterion)  # the user's, or with tensors of theirs
            criterion = criterion.to(self.dtype_)
        _check_smoothing(criterion)
        self.criterion_ = criterion
        return self

    def _chosen_criterion(self, kwargs):
        return self.criterion

    def _build_module(self, kwargs):
        module = self.module
        if module is None:
            module = MLP
        elif isinstance(module, torch.nn.Module):
            module = type(module)
        accepted = _arguments_of(module)
        known = {"hidden_layer_sizes": self.hidden_layer_sizes}
        if hasattr(self, "input_shape_"):
            known["in_features"] = prod(self.input_shape_)
            known["out_features"] = self.n_outputs_
        elif module is MLP and "in_features" not in kwargs:
            raise ValueError(
                "module=None builds an MLP that fits the data, and there are none yet, "
                "or they are no single array: call fit, or pass a module of your own, "
                "or module__in_features and module__out_features."
            )
        filled = {name: value for name, value in known.items() if name in accepted}
        kwargs = {**filled, **kwargs}
        missing = [
            f"module__{name}"
            for name, argument in accepted.items()
            if argument.default is argument.empty
            and argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
            and name not in kwargs
        ]
        if missing:
            raise ValueError(
                f"module={getattr(module, '__name__', module)} cannot be made without "
                f"{', '.join(missing)}; pass what it needs, or an instance."
            )
        return module(**kwargs)

    def initialize_optimizer(self, triggered_directly=None):
        params = self.get_all_learnable_params()
        args, kwargs = self.get_params_for_optimizer("optimizer", params)
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        if self._can_fuse(kwargs):
            kwargs["fused"] = True  # the same step, in one kernel
        try:
            self.optimizer_ = self.optimizer(*args, **kwargs)
        except (TypeError, ValueError, IndexError) as error:
            name = getattr(self.optimizer, "__name__", self.optimizer)
            raise ValueError(
                f"optimizer={name} cannot be made with {given}: {error}. Its options "
                "are the parameters lr and optimizer__*."
            ) from error
        return self

    def _can_fuse(self, kwargs: dict) -> bool:
        chosen = {"fused", "foreach", "differentiable", "capturable"} & kwargs.keys()
        return (
            self.optimizer in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
            and not chosen
            and self.device_.type in ("cpu", "cuda")
            and all(w.is_floating_point() for w in self.module_.parameters())
            # The gradients of such embeddings are sparse, which no kernel takes.
            and not any(getattr(m, "sparse", False) for m in self.module_.modules())
        )

    def initialize_history(self):
        self.history_ = None  # skorch would clear the list that an earlier fit gave out
        return super().initialize_history()

    @property
    def _default_callbacks(self):
        callbacks = [
            ("epoch_timer", EpochTimer()),
            ("train_loss", BatchAverage("train_loss", on_train=True)),
            ("train_penalty", BatchAverage("train_penalty", on_train=True)),
            ("valid_loss", BatchAverage("valid_loss")),
            *self._score_callbacks,
            ("norms", NormTracker()),
            ("divergence_guard", DivergenceGuard()),
            ("print_log", EpochLog(keys_ignored=["param_norms"])),
        ]
        if self.early_stopping:
            stopping = EarlyStopping(self.patience, self.monitor)
            callbacks.append(("early_stopping", stopping))
        return callbacks

    def _yield_callbacks(self):
        # skorch adds lists only; and early stopping reads what the others write.
        return iter(sorted(self._named_callbacks(), key=_place))

    def _named_callbacks(self):
        for item in (*self.get_default_callbacks(), *(self.callbacks or ())):
            if isinstance(item, tuple | list):
                yield *item, True
            else:
                yield _kind(item).__name__, item, False

    @property
    def best_epoch_(self) -> int:
        """The epoch, counted from 1, whose weights early stopping restored."""
        for _, callback in getattr(self, "callbacks_", []):
            if isinstance(callback, EarlyStopping):
                return callback.best_epoch_
        raise AttributeError(
            "best_epoch_ is there after fit with early_stopping=True, or with an "
            "EarlyStopping callback."
        )

    @contextmanager
    def _plain_device(self):
        """Let skorch and callbacks read a device that torch knows, never "auto"."""
        device = self.device
        self.device = str(getattr(self, "device_", "cpu"))
        try:
            yield
        finally:
            self.device = device

    def save_params(self, *args, **kwargs):
        """Save weights, optimizer state or history, as skorch does.

        Parameters
        ----------
        *args, **kwargs
            As for ``skorch.NeuralNet.save_params``: ``f_params="weights"``,
            ``use_safetensors=True``, ...
        """
        with self._plain_device():
            super().save_params(*args, **kwargs)

    def load_params(self, *args, **kwargs):
        """Load what `save_params` has saved into a net that is fitted or initialised.

        Parameters
        ----------
        *args, **kwargs
            As for ``skorch.NeuralNet.load_params``.
        """
        with self._plain_device():
            super().load_params(*args, **kwargs)
        self._set_training(False)


def _kind(callback) -> type:
    return callback if isinstance(callback, type) else type(callback)


def _place(named: tuple) -> int:
    """Return where a callback belongs: early stopping after others, then logs."""
    kind = _kind(named[1])
    return 2 if issubclass(kind, PrintLog) else int(issubclass(kind, EarlyStopping))


def _has_other_dtypes(module: torch.nn.Module, dtype: torch.dtype) -> bool:
    """Tell whether ``module.to(dtype)`` would change anything."""
    return any(
        tensor.dtype != dtype and (tensor.is_floating_point() or tensor.is_complex())
        for tensor in chain(module.parameters(), module.buffers())
    )


def _arguments_of(module) -> Mapping[str, inspect.Parameter]:
    if isinstance(module, type):
        return _arguments_of_class(module)
    return inspect.signature(module).parameters


@lru_cache(maxsize=64)
def _arguments_of_class(module: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(module).parameters


def _check_smoothing(criterion) -> None:
    """Raise a ValueError for a label smoothing that no criterion of torch computes."""
    if not isinstance(criterion, torch.nn.CrossEntropyLoss):
        return
    smoothing = criterion.label_smoothing
    if not (isinstance(smoothing, Real) and 0 <= smoothing <= 1):
        raise ValueError(
            f"label_smoothing={smoothing!r} of criterion={type(criterion).__name__} "
            "must be a number in [0, 1]; 0 leaves the labels as they are."
        )
