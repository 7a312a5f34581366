"""From what users pass as X and y to the datasets and iterators of a fit."""

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.utils.validation import check_consistent_length, validate_data
from skorch.dataset import ValidSplit
from torch.utils.data import DataLoader, IterableDataset

from skreg.estimators._data import (
    AUTO_BATCH_SIZE,
    InMemoryBatches,
    TargetTransform,
    arrays_of,
    is_array_like,
    is_in_memory,
    materialized,
    targets_of,
    to_numpy,
)
from skreg.estimators._randomness import seeded


class DataInput:
    """Mixin: validates X, has y encoded, splits off validation data, makes batches.

    The net it is mixed into says what its targets are like: ``_check_targets``,
    ``_learn_targets``, ``_encode_targets``, ``_target_checks``, ``_stratified``.
    """

    _torch_dtype = torch.float32

    def _prepare(self, X, y, *, reset, classes=None):
        """Return validated X and encoded y; with `reset`, learn what they are like."""
        if (arrays := arrays_of(X)) is not None:
            X, y = arrays[0], arrays[1] if y is None else y
        if is_array_like(X):
            if y is None:
                raise ValueError(
                    f"{type(self).__name__} requires y to be passed, but the target y "
                    "is None. Pass y, or a Dataset that holds the targets as X."
                )
            return self._prepare_arrays(X, to_numpy(y), reset=reset, classes=classes)
        if isinstance(X, Mapping):
            if y is None:
                raise ValueError("X is a dict of inputs: pass their targets as y.")
            y = self._prepare_targets(np.asarray(to_numpy(y)), reset, classes)
            return X, y
        return self._prepare_dataset(X, y, reset=reset, classes=classes)

    def _prepare_arrays(self, X, y, *, reset, classes):
        if not reset:
            X, y = self._validate_X(X), self._check_targets(y)
            check_consistent_length(X, y)
            return X, self._encode_targets(y)
        X, y = validate_data(
            self,
            to_numpy(X),
            y,
            dtype=[np.float32, np.float64] if self.dtype == "auto" else self.dtype,
            allow_nd=True,
            order="C",
            **self._target_checks,
        )
        self.input_shape_ = X.shape[1:]
        return X, self._prepare_targets(y, reset, classes, dtype=X.dtype)

    def _prepare_dataset(self, dataset, y, *, reset, classes):
        """Take a map-style torch Dataset as it is, but for the encoding of targets."""
        name = type(dataset).__name__
        if isinstance(dataset, IterableDataset):
            raise ValueError(
                f"X={name} is an IterableDataset, whose targets cannot be read ahead "
                "of training. Use a map-style Dataset, with __len__ and __getitem__."
            )
        if len(dataset) == 0:
            raise ValueError(
                f"X={name} is a Dataset of 0 samples; at least 1 is needed."
            )
        targets = targets_of(dataset) if y is None else np.asarray(to_numpy(y))
        encoded = self._prepare_targets(targets, reset, classes)
        if reset and hasattr(first := dataset[0][0], "shape"):
            self.input_shape_ = tuple(first.shape)
        if not np.array_equal(encoded, targets):
            dataset = TargetTransform(dataset, self._encode_targets)
        return dataset, encoded

    def _prepare_targets(self, y, reset, classes, dtype="float32"):
        y = self._check_targets(y)
        if reset:
            dtype = np.dtype(dtype if self.dtype == "auto" else self.dtype)
            self._torch_dtype = getattr(torch, dtype.name)
            self._learn_targets(y, classes)
        return self._encode_targets(y)

    def _prepare_validation(self, X_val, y_val):
        if X_val is None and y_val is None:
            return None
        if X_val is None or (y_val is None and is_array_like(X_val)):
            raise ValueError("X_val and y_val belong together: pass both or neither.")
        return self.get_dataset(*self._prepare(X_val, y_val, reset=False))

    @property
    def _dtype_name(self) -> str:
        return str(self._torch_dtype).removeprefix("torch.")

    def _validate_X(self, X):
        """Check X against what the net was fitted on; Datasets pass as they are."""
        if not is_array_like(X):
            return X
        X = validate_data(
            self,
            to_numpy(X),
            reset=False,
            dtype=self._dtype_name,
            allow_nd=True,
            order="C",
        )
        expected = getattr(self, "input_shape_", X.shape[1:])
        if X.shape[1:] != expected:
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but {type(self).__name__} was "
                f"fitted on samples of shape {expected}; reshape or resize X."
            )
        return X

    def check_data(self, X, y=None):
        """Do nothing: data were checked before skorch's loop sees them."""

    def get_split_datasets(self, X, y=None, **fit_params):
        """Return the training data and, if there is any, the validation data."""
        dataset = self.get_dataset(X, y)
        if self._session.validation is not None:
            return dataset, self._session.validation
        split = self.train_split
        if split is None and self.early_stopping:
            split = ValidSplit(
                self.validation_fraction,
                stratified=self._stratified,
                random_state=self._seed,
            )
        if split is None:
            return dataset, None
        with seeded(self._seed, torch.device("cpu")):
            train, valid = split(dataset, y, **fit_params)
        if valid is not None and not hasattr(
            valid, "indices"
        ):  # no Subset of `dataset`
            valid = self.get_dataset(*self._prepare(valid, None, reset=False))
        return materialized(train), materialized(valid)

    def get_iterator(self, dataset, training=False):
        """Return an iterable over batches (X, y), without a DataLoader if it can."""
        prefix = "iterator_train" if training else "iterator_valid"
        iterator, kwargs = getattr(self, prefix), self.get_params_for(prefix)
        kwargs.setdefault("batch_size", self.batch_size)
        if kwargs["batch_size"] == "auto":
            kwargs["batch_size"] = AUTO_BATCH_SIZE
        elif kwargs["batch_size"] == -1:
            kwargs["batch_size"] = len(dataset)
        if training and iterator in (None, DataLoader):
            kwargs.setdefault("shuffle", self.shuffle)
        simple = iterator is None and kwargs.keys() <= {
            "batch_size",
            "shuffle",
            "drop_last",
        }
        if simple and is_in_memory(dataset):
            return InMemoryBatches(dataset, self.device_, **kwargs)
        if not training and iterator in (None, DataLoader):
            # A DataLoader draws from torch's global generator unless it has its own.
            kwargs.setdefault("generator", torch.Generator())
        return (iterator or DataLoader)(dataset, **kwargs)
