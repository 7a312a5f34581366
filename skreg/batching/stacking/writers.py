"""What callbacks write after an epoch of a stack, from what it has found for each net.

The callbacks that the package knows are not called for each net: what they would write
is computed for all nets at once. Those that decide something are.
"""

from math import isfinite

from skorch.callbacks import EpochTimer, LRScheduler, PassthroughScoring

from skreg.callbacks import (
    AccuracyTracker,
    BatchAverage,
    DivergenceGuard,
    EarlyStopping,
    EpochLog,
    NormTracker,
    record_average,
)

__all__ = ["WRITERS"]


def _write_average(callback, candidate, found, epoch) -> None:
    if callback.name in found["averages"]:
        record_average(callback, found["averages"][callback.name], epoch)
    elif not isinstance(callback, BatchAverage):  # of what else there is for a batch
        candidate.job.run(callback.on_epoch_end, candidate.net)


def _write_accuracy(callback, candidate, found, epoch) -> None:
    if callback.on_train:
        callback.record(found["train_hits"] / len(candidate.train), epoch)
    elif "valid_hits" in found:
        callback.record(found["valid_hits"] / len(candidate.valid), epoch)


def _write_norms(callback, candidate, found, epoch) -> None:
    epoch["param_norm"], epoch["param_norms"] = found["norm"], found["norms"]
    if found["sparsity"] is not None:
        epoch["sparsity"] = found["sparsity"]


def _write_duration(callback, candidate, found, epoch) -> None:
    epoch["dur"] = found["seconds"]


def _guard(callback, candidate, found, epoch) -> None:
    if not (isfinite(found["averages"]["train_loss"]) and isfinite(found["norm"])):
        candidate.job.run(callback.on_epoch_end, candidate.net)


def _look_for_best(callback, candidate, found, epoch) -> None:
    callback.on_epoch_end(candidate.net)


def _step_schedule(callback, candidate, found, epoch) -> None:
    # The optimizer of the net takes no steps, and with no gradients makes none; torch
    # warns if a schedule goes on without it.
    candidate.net.optimizer_.step()
    candidate.job.run(callback.on_epoch_end, candidate.net)


def _print_epoch(callback, candidate, found, epoch) -> None:
    if candidate.net.verbose:
        candidate.job.run(callback.on_epoch_end, candidate.net)


# What callbacks do after an epoch of a stack. A net with any other trains alone.
WRITERS = {
    AccuracyTracker: _write_accuracy,
    BatchAverage: _write_average,
    DivergenceGuard: _guard,
    EarlyStopping: _look_for_best,
    EpochLog: _print_epoch,
    EpochTimer: _write_duration,
    LRScheduler: _step_schedule,
    NormTracker: _write_norms,
    PassthroughScoring: _write_average,
}
