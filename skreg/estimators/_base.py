"""What the classifier and the regressor share: skorch's net, made to behave."""

import inspect
import signal
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from dis import opname
from functools import cache
from math import inf

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from skorch.utils import params_for

from skreg._utils.arrays import is_array_like, to_numpy
from skreg._utils.held_data import (
    clone_of_callbacks,
    copy_sharing_data,
    holds_data,
)
from skreg._utils.randomness import epoch_seed, make_generator, seeded
from skreg._utils.threads import threads_for
from skreg._utils.torch_state import plain_torch
from skreg.backprop import fully_connected_layers
from skreg.callbacks import EarlyStopping, StopTraining
from skreg.estimators._amp import MixedPrecision
from skreg.estimators._backprop_program import make_backprop_program
from skreg.estimators._components import CALLBACK_PARAMETERS, Components
from skreg.estimators._epoch_without_hooks import (
    draws_nothing_else,
    run_epoch_without_hooks,
)
from skreg.estimators._explained import check_forward_params, explained_error
from skreg.estimators._input_range import SeenRange, extended, range_of
from skreg.estimators._inputs import DataInput
from skreg.estimators._integers import INTEGERS, as_integers, warn_if_rounded
from skreg.estimators._lazy import copied, holds_lazy_buffers
from skreg.estimators._links import first_output, n_rows
from skreg.estimators._numbers import plain_options, with_plain_numbers
from skreg.estimators._overrides import known_to, note_methods, overrides
from skreg.estimators._regularizers import (
    PARAMETERS,
    make_regularizers,
    params_of,
    strengths,
    with_parameters,
)
from skreg.estimators._targets import Message, Targets
from skreg.estimators._tasks import CallbackSupportMixin, FitTasks, with_callbacks
from skreg.estimators.adversarial import attacked, range_of_dataset
from skreg.estimators.fit_state import FitState
from skreg.estimators.parameters import RULES, check_parameters
from skreg.estimators.paths import (
    AUTOGRAD,
    BACKPROP,
    PATHS,
    STACK,
    choose_path,
    is_unobserved,
)
from skreg.estimators.schedules import begin_schedule, explained, is_schedule
from skreg.penalties import trainable_parameters
from skreg.training.batches import ArrayDataset, Batch
from skreg.training.output_checks import doubt, last_operation
from skreg.training.regularizing import Active, penalized
from skreg.training.trainer import train
from skreg.transforms import as_augmentation, is_sample_augmentation

# Parameters that may be set while training goes on: the next epoch follows them.
IN_TRAINING = {
    *("criterion", "dropout", "augment", "adversarial_eps", "adversarial_norm"),
    *("adversarial_steps", "verbose", "regularizers", *PARAMETERS),
}
_PLAIN = bool, int, float, str, type(None)


@dataclass
class _Prediction:
    """What exists only while outputs are computed."""

    warned: bool = False  # of integers that are rounded


class RegularizedNet(Components, DataInput, CallbackSupportMixin):
    """Mixin in front of a skorch net. See the classifier for the parameters."""

    _rules = RULES
    _session = None  # while no fit runs
    _prediction = None  # while none is made
    _amp = None  # the MixedPrecision of the last fit
    # Groups are for the splits of a search, unless set_fit_request says otherwise.
    __metadata_request__fit = {"groups": False}

    def __init__(
        self,
        module=None,
        *,
        criterion,
        hidden_layer_sizes=(100,),
        regularizers=None,
        dropout=None,
        augment=None,
        adversarial_eps=0.0,
        adversarial_norm="linf",
        adversarial_steps=1,
        optimizer=torch.optim.Adam,
        lr=0.001,
        max_epochs=100,
        batch_size=64,
        shuffle=True,
        early_stopping=False,
        patience=20,
        monitor="valid_loss",
        validation_fraction=0.1,
        holdout="random",
        train_split=None,
        callbacks=None,
        random_state=None,
        warm_start=False,
        device="auto",
        dtype="auto",
        amp=None,
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
        self.regularizers = regularizers
        self.dropout = dropout
        self.augment = augment
        self.adversarial_eps = adversarial_eps
        self.adversarial_norm = adversarial_norm
        self.adversarial_steps = adversarial_steps
        self.optimizer = optimizer
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.patience = patience
        self.monitor = monitor
        self.validation_fraction = validation_fraction
        self.holdout = holdout
        self.train_split = train_split
        self.callbacks = callbacks
        self.random_state = random_state
        self.warm_start = warm_start
        self.device = device
        self.dtype = dtype
        self.amp = amp
        self.iterator_train = iterator_train
        self.iterator_valid = iterator_valid
        self.dataset = dataset
        self.predict_nonlinearity = predict_nonlinearity
        self.compile = compile
        self.use_caching = use_caching
        self.torch_load_kwargs = torch_load_kwargs
        self.verbose = verbose
        for name, parameter in PARAMETERS.items():  # of the regularisers
            setattr(self, name, kwargs.pop(name, parameter.default))
        for name, value in kwargs.items():  # module__*, optimizer__*, callbacks__*, ...
            self._set_extra_param(name, value)

    def __init_subclass__(cls, **kwargs):
        """Show inherited parameters in the signature of a subclass's ``__init__``.

        A subclass writes its own parameters and ``**kwargs``; tab completion, ``help``
        and ``get_params`` see them all, and no signature is written twice.
        """
        super().__init_subclass__(**kwargs)
        note_methods(cls)
        if "__init__" not in vars(cls):
            return
        cls.__init__.__signature__ = _merged_signature(
            super(cls, cls).__init__, cls.__init__
        )

    # -- parameters -----------------------------------------------------------------

    @classmethod
    @cache
    def _explicit_params(cls) -> list[str]:
        parameters = inspect.signature(cls).parameters.values()
        return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]

    def _get_param_names(self):
        return self._explicit_params() + sorted(self._params_to_validate)

    @property
    def _params_to_validate(self) -> set[str]:
        """Names of what came in as ``**kwargs``: ``module__*``, and typing errors."""
        return set(self._extra_params)

    @property
    def _extra_params(self) -> dict:
        return vars(self).get("_kwargs", {})

    def _set_extra_param(self, name, value) -> None:
        # Not among the attributes: an estimator of scikit-learn's holds no other than
        # the parameters in its signature until it is fitted.
        vars(self)["_kwargs"] = {**self._extra_params, name: value}  # not a copy's

    def _get_params_for(self, prefix):
        if not vars(self).get("_kwargs"):  # as for most, and skorch asks 24 times a fit
            return {}
        given = params_for(prefix, self._extra_params)
        owners = {*self._modules, *self._criteria, "augment", "dataset"}
        return plain_options(given, tensors=prefix.split("__")[0] not in owners)

    def __getattr__(self, name):
        extra = vars(self).get("_kwargs")
        if extra and name in extra:
            return extra[name]
        return self.__getattribute__(name)  # raises what a property has raised

    def __setattr__(self, name, value):
        if "__" in name and not name.startswith("_"):
            self._set_extra_param(name, value)
        elif isinstance(value, _PLAIN):  # no component that skorch would register
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name):
        if name in self._extra_params:
            kept = {k: v for k, v in self._extra_params.items() if k != name}
            vars(self)["_kwargs"] = kept
        else:
            super().__delattr__(name)

    def get_params(self, deep=True):
        """Return the parameters; with `deep`, also those of the callbacks.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict
        """
        # Not deep, because some transforms of torchvision, which may be `augment`, have
        # a get_params that means something else.
        params = super().get_params(deep=False)
        if deep:
            params |= self._get_params_callbacks(deep=True)
            params |= params_of(self.regularizers)
        # skorch puts its default callbacks over what the user has set in their place.
        return params | {name: getattr(self, name) for name in self._params_to_validate}

    def __sklearn_clone__(self):
        # Some of torchvision's transforms have a get_params that is none of
        # scikit-learn's kind, and cannot be cloned as its estimators are. What holds
        # data would be copied with them.
        values = {name: getattr(self, name) for name in self._get_param_names()}
        own = {"augment": values["augment"]}
        own |= {
            name: value
            for name, value in values.items()
            if name not in ("module", "criterion") and holds_data(value)
        }
        module = values["module"]
        if holds_lazy_buffers(module):
            own["module"] = module
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self), _kwargs=dict(self._extra_params))
        for name in own:
            setattr(twin, name, None)
        cloned = super(RegularizedNet, twin).__sklearn_clone__()
        for name, value in own.items():
            is_callback = name.split("__")[0] == "callbacks"
            clone_parameter = clone_of_callbacks if is_callback else copy_sharing_data
            if name == "module":
                clone_parameter = copied
            setattr(cloned, name, clone_parameter(value))
        return cloned

    def set_params(self, **params):
        """Set parameters, which take effect with the next ``fit``.

        A fitted net goes on to predict as it was fitted. For ``partial_fit`` and warm
        starts: ``lr`` and ``optimizer__*`` act on the optimizer at hand; what else
        concerns criterion, optimizer or callbacks renews these and keeps the weights;
        what concerns the module starts anew; ``device``, ``dtype``, ``random_state``
        and ``compile`` wait for a ``fit`` that starts anew; ``predict_nonlinearity``
        acts on predictions at once. What a callback sets in ``on_train_begin`` takes
        effect at once, but for parameters of callbacks. What it sets later, the next
        epoch follows if it concerns criterion, regularisers, augmentation or attacks;
        a warning tells of anything else.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self
        """
        unknown = {name for name in params if "__" not in name}
        unknown -= set(self._get_param_names())
        if unknown:
            raise ValueError(
                f"Invalid parameter {sorted(unknown)[0]!r} for estimator {self!r}. "
                f"Valid parameters are: {self._get_param_names()!r}, and those with a "
                "prefix, such as module__*."
            )
        live = {name: v for name, v in params.items() if self._is_virtual_param(name)}
        self._apply_virtual_params(plain_options(live))
        for name, value in params.items():
            setattr(self, name, value)
        if self.initialized_:
            changed = {name.split("__")[0] for name in params.keys() - live.keys()}
            self._stale = getattr(self, "_stale", set()) | changed
        if self._session and self._session.begins:
            self._renew_now()
        elif self._session:
            self._session.changed |= params.keys() - live.keys()
        return self

    def _renew_now(self) -> None:
        """Make anew, as skorch does, what a callback sets as training begins."""
        check_parameters(self, self._rules)
        stale, later = self._stale, self._stale & CALLBACK_PARAMETERS
        if stale & {*self._modules, "hidden_layer_sizes"}:
            self._initialize_module()
            self._initialize_criterion()
            self._initialize_optimizer()
        else:
            self._renew(stale - later)
        self._session.looks = True
        self._stale = later

    __repr__ = BaseEstimator.__repr__

    def get_metadata_routing(self):
        """Return which metadata the methods ask for.

        ``partial_fit`` asks for what ``fit`` asks for, but where
        ``set_partial_fit_request`` says otherwise.

        Returns
        -------
        MetadataRouter
        """
        requests = self._get_metadata_request()
        own = requests.partial_fit.requests
        for param, alias in requests.fit.requests.items():
            if own.get(param) is None:
                requests.partial_fit.add_request(param=param, alias=alias)
        return super().get_metadata_routing().add_self_request(requests)

    # -- fitting --------------------------------------------------------------------

    @with_callbacks
    def fit(
        self,
        X,
        y=None,
        sample_weight=None,
        *,
        X_val=None,
        y_val=None,
        groups=None,
        **fit_params,
    ):
        """Fit the net.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...), or Dataset
            Numbers; images as (n_samples, channels, height, width). A DataFrame, a
            tensor, a sparse matrix, or a map-style torch Dataset of pairs (x, y) will
            do as well.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets; None if `X` is a Dataset that holds them. For a classifier, several
            columns are labels, each of which a sample has (1) or has not (0).
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the loss, of training and of what is held out to
            validate. Only their ratios count: they are divided by their mean, and so do
            not change what the penalties weigh.
        X_val, y_val : as X and y, default=None
            Validation data. They are never trained on: the history tells how the net
            does on them, and early stopping looks at them.
        groups : array-like of shape (n_samples,), default=None
            Passed to `train_split`, for splits such as ``ValidSplit(GroupKFold())``;
            what early stopping holds out are whole groups.
        **fit_params : dict
            Passed to the module's ``forward`` and to `train_split`.

        Returns
        -------
        self
        """
        data = X, y, sample_weight, X_val, y_val
        fit_params["groups"] = groups
        return self._fit(*data, fit_params, resume=self.warm_start)

    @with_callbacks
    def partial_fit(
        self,
        X,
        y=None,
        classes=None,
        sample_weight=None,
        *,
        X_val=None,
        y_val=None,
        groups=None,
        **fit_params,
    ):
        """Go on with training for ``max_epochs`` epochs; start if it is the first call.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val, groups, **fit_params
            As for ``fit``.
        classes : array-like of shape (n_classes,), default=None
            All class labels, if the first call's `y` does not show them all.

        Returns
        -------
        self
        """
        self._check_partial_fit()
        data = X, y, sample_weight, X_val, y_val
        fit_params["groups"] = groups
        return self._fit(*data, fit_params, resume=True, classes=classes)

    @with_plain_numbers
    def _fit(
        self, X, y, sample_weight, X_val, y_val, fit_params, *, resume, classes=None
    ):
        check_parameters(self, self._rules)
        if not self._adds_components():  # else their prefixes are not known yet
            self._validate_params()
        stale = getattr(self, "_stale", set())
        resume = resume and self.initialized_
        resume = resume and not stale & {*self._modules, "hidden_layer_sizes"}
        if resume:
            self.check_training_readiness()  # raises if optimizer and history are gone
        original = X, y
        learned = resume and hasattr(self, self._learned)  # else it is initialised only
        prepared = self._prepare(
            X, y, sample_weight, fit_params, reset=not learned, classes=classes
        )
        fit_params = prepared.fit_params
        if self.amp is not None and self.dtype_ != torch.float32:
            raise ValueError(
                f"amp={self.amp!r} needs weights and data of float32, but these are "
                f"{self._dtype_name}; set dtype='auto' and fit anew, or amp=None."
            )
        targets = Targets(self._make_decoder, self._is_encoded)
        targets.add(prepared)
        validation = self._prepare_validation(X_val, y_val, targets)
        watched = getattr(self, "_skl_callbacks", None)
        tasks = FitTasks(self, *original) if watched else None
        groups = fit_params.pop("groups")
        self._session = FitState(
            *(self, targets, prepared.weight, validation, tasks, groups)
        )
        self._session.looks = not learned or bool(stale)
        try:
            if resume:
                self._renew(stale)
            else:
                self.initialize()
            vars(self).pop("_stale", None)
            if fit_params and not overrides(self):
                check_forward_params(self.module_, fit_params)
            prepared = self._decide_on_integers(prepared, validation)
            if validation is not None:
                self._compare_inputs(prepared, validation)
            self._follow_amp(resume)
            with self._plain_device():
                self._run_training(prepared)
            self._note_path()
        finally:
            if self._session.path is not None:
                self._note_path()
            if self._session.program:
                self._session.program.release()
            del self._session
        if tasks:
            tasks.end(self)
        return self

    def _note_path(self) -> None:
        path = self._session.path or choose_path(self, self._session.against_stack)
        self.training_path_ = path.name
        self.training_path_reasons_ = dict(path.reasons)

    def _follow_amp(self, resume: bool) -> None:
        if self.amp is None:
            self._amp = None
        elif not (resume and self._amp and self._amp.name == self.amp):
            self._amp = MixedPrecision(self.amp, self.device_)
        if self._scaler and isinstance(self.optimizer_, torch.optim.LBFGS):
            raise ValueError(
                f"amp={self.amp!r} scales losses, which LBFGS cannot follow; use "
                "amp='bfloat16', or another optimizer."
            )

    @property
    def _scaler(self):
        return None if self._amp is None else self._amp.scaler

    def _run_training(self, prepared):
        X, y, fit_params = prepared.X, prepared.y, prepared.fit_params
        own = {"X": prepared.own_X, "y": prepared.own_y}
        self._session.fit_params = fit_params
        self._session.begins = True
        stops = False
        try:
            self.notify("on_train_begin", **own)
        except StopTraining:  # when all callbacks have begun
            stops = True
        self._session.begins = False
        self._make_regularizers()
        self._session.augment = self._make_augmentation()
        self._learn_input_range(X)
        self._session.unobserved = is_unobserved(self)
        self._session.unscored = self._session.unobserved and not any(
            getattr(callback, "scorer_", None) for _, callback in self.callbacks_
        )
        try:
            if not stops:
                train(self._session, X, y)
        except StopTraining:
            pass
        finally:
            if self._session.seen is not None:
                self._extend_input_range(self._session.seen.value())
            self._end_training(own)

    def _end_training(self, own: dict) -> None:
        """Leave a net that can be used, whatever has ended its training."""
        try:
            self.notify("on_train_end", **own)
        finally:
            self._set_training(False)

    def _learn_input_range(self, X) -> None:
        """Note the range of training data, at once or as the batches are seen."""
        session = self._session
        if is_array_like(X):
            self._extend_input_range(range_of(X))
        elif self.adversarial_eps > 0:  # attacks must know it before the first batch
            self._extend_input_range(range_of_dataset(self, X))
        elif not isinstance(X, Mapping):
            session.seen = SeenRange()
        if self.adversarial_eps > 0:
            session.bounds = self.input_range_

    def _extend_input_range(self, more) -> None:
        wider = extended(getattr(self, "input_range_", None), more)
        if wider is not None:
            self.input_range_ = wider

    def _make_augmentation(self):
        augment, kwargs = self.augment, self.get_params_for("augment")
        if isinstance(augment, type) or kwargs:
            augment = self.initialized_instance(augment, kwargs)
        augment = as_augmentation(augment)
        if isinstance(augment, torch.nn.Module):
            augment = deepcopy(augment).to(self.device_).train()
        return augment

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def notify(self, method_name, **cb_kwargs):
        session = self._session
        shown = session and not session.unscored and session.targets
        message = Message(shown or None, method_name, cb_kwargs)
        getattr(self, method_name)(self, **message.to(self))
        stop, tasks = None, session and session.tasks
        if tasks and method_name == "on_epoch_begin":
            tasks.begin_epoch(self)
        for _, callback in self._told(method_name):
            try:
                if method_name == "on_train_begin" and is_schedule(callback):
                    begin_schedule(callback, self)
                else:
                    getattr(callback, method_name)(self, **message.to(callback))
            except StopTraining as request:
                stop = request
            except KeyboardInterrupt as request:
                # How callbacks of skorch end training. Ctrl-C is the user's, and ends
                # more than this fit.
                if not _is_raised_by_statement(request):
                    raise
                stop = request
            except Exception as error:
                better = explained(callback, self, error)
                if better is error:
                    raise
                raise better from error
        if tasks and method_name == "on_epoch_end" and tasks.end_epoch(self):
            stop = StopTraining()
        if stop is not None:  # when all callbacks have seen the last epoch
            raise StopTraining from stop

    def _told(self, method_name) -> list:
        """Return the callbacks in the order in which they are told of something."""
        if method_name != "on_train_end":
            return self.callbacks_
        # The best weights are back before others look at the net, or keep it.
        return sorted(
            self.callbacks_, key=lambda named: not isinstance(named[1], EarlyStopping)
        )

    @known_to(AUTOGRAD, BACKPROP, STACK)
    @plain_torch()
    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train for some epochs; outside of a fit, as ``partial_fit`` does.

        Parameters
        ----------
        X, y : as for ``fit``
        epochs : int, default=None
            Number of epochs; None is `max_epochs`.
        **fit_params : dict

        Returns
        -------
        self
        """
        session = self._session
        if session is None:  # the data are the user's
            own = self.max_epochs
            try:
                self.max_epochs = own if epochs is None else epochs
                return self.partial_fit(X, y, **fit_params)
            finally:
                self.max_epochs = own
        session.path = choose_path(self, session.against_stack)
        if session.path.name == BACKPROP:
            session.program = make_backprop_program(self)
        return super().fit_loop(X, y, epochs, **fit_params)

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        if iterator is None:
            return
        session = self._session
        if session and training:
            self._look_again()
            step_fn = self._with_training_batches(step_fn)
        if draws_nothing_else(self, iterator, fit_params):
            # Nobody but the iterator and dropout draws random numbers: they can have
            # a generator of their own, and the global ones need not be borrowed.
            if training:
                generator = make_generator(epoch_seed(self.seed_, len(self.history)))
                iterator.generator = session.program.generator = generator
            run_epoch_without_hooks(self, iterator, training, fit_params)
            iterator.generator = session.program.generator = None
            return
        seed = epoch_seed(self.seed_, len(self.history))
        with seeded(seed, self.device_):
            if session and session.path and not session.path.has_hooks:
                run_epoch_without_hooks(self, iterator, training, fit_params)
            else:
                super().run_single_epoch(
                    iterator, training, prefix, step_fn, **fit_params
                )

    def _follow_changes(self) -> None:
        """Let parameters that were set since the last epoch take effect, or warn."""
        session = self._session
        changed = {name.split("__")[0] for name in session.changed}
        if changed & IN_TRAINING:
            check_parameters(self, self._rules)
        if "criterion" in changed:
            self._initialize_criterion()
            session.looks = True
        if "dropout" in changed:
            self._follow_dropout()
        if "augment" in changed:
            session.augment = self._make_augmentation()
        if self.adversarial_eps > 0 and session.bounds is None:
            session.bounds = getattr(self, "input_range_", (-inf, inf))
        self._stale -= changed & IN_TRAINING
        late = sorted(n for n in session.changed if n.split("__")[0] not in IN_TRAINING)
        if late:
            warnings.warn(
                f"set_params({', '.join(late)}) during training has no effect before "
                "the next fit.",
                UserWarning,
                stacklevel=2,
            )
        session.changed = set()

    def _look_again(self) -> None:
        """Notice what callbacks have made of the net since the last epoch."""
        session = self._session
        if session.changed:
            self._follow_changes()
        if session.unobserved:
            return
        self._make_regularizers()
        path = choose_path(self, session.against_stack)
        if PATHS.index(path.name) > PATHS.index(session.path.name):
            session.path = path  # and never back to a faster one
        program = session.program
        if program and not (session.path.name == BACKPROP and program.is_current()):
            program.release()
            remains = session.path.name == BACKPROP
            session.program = make_backprop_program(self) if remains else None

    def _with_training_batches(self, train_step):
        """Return the step with what precedes it, and what is written down after it.

        They are not part of ``train_step``, so that a subclass may replace it.
        """

        def step(batch, **fit_params):
            step = train_step(self._training_batch(batch), **fit_params)
            self._project()
            self.history.record_batch("train_penalty", float(self._session.penalty))
            return step

        return step

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def validation_step(self, batch, **fit_params):
        with self._validation_weights(batch):
            return super().validation_step(batch, **fit_params)

    @contextmanager
    def _validation_weights(self, batch):
        """Let the loss of a batch of validation data know its weights."""
        session, weight = self._session, getattr(batch, "weight", None)
        if session is None or weight is None or session.mean_valid_weight is None:
            yield
            return
        session.valid_weight = weight / session.mean_valid_weight
        try:
            yield
        finally:
            session.valid_weight = None

    def _project(self) -> None:
        """Let regularisers change the weights after a step."""
        regularizers, weights = self._regularizers_at_work()
        if regularizers.projects:
            with torch.no_grad():
                regularizers.project({name: w.detach() for name, w in weights.items()})

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def train_step_single(self, batch, **fit_params):
        regularizers, weights = self._regularizers_at_work()
        if not regularizers.computes_gradients:
            return self._evaluate(batch, fit_params)
        step = {}

        def evaluate():
            self._zero_grad_optimizer()
            found = self._evaluate(batch, fit_params)
            step.setdefault("first", found)
            penalty = self._session.penalty if self._session else 0.0
            return found["loss"].detach(), penalty

        weights = {name: w.detach() for name, w in weights.items()}
        loss, penalty = regularizers.gradients(evaluate, weights)
        if self._session:
            self._session.penalty = penalty
        return {**step["first"], "loss": loss}

    def _evaluate(self, batch, fit_params) -> dict:
        """Compute the loss of a batch, and its gradients."""
        if self._scaler is None:
            return super().train_step_single(batch, **fit_params)
        self._set_training(True)
        X, y = batch
        y_pred = self.infer(X, **fit_params)
        loss = self.get_loss(y_pred, y, X=X, training=True)
        self._scaler.backward(loss, self._all_optimizers())
        return {"loss": loss, "y_pred": y_pred}

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def _step_optimizer(self, step_fn):
        if self._scaler is None:
            super()._step_optimizer(step_fn)
        else:
            step_fn()
            self._scaler.step(self._all_optimizers())

    def _all_optimizers(self) -> list[torch.optim.Optimizer]:
        return [getattr(self, f"{name}_") for name in self._optimizers]

    def _training_batch(self, batch):
        """Note the weights of a batch, augment it, and attack what came of it."""
        session = self._session
        if session is None:
            return batch
        session.weight = getattr(batch, "weight", None)
        if session.weight is not None:
            session.weight = session.weight / session.mean_weight
        if session.seen is not None:
            session.seen.add(batch[0])
        changed = session.augment is not None or session.bounds is not None
        if not (changed or session.regularizers.changes_batches):
            return batch
        X, y = batch
        X = self._to_device(X)
        if session.augment is not None:
            X = session.augment(X)
        if session.regularizers.changes_batches:
            X, y = session.regularizers.batch(X, torch.as_tensor(y, device=X.device))
        if session.bounds is not None:
            X = attacked(
                *(self, X, y, session.bounds, session.fit_params),
                warn_if_blind=not session.was_attacked,
            )
            session.was_attacked = True
        return Batch(X, y, session.weight)

    @known_to(AUTOGRAD, BACKPROP, STACK)
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
        y_true = torch.as_tensor(y_true, device=first_output(y_pred).device)
        outputs = self._checked_outputs(y_pred, n_rows(y_true))
        session = self._session
        if not training:
            weight = session.valid_weight if session else None
            return self._data_loss(outputs, y_true, weight)
        if session and session.looks:
            session.look_at_outputs(outputs, last_operation(outputs))
        loss = self._data_loss(outputs, y_true, session.weight if session else None)
        if session and not loss.requires_grad:
            raise ValueError(
                f"The loss of a batch does not depend on the parameters of module="
                f"{type(self.module_).__name__}: its forward computes under "
                "torch.no_grad() or detaches its outputs, or all of its parameters are "
                "frozen. There is nothing to train."
            )
        regularizers, weights = self._regularizers_at_work()
        objective, penalty = penalized(loss, regularizers, weights)
        if session:
            session.penalty = penalty
        return objective

    def _regularizers_at_work(self) -> tuple[Active, dict[str, torch.nn.Parameter]]:
        """Return the regularisers, as the parameters are now, and what they act on."""
        session = self._session
        if session is None:
            return (
                make_regularizers(self, self.module_),
                trainable_parameters(self.module_),
            )
        if not session.unobserved and session.strengths != strengths(self):
            self._make_regularizers()
        return session.regularizers, session.weights

    def _make_regularizers(self) -> None:
        session = self._session
        session.weights = trainable_parameters(self.module_)
        session.regularizers = make_regularizers(self, self.module_)
        session.strengths = strengths(self)

    def _warn_of_outputs(self, outputs, operation: str) -> None:
        """Warn of outputs that the criterion is not meant for."""
        found = doubt(
            *(self.criterion_, outputs.detach(), operation),
            standardized=self._is_standardized,
            half=self._amp is not None,
        )
        if found is not None:
            warnings.warn(found, UserWarning, stacklevel=2)

    def _checked_outputs(self, y_pred, n_samples: int | None) -> torch.Tensor:
        """Return what the module returned as a tensor (n_samples, n_outputs).

        None stands for a number of samples that is not known.
        """
        outputs, n_outputs = first_output(y_pred), getattr(self, "n_outputs_", None)
        if n_samples is None and outputs.ndim:
            n_samples = len(outputs)
        if outputs.shape == (n_samples, n_outputs):
            return outputs
        return self._outputs_as_columns(outputs, n_samples, n_outputs)

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def evaluation_step(self, batch, training=False):
        """Return what the module returns for a batch, as in skorch.

        Parameters
        ----------
        batch : (X, y)
        training : bool, default=False
            Keep dropout on, and gradients.

        Returns
        -------
        Tensor, or tuple that begins with one
        """
        y_pred = super().evaluation_step(batch, training)
        self._checked_outputs(y_pred, n_rows(batch[1]))
        return y_pred

    def _data_loss(self, outputs, y_true, weight):
        if weight is None:
            return self.criterion_(outputs, y_true)
        # A compiled criterion hands on what is set to the original.
        criterion = getattr(self.criterion_, "_orig_mod", self.criterion_)
        if getattr(criterion, "reduction", None) != "mean":
            raise ValueError(
                f"criterion={type(criterion).__name__} has no reduction='mean', so "
                "that samples cannot be weighted; use a criterion of torch.nn as it "
                "is, or no sample_weight and class_weight."
            )
        ignored = getattr(criterion, "ignore_index", -100)
        if getattr(criterion, "weight", None) is not None or ignored >= 0:
            raise ValueError(
                f"criterion={type(criterion).__name__} has weight or ignore_index, "
                "which cannot be combined with sample_weight and class_weight; say it "
                "all with these two (weight zero ignores a class)."
            )
        per_sample = copy(criterion)
        per_sample.reduction = "none"
        losses = per_sample(outputs, y_true).reshape(len(outputs), -1).mean(dim=1)
        return (weight.to(losses) * losses).mean()

    def _may_share_memory(self, layers) -> bool:
        """Tell whether nobody writes into batches, so that they may be the data.

        Parameters
        ----------
        layers : list of nn.Module or None
            From `fully_connected_layers`.
        """
        if not layers:  # some layers work in place
            return False
        if self._session is None:
            return not overrides(self)
        augment = self._session.augment
        harmless = augment is None or is_sample_augmentation(augment)
        return harmless and self._session.unobserved

    # -- prediction -----------------------------------------------------------------

    def __sklearn_is_fitted__(self):
        return self.initialized_ and hasattr(self, self._learned)

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def infer(self, x, **fit_params):
        x = self._to_device(x)
        program = self._session.program if self._session else None
        evaluates = not fit_params and not self.module_.training
        if program and evaluates and program.stands_in():
            with self._errors_explained(self.module_, x):
                return program.outputs(x)
        if self._amp is None:
            return self._forward(x, fit_params)
        with self._amp.autocast():
            outputs = self._forward(x, fit_params)
        # Losses and probabilities are computed from these in full precision.
        if isinstance(outputs, tuple):
            return tuple(map(self._full_precision, outputs))
        return self._full_precision(outputs)

    def _forward(self, x, fit_params, module=None):
        module = self.module_ if module is None else module
        if isinstance(x, Mapping):
            return module(**self._merge_x_and_fit_params(x, fit_params))
        with self._errors_explained(module, x):
            return module(x, **fit_params)

    @contextmanager
    def _errors_explained(self, module, x):
        """Raise a clearer error for what a module raises when it gets a batch."""
        try:
            yield
        except (RuntimeError, IndexError) as error:
            shape = getattr(self, "input_shape_", None)
            better = explained_error(error, module, x, shape)
            if better is error:
                raise
            raise better from error

    def _full_precision(self, output):
        is_floating = isinstance(output, torch.Tensor) and output.is_floating_point()
        return output.to(self.dtype_) if is_floating else output

    def _to_device(self, x):
        """Move inputs to the device, in the dtype that the module takes.

        Floating-point ones get the weights' dtype, and integers what the module wants;
        those of a dict stay as they are.
        """
        is_mapping = not isinstance(x, torch.Tensor) and isinstance(x, Mapping)
        return self._moved(x, None if is_mapping else self._integers_as)

    def _moved(self, x, integers_as):
        if not isinstance(x, torch.Tensor):
            if isinstance(x, Mapping):
                return {k: self._moved(value, integers_as) for k, value in x.items()}
            x = torch.as_tensor(x)
        if x.is_floating_point():
            if integers_as in INTEGERS:
                x = as_integers(to_numpy(x), integers_as, self._reason_for_integers)
                return torch.from_numpy(x).to(self.device_)
            return x.to(self.device_, self.dtype_)
        if integers_as is None or x.is_complex():
            return x.to(self.device_)
        if integers_as not in INTEGERS and x.itemsize > 2:
            self._warn_if_rounded(x, integers_as)
        return x.to(self.device_, getattr(torch, integers_as))

    def _warn_if_rounded(self, x: torch.Tensor, dtype: str) -> None:
        """Warn, once a fit or a prediction, of integers in batches of a Dataset."""
        state = self._session or self._prediction
        if state is None or not state.warned:
            warned = warn_if_rounded(to_numpy(x), dtype)
            if state is not None:
                state.warned = warned

    @plain_torch()
    def _outputs(self, X, nonlinearity=None) -> np.ndarray:
        """Return the module's outputs, after the nonlinearity, as one array."""
        if not self.initialized_:
            check_is_fitted(self)
        nonlinearity = nonlinearity or self._get_predict_nonlinearity()
        X = self._validate_X(X)
        batches = self.forward_iter(X)
        outputs = (self._checked_outputs(out, None) for out in batches)
        self._prediction = _Prediction()
        try:
            with threads_for(self._prediction_flop(X)):
                outputs = [to_numpy(nonlinearity(out)) for out in outputs]
        finally:
            vars(self).pop("_prediction", None)  # of another thread, perhaps
        if not outputs:
            raise ValueError(
                f"X={type(X).__name__} holds 0 samples; at least 1 is needed."
            )
        outputs = np.concatenate(outputs)
        if hasattr(X, "__len__") and not isinstance(X, Mapping) and is_array_like(X):
            self._check_all_predicted(len(outputs), X.shape[0])
        return self._finite(outputs, X)

    def _check_all_predicted(self, n_outputs: int, n_samples: int) -> None:
        if n_outputs != n_samples:
            raise ValueError(
                f"There are predictions for {n_outputs} of {n_samples} samples; "
                "options such as iterator_valid__drop_last or iterator_valid__sampler "
                "leave out the others. Remove them."
            )

    def _prediction_flop(self, X) -> float:
        """Return about how many operations outputs take; infinity if unknown."""
        if not is_array_like(X) or not fully_connected_layers(
            self.module_, X.shape[1:]
        ):
            return inf
        return 2 * X.shape[0] * sum(w.numel() for w in self.module_.parameters())

    def _finite(self, outputs: np.ndarray, X=None) -> np.ndarray:
        if not np.isfinite(outputs).all():
            cause = ""
            if X is not None and not is_array_like(X):  # others were looked through
                cause = f"X={type(X).__name__} holds NaN or infinity, or "
            raise ValueError(
                f"The net's outputs are not finite numbers: {cause}its training "
                "diverged, see history[:, 'train_loss'], or y is too large for its "
                "dtype. Fit it again with a smaller lr, or with inputs scaled to about "
                "[-1, 1]."
            )
        return outputs


RegularizedNet.__init__.__signature__ = with_parameters(RegularizedNet.__init__)


def _merged_signature(inherited, own) -> inspect.Signature:
    """Return the parameters of `inherited`, redefined and added to by `own`."""
    merged = dict(inspect.signature(inherited).parameters)
    for name, parameter in inspect.signature(own).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = merged[name].kind if name in merged else parameter.KEYWORD_ONLY
        # Types are in the docstring, with shapes.
        merged[name] = parameter.replace(kind=kind, annotation=parameter.empty)
    return inspect.Signature(sorted(merged.values(), key=lambda p: p.kind))


def _is_raised_by_statement(error: BaseException) -> bool:
    """Tell an error of a ``raise`` statement from one that a signal brought."""
    traceback, handlers = error.__traceback__, _signal_handlers()
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
        if traceback.tb_frame.f_code in handlers:
            return False
    operation = traceback.tb_frame.f_code.co_code[traceback.tb_lasti]
    return opname[operation] == "RAISE_VARARGS"


def _signal_handlers() -> set:
    """Return the code of the functions that signals call."""
    handlers = map(signal.getsignal, signal.valid_signals())
    functions = (
        getattr(handler, "func", handler)  # of a partial function
        for handler in handlers
        if callable(handler)
    )
    codes = (
        getattr(function, "__code__", None)
        or getattr(type(function).__call__, "__code__", None)
        for function in functions
    )
    return {code for code in codes if code is not None}
