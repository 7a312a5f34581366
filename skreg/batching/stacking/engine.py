"""How fits that are to be done at the same time are done: in stacks, or one by one."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from typing import NamedTuple

import torch

from skreg._utils.threads import ThreadRace
from skreg.batching._jobs import Job
from skreg.batching.checkpoint.running import StackSaves, resume
from skreg.batching.stacking.epochs import StackEpochs
from skreg.batching.stacking.progress import FitProgress
from skreg.batching.stacking.stack import Stack
from skreg.batching.stacking.stack_size import stack_size
from skreg.batching.stacking.stackable import StackableFit, examine
from skreg.batching.stacking.streams import DataPool
from skreg.batching.stacking.vmap_check import in_a_line
from skreg.estimators.paths import STACK, TrainingPath
from skreg.training.regularizing import NotStackable

__all__ = [
    "Group",
    "Trained",
    "in_parts",
    "train_in_turn",
    "train_stack",
    "train_together",
    "train_until",
]


FEWEST = 8  # nets of a stack that is cut for other processes


class Group(NamedTuple):
    """Nets of one shape, and how many of them make a stack at most."""

    candidates: list[StackableFit]
    size: int

    def in_stacks(self, n: int = 1) -> list[list[StackableFit]]:
        """Return the nets of each stack, of which there are `n` at least if possible.

        A stack that goes on is not cut.
        """
        n_nets = len(self.candidates)
        if self.candidates[0].company is None:
            n = max(1, min(n, n_nets // FEWEST))
        else:
            n = 1
        return in_parts(self.candidates, min(self.size, -(-n_nets // n)))


Trained = tuple[list[StackableFit], dict[Job, str]]


def train_in_turn(groups: Sequence[Group], pool: DataPool) -> Iterator[Trained]:
    """Train the nets of each group, stack after stack.

    Parameters
    ----------
    groups : sequence of Group
    pool : DataPool

    Yields
    ------
    stack : list of StackableFit
    failures : dict of Job to str
        As ``train_stack`` returns them.
    """
    for stack in (stack for group in groups for stack in group.in_stacks()):
        yield stack, train_stack(stack, pool)[0]


def train_together(
    jobs: Sequence[Job],
    *,
    verbose: int = 0,
    train_stacks: Callable[[Sequence[Group], DataPool], Iterator[Trained]] = (
        train_in_turn
    ),
) -> None:
    """Train the nets of all jobs.

    Parameters
    ----------
    jobs : sequence of Job
    verbose : int, default=0
        Positive: tell why fits were not stacked, a line for each reason.
    train_stacks : callable, default=train_in_turn
        Trains groups of nets, in this process or others.
    """
    shapes, reasons, of_modules = {}, {}, {}
    for job in jobs:
        found = _examined(job, of_modules)
        if isinstance(found, StackableFit):
            resume(found)
            company = found.company and found.company[0]
            shapes.setdefault((company, *found.shape), []).append(found)
        elif found is not None:
            reasons.setdefault(found, []).append(job)
    pool, groups = DataPool(), []
    for (company, *_), candidates in sorted(shapes.items(), key=_resumed_first):
        size = len(candidates) if company else _stack_size(candidates)
        if isinstance(size, str):
            reasons.setdefault(size, []).extend(c.job for c in candidates)
            continue
        if company:
            candidates.sort(key=lambda c: c.company)
        groups.append(Group(sorted(candidates, key=pool.place_key), size))
    trained = set()
    with closing(train_stacks(groups, pool)) as stacks:
        for stack, failures in stacks:
            for job, failure in failures.items():
                reasons.setdefault(failure, []).append(job)
            for candidate in stack:  # scored, and kept on disk, before the next stack
                if candidate.job not in failures:
                    candidate.fit.path = TrainingPath(STACK)
                    trained.add(id(candidate.job))
                    candidate.job.finish()
    for reason, alone in reasons.items():
        for job in alone:
            trained.add(id(job))
            job.train_alone(reason)
    for job in jobs:
        if id(job) not in trained and job.error is None:
            job.error = RuntimeError(
                "This net was not trained, which is a fault of skreg; please report it."
            )
    if verbose > 0:
        for reason, alone in reasons.items():
            _tell(f"[skreg] {len(alone)} of {len(jobs)} fits trained alone: {reason}.")


def _resumed_first(item) -> bool:
    return item[0][0] is None


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


def in_parts(candidates, size: int):
    """Cut into parts of about equal length that is at most `size`."""
    n_parts = -(-len(candidates) // size)
    cuts = [len(candidates) * i // n_parts for i in range(n_parts + 1)]
    return [candidates[start:stop] for start, stop in pairwise(cuts)]


def train_stack(
    candidates: Sequence[StackableFit],
    pool: DataPool,
    is_time: Callable[[int], bool] | None = None,
) -> tuple[dict[Job, str], list[StackableFit]]:
    """Train nets of one shape, until the last of them is done or it is time to pause.

    Those that have a place on disk are saved there every few seconds.

    Parameters
    ----------
    candidates : sequence of StackableFit
    pool : DataPool
    is_time : callable, default=None
        Takes the number of epochs since the last pause. None: it never is.

    Returns
    -------
    failures : dict of Job to str
        The fits that are yet to be trained, alone, and what went wrong.
    left : list of StackableFit
        Those whose training may go on, in any company and process.
    """
    saves = StackSaves(candidates, is_time or never)
    failures, left = train_until(candidates, pool, saves)
    while left and not saves.pauses:
        saves.save()
        failed, left = train_until(left, pool, saves)
        failures |= failed
    if not failures:
        saves.save()  # before the first result, after which the company is another
    return failures, left


def never(n_epochs: int) -> bool:
    """Return False: no epoch is the last for now."""
    return False


def train_until(
    candidates: Sequence[StackableFit], pool: DataPool, is_time: Callable[[int], bool]
) -> tuple[dict[Job, str], list[StackableFit]]:
    """Train nets of one shape, until the last of them is done or it is time to pause.

    If the memory of a device does not suffice, start again with one half after the
    other. If anything else goes wrong, leave the nets as they were, to train alone:
    what one of them cannot do must not be the others' failure.

    Parameters
    ----------
    candidates : sequence of StackableFit
    pool : DataPool
    is_time : callable
        Takes the number of epochs of this call.

    Returns
    -------
    failures, left : as those of ``train_stack``
    """
    for candidate in candidates:
        if candidate.beginning is None:
            candidate.beginning = FitProgress(candidate)
    try:
        return {}, _train(candidates, pool, is_time)
    except Exception as error:
        failure = error
    for candidate in candidates:
        candidate.beginning.restore(candidate)
        candidate.job.error, candidate.has_ended = None, False
    if isinstance(failure, torch.OutOfMemoryError) and len(candidates) > 1:
        first, second = in_parts(candidates, -(-len(candidates) // 2))
        parts = [train_until(part, pool, never)[0] for part in (first, second)]
        return parts[0] | parts[1], []
    return {candidate.job: _failure(failure) for candidate in candidates}, []


def _train(candidates, pool, is_time) -> list[StackableFit]:
    for candidate in candidates:
        candidate.has_ended |= len(candidate.net.history) >= candidate.last_epoch
    remaining = [c for c in candidates if not c.has_ended]
    n_epochs, pauses = 0, False
    while remaining and not pauses:
        stack = Stack(remaining, pool)
        state = stack.state()
        epochs = StackEpochs(stack, pool)
        race = ThreadRace(stack.flop())
        try:
            goes_on = True
            while goes_on:
                finished, n_epochs = race.run(epochs.run_one), n_epochs + 1
                # A state that users' regularizers keep is that of this stack.
                pauses = is_time(n_epochs) and stack.state() == state
                goes_on = not finished and stack.follow_schedules() and not pauses
        finally:
            stack.release(range(len(stack)))
        for row in finished:
            stack.candidates[row].has_ended = True
        remaining = [c for c in stack.candidates if not c.has_ended]
        if remaining and stack.state() != state:
            raise NotStackable(
                "a regularizer keeps a state, and its nets do not end together"
            )
    return remaining
