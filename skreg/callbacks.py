"""skorch callbacks: each one has one effect, reads the net and writes its history."""

import warnings
from collections.abc import Iterator
from math import inf, isfinite

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback, PassthroughScoring, PrintLog

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
    """Record the Frobenius norm of the parameters after each epoch.

    Writes ``param_norm`` (float, the norm of all parameters together) and
    ``param_norms`` (dict of parameter name to float) into the history.

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


class AccuracyTracker(Callback):
    """Record the accuracy after each epoch, with dropout off.

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

    def on_epoch_begin(self, net, **kwargs):
        self.hits_ = []
        self.n_samples_ = 0

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        if not training and not self.on_train:
            self._count(batch[1], y_pred)

    def on_epoch_end(self, net, dataset_train=None, **kwargs):
        if self.on_train:
            for batch in net.get_iterator(dataset_train, training=False):
                self._count(batch[1], net.evaluation_step(batch))
        if self.n_samples_:
            # The only transfer from the device: once an epoch, not once a batch.
            accuracy = torch.stack(self.hits_).sum().item() / self.n_samples_
            net.history.record("train_acc" if self.on_train else "valid_acc", accuracy)

    def on_train_end(self, net, **kwargs):
        self.hits_ = []  # device tensors have no place in a pickle

    def _count(self, y_true, y_pred):
        logits = y_pred[0] if isinstance(y_pred, tuple) else y_pred
        self.hits_.append((logits.argmax(dim=1) == y_true.to(logits.device)).sum())
        self.n_samples_ += len(logits)


class EarlyStopping(Callback):
    """Stop when the monitored value has no new best, and restore the best weights.

    An epoch is a new best if its value is strictly better than all before it.
    Training stops when more than `patience` epochs in a row are none. Whether or not
    it stopped early, the net ends with the weights of its best epoch.

    Parameters
    ----------
    patience : int, default=20
        Number of epochs without a new best that are tolerated.
    monitor : str, default="valid_acc"
        Key of the history.
    lower_is_better : bool, default=False
        True for a loss, False for a score.

    Attributes
    ----------
    best_epoch_ : int
        The best epoch, counted from 1.
    best_score_ : float
        The monitored value at that epoch.

    References
    ----------
    Prechelt, "Early stopping - but when?", Neural Networks: Tricks of the Trade
    (1998).
    """

    def __init__(
        self,
        patience: int = 20,
        monitor: str = "valid_acc",
        lower_is_better: bool = False,
    ):
        self.patience = patience
        self.monitor = monitor
        self.lower_is_better = lower_is_better

    def on_train_begin(self, net, **kwargs):
        self.best_score_ = inf if self.lower_is_better else -inf
        self.best_epoch_ = 0
        self.n_epochs_without_best_ = 0
        self.best_weights_ = None

    def on_epoch_end(self, net, **kwargs):
        score = self._monitored(net.history[-1])
        if (
            score < self.best_score_
            if self.lower_is_better
            else score > self.best_score_
        ):
            self.best_score_ = score
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
        if self.best_weights_ is not None:
            for component, weights in self.best_weights_.items():
                getattr(net, component).load_state_dict(weights)
            self.best_weights_ = None

    def _monitored(self, epoch: dict) -> float:
        if self.monitor not in epoch:
            known = sorted(key for key in epoch if key != "batches")
            raise ValueError(
                f"EarlyStopping monitors {self.monitor!r}, which the history does not "
                f"hold; it holds {known}. Values named valid_* need validation data: "
                "pass X_val and y_val to fit, or set train_split."
            )
        return epoch[self.monitor]


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
