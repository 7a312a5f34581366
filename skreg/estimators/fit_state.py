"""Fit state: what exists of a net only while a fit runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skreg.attacks import log_odds_with_gradient
from skreg.estimators._backprop_program import BackpropProgram
from skreg.estimators._input_range import SeenRange
from skreg.estimators._targets import Targets
from skreg.estimators._tasks import FitTasks
from skreg.estimators.paths import ALONE, TrainingPath
from skreg.training.optimizer_step import options_of
from skreg.training.regularizing import Active

__all__ = ["FitState"]


@dataclass(eq=False)
class FitState:
    """A fit that runs, for the net itself and for whoever else runs its epochs.

    Attributes
    ----------
    net : RegularizedNet
    targets : Targets
        From the user's to those that the module is trained on, and back.
    sample_weight : ndarray of shape (n_samples,) or None
    validation : Dataset or None
        What was passed as ``X_val`` and ``y_val``.
    tasks : FitTasks or None
        scikit-learn's callbacks.
    groups : array-like or None
    weights : dict of str to nn.Parameter
        The trainable parameters.
    regularizers : Active
    strengths : tuple
        The parameters that `regularizers` were made with.
    path : TrainingPath or None
        None before the first epoch.
    against_stack : str
        Why the net is not in a stack.
    mean_weight : float
        Of the training data, which the weights are divided by.
    mean_valid_weight : float or None
    weight, valid_weight : Tensor of shape (n_samples,) or None
        Of the batch at hand.
    penalty : Tensor of shape () or float
        Of the last batch.
    """

    net: Any
    targets: Targets
    sample_weight: np.ndarray | None
    validation: torch.utils.data.Dataset | None
    tasks: FitTasks | None
    groups: object = None
    fit_params: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    regularizers: Active = field(default_factory=Active)
    strengths: tuple = ()
    seen: SeenRange | None = None  # where X is a Dataset
    path: TrainingPath | None = None
    against_stack: str = ALONE
    options_at_first: list[dict] | None = (
        None  # of the optimizer, if they are scheduled
    )
    epochs_before: int = 0  # in the history, when training began
    layers: list | None = None  # of a fully connected net, when the path was chosen
    program: BackpropProgram | None = None
    averaged: Mapping[str, Tensor] | None = None  # to evaluate after this epoch
    kept: dict[str, Tensor] | None = None  # weights to go on from, meanwhile
    kept_buffers: Mapping[str, Tensor] = field(default_factory=dict)
    mean_weight: float = 1.0
    mean_valid_weight: float | None = None
    # What is true of this moment:
    begins: bool = False  # callbacks are told that training begins
    changed: set = field(default_factory=set)  # parameters, since the last epoch
    warned: bool = False  # of integers that are rounded
    looks: bool = True  # at the outputs of the next batch
    overrides: list = field(default_factory=list)  # when training began
    unobserved: bool = False  # nobody but the package sees the net and its batches
    unscored: bool = False  # and no scorer does
    weight: Tensor | None = None
    valid_weight: Tensor | None = None
    penalty: Tensor | float = 0.0
    _criterion: tuple = (None, None, None)

    @property
    def criterion(self) -> torch.nn.Module:
        """The criterion of training; what is validated has that of the net."""
        plain = self.net.criterion_
        if not self.regularizers.changes_criterion:
            return plain
        made_from, of = plain, self.regularizers
        if self._criterion[:2] != (made_from, of):
            self._criterion = made_from, of, of.criterion(plain)
        return self._criterion[2]

    @property
    def epoch(self) -> int:
        """The epoch that has begun, counted from 0 in this fit."""
        return len(self.net.history) - 1 - self.epochs_before

    def begin_epoch(self, batches) -> None:
        """Tell the regularisers of an epoch."""
        if not self.regularizers.counts_epochs:
            return
        try:
            n_batches = len(batches)
        except TypeError as error:
            raise ValueError(
                "A schedule or an average over epochs needs to know how many batches "
                "an epoch has, but the iterator has no length; give the Dataset a "
                "__len__, or turn lr_schedule and average off."
            ) from error
        self.regularizers.begin_epoch(self.epoch, self.net.max_epochs, n_batches)

    def set_options(self) -> None:
        """Set the options of the optimizer for the next step, if they are scheduled."""
        groups = self.net.optimizer_.param_groups
        if self.options_at_first is None:
            self.options_at_first = [options_of(group) for group in groups]
        self.regularizers.set_options(groups, self.options_at_first)

    def reset_options(self) -> None:
        """Give the optimizer the options back that it had before it was scheduled."""
        if self.options_at_first is None:
            return
        for group, options in zip(
            self.net.optimizer_.param_groups, self.options_at_first, strict=True
        ):
            group.update(options)
        self.options_at_first = None

    @property
    def integers_as(self) -> str | None:
        """The name of the dtype that integers in X become; None leaves them."""
        return self.net._integers_as

    def to_device(self, X):
        """Return inputs on the device of the net, in the dtype that it takes."""
        return self.net._to_device(X)

    def checked_outputs(self, outputs: Tensor, n_samples: int) -> Tensor:
        """Return outputs as (n_samples, n_outputs), or raise why they are not."""
        return self.net._checked_outputs(outputs, n_samples)

    def sample_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return what attacks maximise, of shape (n_samples,)."""
        return self.net._sample_losses(outputs, y)

    def sample_losses_with_gradient(
        self, outputs: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what attacks maximise, and its gradient in the outputs."""
        # Whoever overrides it has hooks. Shares of classes are floating-point numbers.
        if self.net.target_kind == "classes" and not y.is_floating_point():
            return log_odds_with_gradient(outputs, y)
        with torch.enable_grad():
            outputs = outputs.detach().requires_grad_()
            losses = self.sample_losses(outputs, y)
            (gradient,) = torch.autograd.grad(losses.sum(), outputs)
        return losses.detach(), gradient

    def look_at_outputs(self, outputs: Tensor, operation: str) -> None:
        """Warn of outputs that the criterion is not meant for; only the first time."""
        if self.looks:
            self.looks = False
            self.net._warn_of_outputs(outputs, operation)

    def show_averages(self, buffers: Mapping[str, Tensor]) -> None:
        """Put averaged weights into the module; keep those to go on from.

        Parameters
        ----------
        buffers : mapping of str to Tensor
            Of the module, to be as they are now when training goes on.
        """
        _check_averages(self.averaged, self.weights)
        kept = {**self.weights, **buffers}
        self.kept = {name: w.detach().clone() for name, w in kept.items()}
        self.kept_buffers = buffers
        with torch.no_grad():
            for name, w in self.weights.items():
                w.copy_(self.averaged[name])

    def hide_averages(self) -> None:
        """Put the weights back that training goes on from."""
        if self.kept is None:
            return
        with torch.no_grad():
            for name, w in {**self.weights, **self.kept_buffers}.items():
                w.copy_(self.kept[name])
        self.kept = self.averaged = None


def _check_averages(averaged, weights) -> None:
    if not isinstance(averaged, Mapping):
        raise TypeError(
            "average of a regularizer must return a mapping of names to tensors, or "
            f"None; got a {type(averaged).__name__}."
        )
    for name, w in weights.items():
        shape = getattr(averaged.get(name), "shape", None)
        if shape != w.shape:
            raise ValueError(
                f"average of a regularizer must return a tensor of shape "
                f"{tuple(w.shape)} for {name!r}; got "
                f"{'none' if shape is None else tuple(shape)}."
            )
