"""RegularizedNetRegressor."""

import warnings
from math import inf
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from sklearn.metrics import d2_pinball_score
from sklearn.utils.validation import check_array, check_is_fitted
from skorch import NeuralNetRegressor
from torch import nn

from skreg._utils.rules import Rule
from skreg.estimators import _docs
from skreg.estimators._base import RegularizedNet
from skreg.estimators._targets import ExactInverse
from skreg.estimators.parameters import RULES
from skreg.losses import loss_of, quantiles_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from skreg.estimators._parameter_types import Criterion, Module, NetTypes

COARSE = 1e-3  # of the range of y, for a rounding that matters
ACCURACIES = "valid_acc", "train_acc", "accuracy", "balanced_accuracy"
_ENCODED = {"own": "values, in the unit", "encoded": "standardised values"}


class RegularizedNetRegressor(RegularizedNet, NeuralNetRegressor):
    __doc__ = rf"""Regressor that minimises the squared error with L1 and L2 penalties.

    .. math::
        \frac{{1}}{{|B|}} \sum_{{i \in B}} (f_w(x_i) - y_i)^2
        + \lambda_1 \sum |w| + \lambda_2 \sum w^2

    over batches B, the error being averaged over outputs too. The penalty is part of
    the training loss only; validation losses hold none.

    Parameters
    ----------
    {_docs.MODULE}
        It returns numbers of shape (n_samples, n_outputs).
    criterion : loss class or instance, default=nn.MSELoss
        Called with outputs and targets, both of shape (n_samples, n_outputs). Those
        that take numbers >= 0, or between 0 and 1, as targets, such as
        ``nn.PoissonNLLLoss`` and ``nn.BCEWithLogitsLoss``, need
        ``scale_target=False``; `predict` returns the mean, not its logarithm or logit.
        :class:`skreg.losses.PinballLoss` predicts quantiles of a single target, e.g.
        ``criterion__quantiles=(0.1, 0.5, 0.9)``, with one output for each.
    {_docs.SHARED.format(**_ENCODED)}
    scale_target : bool, default=True
        Train on targets standardised to mean 0 and deviation 1, by the training data,
        so that learning rate and penalties mean the same whatever unit y is in.
        Predictions are in the unit of y; losses in the history are not.

    Attributes
    ----------
    target_mean_, target_scale_ : ndarray of shape (n_outputs,)
        What y is standardised by; 0 and 1 with ``scale_target=False``.
    {_docs.ATTRIBUTES.format(history="; on validation data ``valid_loss``")}

    See Also
    --------
    RegularizedNetClassifier : The same for classes.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.model_selection import cross_val_score
    >>> from skreg import RegularizedNetRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> net = RegularizedNetRegressor(lambda2=1e-3, random_state=0)
    >>> bool(cross_val_score(net, X, y).mean() > 0.4)
    True
    """

    def __init__(
        self,
        module: "Module" = None,
        *,
        criterion: "Criterion" = nn.MSELoss,
        scale_target: bool = True,
        **params: "Unpack[NetTypes]",
    ):
        super().__init__(module, criterion=criterion, **cast("dict[str, Any]", params))
        self.scale_target = scale_target

    _rules = RULES | {
        "scale_target": Rule(
            lambda value: isinstance(value, bool | np.bool_),
            "a bool",
            "False trains on y as it is",
            False,
        ),
        "criterion": RULES["criterion"]._replace(example=nn.SmoothL1Loss),
    }
    _learned = "target_mean_"
    _target_checks = {"y_numeric": True, "multi_output": True}
    _stratified = False
    _score_callbacks = ()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_same_classes(self, classes):
        """Do nothing: regressions have no classes."""

    @property
    def _is_standardized(self) -> bool:
        return self.scale_target

    def _contradictions(self):
        """Yield what is wrong with parameters that are all right on their own."""
        allowed = _interval(*_target_range(self.criterion))
        if allowed and self.scale_target:
            yield (
                f"criterion={_name(self.criterion)} takes {allowed} as y, but "
                "scale_target=True trains on y standardised to mean 0 and deviation 1; "
                "set scale_target=False."
            )
        if self.early_stopping and self.monitor in ACCURACIES:
            yield (
                f"monitor={self.monitor!r} is an accuracy, which a regressor has none "
                "of; use monitor='valid_loss' or a score such as 'r2'."
            )

    def _check_partial_fit(self):
        """Do nothing: regressions have no classes."""

    target_kind = "numbers"  # what y holds

    @property
    def n_outputs_(self):
        return len(self.target_mean_)

    def _check_targets(self, y):
        kind = getattr(getattr(y, "dtype", None), "kind", "")
        if kind in "mM" and kind:
            raise ValueError(
                f"y holds {y.dtype}, which are no numbers; convert them, e.g. to "
                "seconds since the first one."
            )
        return check_array(
            y, ensure_2d=False, dtype="numeric", ensure_min_samples=0, input_name="y"
        )

    @property
    def _quantiles(self) -> tuple[float, ...] | None:
        """The quantiles that are predicted, or None."""
        options = self.get_params_for("criterion")
        return quantiles_of(self.criterion, options)

    def _by_output(self, y):
        """Return y of shape (n_samples, n_outputs); quantiles share their target."""
        y = y.reshape(len(y), -1)
        quantiles = self._quantiles
        if quantiles is None:
            return y
        if y.shape[1] != 1:
            raise ValueError(
                f"y has {y.shape[1]} targets per sample, but criterion=PinballLoss "
                "predicts quantiles of one; fit a net for each target, e.g. with "
                "sklearn.multioutput.MultiOutputRegressor."
            )
        return np.repeat(y, len(quantiles), axis=1)

    def _learn_targets(self, y, classes=None, weight=None):
        self._y_ndim = y.ndim
        y = self._by_output(y).astype(np.float64)
        self.target_mean_ = np.zeros(y.shape[1])
        self.target_scale_ = np.ones(y.shape[1])
        if self.scale_target:
            # Squares and sums of huge or tiny numbers are beyond all numbers. Powers of
            # two change no other digit.
            if weight is not None:
                # A sum is not the same, to the bit, with zeros in it.
                y, weight = y[weight > 0], weight[weight > 0]
                weight = weight / _power_of_two(weight)
            unit = _power_of_two(y)
            y = y / unit
            mean = np.average(y, axis=0, weights=weight)
            squares = np.average(np.square(y - mean), axis=0, weights=weight)
            self.target_mean_ = unit * mean
            deviation = unit * np.sqrt(squares)
            self.target_scale_ = np.where(deviation > 0, deviation, 1.0)

    def _encode_targets(self, y):
        y = self._by_output(y)
        if y.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y has {y.shape[1]} outputs per sample, but the net was fitted on "
                f"{self.n_outputs_}."
            )
        self._check_range(y)
        with np.errstate(over="ignore", invalid="ignore"):
            standardized = (y - self.target_mean_) / self.target_scale_
            encoded = standardized.astype(self._dtype_name)
        if not np.isfinite(encoded).all():
            raise ValueError(
                f"y holds {np.abs(y).max():.3g}, which is too large to train on in "
                f"{self._dtype_name}; divide y by a constant, or leave "
                "scale_target=True."
            )
        rounding = np.abs(encoded - standardized).max(axis=0, initial=0)
        spread = np.ptp(standardized, axis=0) if len(y) > 1 else inf
        if (rounding > COARSE * spread).any():
            warnings.warn(
                f"y is rounded to {self._dtype_name}, which leaves few different "
                f"numbers of those between {y.min():.10g} and {y.max():.10g}; leave "
                "scale_target=True, or set dtype='float64'.",
                UserWarning,
                stacklevel=2,
            )
        return encoded

    def _check_range(self, y):
        low, high = _target_range(self.criterion)
        allowed = _interval(low, high)
        if allowed and y.size and not (low <= y.min() and y.max() <= high):
            raise ValueError(
                f"y holds numbers from {y.min():.3g} to {y.max():.3g}, but criterion="
                f"{_name(self.criterion)} takes {allowed}; use another criterion, e.g. "
                "nn.MSELoss."
            )

    def _make_decoder(self, pairs):
        step = len(self._quantiles or (0.5,))
        return ExactInverse(pairs, self.target_mean_, self.target_scale_, step)

    def _is_encoded(self, y) -> bool:
        """Tell whether a tensor of targets is one of numbers as they are trained on."""
        return y.ndim == 2 and y.shape[1] == self.n_outputs_

    def _sample_losses(self, outputs, y_true):
        """Return what attacks maximise."""
        predicted = self._get_predict_nonlinearity()(outputs)
        return (predicted - y_true).square().sum(dim=1)

    def _outputs_as_columns(self, outputs, n_samples, n_outputs):
        if n_outputs is None:  # not fitted
            return outputs
        # A module may leave out the axis of a single target.
        if n_outputs == 1 and outputs.ndim < 2 and outputs.numel() == n_samples:
            return outputs.reshape(n_samples, 1)
        if outputs.ndim == 0 and n_outputs == 1 and n_samples is None:
            return outputs.reshape(1, 1)
        raise ValueError(
            f"The module returned outputs of shape {tuple(outputs.shape)}, but the "
            f"targets are of shape ({n_samples}, {n_outputs}). Let the module return "
            "one column per target, e.g. with module__out_features."
        )

    def _get_predict_nonlinearity(self):
        if not isinstance(self.predict_nonlinearity, str):
            return super()._get_predict_nonlinearity()
        loss = loss_of(self.criterion_)
        return _unchanged if loss is None or loss.mean is None else loss.mean

    @property
    def predict_proba(self):
        """A regressor has none; skorch gives it one."""
        raise AttributeError(
            f"{type(self).__name__} has no predict_proba; use predict."
        )

    def predict(self, X):
        """Return the predicted target of each sample, in the unit of y.

        It is the mean that the criterion means by the outputs: their exponential with
        nn.PoissonNLLLoss, and their sigmoid with nn.BCEWithLogitsLoss. With several
        quantiles, it is these, in the order in which they were given.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or Dataset

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            As y was in ``fit``, but with a column for each of several quantiles; of the
            dtype of the weights, or float64 where this one has too few digits for y.
        """
        outputs = self._outputs(X)
        check_is_fitted(self)  # weights that were loaded do not tell the scale of y
        y = outputs * self.target_scale_ + self.target_mean_
        with np.errstate(over="ignore"):  # an error says it
            y = self._finite(y.astype(self._dtype_of_predictions(outputs.dtype)))
        return y.ravel() if self._y_ndim == 1 and y.shape[1] == 1 else y

    def score(self, X, y, sample_weight=None) -> float:
        """Return R^2 of the predictions; of quantiles, the share of the loss explained.

        For quantiles it is the mean of ``sklearn.metrics.d2_pinball_score``: 1 minus
        the pinball loss divided by that of the best constants. 1 is best; quantiles of
        y that know nothing of X have 0.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or Dataset
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
        """
        quantiles = self._quantiles
        if quantiles is None:
            return super().score(X, y, sample_weight)
        predicted = self.predict(X).reshape(-1, len(quantiles))
        columns = zip(predicted.T, quantiles, strict=True)
        return fmean(
            d2_pinball_score(np.ravel(y), of_q, sample_weight=sample_weight, alpha=q)
            for of_q, q in columns
        )

    def _dtype_of_predictions(self, dtype: np.dtype) -> np.dtype:
        """Return the dtype of outputs, or float64 if it could not hold predictions.

        Single precision has seven digits: fewer than it takes to tell numbers apart
        whose mean is large, and none for the smallest.
        """
        info = np.finfo(dtype)
        spacing = np.abs(self.target_mean_) * info.eps
        fits = (spacing < 1e-3 * self.target_scale_) & (
            self.target_scale_ > info.tiny / info.eps
        )
        return dtype if fits.all() else np.dtype(np.float64)


def _target_range(criterion) -> tuple[float, float]:
    """Return the lowest and the highest number that a criterion takes as y."""
    loss = loss_of(criterion)
    return (-inf, inf) if loss is None else loss.target_range


def _interval(low: float, high: float) -> str:
    """Return what numbers are allowed as targets, or "" if any."""
    if (low, high) == (0, 1):
        return "numbers between 0 and 1"
    if low == 0:
        return "numbers >= 0"
    return "numbers <= 0" if high == 0 else ""


def _name(criterion) -> str:
    return getattr(criterion, "__name__", type(criterion).__name__)


def _unchanged(outputs: torch.Tensor) -> torch.Tensor:
    return outputs


def _power_of_two(values: np.ndarray) -> np.ndarray:
    """Return the power of two next below the largest absolute value of each column."""
    return np.exp2(np.frexp(np.abs(values).max(axis=0))[1] - 1.0)
