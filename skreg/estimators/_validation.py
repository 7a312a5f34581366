"""Validation data of a net: given, split off, or held out for early stopping."""

import warnings
from collections.abc import Callable

import torch
from skorch.dataset import ValidSplit
from torch.utils.data import Subset

from skreg._utils.arrays import is_array_like
from skreg._utils.randomness import seeded
from skreg.callbacks import EarlyStopping
from skreg.estimators._containers import refuse_loader
from skreg.estimators._elsewhere import warn_if_elsewhere, warn_if_targets_elsewhere
from skreg.estimators._overrides import known_to
from skreg.estimators._splits import (
    check_classes,
    last_part,
    random_groups,
    warn_if_unused,
)
from skreg.estimators._targets import Targets
from skreg.estimators.paths import AUTOGRAD, BACKPROP, STACK
from skreg.training.batches import (
    materialized,
    mean_weight,
    present,
    weight_of,
    with_weight,
)


class ValidationData:
    """Mixin: separates training and validation data."""

    def _prepare_validation(self, X_val, y_val, targets: Targets):
        """Return validation data as a dataset, or None; let `targets` know of them."""
        refuse_loader("X_val", X_val)
        if X_val is None and y_val is None:
            return None
        if X_val is None or (y_val is None and is_array_like(X_val)):
            raise ValueError("X_val and y_val belong together: pass both or neither.")
        prepared = self._prepare(X_val, y_val, reset=False)
        if self.target_kind == "numbers":
            warn_if_targets_elsewhere(targets.of_training, prepared.own_y)
        targets.add(prepared)
        return with_weight(self.get_dataset(prepared.X, prepared.y), prepared.weight)

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def check_data(self, X, y=None):
        """Do nothing: data were checked before skorch's loop sees them."""

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def get_split_datasets(self, X, y=None, **fit_params):
        """Return the training data and, if there is any, the validation data."""
        dataset, session = self.get_dataset(X, y), self._session
        if session:
            dataset = with_weight(dataset, session.sample_weight)
        if session and session.validation is not None:
            session.mean_valid_weight = mean_weight(session.validation)
            return dataset, session.validation
        split = self.train_split
        groups = session.groups if session else None
        if groups is not None:
            fit_params["groups"] = groups
        if split is None and self.early_stopping:
            split = self._held_out(groups)
            fit_params = {} if groups is None else {"groups": groups}
        if split is None:
            return dataset, None
        shown = session is not None and self.train_split is not None
        with seeded(self.seed_, torch.device("cpu")):
            try:
                if shown:
                    targets = session.targets
                    whole = targets.shown(dataset)
                    parts = split(whole, targets.own(y), **fit_params)
                    warn_if_unused(split, whole, *parts)
                else:
                    parts = split(dataset, y, **fit_params)
            except ValueError as error:
                if self.train_split is not None:
                    raise
                problem = (
                    "early_stopping=True cannot hold out validation_fraction="
                    f"{self.validation_fraction} of {len(dataset)} samples ({error})"
                )
                if self.holdout == "last":  # the order of the samples matters
                    raise ValueError(
                        f"{problem}. Pass X_val and y_val to fit, or more samples."
                    ) from error
                self._go_without_validation(problem)
                return dataset, None
        train, valid = self._encoded_parts(*parts) if shown else parts
        train = present(materialized(train, self.device_), self.device_)
        valid = present(materialized(valid, self.device_), self.device_)
        weight = weight_of(train)
        if weight is not None and not weight.any():
            raise ValueError(
                f"train_split={self.train_split!r} leaves only samples of weight zero "
                "to train on; at least one must have a positive sample_weight."
            )
        if session and weight is not None:
            session.mean_weight = weight.mean()
        if session and valid is not None:
            session.mean_valid_weight = mean_weight(valid)
        return train, valid

    def _encoded_parts(self, train, valid):
        """Return what `train_split` has made, with the targets that are trained on."""
        targets = self._session.targets
        encoded = targets.encoded(train)
        if encoded is None:  # data of its own
            if self._session.sample_weight is not None:
                raise ValueError(
                    f"train_split={self.train_split!r} returned training data of its "
                    "own, whose weights are not known; let it return a Subset of the "
                    "dataset it is given, or pass no sample_weight and class_weight."
                )
            encoded = self._prepare_validation(train, None, targets)
        if valid is None:
            return encoded, None
        valid_encoded = targets.encoded(valid)
        if valid_encoded is None:
            valid_encoded = self._prepare_validation(valid, None, targets)
            self._compare_inputs(encoded, valid_encoded)
        return encoded, valid_encoded

    def _compare_inputs(self, train, valid) -> None:
        """Warn of validation data that were not prepared as the training data were.

        Parameters are what holds inputs as ``X``; others are not looked at.
        """
        X, X_val = (getattr(dataset, "X", None) for dataset in (train, valid))
        if all(
            hasattr(part, "dtype") and hasattr(part, "shape") for part in (X, X_val)
        ):
            warn_if_elsewhere(X, X_val, getattr(self, "feature_names_in_", None))

    def _go_without_validation(self, problem: str) -> None:
        stopping = [cb for _, cb in self.callbacks_ if isinstance(cb, EarlyStopping)]
        if any(callback.needs_data_ for callback in stopping):  # it says so once
            warnings.warn(
                f"{problem}; the net trains on all of them, up to the last epoch. Pass "
                "X_val and y_val to fit, or more samples.",
                stacklevel=2,
            )
        for callback in stopping:
            callback.needs_data_ = False

    def _held_out(self, groups) -> Callable:
        """Return the split of early stopping, which keeps groups together."""
        if self.holdout == "last":
            return self._hold_out_last
        if groups is not None:
            return self._hold_out_groups
        size, seed = self.validation_fraction, self.seed_
        return ValidSplit(size, stratified=self._stratified, random_state=seed)

    def _hold_out_groups(self, dataset, y, groups) -> tuple[Subset, Subset]:
        labels = y if self._stratified else None
        parts = random_groups(groups, self.validation_fraction, self.seed_, labels)
        train, valid = (Subset(dataset, part) for part in parts)
        return train, valid

    def _hold_out_last(self, dataset, y, groups=None) -> tuple[Subset, Subset]:
        parts = last_part(len(dataset), self.validation_fraction, groups)
        if self._stratified:
            labels = self._session.targets.own(y) if self._session else y
            check_classes(*(labels[part] for part in parts))
        train, valid = (Subset(dataset, part) for part in parts)
        return train, valid
