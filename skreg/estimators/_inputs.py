"""From what users pass as X and y to the datasets and iterators of a fit."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, prod
from numbers import Real
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    validate_data,
)
from skorch.dataset import ValidSplit
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from skreg._utils.arrays import is_array_like, is_sliced, to_numpy
from skreg._utils.randomness import seeded
from skreg._utils.sparse import as_rows, is_sparse
from skreg.backprop import fully_connected_layers
from skreg.callbacks import EarlyStopping
from skreg.estimators._batch_norm import (
    MergingBatchSampler,
    has_batch_norm,
    needs_several_samples,
)
from skreg.estimators._containers import plain, refuse_pairs
from skreg.estimators._datasets import (
    TargetTransform,
    WithTargets,
    accepted_dtypes,
    arrays_of,
    check_pair,
    targets_of,
)
from skreg.estimators._elsewhere import warn_if_elsewhere
from skreg.estimators._explained import check_same_length
from skreg.estimators._integers import (
    FITTED,
    INTEGERS,
    UNDECIDED,
    WANTED,
    as_integers,
    holds_embedding,
    holds_integers,
    input_dtype,
    warn_if_rounded,
)
from skreg.estimators._overrides import known_to
from skreg.estimators._splits import (
    check_classes,
    last_part,
    random_groups,
    warn_if_unused,
)
from skreg.estimators._targets import Targets, without_decoding
from skreg.estimators.paths import AUTOGRAD, BACKPROP, STACK
from skreg.training.batches import (
    ArrayDataset,
    GatheredBatches,
    InMemoryBatches,
    WeightedBatches,
    WeightedDataset,
    is_gathered,
    is_in_memory,
    is_mapped,
    is_weighted,
    materialized,
    mean_weight,
    present,
    take_rows,
    weight_of,
    with_weight,
)

PREDICTED_BATCHES = 4  # of training, in one of predictions
PREDICTED_BYTES = 2**23  # the widest layer's outputs in a batch of predictions


class Prepared(NamedTuple):
    """Data that are ready for training, and what they are to the user."""

    X: Any
    y: np.ndarray  # encoded
    weight: np.ndarray | None  # of mean 1
    fit_params: dict
    own_X: Any
    own_y: np.ndarray


class DataInput:
    """Mixin: validates X, has y encoded, splits off validation data, makes batches.

    The net it is mixed into says what its targets are like: ``_check_targets``,
    ``_learn_targets``, ``_encode_targets``, ``_make_decoder``, ``_is_encoded``,
    ``_target_checks``, ``_stratified``.
    """

    dtype_ = torch.float32
    _kind = None  # of the dtype of X
    _integers_as = None  # name of what integers become; None leaves them as they are

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.dict = True
        tags.input_tags.sparse = True
        return tags

    def _prepare(
        self, X, y, sample_weight=None, fit_params=None, *, reset, classes=None
    ) -> Prepared:
        """Return validated X and encoded y, with weights and `fit_params`.

        With `reset`, learn what the data are like. A sample of weight zero is as if it
        were not there, but that its class is known; equal weights are as none.
        """
        _refuse_loader("X", X)
        refuse_pairs(X)
        check_same_length(y)
        if (arrays := arrays_of(X)) is not None:
            X, y = arrays[0], arrays[1] if y is None else y
        X, y = plain(X), to_numpy(plain(y))
        if y is None and not isinstance(X, torch.utils.data.Dataset):
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y "
                "is None. Pass y, or a Dataset that holds the targets as X."
            )
        given = y is not None
        if is_sliced(X):
            X = WithTargets(X, np.asarray(y), of_pairs=False)
        if is_array_like(X):
            X, y = self._validate_arrays(X, y, reset)
        elif isinstance(X, Mapping):
            y = y if is_sparse(y) else np.asarray(y)
        else:
            y = self._targets_of_dataset(X, y)
        y = self._check_targets(y)
        weight = _check_weight(sample_weight, y)
        fit_params = fit_params or {}
        groups = fit_params.get("groups")
        check_consistent_length(y, groups)
        if np.ndim(groups) > 1:
            raise ValueError(
                f"groups has shape {np.shape(groups)}; it must be ({len(y)},): one "
                "group for each sample."
            )
        if classes is not None and not reset:
            self._check_same_classes(classes)
        if reset:
            self._learn_inputs(X)
            self._learn_targets(y, classes, weight)
        if weight is not None and not weight.all() and not self._counts_rows:
            rows = np.flatnonzero(weight)
            fit_params = _take_params(fit_params, len(y), rows)
            X, y, weight = _take(X, rows), y[rows], weight[rows]
        encoded, own_X = self._encode_targets(y), X
        if not isinstance(X, Mapping) and not is_array_like(X):
            X = self._with_encoded_targets(X, encoded, None if given else y)
            own_X = WithTargets(own_X, y) if given else own_X
        weight = _normalized(self._class_weighted(weight, encoded))
        return Prepared(X, encoded, weight, fit_params, own_X, y)

    @property
    def _counts_rows(self) -> bool:
        """Whether something of the user's knows samples by their places.

        Then samples of weight zero stay where they are, until the data are split.
        """
        options = self._get_params_for("iterator_train")
        return self.train_split is not None or not options.keys().isdisjoint(
            ("sampler", "batch_sampler")
        )

    @property
    def _wanted_dtype(self):
        """The parameter `dtype`; mixed precision is for weights of float32 alone."""
        is_open = isinstance(self.dtype, str) and self.dtype == "auto"
        return "float32" if is_open and self.amp is not None else self.dtype

    def _validate_arrays(self, X, y, reset):
        if not reset:
            X = self._validate_X(X)
            check_consistent_length(X, y)
            return X, y
        X = original = to_numpy(X)
        dtypes = (
            ("float32", "float64")
            if self._wanted_dtype == "auto"
            else (self._wanted_dtype,)
        )
        if _is_valid(X, dtypes) and _is_valid_target(y, len(X)):
            self.n_features_in_ = X.shape[1]
            vars(self).pop("feature_names_in_", None)
            return X, y
        dtype = (
            accepted_dtypes(X) if self._wanted_dtype == "auto" else self._wanted_dtype
        )
        if self.module is not None and holds_integers(X):  # the module is asked first
            dtype = _any_integers(X)
        X, y = validate_data(
            self,
            X,
            y,
            allow_nd=True,
            **self._conversion(X, dtype),
            **self._target_checks,
        )
        if is_mapped(X):
            self._check_file(X)
        elif X.dtype.kind == "f":
            warn_if_rounded(original, X.dtype.name)
        return as_rows(X) if is_sparse(X) else X, y

    def _check_file(self, X):
        """Look for numbers in a file that its batches could not hold."""
        if self.module is None or X.dtype.kind == "f":
            narrow = (
                "float32"
                if self._wanted_dtype == "auto"
                else np.dtype(self._wanted_dtype).name
            )
            warn_if_rounded(X, narrow)
        largest = (
            np.finfo(self._wanted_dtype).max if self._wanted_dtype != "auto" else inf
        )
        if X.dtype.kind == "f" and not -largest <= X.min() <= X.max() <= largest:
            raise ValueError(
                "Input X contains infinity or a value too large for "
                f"dtype({np.dtype(self._wanted_dtype).name!r})."
            )

    @staticmethod
    def _conversion(X, dtype) -> dict:
        """Return what to make of X: nothing of a file, whose batches are converted."""
        if is_mapped(X) and X.dtype.kind in "uibf" and X.itemsize <= 8:
            return {"dtype": None, "order": None}
        return {"dtype": dtype, "order": "C", "accept_sparse": "csr"}

    def _targets_of_dataset(self, dataset, y):
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
        if y is None:
            return targets_of(dataset)
        y = y if is_sparse(y) else np.asarray(y)
        if y.shape[0] != len(dataset):
            raise ValueError(
                f"X={name} and y have inconsistent numbers of samples: {len(dataset)} "
                f"and {y.shape[0]}."
            )
        return y

    def _learn_inputs(self, X):
        vars(self).pop("input_range_", None)
        dtype, kind = np.dtype("float32"), None  # of dicts, whose integers stay
        if is_array_like(X):
            kind, self.input_shape_ = X.dtype.kind, X.shape[1:]
            dtype = X.dtype.newbyteorder("=")
        elif not isinstance(X, Mapping):
            first = check_pair(X, X[0])[0]
            if type(first).__module__.startswith("PIL."):
                raise ValueError(
                    f"X={type(X).__name__} yields PIL images; give it a transform that "
                    "makes tensors of them, e.g. torchvision.transforms.ToTensor()."
                )
            if hasattr(first, "shape"):
                self.input_shape_ = tuple(first.shape)
                first = np.asarray(to_numpy(first))
                dtype, kind = first.dtype, first.dtype.kind
        if self._wanted_dtype != "auto":
            dtype = np.dtype(self._wanted_dtype)
        name = dtype.name if dtype in (np.float32, np.float64) else "float32"
        self.dtype_ = getattr(torch, name)
        self._kind = kind
        self._integers_as = None if kind is None else name
        if kind is not None and kind in "iub" and self.module is not None:
            self._integers_as = UNDECIDED

    def _decide_on_integers(self, prepared: Prepared, validation) -> Prepared:
        """Ask the module what it wants, if X may hold integers; make X that."""
        if self._integers_as != UNDECIDED and not self._may_look_up_numbers():
            return prepared
        self._integers_as = input_dtype(
            *(self.module_, self.input_shape_, self._dtype_name, self._kind),
            prepared.fit_params,
        )
        if self._kind == "f" and not self._wants_integers:
            return prepared
        if isinstance(validation, ArrayDataset) and is_array_like(validation.X):
            validation.X = self._in_dtype_of_module(validation.X)
        if not is_array_like(prepared.X):
            return prepared
        X = self._in_dtype_of_module(prepared.X)
        return prepared._replace(X=X, own_X=X)

    def _may_look_up_numbers(self) -> bool:
        """Tell whether a module may want numbers of floating point as integers."""
        if self.module is None or self._kind != "f" or self._wants_integers:
            return False
        return hasattr(self, "input_shape_") and holds_embedding(self.module_)

    @property
    def _reason_for_integers(self) -> str:
        return FITTED if self._session is None else WANTED

    @property
    def _wants_integers(self) -> bool:
        return self._integers_as in INTEGERS

    def _in_dtype_of_module(self, X):
        """Return X, an array that was validated, in the dtype that the module takes."""
        if is_mapped(X):
            if not self._wants_integers:
                warn_if_rounded(X, self._dtype_name)
            return X  # its batches are converted
        if self._wants_integers:
            return as_integers(X, self._integers_as, self._reason_for_integers)
        if X.dtype == self._dtype_name:
            return X
        warn_if_rounded(X, self._dtype_name)
        return X.astype(self._dtype_name)

    def _with_encoded_targets(self, dataset, encoded, y):
        """Return a dataset that yields encoded targets; its own, unless y is None."""
        if y is None:
            return WithTargets(dataset, encoded)
        if encoded.dtype == y.dtype and np.array_equal(encoded, y):
            first = np.asarray(to_numpy(check_pair(dataset, dataset[0])[1]))
            if (first.dtype, first.shape) == (y.dtype, y.shape[1:]):
                return dataset
        return TargetTransform(dataset, self._encode_targets, y.shape[1:])

    def _class_weighted(self, weight, encoded):
        """Return the weights of samples, multiplied by those of their classes."""
        return weight

    def _prepare_validation(self, X_val, y_val, targets: Targets):
        """Return validation data as a dataset, or None; let `targets` know of them."""
        _refuse_loader("X_val", X_val)
        if X_val is None and y_val is None:
            return None
        if X_val is None or (y_val is None and is_array_like(X_val)):
            raise ValueError("X_val and y_val belong together: pass both or neither.")
        prepared = self._prepare(X_val, y_val, reset=False)
        targets.add(prepared)
        return with_weight(self.get_dataset(prepared.X, prepared.y), prepared.weight)

    @property
    def _dtype_name(self) -> str:
        return str(self.dtype_).removeprefix("torch.")

    def _validate_X(self, X):
        """Check X against what the net was fitted on; Datasets pass as they are."""
        _refuse_loader("X", X)
        refuse_pairs(X)
        if (arrays := arrays_of(X)) is not None:
            X = arrays[0]
        X = plain(X)
        if not is_array_like(X):
            return X
        keeps = self._wants_integers or self._integers_as == UNDECIDED
        if (
            not keeps
            and _is_valid(X, (self._dtype_name,))
            and X.shape[1:] == getattr(self, "input_shape_", None)
            and not hasattr(self, "feature_names_in_")
        ):
            return X
        X = original = to_numpy(X)
        dtype = self._dtype_name
        if keeps:
            dtype = _any_integers(X) if holds_integers(X) else np.float64
        X = validate_data(
            self,
            X,
            reset=False,
            allow_nd=True,
            **self._conversion(X, dtype),
        )
        X = as_rows(X) if is_sparse(X) else X
        expected = getattr(self, "input_shape_", X.shape[1:])
        if X.shape[1:] != expected:
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but {type(self).__name__} was "
                f"fitted on samples of shape {expected}; reshape or resize X."
            )
        if self._wants_integers:
            return self._in_dtype_of_module(X)
        if not keeps:
            warn_if_rounded(original, self._dtype_name)
        return X

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

    def _merges_last(self, dataset, options: dict) -> bool:
        """Return whether a lone last sample must join the batch before it.

        Raises an error if there are no batches that the module can be trained on.
        """
        size, drop_last = options["batch_size"], options.get("drop_last", False)
        if size is None:  # batches are the loader's affair
            return False
        sampler = options.get("sampler")
        n = len(dataset if sampler is None else sampler)
        if drop_last and n < size:
            raise ValueError(
                f"batch_size={size} with iterator_train__drop_last=True leaves "
                f"no batch of {n} samples to train on; use smaller batches."
            )
        if size > 1 and (drop_last or n % size != 1):
            return False
        if not (has_batch_norm(self.module_) and self._needs_several(dataset, options)):
            return False
        if n == 1 or size == 1:
            raise ValueError(
                f"batch_size={size} makes batches of one sample of {n}, on which batch "
                "normalisation cannot be trained; use larger batches, and at least 2 "
                "samples."
            )
        return True

    def _needs_several(self, dataset, options: dict) -> bool:
        """Return whether the module cannot be trained on one sample at a time."""
        fit_params = self._session.fit_params if self._session else {}

        def forward(module):
            self._forward(self._to_device(X), fit_params, module)

        with seeded(self.seed_, self.device_):  # the Dataset or the module may draw
            if is_in_memory(dataset) or is_gathered(dataset):
                batches = self._gathered(dataset, batch_size=1)
                X, _ = next(iter(batches))
            else:
                collate = options.get("collate_fn") or default_collate
                X, _ = collate([dataset[0]])
            return needs_several_samples(self.module_, forward)

    def _gathered(self, dataset, **options) -> GatheredBatches:
        batches = GatheredBatches(dataset, self.device_, **options)
        if self._wants_integers:
            batches.convert_integers = partial(as_integers, dtype=self._integers_as)
        return batches

    def _default_batch_size(self, training, dataset, layers):
        """Return `batch_size`, or more for predictions.

        Training keeps the outputs of all layers, prediction those of one or two.
        """
        size = self.batch_size
        if training or self._session is not None or size == -1:
            return size
        if not layers:
            return PREDICTED_BATCHES * size
        widths = [la.out_features for la in layers if isinstance(la, torch.nn.Linear)]
        if is_gathered(dataset):  # else its inputs are in memory anyway
            widths.append(prod(dataset.X.shape[1:]))
        return max(size, PREDICTED_BYTES // (max(widths) * self.dtype_.itemsize))

    def _as_trained_on(self, dataset):
        encoded = self._session.targets.encoded(dataset) if self._session else None
        return without_decoding(dataset) if encoded is None else encoded

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def get_iterator(self, dataset, training=False):
        """Return an iterable over batches (X, y), without a DataLoader if it can.

        Batches hold encoded targets, also those of a dataset that callbacks see.
        """
        dataset = self._as_trained_on(dataset)
        prefix = "iterator_train" if training else "iterator_valid"
        iterator, kwargs = getattr(self, prefix), self.get_params_for(prefix)
        in_memory, layers, merge_last = is_in_memory(dataset), None, False
        if in_memory or is_gathered(dataset):
            layers = fully_connected_layers(self.module_, dataset.X.shape[1:])
        size = self._default_batch_size(training, dataset, layers)
        kwargs.setdefault("batch_size", size)
        if kwargs["batch_size"] == -1:
            kwargs["batch_size"] = len(dataset)
        if kwargs["batch_size"] is not None:  # a DataLoader's word for no batches
            kwargs["batch_size"] = index(kwargs["batch_size"])  # torch wants no NumPy
        if training and iterator in (None, DataLoader):
            kwargs.setdefault("shuffle", self.shuffle)
            merge_last = self._merges_last(dataset, kwargs)
        simple = iterator is None and kwargs.keys() <= {
            "batch_size",
            "shuffle",
            "drop_last",
        }
        if simple and (in_memory or is_gathered(dataset)):
            kwargs["writable"] = not self._may_share_memory(layers)
            kwargs["merge_last"] = merge_last
        if simple and in_memory:
            return InMemoryBatches(dataset, self.device_, **kwargs)
        if simple and is_gathered(dataset):
            return self._gathered(dataset, **kwargs)
        if not training and iterator in (None, DataLoader):
            # A DataLoader draws from torch's global generator unless it has its own.
            kwargs.setdefault("generator", torch.Generator())
        if isinstance(dataset, ArrayDataset) and dataset.weight is not None:
            dataset = WeightedDataset(dataset, dataset.weight)
        if merge_last:
            kwargs.pop("drop_last", None)
            names = kwargs.keys() & {"batch_size", "shuffle", "sampler"}
            options = {name: kwargs.pop(name) for name in names}
            kwargs["batch_sampler"] = MergingBatchSampler(
                dataset, generator=kwargs.get("generator"), **options
            )
        batches = (iterator or DataLoader)(dataset, **kwargs)
        return WeightedBatches(batches) if is_weighted(dataset) else batches


def _is_valid(X, dtypes: Sequence[str]) -> bool:
    """Tell whether scikit-learn would return X as it is; false if in doubt."""
    return (
        type(X) is np.ndarray
        and X.dtype in dtypes
        and X.ndim > 1
        and X.size > 0
        and X.flags.c_contiguous
        and not is_mapped(X)
        and _has_finite_sum(X)
    )


def _has_finite_sum(X: np.ndarray) -> bool:
    # torch sums faster, but where hundreds of threads fit, each would keep the threads
    # it did so with: those of a stack then go to sleep after each operation.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(X.sum()))


def _is_valid_target(y, n_samples: int) -> bool:
    """Tell whether scikit-learn would return integers y as they are."""
    return type(y) is np.ndarray and y.shape == (n_samples,) and y.dtype.kind in "iu"


def _any_integers(X):
    """Return the dtype that keeps integers: of arrays their own."""
    is_array = is_sparse(X) or (isinstance(X, np.ndarray) and X.dtype != object)
    return None if is_array else np.int64


def _check_weight(sample_weight, y) -> np.ndarray | None:
    """Return weights as float64, one per target and not negative, or None."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Real):
        sample_weight = np.full(len(y), sample_weight)
    weight = check_array(
        to_numpy(sample_weight),
        ensure_2d=False,
        dtype=np.float64,
        input_name="sample_weight",
    )
    if weight.shape != (len(y),):
        raise ValueError(
            f"sample_weight.shape={weight.shape} must be ({len(y)},): one weight for "
            "each sample."
        )
    if weight.min() < 0:
        raise ValueError(
            f"sample_weight holds {weight.min()}; negative weights are not allowed."
        )
    if not weight.any():
        raise ValueError(
            "sample_weight is zero for all samples; at least one must be positive."
        )
    return weight


def _normalized(weight: np.ndarray | None) -> np.ndarray | None:
    if weight is None or weight.min() == weight.max():
        return None
    weight = weight / weight.max()  # the mean of huge weights is beyond all numbers
    return weight / weight.mean()


def _refuse_loader(name: str, X) -> None:
    if isinstance(X, DataLoader):
        raise ValueError(
            f"{name} is a DataLoader, but the net makes its own batches: pass the "
            "loader's dataset, and set batch_size=, shuffle= or "
            "iterator_train__num_workers= of the net."
        )


def _take_params(params: dict, n_samples: int, indices) -> dict:
    """Take the indices of what holds a value for each sample; leave the rest."""
    return {
        name: _safe_indexing(value, indices)
        if _is_per_sample(value, n_samples)
        else value
        for name, value in params.items()
    }


def _is_per_sample(value, n_samples: int) -> bool:
    sized = hasattr(value, "__len__") and getattr(value, "shape", None) != ()
    return sized and not isinstance(value, str | Mapping) and len(value) == n_samples


def _take(X, indices):
    if isinstance(X, Mapping) and not is_sparse(X):
        return {key: value[indices] for key, value in X.items()}
    return take_rows(X, indices) if is_array_like(X) else Subset(X, indices)
