"""An epoch without skorch's hooks around each batch, for nets that do not use them.

The operations on tensors are the same, in the same order, as in skorch's
``run_single_epoch``: the weights are equal bit for bit. What is left out is telling
every callback of every batch, and fetching the loss of every batch from the device:
here all losses of an epoch are fetched at once.
"""

from math import inf

import torch

from skreg._utils.threads import threads_for
from skreg.callbacks import AccuracyTracker
from skreg.estimators._programs import AutogradProgram
from skreg.training.batches import InMemoryBatches
from skreg.training.step import take_step


def draws_nothing_else(net, batches, fit_params: dict) -> bool:
    """Tell whether only the order of batches, and dropout, are random in an epoch."""
    session = net._session
    return (
        session is not None
        and session.program is not None
        and not session.regularizers.changes_batches
        and not session.regularizers.perturbs  # attacks begin at random points
        and not net.regularizers  # of the user's, which may draw
        and not fit_params
        and type(batches) is InMemoryBatches
    )


def run_epoch_without_hooks(net, batches, training: bool, fit_params: dict) -> None:
    """Train, or validate, on each batch."""
    run = train_epoch if training else validate_epoch
    program, flop = net._session.program, inf
    if program is not None and type(batches) is InMemoryBatches:
        n_samples = min(batches.batch_size, len(batches.dataset))
        flop = n_samples * program.flop_per_sample
    with threads_for(flop):
        run(net, batches, fit_params)


def train_epoch(net, batches, fit_params) -> None:
    """Take a step on each batch; write losses and penalties into the history."""
    net._set_training(True)
    program = None if fit_params else net._session.program
    if program is None:
        program = AutogradProgram(net, fit_params)
    else:
        program.begin_epoch()
    losses, penalties, sizes = [], [], []
    rows = net.history[-1]["batches"]
    for batch in batches:
        rows.append({})  # now, for whoever counts them
        batch = net._training_batch(batch)
        loss, penalty = take_step(program, batch)
        losses.append(loss)
        penalties.append(penalty)
        sizes.append(len(batch[1]))
    _record(net.history, "train", losses, sizes, train_penalty=penalties)


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
