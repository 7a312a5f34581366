"""RegularizedNetClassifier."""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    column_or_1d,
)
from skorch import NeuralNetClassifier
from torch import nn

from skreg._utils.rules import Rule
from skreg.attacks import log_odds_of_any_error, log_odds_of_error
from skreg.callbacks import AccuracyTracker
from skreg.estimators import _docs
from skreg.estimators._base import RegularizedNet
from skreg.estimators._components import Components
from skreg.estimators._criteria import (
    check_labels_known,
    criterion_for,
    is_a,
    is_of_labels,
)
from skreg.estimators._multilabel import Indicators, as_indicators, is_matrix
from skreg.estimators._overrides import overrides
from skreg.estimators._targets import Labels
from skreg.estimators.parameters import RULES
from skreg.losses import loss_of
from skreg.training.output_checks import has_logits, why_no_probabilities

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from skreg.estimators._parameter_types import Criterion, Module, NetTypes

_ENCODED = {"own": "labels", "encoded": "class indices from 0 on"}
LABELS = "biuUS"  # kinds of dtypes: bool, integer, string


def _has_decision_function(net) -> bool:
    if net._link() is None:
        raise AttributeError(
            f"{type(net).__name__} has no decision_function with criterion="
            f"{net.criterion!r} and predict_nonlinearity={net.predict_nonlinearity!r}: "
            "what the module returns need not be logits. Use predict_proba."
        )
    return True


class RegularizedNetClassifier(RegularizedNet, NeuralNetClassifier):
    __doc__ = rf"""Classifier that minimises cross-entropy with L1 and L2 penalties.

    .. math::
        \frac{{1}}{{|B|}} \sum_{{i \in B}} \mathrm{{CE}}(f_w(x_i), y_i)
        + \lambda_1 \sum |w| + \lambda_2 \sum w^2

    over batches B. The penalty is part of the training loss only; validation losses
    hold none.

    Parameters
    ----------
    {_docs.MODULE}
        It returns logits, or log-probabilities, of shape (n_samples, n_classes).
    criterion : loss class or instance, default=nn.CrossEntropyLoss
        For 0/1 matrices `y` (several labels per sample) the default becomes
        ``nn.BCEWithLogitsLoss``, and `predict_proba` the sigmoid of each column.
        Called as in PyTorch, with what the module returns: ``nn.NLLLoss`` only with
        modules that end in ``log_softmax``. (In skorch it is for modules that return
        probabilities.) A warning tells of a module that ends in a softmax or sigmoid
        which the criterion computes itself. With other criteria than these and
        ``nn.MultiLabelSoftMarginLoss`` and ``nn.BCELoss``, set `predict_nonlinearity`
        to what makes probabilities of outputs; for 0/1 matrices it must be set.
    {_docs.SHARED.format(**_ENCODED)}
    class_weight : "balanced" or dict, default=None
        Weights of the classes, by label; they multiply the weights of the samples.
        "balanced" gives all classes the same total weight.
    classes : array-like of shape (n_classes,), default=None
        The class labels, if `y` may lack some; None takes those in `y`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class labels, sorted; also those whose samples all have weight zero. Of
        0/1 matrices, the numbers of the columns.
    {_docs.ATTRIBUTES.format(history="; with validation data ``valid_*``")}

    See Also
    --------
    RegularizedNetRegressor : The same for numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from skreg import RegularizedNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = RegularizedNetClassifier(lambda2=1e-4, random_state=0)
    >>> bool(cross_val_score(net, X, y).mean() > 0.9)
    True
    """

    def __init__(
        self,
        module: "Module" = None,
        *,
        criterion: "Criterion" = nn.CrossEntropyLoss,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        classes: Iterable[Any] | None = None,
        **params: "Unpack[NetTypes]",
    ):
        super().__init__(module, criterion=criterion, **cast("dict[str, Any]", params))
        self.class_weight = class_weight
        self.classes: Any = classes  # array-like

    _rules = RULES | {
        "class_weight": Rule(
            lambda w: w is None or isinstance(w, dict) or _is_balanced(w),
            "None, 'balanced' or a dict of class label to weight",
            "None weighs all samples alike",
            "balanced",
        ),
        "classes": Rule(
            lambda labels: labels is None or isinstance(labels, Iterable),
            "None or the labels of all classes",
            "None takes those in y",
            (0, 1, 2),
        ),
    }

    _learned = "classes_inferred_"
    _target_checks = {"y_numeric": False, "multi_output": True}
    _multilabel = False  # until data have shown it

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @property
    def _stratified(self):
        return not self._multilabel

    @property
    def _score_callbacks(self):
        return [("valid_acc", AccuracyTracker())]

    @property
    def classes_(self):
        labels = vars(self).get("classes_inferred_")
        if labels is None and self.initialized_ and self.classes is not None:
            labels = np.unique(self.classes)
        if labels is None:
            raise NotFittedError(
                f"This {type(self).__name__} is not fitted, so that its classes are "
                "not known: call fit, or set the parameter classes and initialize."
            )
        return labels

    @property
    def target_kind(self):
        """What y holds: "classes", or "labels", each a column of a 0/1 matrix."""
        return "labels" if getattr(self, "_multilabel", False) else "classes"

    @property
    def n_outputs_(self):
        return len(self.classes_inferred_)

    def _check_targets(self, y):
        if _are_labels(y):
            return y
        if is_matrix(y):
            return as_indicators(y)
        y = column_or_1d(y, warn=True)
        if y.dtype.kind not in LABELS:
            check_classification_targets(y)
        return y

    def _learn_targets(self, y, classes=None, weight=None):
        if classes is None:
            classes = self.classes
        else:
            self._check_agreement(classes)
        self._multilabel = y.ndim == 2
        if self._multilabel:
            self.classes_inferred_ = _columns(y, classes)
            return
        labels = np.unique(y if classes is None else classes)
        if 2 * len(labels) > len(y):  # which scikit-learn warns of
            check_classification_targets(y)
        if classes is not None and len(labels) < 2:
            raise ValueError(
                f"classes={list(classes)} must hold the labels of at least 2 classes."
            )
        if len(labels) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, but "
                f"y holds only 1 class: {labels.tolist()[0]!r}."
            )
        self.classes_inferred_ = labels

    def _encode_targets(self, y):
        labels = self.classes_inferred_
        if self._multilabel or np.ndim(y) != 1:
            return self._encode_indicators(y)
        encoded = np.searchsorted(labels, y)
        known = labels[np.minimum(encoded, len(labels) - 1)] == y
        if not known.all():
            raise ValueError(
                f"y holds labels {np.unique(y[~known]).tolist()} that are none of the "
                f"classes {labels.tolist()}; the first fit, or the parameter classes, "
                "must show all of them."
            )
        return encoded

    def _encode_indicators(self, y):
        n_labels = len(self.classes_inferred_)
        if not self._multilabel or y.shape[1:] != (n_labels,):
            expected = (
                f"0/1 matrices of shape (n_samples, {n_labels})"
                if self._multilabel
                else "one class per sample, of shape (n_samples,)"
            )
            raise ValueError(
                f"y has shape {y.shape}, but {type(self).__name__} was fitted on "
                f"{expected}; fit anew for other targets."
            )
        return y.astype(self._dtype_name)

    def _make_decoder(self, pairs):
        return Indicators() if self._multilabel else Labels(self.classes_inferred_)

    def _is_encoded(self, y) -> bool:
        """Tell whether a tensor of targets holds what is trained on."""
        if self._multilabel:
            return y.ndim == 2 and y.is_floating_point()
        return y.ndim == 1 and not (y.is_floating_point() or y.dtype == torch.bool)

    _is_standardized = False  # as numbers of a regression are

    def _contradictions(self):
        """Yield what is wrong with parameters that are all right on their own."""
        criterion = self.criterion
        kind = criterion if isinstance(criterion, type) else type(criterion)
        changed = type(self).initialize_module is not Components.initialize_module
        changed = changed or overrides(self)
        if kind is nn.NLLLoss and has_logits(self.module) and not changed:
            made = "None" if self.module is None else _name(self.module)
            yield (
                f"criterion=NLLLoss takes log-probabilities, but module={made} returns "
                "logits; use criterion=nn.CrossEntropyLoss, which computes them."
            )

    def _check_partial_fit(self):
        if _is_balanced(self.class_weight):
            raise ValueError(
                "class_weight='balanced' cannot be known from one call of partial_fit; "
                "pass a dict, e.g. of sklearn.utils.class_weight.compute_class_weight("
                "'balanced', classes=classes, y=all_y)."
            )

    def _check_agreement(self, classes):
        own = self.classes
        if own is not None and not np.array_equal(np.unique(classes), np.unique(own)):
            raise ValueError(
                f"partial_fit was given classes={list(classes)}, but the parameter is "
                f"classes={list(own)}; give one of them, or the same."
            )

    def _check_same_classes(self, classes):
        self._check_agreement(classes)
        if not np.array_equal(np.unique(classes), self.classes_inferred_):
            raise ValueError(
                f"classes={list(classes)} are not those of the first call, "
                f"{self.classes_inferred_.tolist()}; fit anew for other classes."
            )

    def _class_weighted(self, weight, encoded):
        if self.class_weight is None:
            return weight
        if self._multilabel:
            raise ValueError(
                f"class_weight={self.class_weight!r} is for one class per sample, but "
                "y is a 0/1 matrix; weigh samples with sample_weight, or labels with "
                "criterion=nn.BCEWithLogitsLoss, criterion__pos_weight=..."
            )
        weight = np.ones(len(encoded)) if weight is None else weight
        labels = self.classes_inferred_
        if isinstance(self.class_weight, dict):
            y = labels[encoded]
            factors = compute_class_weight(self.class_weight, classes=labels, y=y)
            if not (np.isfinite(factors).all() and factors.min() >= 0 < factors.max()):
                raise ValueError(
                    f"class_weight={self.class_weight!r} must hold finite weights "
                    ">= 0, not all of them zero."
                )
        else:
            totals = np.bincount(encoded, weight, minlength=len(labels))
            factors = np.divide(1, totals, where=totals > 0, out=np.zeros(len(labels)))
        weight = weight * factors[encoded]
        if not weight.any():
            raise ValueError(
                f"class_weight={self.class_weight!r} gives weight zero to all samples "
                "that sample_weight leaves; at least one must be positive."
            )
        return weight

    def _sample_losses(self, outputs, y_true):
        """Return what attacks maximise."""
        if not self._multilabel:
            return log_odds_of_error(outputs, y_true)
        if self._link() is None:
            raise ValueError(
                f"criterion={type(self.criterion_).__name__} does not tell how wrong "
                "0/1 targets are for an attack; use criterion=nn.BCEWithLogitsLoss."
            )
        return log_odds_of_any_error(outputs, y_true)

    def _outputs_as_columns(self, outputs, n_samples, n_outputs):
        if n_outputs is None and outputs.ndim == 2 and len(outputs) == n_samples:
            return outputs  # not fitted
        known = "n_classes" if n_outputs is None else n_outputs
        raise ValueError(
            f"The module returned outputs of shape {tuple(outputs.shape)} for a "
            f"batch of {n_samples} samples, but there are {known} "
            f"{'labels' if self._multilabel else 'classes'}: expected ({n_samples}, "
            f"{known}). Set the module's number of outputs, e.g. module__out_features, "
            "and let it keep the axis of samples for a single one, too."
        )

    def _chosen_criterion(self, kwargs):
        if not hasattr(self, self._learned):  # the criterion tells what y will be
            self._multilabel = is_of_labels(self.criterion)
        known = hasattr(self, self._learned)
        chosen = criterion_for(self.criterion, kwargs, self._multilabel, known)
        if self._multilabel:
            check_labels_known(chosen, self.predict_nonlinearity)
        return chosen

    def _renew(self, stale):
        chosen = self._chosen_criterion(self.get_params_for("criterion"))
        if isinstance(chosen, type) and not is_a(self.criterion_, chosen):
            stale = stale | {"criterion"}  # it was initialised before there were data
        super()._renew(stale)

    def _link(self):
        """Return from what outputs are to probabilities, or None if it is not known."""
        if not isinstance(self.predict_nonlinearity, str):
            return None
        if self.initialized_:
            loss, multilabel = loss_of(self.criterion_), self._multilabel
        else:
            loss, multilabel = loss_of(self.criterion), is_of_labels(self.criterion)
        wanted = "labels" if multilabel else "classes"
        return loss.link if loss and loss.targets == wanted else None

    def _get_predict_nonlinearity(self):
        link = self._link()
        if link is not None:
            return link.probabilities
        if self._multilabel and isinstance(self.predict_nonlinearity, str):
            return _unchanged  # skorch's is for a single label
        return super()._get_predict_nonlinearity()

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or Dataset

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Rows sum to 1; columns are in the order of ``classes_``. Of 0/1 matrices,
            the probability of a one in each column. A warning tells of what cannot be
            probabilities, with a criterion that is not known: set
            ``predict_nonlinearity``.
        """
        outputs = self._outputs(X)
        if self._link() is None and isinstance(self.predict_nonlinearity, str):
            self._warn_of_no_probabilities(outputs)
        return outputs

    def _warn_of_no_probabilities(self, outputs):
        options = {"multilabel": self._multilabel, "half": self._amp is not None}
        found = why_no_probabilities(outputs, **options)
        if found is not None:
            remedy = (
                "torch.sigmoid"
                if self._multilabel
                else "functools.partial(torch.softmax, dim=-1)"
            )
            warnings.warn(
                f"predict_proba returns what the module does, which are no "
                f"probabilities ({found}), since criterion={_name(self._criterion())} "
                f"does not tell what they mean. Set predict_nonlinearity={remedy} if "
                "they are logits, or torch.exp if they are log-probabilities.",
                UserWarning,
                stacklevel=3,
            )

    def _criterion(self):
        """Return the criterion as it was before it was compiled."""
        return getattr(self.criterion_, "_orig_mod", self.criterion_)

    @available_if(_has_decision_function)
    def decision_function(self, X):
        """Return the logits.

        It is there with the criteria whose outputs are known to be logits or
        log-probabilities: nn.CrossEntropyLoss and nn.NLLLoss, and for 0/1 matrices
        nn.BCEWithLogitsLoss and nn.MultiLabelSoftMarginLoss.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or Dataset

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (n_samples,)
            What the module returns; with nn.NLLLoss, log-probabilities. For two classes
            the second column less the first: the log-odds of ``classes_[1]``.
        """
        logits = self._outputs(X, _unchanged)
        if self._multilabel or logits.shape[1] != 2:
            return logits
        return logits[:, 1] - logits[:, 0]

    def predict_log_proba(self, X):
        """Return the logarithm of the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or Dataset

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Finite: of a probability too small for its dtype it is the logarithm all the
            same with the criteria nn.CrossEntropyLoss and nn.NLLLoss, and with others
            that of the smallest normal number.
        """
        link = self._link()
        if link is None:
            probabilities = self.predict_proba(X)
            if probabilities.min() < 0:
                raise ValueError(
                    "predict_proba returns negative numbers, which have no logarithm: "
                    f"criterion={_name(self._criterion())} does not tell what the "
                    "module's outputs mean. Set predict_nonlinearity to what makes "
                    "probabilities of them, e.g. functools.partial(torch.softmax, "
                    "dim=-1)."
                )
            tiny = np.finfo(probabilities.dtype).tiny
            return np.log(np.where(probabilities == 0, tiny, probabilities))
        return self._outputs(X, link.log_probabilities)

    def predict(self, X):
        """Return the most probable class, or the labels, of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or Dataset

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Class labels; or zeros and ones, with a one where the probability is above
            0.5, if the net was fitted on such.
        """
        own = RegularizedNetClassifier.predict_proba
        # The largest output is that of the most probable class, whatever they mean.
        overridden = getattr(self.predict_proba, "__func__", None) is not own
        probabilities = self.predict_proba(X) if overridden else self._outputs(X)
        if self._multilabel:
            return (probabilities > 0.5).astype(np.int64)
        return self.classes_[probabilities.argmax(axis=1)]

    def score(self, X, y, sample_weight=None):
        """Return the accuracy of the predictions.

        Of 0/1 matrices it is the share of samples whose labels are all right.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...) or Dataset
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
        """
        if sample_weight is None and _are_labels(y):
            # accuracy_score examines what kinds of targets these are for longer than a
            # small net predicts them.
            predicted = self.predict(X)
            check_consistent_length(y, predicted)
            if predicted.shape != y.shape:
                raise ValueError(
                    f"y has shape {y.shape}, but {type(self).__name__} was fitted on "
                    f"0/1 matrices, and predicts one of shape {predicted.shape}; pass "
                    "y with a column for each label."
                )
            if predicted.dtype.kind == y.dtype.kind:
                return float(np.mean(predicted == y))
        return super().score(X, y, sample_weight)


def _name(module) -> str:
    return getattr(module, "__name__", type(module).__name__)


def _unchanged(outputs: torch.Tensor) -> torch.Tensor:
    return outputs


def _columns(y: np.ndarray, classes) -> np.ndarray:
    """Return the labels of a 0/1 matrix: the numbers of its columns."""
    columns = np.arange(y.shape[1])
    if classes is not None and not np.array_equal(np.sort(classes), columns):
        raise ValueError(
            f"classes={list(classes)} are for one class per sample, but y is a 0/1 "
            f"matrix with {len(columns)} columns, whose labels are 0, 1, ...; leave "
            "classes=None."
        )
    return columns


def _are_labels(y) -> bool:
    return type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in LABELS


def _is_balanced(value) -> bool:
    return isinstance(value, str) and value == "balanced"
