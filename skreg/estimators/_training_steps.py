"""Training steps of a net: what a subclass may override, as in skorch."""

import signal
import warnings
from contextlib import contextmanager
from copy import copy
from dis import opname
from functools import partial

import torch
from skorch.dataset import unpack_data

from skreg._utils.flat import NamedTensors
from skreg._utils.randomness import epoch_seed, make_generator, seeded
from skreg._utils.torch_state import plain_torch
from skreg.attacks import evaluation_mode
from skreg.callbacks import EarlyStopping, StopTraining
from skreg.estimators._backprop_program import make_backprop_program
from skreg.estimators._batch_norm import renew_statistics, running_statistics
from skreg.estimators._epoch_without_hooks import (
    draws_nothing_else,
    run_epoch_without_hooks,
)
from skreg.estimators._outputs import first_output, n_rows
from skreg.estimators._overrides import known_to, overrides
from skreg.estimators._programs import Slopes, step_sizes_of
from skreg.estimators._regularizers import (
    PARAMETERS,
    PREFIXES,
    make_regularizers,
    own_members,
    same,
    strengths,
)
from skreg.estimators._targets import Message
from skreg.estimators.adversarial import loss_of_inputs
from skreg.estimators.parameters import check_parameters
from skreg.estimators.paths import (
    AUTOGRAD,
    BACKPROP,
    PATHS,
    STACK,
    choose_path,
)
from skreg.estimators.schedules import begin_schedule, explained, is_schedule
from skreg.penalties import trainable_parameters
from skreg.training.batches import Batch
from skreg.training.output_checks import doubt, last_operation
from skreg.training.regularizing import Active, penalized

# Parameters that may be set while training goes on: the next epoch follows them.
IN_TRAINING = {
    *("criterion", "dropout", "verbose", "regularizers", *PARAMETERS, *PREFIXES),
}


class TrainingSteps:
    """Mixin: runs epochs and steps, computes objectives, tells callbacks."""

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
            session.hide_averages()
            self._look_again()
            session.begin_epoch(iterator)
            step_fn = self._with_training_batches(step_fn)
        self._run_batches(iterator, training, prefix, step_fn, fit_params)
        if session and training:
            self._show_averages(iterator)

    def _show_averages(self, batches) -> None:
        """Put averaged weights into the module, with statistics of their own."""
        session = self._session
        if session.averaged is None:
            return
        statistics = running_statistics(self.module_)
        session.show_averages(statistics)
        if not statistics:
            return
        self._set_training(False)
        program, session.program = session.program, None  # the module itself is run
        try:
            with seeded(self.seed_, self.device_):
                batches = self.get_iterator(batches.dataset, training=True)
                forward = partial(self.infer, **session.fit_params)
                inputs = (unpack_data(batch)[0] for batch in batches)
                renew_statistics(self.module_, inputs, forward)
        finally:
            session.program = program

    def _run_batches(self, iterator, training, prefix, step_fn, fit_params) -> None:
        """Run an epoch's batches on the path of the net, with its random numbers."""
        session = self._session
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
            if self._session.regularizers.schedules:
                self._session.set_options()
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
        """Let regularisers change the weights after a step, and average them."""
        regularizers, parameters = self._regularizers_at_work()
        if not (regularizers.projects or regularizers.averages):
            return
        weights = NamedTensors({name: w.detach() for name, w in parameters.items()})
        with torch.no_grad():
            if regularizers.projects:
                regularizers.project(weights, step_sizes_of(self, parameters))
            if regularizers.averages:
                self._session.averaged = regularizers.average(weights)

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

        slopes = Slopes(weights)
        weights = NamedTensors({name: w.detach() for name, w in weights.items()})
        loss, penalty = regularizers.gradients(evaluate, weights, slopes)
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
        """Note the weights of a batch; return what regularisers make of it."""
        session = self._session
        if session is None:
            return batch
        session.weight = getattr(batch, "weight", None)
        if session.weight is not None:
            session.weight = session.weight / session.mean_weight
        if session.seen is not None:
            session.seen.add(batch[0])
        regularizers = session.regularizers
        if not (regularizers.changes_batches or regularizers.perturbs):
            return batch
        X, y = batch
        X = self._to_device(X)
        y = y.to(self.device_) if isinstance(y, torch.Tensor) else y
        X, y, session.weight = regularizers.batch(X, y, session.weight)
        if regularizers.perturbs:
            drawn = regularizers.draw(X)
            if session.program is not None:
                losses = session.program.losses_of_inputs(y)
                X = regularizers.perturb(X, y, losses, drawn)
            else:
                losses = loss_of_inputs(self, y, session.fit_params)
                with evaluation_mode(self.module_):
                    X = regularizers.perturb(X, y, losses, drawn)
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
            return self._data_loss(self.criterion_, outputs, y_true, weight)
        if session and session.looks:
            session.look_at_outputs(outputs, last_operation(outputs))
        criterion = session.criterion if session else self.criterion_
        weight = session.weight if session else None
        loss = self._data_loss(criterion, outputs, y_true, weight)
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
        if not session.unobserved and not same(session.strengths, strengths(self)):
            self._make_regularizers()
        return session.regularizers, session.weights

    def _make_regularizers(self) -> None:
        """Make the regularisers, or let those that there are look at the module."""
        session, wanted = self._session, strengths(self)
        session.weights = trainable_parameters(self.module_)
        if same(session.strengths, wanted):
            session.regularizers.begin(self.module_)
            return
        kept = own_members(session.regularizers) if session.strengths else None
        if kept is not None and not same(session.strengths[-2:], wanted[-2:]):
            kept = None  # the user's own are others now
        session.regularizers = make_regularizers(self, self.module_, kept)
        session.strengths = wanted
        # Before the first batch: some regularisers are not for every criterion.
        session.regularizers.criterion(self.criterion_)

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

    def _data_loss(self, criterion, outputs, y_true, weight):
        if weight is None:
            return criterion(outputs, y_true)
        # A compiled criterion hands on what is set to the original.
        criterion = getattr(criterion, "_orig_mod", criterion)
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
        writes = self._session.regularizers.writes_into_batches
        return self._session.unobserved and not writes


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
