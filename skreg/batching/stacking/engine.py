"""How fits that are to be done at the same time are done: in stacks, or one by one."""

import sys
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import torch

from skreg._utils.threads import threads_for
from skreg.batching._jobs import Job
from skreg.batching.stacking.epochs import StackEpochs
from skreg.batching.stacking.stack import Stack
from skreg.batching.stacking.stack_size import stack_size
from skreg.batching.stacking.stackable import StackableFit, examine
from skreg.batching.stacking.streams import DataPool
from skreg.batching.stacking.vmap_check import in_a_line
from skreg.estimators.paths import STACK, TrainingPath
from skreg.training.regularizing import NotStackable

__all__ = ["train_together"]


def train_together(jobs: Sequence[Job], *, verbose: int = 0) -> None:
    """Train the nets of all jobs.

    Parameters
    ----------
    jobs : sequence of Job
    verbose : int, default=0
        Positive: tell why fits were not stacked, a line for each reason.
    """
    groups, reasons, of_modules = {}, {}, {}
    for job in jobs:
        found = _examined(job, of_modules)
        if isinstance(found, StackableFit):
            groups.setdefault(found.shape, []).append(found)
        elif found is not None:
            reasons.setdefault(found, []).append(job)
    pool = DataPool()
    for candidates in groups.values():
        size = _stack_size(candidates)
        if isinstance(size, str):
            reasons.setdefault(size, []).extend(c.job for c in candidates)
            continue
        ordered = sorted(candidates, key=lambda c: repr(pool.stream_key(c)))
        for stack in _in_parts(ordered, size):
            failures = train_stack(stack, pool)
            for job, failure in failures.items():
                reasons.setdefault(failure, []).append(job)
            for candidate in stack:  # scored, and kept on disk, before the next stack
                if candidate.job not in failures:
                    candidate.job.finish()
    for reason, alone in reasons.items():
        for job in alone:
            job.train_alone(reason)
    if verbose > 0:
        for reason, alone in reasons.items():
            _tell(f"[skreg] {len(alone)} of {len(jobs)} fits trained alone: {reason}.")


def _examined(job, of_modules) -> StackableFit | str | None:
    """Return what `examine` does; None if the fit has failed at it."""
    try:
        return job.run(examine, job, of_modules)
    except Exception as error:
        job.error = error
        return None


def _stack_size(candidates) -> int | str:
    """Return what `stack_size` does; if it fails, that is a reason not to stack."""
    try:
        return stack_size(candidates)
    except Exception as error:  # whatever a module of the user's may raise
        return _failure(error)


def _failure(error) -> str:
    return f"a stack of them failed: {in_a_line(error)}"


def _tell(message: str) -> None:
    sys.stderr.write(message + "\n")


def _in_parts(candidates, size: int):
    """Cut into parts of about equal length that is at most `size`."""
    n_parts = -(-len(candidates) // size)
    cuts = [len(candidates) * i // n_parts for i in range(n_parts + 1)]
    return [candidates[start:stop] for start, stop in pairwise(cuts)]


def train_stack(candidates: Sequence[StackableFit], pool: DataPool) -> dict[Job, str]:
    """Train nets of one shape, until the last of them is done.

    If the memory of a device does not suffice, start again with one half after the
    other. If anything else goes wrong, leave the nets as they were, to train alone:
    what one of them cannot do must not be the others' failure.

    Parameters
    ----------
    candidates : sequence of StackableFit
    pool : DataPool

    Returns
    -------
    dict of Job to str
        The fits that are yet to be trained, and what went wrong.
    """
    beginnings = [_Snapshot(candidate) for candidate in candidates]
    try:
        _train(candidates, pool)
    except Exception as error:
        failure = error
    else:
        for candidate in candidates:
            candidate.fit.path = TrainingPath(STACK)
        return {}
    for beginning in beginnings:
        beginning.restore()
    if isinstance(failure, torch.OutOfMemoryError) and len(candidates) > 1:
        first, second = _in_parts(candidates, -(-len(candidates) // 2))
        return train_stack(first, pool) | train_stack(second, pool)
    return {candidate.job: _failure(failure) for candidate in candidates}


def _train(candidates, pool) -> None:
    remaining = [c for c in candidates if len(c.net.history) < c.last_epoch]
    while remaining:
        stack = Stack(remaining, pool)
        state = stack.state()
        epochs = StackEpochs(stack, pool)
        try:
            with threads_for(stack.flop()):
                finished = epochs.run_one()
                while not finished and stack.follow_schedules():
                    finished = epochs.run_one()
        finally:
            stack.release(range(len(stack)))
        done = {id(stack.candidates[row]) for row in finished}
        remaining = [c for c in stack.candidates if id(c) not in done]
        if remaining and stack.state() != state:
            raise NotStackable(
                "a regularizer keeps a state, and its nets do not end together"
            )


class _Snapshot:
    """What a fit is like before its first epoch."""

    def __init__(self, candidate):
        self.candidate = candidate
        net = candidate.net
        self.tensors = {name: t.clone() for name, t in candidate.tensors.items()}
        regularizers = candidate.fit.regularizers  # some keep a state
        self.regularizers = deepcopy(regularizers) if regularizers.averages else None
        state, self.options = net.optimizer_.state, candidate.options()
        self.optimizer = deepcopy(net.optimizer_.state_dict()) if state else None
        self.n_epochs = len(net.history)
        self.callbacks = [_CallbackState(callback) for _, callback in net.callbacks_]

    def restore(self) -> None:
        net, fit = self.candidate.net, self.candidate.fit
        fit.kept = fit.averaged = None
        if self.regularizers is not None:
            fit.regularizers = self.regularizers
        for name, tensor in self.candidate.tensors.items():
            tensor.data.copy_(self.tensors[name])
        net.optimizer_.state.clear()
        net.optimizer_.param_groups[0].update(self.options)
        if self.optimizer is not None:
            net.optimizer_.load_state_dict(self.optimizer)
        del net.history[self.n_epochs :]
        self.candidate.job.error = None
        for state in self.callbacks:
            state.restore()


class _CallbackState:
    """What a callback has learnt before the first epoch."""

    def __init__(self, callback):
        self.callback, self.attributes = callback, dict(vars(callback))
        self.schedule = getattr(callback, "lr_scheduler_", None)
        self.place = self.schedule and deepcopy(self.schedule.state_dict())

    def restore(self) -> None:
        vars(self.callback).clear()
        vars(self.callback).update(self.attributes)
        if self.schedule is not None:
            self.schedule.load_state_dict(self.place)
