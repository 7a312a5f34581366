"""What the classifier and the regressor share: skorch's net, made to behave."""

import inspect
from collections.abc import Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import EpochTimer, PassthroughScoring, PrintLog
from torch.nn.parameter import is_lazy

from skreg.callbacks import DivergenceGuard, EarlyStopping, NormTracker, StopTraining
from skreg.estimators._data import ArrayDataset
from skreg.estimators._inputs import DataInput
from skreg.estimators._parameters import RULES, check_parameters, resolve_device
from skreg.estimators._randomness import draw_seed, epoch_seed, seeded
from skreg.modules import MLP
from skreg.objective import penalized_objective
from skreg.penalties import penalized_parameters


@dataclass
class _Session:
    """What exists only while a fit runs."""

    validation: torch.utils.data.Dataset | None
    penalized: list = field(default_factory=list)
    penalty: torch.Tensor | float = 0.0  # of the batch at hand


class RegularizedNet(DataInput):
    """Mixin in front of a skorch net. See the classifier for the parameters."""

    # skorch fills these in when it first sees a module, and wants them on the
    # instance; scikit-learn wants an instance that holds its parameters and no more.
    initialized_ = False
    history_ = None
    virtual_params_ = MappingProxyType({})
    prefixes_ = [
        *("iterator_train", "iterator_valid", "callbacks", "dataset", "compile"),
        *("module", "criterion", "optimizer"),
    ]
    cuda_dependent_attributes_ = ["module_", "criterion_", "optimizer_"]
    _modules = ["module"]
    _criteria = ["criterion"]
    _optimizers = ["optimizer"]

    _rules = RULES

    def __init__(
        self,
        module=None,
        *,
        criterion,
        hidden_layer_sizes=(100,),
        lambda1=0.0,
        lambda2=0.0,
        penalize="all",
        dropout=None,
        optimizer=torch.optim.Adam,
        lr=0.001,
        max_epochs=100,
        batch_size="auto",
        shuffle=True,
        early_stopping=False,
        patience=20,
        validation_fraction=0.1,
        train_split=None,
        callbacks=None,
        random_state=None,
        warm_start=False,
        device="auto",
        dtype="auto",
        iterator_train=None,
        iterator_valid=None,
        dataset=ArrayDataset,
        predict_nonlinearity="auto",
        compile=False,
        use_caching="auto",
        torch_load_kwargs=None,
        verbose=0,
        **kwargs,
    ):
        self.module = module
        self.criterion = criterion
        self.hidden_layer_sizes = hidden_layer_sizes
        self.lambda1 = lambda1
        self.lambda2 = lambda2
        self.penalize = penalize
        self.dropout = dropout
        self.optimizer = optimizer
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.train_split = train_split
        self.callbacks = callbacks
        self.random_state = random_state
        self.warm_start = warm_start
        self.device = device
        self.dtype = dtype
        self.iterator_train = iterator_train
        self.iterator_valid = iterator_valid
        self.dataset = dataset
        self.predict_nonlinearity = predict_nonlinearity
        self.compile = compile
        self.use_caching = use_caching
        self.torch_load_kwargs = torch_load_kwargs
        self.verbose = verbose
        vars(self).update(kwargs)  # module__*, optimizer__*, callbacks__*, ...

    def __init_subclass__(cls, **kwargs):
        """Show inherited parameters in the signature of a subclass's ``__init__``.

        A subclass writes its own parameters and ``**kwargs``; tab completion, ``help``
        and ``get_params`` see them all, and no signature is written twice.
        """
        super().__init_subclass__(**kwargs)
        if "__init__" not in vars(cls):
            return
        cls.__init__.__signature__ = _merged_signature(
            super(cls, cls).__init__, cls.__init__
        )

    # -- parameters -----------------------------------------------------------------

    @classmethod
    def _explicit_params(cls) -> list[str]:
        parameters = inspect.signature(cls).parameters.values()
        return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]

    def _get_param_names(self):
        return self._explicit_params() + sorted(self._params_to_validate)

    @property
    def _params_to_validate(self) -> set[str]:
        """Names of what came in as ``**kwargs``: ``module__*``, and typing errors."""
        explicit = set(self._explicit_params())
        return {
            name
            for name in vars(self)
            if name not in explicit and not name.startswith("_") and name[-1] != "_"
        }

    __repr__ = BaseEstimator.__repr__

    # -- fitting --------------------------------------------------------------------

    def fit(self, X, y=None, *, X_val=None, y_val=None, **fit_params):
        """Fit the net.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...), or Dataset
            Numbers; images as (n_samples, channels, height, width). A DataFrame, a
            tensor, or a map-style torch Dataset of pairs (x, y) will do as well.
        y : array-like of shape (n_samples,), default=None
            Targets; None if `X` is a Dataset that holds them.
        X_val, y_val : as X and y, default=None
            Validation data. They are never trained on: the history tells how the net
            does on them, and early stopping looks at them.
        **fit_params : dict
            Passed to the module's ``forward`` and to `train_split`.

        Returns
        -------
        self
        """
        return self._fit(X, y, X_val, y_val, fit_params, resume=self.warm_start)

    def partial_fit(
        self, X, y=None, classes=None, *, X_val=None, y_val=None, **fit_params
    ):
        """Go on with training for ``max_epochs`` epochs; start if it is the first call.

        Parameters
        ----------
        X, y, X_val, y_val, **fit_params
            As for ``fit``.
        classes : array-like of shape (n_classes,), default=None
            All class labels, if the first call's `y` does not show them all.

        Returns
        -------
        self
        """
        return self._fit(X, y, X_val, y_val, fit_params, resume=True, classes=classes)

    def _fit(self, X, y, X_val, y_val, fit_params, *, resume, classes=None):
        check_parameters(self, self._rules)
        self._validate_params()
        resume = resume and self.initialized_
        X, y = self._prepare(X, y, reset=not resume, classes=classes)
        validation = self._prepare_validation(X_val, y_val)
        self._session = _Session(validation)
        try:
            if not resume:
                self.initialize()
            with self._plain_device():
                self._run_training(X, y, fit_params)
        finally:
            del self._session
        return self

    def _run_training(self, X, y, fit_params):
        self._session.penalized = self._penalized_parameters()
        self.notify("on_train_begin", X=X, y=y)
        try:
            self.fit_loop(X, y, **fit_params)
        except StopTraining:
            pass
        except KeyboardInterrupt:
            # Leave a net that can be used, and let the caller know.
            self.notify("on_train_end", X=X, y=y)
            raise
        self.notify("on_train_end", X=X, y=y)

    def notify(self, method_name, **cb_kwargs):
        getattr(self, method_name)(self, **cb_kwargs)
        stop = None
        for _, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **cb_kwargs)
            except (StopTraining, KeyboardInterrupt) as request:
                # KeyboardInterrupt is how skorch's callbacks end training. Ctrl-C
                # outside of a callback is the user's, and ends more than this fit.
                stop = request
        if stop is not None:  # when all callbacks have seen the last epoch
            raise StopTraining from stop

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        if iterator is None:
            return
        seed = epoch_seed(self._seed, len(self.history))
        with seeded(seed, self.device_):
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def train_step(self, batch, **fit_params):
        step = super().train_step(batch, **fit_params)
        self.history.record_batch("train_penalty", float(self._session.penalty))
        return step

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the data loss of a batch; in training, with the penalty added.

        Parameters
        ----------
        y_pred : Tensor
            What the module returned.
        y_true : Tensor
        X : Tensor, default=None
            The inputs; not used.
        training : bool, default=False

        Returns
        -------
        Tensor of shape ()
        """
        outputs = y_pred[0] if isinstance(y_pred, tuple) else y_pred
        y_true = torch.as_tensor(y_true, device=outputs.device)
        self._check_outputs(outputs, y_true)
        loss = self.criterion_(outputs, y_true)
        if not training:
            return loss
        session = getattr(self, "_session", None)
        params = session.penalized if session else self._penalized_parameters()
        objective = penalized_objective(loss, params, self.lambda1, self.lambda2)
        if session:
            session.penalty = objective.penalty
        return objective.value

    def _penalized_parameters(self) -> list[torch.nn.Parameter]:
        return list(penalized_parameters(self.module_, self.penalize).values())

    # -- components -----------------------------------------------------------------

    def initialize(self):
        """Make module, criterion, optimizer and callbacks; ``fit`` does it for you."""
        check_parameters(self, self._rules)
        self.device_ = resolve_device(self.device)
        self._seed = draw_seed(self.random_state)
        return super().initialize()

    def _initialize_module(self, reason=None):
        with self._plain_device():
            return super()._initialize_module(reason)

    def _initialize_criterion(self, reason=None):
        with self._plain_device():
            return super()._initialize_criterion(reason)

    def initialize_module(self):
        kwargs = self.get_params_for("module")
        with seeded(self._seed, torch.device("cpu")):
            if isinstance(self.module, torch.nn.Module) and not kwargs:
                module = deepcopy(self.module)  # training must not change a parameter
            else:
                module = self._build_module(kwargs)
        if self.dropout is not None:
            _set_dropout(module, self.dropout)
        module = module.to(self._torch_dtype)
        if any(map(is_lazy, module.parameters())):
            with seeded(self._seed, torch.device("cpu")), torch.no_grad():
                module(torch.zeros(1, *self.input_shape_, dtype=self._torch_dtype))
        self.module_ = module
        penalized_parameters(module, self.penalize)  # an unknown pattern raises here
        return self

    def _build_module(self, kwargs):
        module = self.module
        if module is None:
            module = MLP
        elif isinstance(module, torch.nn.Module):
            module = type(module)
        accepted = inspect.signature(module).parameters
        known = {"hidden_layer_sizes": self.hidden_layer_sizes}
        if hasattr(self, "input_shape_"):
            known["in_features"] = prod(self.input_shape_)
            known["out_features"] = self._n_outputs
        elif module is MLP and "in_features" not in kwargs:
            raise ValueError(
                "module=None builds an MLP that fits the data, and there are none yet: "
                "call fit, or pass module__in_features and module__out_features."
            )
        filled = {name: value for name, value in known.items() if name in accepted}
        return module(**{**filled, **kwargs})

    def initialize_history(self):
        self.history_ = None  # skorch would clear the list that an earlier fit gave out
        return super().initialize_history()

    @property
    def _default_callbacks(self):
        callbacks = [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring("train_loss", on_train=True)),
            ("train_penalty", PassthroughScoring("train_penalty", on_train=True)),
            ("valid_loss", PassthroughScoring("valid_loss")),
            *self._score_callbacks,
            ("norms", NormTracker()),
            ("divergence_guard", DivergenceGuard()),
            ("print_log", PrintLog(keys_ignored=["param_norms"])),
        ]
        if self.early_stopping:
            stopping = EarlyStopping(self.patience, **self._early_stopping_monitor)
            callbacks.append(("early_stopping", stopping))
        return callbacks

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

    # -- prediction -----------------------------------------------------------------

    def infer(self, x, **fit_params):
        x = _to_device(x, self.device_, self._torch_dtype)
        if isinstance(x, Mapping):
            return self.module_(**self._merge_x_and_fit_params(x, fit_params))
        return self.module_(x, **fit_params)

    def _outputs(self, X) -> np.ndarray:
        """Return the module's outputs, after the nonlinearity, as one array."""
        check_is_fitted(self)
        outputs = super().predict_proba(self._validate_X(X))
        if not np.isfinite(outputs).all():
            raise ValueError(
                "The net's outputs are not finite numbers: its training diverged, see "
                "history[:, 'train_loss']. Fit it again with a smaller lr, or with "
                "inputs scaled to about [-1, 1]."
            )
        return outputs

    # -- the device -----------------------------------------------------------------

    @contextmanager
    def _plain_device(self):
        """Let skorch and callbacks read a device that torch knows, never "auto"."""
        device = self.device
        self.device = str(self.device_)
        try:
            yield
        finally:
            self.device = device

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_session", None)
        return state

    def __setstate__(self, state):
        device = state["device"]
        if not isinstance(device, str) or device != "auto":
            super().__setstate__(state)
        else:
            super().__setstate__({**state, "device": str(resolve_device("auto"))})
            self.device = "auto"
        if "device_" in state:
            self.device_ = resolve_device(self.device)


def _merged_signature(inherited, own) -> inspect.Signature:
    """Return the parameters of `inherited`, redefined and added to by `own`."""
    merged = dict(inspect.signature(inherited).parameters)
    for name, parameter in inspect.signature(own).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = merged[name].kind if name in merged else parameter.KEYWORD_ONLY
        merged[name] = parameter.replace(kind=kind)
    return inspect.Signature(sorted(merged.values(), key=lambda p: p.kind))


def _set_dropout(module: torch.nn.Module, p: float) -> None:
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd)
    ]
    if not layers:
        raise ValueError(
            f"dropout={p!r}, but {type(module).__name__} has no dropout layer to set; "
            "add nn.Dropout layers to the module, or leave dropout=None."
        )
    for layer in layers:
        layer.p = float(p)


def _to_device(x, device: torch.device, dtype: torch.dtype):
    """Move inputs to the device; floating-point ones get the dtype of the weights."""
    if isinstance(x, Mapping):
        return {key: _to_device(value, device, dtype) for key, value in x.items()}
    x = torch.as_tensor(x)
    return x.to(device, dtype if x.is_floating_point() else None)
