"""What the classifier and the regressor share: skorch's net, made to behave."""

import inspect
from collections.abc import Mapping

import torch
from sklearn.base import BaseEstimator

from skreg._utils.arrays import is_array_like
from skreg.callbacks import StopTraining
from skreg.estimators._amp import MixedPrecision
from skreg.estimators._components import CALLBACK_PARAMETERS, Components
from skreg.estimators._explained import check_forward_params
from skreg.estimators._input_range import SeenRange, extended, range_of
from skreg.estimators._inputs import DataInput
from skreg.estimators._numbers import plain_options, with_plain_numbers
from skreg.estimators._overrides import note_methods, overrides
from skreg.estimators._parameter_access import ParameterAccess
from skreg.estimators._prediction import Prediction
from skreg.estimators._regularizers import (
    PARAMETERS,
    looks_at_input_range,
    with_parameters,
)
from skreg.estimators._sparsity import Sparsity
from skreg.estimators._targets import Targets
from skreg.estimators._tasks import CallbackSupportMixin, FitTasks, with_callbacks
from skreg.estimators._training_steps import TrainingSteps
from skreg.estimators.adversarial import range_of_dataset
from skreg.estimators.fit_state import FitState
from skreg.estimators.parameters import RULES, check_parameters
from skreg.estimators.paths import (
    choose_path,
    is_unobserved,
)
from skreg.training.batches import ArrayDataset
from skreg.training.trainer import train


class RegularizedNet(
    ParameterAccess,
    TrainingSteps,
    Prediction,
    Sparsity,
    Components,
    DataInput,
    CallbackSupportMixin,
):
    """Mixin in front of a skorch net. See the classifier for the parameters."""

    _rules = RULES
    _session = None  # while no fit runs
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
            if self._session.path is None:  # no epoch was asked for
                self._session.path = choose_path(self, self._session.against_stack)
        finally:
            if self._session.path is not None:
                self.training_path_ = self._session.path.name
                self.training_path_reasons_ = dict(self._session.path.reasons)
            if self._session.program:
                self._session.program.release()
            del self._session
        if tasks:
            tasks.end(self)
        return self

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
        self._session.epochs_before = len(self.history)
        self._learn_input_range(X)
        self._make_regularizers()
        self._session.overrides = overrides(self)
        self._session.unobserved = is_unobserved(self, self._session.overrides)
        self._session.unscored = self._session.unobserved and not any(
            getattr(callback, "scorer_", None) for _, callback in self.callbacks_
        )
        try:
            if not stops:
                train(self._session, X, y)
        except StopTraining:
            pass
        finally:
            self._session.reset_options()
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
        elif looks_at_input_range(self):  # before the first batch
            self._extend_input_range(range_of_dataset(self, X))
        elif not isinstance(X, Mapping):
            session.seen = SeenRange()

    def _extend_input_range(self, more) -> None:
        wider = extended(getattr(self, "input_range_", None), more)
        if wider is not None:
            self.input_range_ = wider


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
