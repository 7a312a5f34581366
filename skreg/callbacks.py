"""skorch callbacks: each one has one effect, reads the net and writes its history."""

import warnings
from collections.abc import Iterator
from math import inf, isfinite
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring, get_scorer_names
from skorch.callbacks import Callback, PassthroughScoring, PrintLog
from skorch.utils import data_from_dataset, is_skorch_dataset, to_numpy

from skreg.penalties import parameter_norms, total_norm

__all__ = [
    "AccuracyTracker",
    "BatchAverage",
    "DivergenceGuard",
    "EarlyStopping",
    "EpochLog",
    "NormTracker",
    "StopTraining",
]


class StopTraining(Exception):
    """Raised by a callback to end training in good order; ``fit`` returns as usual."""


class NormTracker(Callback):
    """Record the Frobenius norm of the parameters, and sparsity, after each epoch.

    Writes ``param_norm`` (float, the norm of all parameters together) and
    ``param_norms`` (dict of parameter name to float) into the history; and
    ``sparsity`` (float, the share of exact zeros among the weights that proximal steps
    are taken on), if there are such weights.

    Examples
    --------
    >>> import pandas as pd
    >>> from skreg import RegularizedNetClassifier
    >>> X, y = [[0.0], [1.0]], ["no", "yes"]
    >>> net = RegularizedNetClassifier(hidden_layer_sizes=2, max_epochs=3).fit(X, y)
    >>> len(net.history[:, "param_norm"])
    3
    >>> list(pd.DataFrame(net.history[:, "param_norms"]))
    ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
    """

    def on_epoch_end(self, net, **kwargs):
        names, params = zip(*net.module_.named_parameters(), strict=True)
        # A compiled module keeps the original one under this prefix.
        names = [name.removeprefix("_orig_mod.") for name in names]
        norms = parameter_norms(params)
        net.history.record("param_norm", total_norm(norms))
        net.history.record("param_norms", dict(zip(names, norms, strict=True)))
        sparsity = getattr(net, "sparsity_", None)
        if sparsity is not None:
            net.history.record("sparsity", sparsity)


class AccuracyTracker(Callback):
    """Record the accuracy after each epoch, with dropout off.

    It also writes whether that is the best one so far, ``valid_acc_best`` or
    ``train_acc_best``. A regressor has no accuracy: its ``fit`` raises a ValueError.
    Of 0/1 matrices it is the share of samples whose labels are all right.

    Parameters
    ----------
    on_train : bool, default=False
        False writes ``valid_acc``, from the predictions that the validation loss
        needs anyway; nothing is written when there is no validation data. True writes
        ``train_acc``, from a pass over the training data with the weights as they are
        at the end of the epoch.
    """

    def __init__(self, on_train: bool = False):
        self.on_train = on_train

    def on_train_begin(self, net, **kwargs):
        if isinstance(net, RegressorMixin):
            raise ValueError(
                f"callbacks: AccuracyTracker counts correct labels, but "
                f"{type(net).__name__} is a regressor. Leave it out; write scores "
                "with e.g. skorch.callbacks.EpochScoring('r2', lower_is_better=False)."
            )
        known = (epoch[self.key] for epoch in net.history if self.key in epoch)
        self.best_score_ = max(known, default=-inf)

    @property
    def key(self) -> str:
        """Key of the history."""
        return "train_acc" if self.on_train else "valid_acc"

    def on_epoch_begin(self, net, **kwargs):
        self.hits_ = []
        self.n_samples_ = 0

    def on_batch_end(
        self, net, batch: Any = None, training=False, y_pred=None, **kwargs
    ):
        if not training and not self.on_train:
            self._count(net, batch[1], y_pred)

    def on_epoch_end(self, net, dataset_train=None, **kwargs):
        if self.on_train:
            for batch in net.get_iterator(dataset_train, training=False):
                self._count(net, batch[1], net.evaluation_step(batch))
        if self.n_samples_:
            # The only transfer from the device: once an epoch, not once a batch.
            accuracy = torch.stack(self.hits_).sum().item() / self.n_samples_
            self.record(accuracy, net.history[-1])

    def record(self, accuracy: float, epoch: dict) -> None:
        """Write an accuracy into an epoch of the history."""
        is_best = accuracy > self.best_score_
        if is_best:
            self.best_score_ = accuracy
        epoch[self.key] = accuracy
        epoch[f"{self.key}_best"] = is_best

    def on_train_end(self, net, **kwargs):
        self.hits_ = []  # device tensors have no place in a pickle

    def _count(self, net, y_true, y_pred):
        outputs = y_pred[0] if isinstance(y_pred, tuple) else y_pred
        y_true = y_true.to(outputs.device)
        if y_true.is_floating_point():  # 0/1 matrices
            outputs = net._get_predict_nonlinearity()(outputs)
        self.hits_.append(right_of_probabilities(outputs, y_true).sum())
        self.n_samples_ += len(outputs)


def right_of_probabilities(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Tell of each sample whether its most probable target is the right one.

    Parameters
    ----------
    scores : Tensor of shape (..., n, n_outputs)
        Probabilities, or what grows with them if `y` holds class indices.
    y : Tensor
        Class indices as integers, of shape (..., n), or zeros and ones as floats, of
        shape (..., n, n_outputs), all of which must be right.

    Returns
    -------
    Tensor of bool of shape (..., n)
    """
    if y.is_floating_point():
        return ((scores > 0.5) == (y > 0.5)).all(dim=-1)
    return scores.argmax(dim=-1) == y


# Of losses on the few samples that early stopping holds out; chosen on small tables.
LOSS_TOLERANCE = 0.02


class EarlyStopping(Callback):
    """Stop when the monitored value has no new best, and restore the best weights.

    An epoch is a new best if its value is better than all before it, or worse than
    the best of them by no more than `tol`. Training stops when more than `patience`
    epochs in a row are none. Whether or not it stopped early, the net ends with the
    weights of its best epoch, the last one. Each call of ``fit`` and ``partial_fit``
    begins anew: its validation data may be others.

    Parameters
    ----------
    patience : int, default=20
        Number of epochs without a new best that are tolerated.
    monitor : str or callable, default="valid_loss"
        Key of the history, such as "valid_loss", "valid_acc", "train_loss" or the name
        of an ``EpochScoring`` of skorch; or else a scorer of scikit-learn, its name
        (``"f1_macro"``, ``"roc_auc"``, ``"r2"``) or a callable ``(net, X, y)``. A
        scorer is evaluated on the validation data after each epoch, and its value
        written into the history with ``valid_`` in front of its name.

        An accuracy on few samples has few values: it stays the same for many epochs,
        the first of which is then the best. The loss tells them apart.
    lower_is_better : bool, default=None
        True for a loss, False for a score. None is what the callback that writes the
        key says (``lower_is_better`` of an ``EpochScoring``), or else True for keys
        that end in ``loss``, False for all others and for scorers.
    tol : float, default=None
        A value counts as new best if it is worse than the best by no more than `tol`
        times the best's size: a loss on few samples falls and rises by chance, and
        among epochs that it cannot tell apart the last has learnt most. 0 wants values
        that are strictly better. None is 0.02 for keys that end in ``loss``, 0 for all
        others and for scorers. Equal scores of a scorer are told apart by "valid_loss".

    Attributes
    ----------
    best_epoch_ : int
        The best epoch, counted from 1.
    best_score_ : float
        The monitored value at that epoch.

    Raises
    ------
    ValueError
        In ``fit``, if `tol` is no finite number >= 0, or `monitor` names nothing.

    References
    ----------
    Prechelt, "Early stopping - but when?", Neural Networks: Tricks of the Trade
    (1998).
    """

    def __init__(
        self,
        patience: int = 20,
        monitor="valid_loss",
        lower_is_better: bool | None = None,
        tol: float | None = None,
    ):
        self.patience = patience
        self.monitor = monitor
        self.lower_is_better = lower_is_better
        self.tol = tol

    def on_train_begin(self, net, **kwargs):
        self.lower_is_better_ = self._direction(net)
        self.tol_ = self._tolerance()
        self.best_score_ = self._extreme = inf if self.lower_is_better_ else -inf
        self.best_epoch_ = 0
        self.n_epochs_without_best_ = 0
        self.best_weights_ = None
        self.needs_data_ = True  # a net that cannot hold out any says False
        self.scorer_ = MonitorScorer(net, self.monitor) if self._scores() else None

    def on_epoch_end(self, net, dataset_valid=None, **kwargs):
        score = self._monitored(net, dataset_valid)
        if score is None:
            self.best_epoch_ = net.history[-1, "epoch"]
            return
        is_best = self._is_best(score) or self._breaks_tie(net, score)
        if self.scorer_ is not None:
            net.history.record(f"{self.scorer_.key}_best", is_best)
        if is_best:
            self.best_score_ = score
            self._extreme = self._better(score, self._extreme)
            self._loss_of_best = net.history[-1].get("valid_loss", inf)
            self.best_epoch_ = net.history[-1, "epoch"]
            self.best_weights_ = {
                component: {k: w.detach().clone() for k, w in m.state_dict().items()}
                for component, m in _components(net)
            }
            self.n_epochs_without_best_ = 0
            return
        self.n_epochs_without_best_ += 1
        if self.n_epochs_without_best_ > self.patience:
            raise StopTraining

    def on_train_end(self, net, **kwargs):
        was_never_best = self.best_epoch_ == 0 and self.n_epochs_without_best_ > 0
        if self.scorer_ is not None and was_never_best:
            warnings.warn(
                f"EarlyStopping: monitor={self.monitor!r} was never a number, so that "
                "no epoch was the best; the weights are those of the last one. Has the "
                "validation data what it needs, such as all classes?",
                UserWarning,
                stacklevel=2,
            )
        self.scorer_ = None  # and the validation data with it
        if self.best_weights_ is not None:
            for component, weights in self.best_weights_.items():
                getattr(net, component).load_state_dict(weights)
            self.best_weights_ = None

    def _is_best(self, score) -> bool:
        loss = score - self._extreme if self.lower_is_better_ else self._extreme - score
        return loss < 0 or (self.tol_ > 0 and loss <= self.tol_ * abs(self._extreme))

    def _breaks_tie(self, net, score) -> bool:
        """Return whether the loss prefers this epoch to the best of an equal score."""
        if self.scorer_ is None or score != self._extreme:
            return False
        return net.history[-1].get("valid_loss", inf) < self._loss_of_best

    def _better(self, a, b):
        return min(a, b) if self.lower_is_better_ else max(a, b)

    def _tolerance(self) -> float:
        if self.tol is None:
            is_key = isinstance(self.monitor, str) and not self._scores()
            return LOSS_TOLERANCE if is_key and is_loss(self.monitor) else 0.0
        if not (isinstance(self.tol, Real) and 0 <= self.tol < inf):
            raise ValueError(
                f"EarlyStopping: tol={self.tol!r} must be None or a finite number >= 0."
                " It is the part of the best value by which another may be worse and "
                "count as best; 0 wants values that are strictly better."
            )
        return float(self.tol)

    def _scores(self) -> bool:
        return callable(self.monitor) or self.monitor in get_scorer_names()

    def _direction(self, net) -> bool:
        if self.lower_is_better is not None:
            return self.lower_is_better
        if callable(self.monitor):
            return False
        for _, callback in net.callbacks_:
            name = getattr(callback, "name_", getattr(callback, "name", None))
            lower = getattr(callback, "lower_is_better", None)
            if name == self.monitor and lower is not None:
                return lower
        return is_loss(self.monitor)

    def _monitored(self, net, dataset_valid) -> float | None:
        """Return the value of the last epoch; None if it cannot be had, rightly."""
        epoch = net.history[-1]
        if not callable(self.monitor) and self.monitor in epoch:
            self.scorer_ = None  # the key wins over a scorer of the same name
            return epoch[self.monitor]
        if self.scorer_ is not None and dataset_valid is not None:
            value = self.scorer_(net, dataset_valid)
            epoch[self.scorer_.key] = value
            return value
        if not self.needs_data_:
            return None
        raise ValueError(missing_key("EarlyStopping", self.monitor, epoch))


def is_loss(key: str) -> bool:
    """Return whether lower values of a history key are better, by its name."""
    return key.endswith("loss") and not key.startswith("neg_")


def missing_key(who: str, key: str, epoch: dict) -> str:
    """Return the message about a key that an epoch of the history does not hold."""
    known = sorted(name for name in epoch if name != "batches")
    return (
        f"{who} monitors {key!r}, which the history does not hold; it holds {known}. "
        "Values named valid_*, and scorers of scikit-learn, need validation data: pass "
        "X_val and y_val to fit, or set train_split."
    )


class MonitorScorer:
    """A scorer that early stopping evaluates on the validation data of a fit.

    Parameters
    ----------
    net : estimator
    monitor : str or callable

    Attributes
    ----------
    key : str
        Key of the score in the history.
    """

    def __init__(self, net, monitor):
        self.scorer: Any = check_scoring(net, monitor)
        self.key = f"valid_{monitor}"
        if callable(monitor):
            function = getattr(monitor, "_score_func", monitor)
            self.key = f"valid_{getattr(function, '__name__', 'score')}"
        self._data = None

    def __call__(self, net, dataset) -> float:
        if self._data is None:
            self._data = _arrays(dataset)
        return float(self.scorer(net, *self._data))


def _arrays(dataset) -> tuple:
    """Return X, or a dataset without an X, and the targets of a dataset."""
    if is_skorch_dataset(dataset):
        return data_from_dataset(dataset)
    targets = (dataset[i][1] for i in range(len(dataset)))
    return dataset, np.asarray(
        [to_numpy(y) if isinstance(y, torch.Tensor) else y for y in targets]
    )


def _components(net) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield modules, and losses that have weights, with the attributes they are in."""
    for name in (*net._modules, *net._criteria):
        component = getattr(net, f"{name}_")
        if isinstance(component, torch.nn.Module):
            yield f"{name}_", component


class BatchAverage(PassthroughScoring):
    """skorch's ``PassthroughScoring``, without its slow way of reading the history."""

    def on_epoch_end(self, net, **kwargs):
        size = "train_batch_size" if self.on_train else "valid_batch_size"
        epoch = net.history[-1]
        pairs = [(b[self.name], b[size]) for b in epoch["batches"] if self.name in b]
        if pairs:
            total = sum(value * n for value, n in pairs)
            record_average(self, total / sum(n for _, n in pairs), epoch)


def record_average(callback: PassthroughScoring, value: float, epoch: dict) -> None:
    """Write the mean over an epoch's batches into the history, as `callback` does."""
    is_best = callback._is_best_score(value)
    if is_best:
        callback.best_score_ = value
    epoch[callback.name] = value
    if is_best is not None:
        epoch[f"{callback.name}_best"] = bool(is_best)


class EpochLog(PrintLog):
    """skorch's ``PrintLog``, which makes no table where none is printed."""

    def on_epoch_end(self, net, **kwargs):
        if net.verbose or self.sink is not print:
            super().on_epoch_end(net, **kwargs)


class DivergenceGuard(Callback):
    """Stop a fit whose loss or weights are no longer finite numbers, with a warning.

    The remaining epochs could not bring them back.
    """

    def on_epoch_end(self, net, **kwargs):
        epoch = net.history[-1]
        bad = [f"{name} is {value}" for name, value in _vital_signs(epoch, net)]
        if not bad:
            return
        warnings.warn(
            f"Training diverged in epoch {epoch['epoch']} of {net.max_epochs}: "
            f"{' and '.join(bad)}, with lr={net.lr}, lambda1={net.lambda1}, "
            f"lambda2={net.lambda2}. Training stops here. Try a smaller lr (say "
            f"{net.lr / 10:g}), inputs that are finite and scaled to about [-1, 1], or "
            "a smaller lambda1 or lambda2.",
            ConvergenceWarning,
            stacklevel=2,
        )
        raise StopTraining


def _vital_signs(epoch: dict, net) -> Iterator[tuple[str, float]]:
    """Yield what is not finite: the training loss, or the norm of the weights."""
    loss = epoch.get("train_loss", 0.0)
    if not isfinite(loss):
        yield "train_loss", loss
    norm = epoch.get("param_norm")
    if norm is None:  # the norms are not tracked
        norm = total_norm(parameter_norms(net.module_.parameters()))
    if not isfinite(norm):
        yield "the norm of the weights", norm
