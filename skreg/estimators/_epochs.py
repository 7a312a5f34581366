"""An epoch without skorch's hooks around each batch, for nets that do not use them.

The operations on tensors are the same, in the same order, as in skorch's
``run_single_epoch``: the weights are equal bit for bit. What is left out is telling
every callback of every batch, and fetching the loss of every batch from the device:
here all losses of an epoch are fetched at once.
"""

from math import inf

import torch
from skorch.callbacks import Callback, EpochTimer, LRScheduler, PassthroughScoring
from skorch.history import History

from skreg.callbacks import (
    AccuracyTracker,
    BatchAverage,
    DivergenceGuard,
    EarlyStopping,
    EpochLog,
    NormTracker,
)
from skreg.estimators._data import InMemoryBatches
from skreg.estimators._overrides import AROUND_BATCHES, AROUND_EPOCHS, overrides
from skreg.estimators._threads import threads_for

BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_grad_computed")
# Callbacks that change no weights before training ends, and no batches.
KNOWN_CALLBACKS = {
    AccuracyTracker,
    BatchAverage,
    DivergenceGuard,
    EarlyStopping,
    EpochLog,
    EpochTimer,
    LRScheduler,
    NormTracker,
    PassthroughScoring,
}


def is_lean(net) -> bool:
    """Tell whether nobody looks at the single batches of `net`.

    Parameters
    ----------
    net : RegularizedNet
        Initialised.
    """
    return (
        not set(overrides(net)) - AROUND_EPOCHS - AROUND_BATCHES
        and type(net.history) is History
        and net._modules == ["module"]
        and net._criteria == ["criterion"]
        and net._optimizers == ["optimizer"]
        and type(net.optimizer_).__module__.startswith("torch.optim.")
        and not isinstance(net.optimizer_, torch.optim.LBFGS)  # wants a closure
        and not any(map(_sees_batches, dict(net.callbacks_).values()))
    )


def is_closed(net) -> bool:
    """Tell whether nobody but this package sees `net` and its batches in training."""
    return not set(overrides(net)) - AROUND_EPOCHS and all(
        is_known(callback) for _, callback in net.callbacks_
    )


def is_known(callback) -> bool:
    """Tell whether a callback is one of ours or skorch's, without hooks of its own."""
    return (
        type(callback) in KNOWN_CALLBACKS
        and not callable(getattr(callback, "monitor", None))  # code of the user's
        and not any(
            name.startswith("on_") and name != "on_train" for name in vars(callback)
        )
    )


def _sees_batches(callback) -> bool:
    if any(hook in vars(callback) for hook in BATCH_HOOKS):
        return True
    if type(callback) is AccuracyTracker:  # asks for predictions only, see below
        return False
    if type(callback) is LRScheduler and callback.step_every == "epoch":
        return False
    return any(
        getattr(type(callback), hook, None) is not getattr(Callback, hook)
        for hook in BATCH_HOOKS
    )


def draws_nothing_else(net, batches, fit_params: dict) -> bool:
    """Tell whether only the order of batches, and dropout, are random in an epoch."""
    session = net._session
    return (
        session is not None
        and session.hand is not None
        and session.augment is None
        and session.bounds is None  # attacks begin at random points
        and not fit_params
        and type(batches) is InMemoryBatches
    )


def run_lean_epoch(net, batches, training: bool, fit_params: dict) -> None:
    """Train, or validate, on each batch."""
    run = train_epoch if training else validate_epoch
    hand, flop = net._session.hand, inf
    if hand is not None and type(batches) is InMemoryBatches:
        n_samples = min(batches.batch_size, len(batches.dataset))
        flop = n_samples * hand.flop_per_sample
    with threads_for(flop):
        run(net, batches, fit_params)


def train_epoch(net, batches, fit_params: dict) -> None:
    """Take a step on each batch; write losses and penalties into the history."""
    net._set_training(True)
    hand = None if fit_params else net._session.hand
    if hand is not None:
        hand.begin_epoch()
    losses, penalties, sizes = [], [], []
    rows = net.history[-1]["batches"]
    for batch in batches:
        rows.append({})  # now, for whoever counts them
        X, y = net._training_batch(batch)
        if hand is None:
            loss, penalty = _step(net, X, y, fit_params)
        else:
            loss, penalty = hand.step(net._to_device(X), y)
        losses.append(loss)
        penalties.append(penalty)
        sizes.append(len(y))
    _record(net.history, "train", losses, sizes, train_penalty=penalties)


def _step(net, X, y, fit_params):
    net.optimizer_.zero_grad()
    y_pred = net.infer(X, **fit_params)
    loss = net.get_loss(y_pred, y, X=X, training=True)
    if net._scaler is None:
        loss.backward()
        net.optimizer_.step()
    else:
        net._scaler.backward(loss, [net.optimizer_])
        net._scaler.step([net.optimizer_])
    return loss.detach(), net._session.penalty


def validate_epoch(net, batches, fit_params: dict) -> None:
    """Write the losses on each batch into the history; let accuracies be counted."""
    net._set_training(False)
    trackers = [cb for _, cb in net.callbacks_ if type(cb) is AccuracyTracker]
    losses, sizes = [], []
    rows = net.history[-1]["batches"]
    with torch.no_grad():
        for batch in batches:
            rows.append({})
            X, y = batch
            y_pred = net.infer(X, **fit_params)
            with net._validation_weights(batch):
                losses.append(net.get_loss(y_pred, y, X=X, training=False))
            sizes.append(len(y))
            for tracker in trackers:
                tracker.on_batch_end(net, batch=batch, training=False, y_pred=y_pred)
    _record(net.history, "valid", losses, sizes)


def _record(history, prefix: str, losses, sizes, **more) -> None:
    """Write, batch by batch, what skorch would have written."""
    columns = {f"{prefix}_loss": losses, **more}
    columns = {name: _fetch(values) for name, values in columns.items()}
    columns[f"{prefix}_batch_size"] = sizes
    rows = history[-1]["batches"][-len(sizes) :] if sizes else []
    for row, values in zip(rows, zip(*columns.values(), strict=True), strict=True):
        row.update(zip(columns, values, strict=True))
    history.record(f"{prefix}_batch_count", len(sizes))


def _fetch(values: list) -> list[float]:
    """Return numbers, with one transfer from the device if they are tensors."""
    if values and isinstance(values[0], torch.Tensor):
        return torch.stack(values).tolist()
    return values
