"""From what users pass as X and y to the datasets and iterators of a fit."""

from collections.abc import Mapping, Sequence
from math import inf
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    validate_data,
)
from torch.utils.data import IterableDataset, Subset

from skreg._utils.arrays import is_array_like, is_sliced, to_numpy
from skreg._utils.sparse import as_rows, is_sparse
from skreg.estimators._batches import Batches
from skreg.estimators._containers import plain, refuse_loader, refuse_pairs
from skreg.estimators._datasets import (
    TargetTransform,
    WithTargets,
    accepted_dtypes,
    arrays_of,
    check_pair,
    targets_of,
)
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
from skreg.estimators._validation import ValidationData
from skreg.training.batches import (
    ArrayDataset,
    is_mapped,
    take_rows,
)


class Prepared(NamedTuple):
    """Data that are ready for training, and what they are to the user."""

    X: Any
    y: np.ndarray  # encoded
    weight: np.ndarray | None  # of mean 1
    fit_params: dict
    own_X: Any
    own_y: np.ndarray


class DataInput(Batches, ValidationData):
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
        refuse_loader("X", X)
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

    @property
    def _dtype_name(self) -> str:
        return str(self.dtype_).removeprefix("torch.")

    def _validate_X(self, X):
        """Check X against what the net was fitted on; Datasets pass as they are."""
        refuse_loader("X", X)
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
