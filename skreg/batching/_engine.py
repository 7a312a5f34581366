"""How fits that are to be done at the same time are done: in stacks, or one by one."""

import sys
from collections.abc import Sequence

from skreg.batching._candidates import Candidate, examine
from skreg.batching._epochs import StackEpochs
from skreg.batching._jobs import Job
from skreg.batching._stack import Stack
from skreg.batching._streams import DataPool

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
        train_stack(candidates, pool)
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


def train_stack(candidates: Sequence[Candidate], pool: DataPool) -> None:
    """Train nets of one shape, until the last of them is done.

    Parameters
    ----------
    candidates : sequence of Candidate
    pool : DataPool
    """
    remaining = [c for c in candidates if len(c.net.history) < c.last_epoch]
    while remaining:
        stack = Stack(remaining, pool)
        epochs = StackEpochs(stack, pool)
        try:
            finished = []
            while not finished:
                finished = epochs.run_one()
        finally:
            stack.release(range(len(stack)))
        done = {id(stack.candidates[row]) for row in finished}
        remaining = [c for c in stack.candidates if id(c) not in done]
