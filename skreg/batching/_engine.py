"""How fits that are to be done at the same time are done: in stacks, or one by one."""

import sys
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import torch

from skreg.batching._candidates import Candidate, examine
from skreg.batching._cost import stack_size
from skreg.batching._epochs import StackEpochs
from skreg.batching._jobs import Job
from skreg.batching._stack import Stack
from skreg.batching._streams import DataPool
from skreg.estimators._threads import threads_for

__all__ = ["train_together"]


def train_together(jobs: Sequence[Job], *, verbose: int = 0) -> None:
    """Train the nets of all jobs.

    Parameters
    ----------
    jobs : sequence of Job
    verbose : int, default=0
        Positive: tell why fits were not stacked, a line for each reason.
    """
    groups, reasons = {}, {}
    for job in jobs:
        found = _examined(job)
        if isinstance(found, Candidate):
            groups.setdefault(found.shape, []).append(found)
        elif found is not None:
            reasons.setdefault(found, []).append(job)
    pool = DataPool()
    for candidates in groups.values():
        size = stack_size(candidates)
        if size == 1:
            reason = "stacks of so few nets, or nets so large, are not faster"
            reasons.setdefault(reason, []).extend(c.job for c in candidates)
            continue
        ordered = sorted(candidates, key=lambda c: repr(pool.stream_key(c)))
        for stack in _in_parts(ordered, size):
            train_stack(stack, pool)
    for alone in reasons.values():
        for job in alone:
            job.train_alone()
    if verbose > 0:
        for reason, alone in reasons.items():
            _tell(f"[skreg] {len(alone)} of {len(jobs)} fits trained alone: {reason}.")


def _examined(job) -> Candidate | str | None:
    """Return what `examine` does; None if the fit has failed at it."""
    try:
        return job.run(examine, job)
    except Exception as error:
        job.error = error
        return None


def _tell(message: str) -> None:
    sys.stderr.write(message + "\n")


def _in_parts(candidates, size: int):
    """Cut into parts of about equal length that is at most `size`."""
    n_parts = -(-len(candidates) // size)
    cuts = [len(candidates) * i // n_parts for i in range(n_parts + 1)]
    return [candidates[start:stop] for start, stop in pairwise(cuts)]


def train_stack(candidates: Sequence[Candidate], pool: DataPool) -> None:
    """Train nets of one shape, until the last of them is done.

    If the memory of a device does not suffice, start again with one half after the
    other.

    Parameters
    ----------
    candidates : sequence of Candidate
    pool : DataPool
    """
    beginnings = [_Beginning(candidate) for candidate in candidates]
    try:
        _train(candidates, pool)
    except torch.OutOfMemoryError:
        if len(candidates) == 1:
            raise
    else:
        return
    for beginning in beginnings:
        beginning.restore()
    for half in _in_parts(candidates, -(-len(candidates) // 2)):
        train_stack(half, pool)


def _train(candidates, pool) -> None:
    remaining = [c for c in candidates if len(c.net.history) < c.last_epoch]
    while remaining:
        stack = Stack(remaining, pool)
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


class _Beginning:
    """What a fit is like before its first epoch."""

    def __init__(self, candidate):
        self.candidate = candidate
        net = candidate.net
        self.tensors = {k: t.clone() for k, t in net.module_.state_dict().items()}
        state, self.options = net.optimizer_.state, candidate.options()
        self.optimizer = deepcopy(net.optimizer_.state_dict()) if state else None
        self.n_epochs = len(net.history)

    def restore(self) -> None:
        net = self.candidate.net
        net.module_.load_state_dict(self.tensors)
        net.optimizer_.state.clear()
        net.optimizer_.param_groups[0].update(self.options)
        if self.optimizer is not None:
            net.optimizer_.load_state_dict(self.optimizer)
        del net.history[self.n_epochs :]
        self.candidate.job.error = None
        for _, callback in net.callbacks_:
            callback.initialize()
            callback.on_train_begin(net)
