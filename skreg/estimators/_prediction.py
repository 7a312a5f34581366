"""Predictions: from inputs to the outputs of the module."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skreg._utils.arrays import is_array_like, to_numpy
from skreg._utils.threads import threads_for
from skreg._utils.torch_state import plain_torch
from skreg.backprop import fully_connected_layers
from skreg.estimators._explained import explained_error
from skreg.estimators._integers import INTEGERS, as_integers, warn_if_rounded
from skreg.estimators._overrides import known_to
from skreg.estimators.paths import (
    AUTOGRAD,
    BACKPROP,
    STACK,
)


@dataclass
class _Prediction:
    """What exists only while outputs are computed."""

    warned: bool = False  # of integers that are rounded


class Prediction:
    """Mixin: moves inputs to the device, and evaluates the module on them."""

    _prediction = None  # while none is made

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

    def _prediction_flop(self, X) -> float:
        """Return about how many operations outputs take; infinity if unknown."""
        if not is_array_like(X) or not fully_connected_layers(
            self.module_, X.shape[1:]
        ):
            return inf
        return 2 * X.shape[0] * sum(w.numel() for w in self.module_.parameters())

    def _check_all_predicted(self, n_outputs: int, n_samples: int) -> None:
        if n_outputs != n_samples:
            raise ValueError(
                f"There are predictions for {n_outputs} of {n_samples} samples; "
                "options such as iterator_valid__drop_last or iterator_valid__sampler "
                "leave out the others. Remove them."
            )

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
