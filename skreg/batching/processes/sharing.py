"""Which process trains which stack: this one takes part, workers come as they start."""

import math
import sys
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import torch
from joblib import cpu_count

from skreg.batching._memory import memory
from skreg.batching.processes.parcels import Parcels, unpacked
from skreg.batching.processes.workers import (
    BrokenProcessPool,
    first_done,
    forget,
    torch_settings,
    workers,
)
from skreg.batching.stacking import engine
from skreg.batching.stacking.engine import Group, Trained, in_parts
from skreg.batching.stacking.stackable import StackableFit
from skreg.batching.stacking.streams import DataPool

__all__ = ["StackSharing"]

START_SECONDS = 4.0  # until a new process has imported its libraries
WORTH_SECONDS = 2.0  # of work that a process is spared
WORKER_BYTES = 2**29  # of a process without data
MOST_BREAKS = 2


class StackSharing:
    """Trains stacks in several processes at the same time.

    Parameters
    ----------
    n_processes : int or None
        This one included. None decides when the first epochs have told how long the
        rest will take: short searches stay in this process, long ones take all cores.
    verbose : int, default=0
        Positive: tell how many processes train.
    """

    def __init__(self, n_processes: int | None, verbose: int = 0):
        self.n_processes = n_processes
        self.verbose = verbose

    def __call__(self, groups: Sequence[Group], pool: DataPool) -> Iterator[Trained]:
        """Train the nets of each group, as ``train_in_turn`` does."""
        stacks = [stack for group in groups for stack in group.in_stacks()]
        stacks.sort(key=_work, reverse=True)
        n = self.n_processes
        if n is None:
            stacks = yield from _short_ones(stacks, pool)
            n = _n_processes()
        if not stacks:
            return
        if n > 1:
            yield from _Race(stacks, pool, n, self.verbose).run()
        else:
            for stack in stacks:
                yield stack, engine.train_stack(stack, pool)


def _n_processes() -> int:
    """Return how many processes this machine has cores and memory for."""
    return max(1, min(cpu_count(), int(memory() / 2 / WORKER_BYTES)))


def _short_ones(stacks, pool):
    """Train here until the rest is worth other processes; return the rest."""
    if _n_processes() == 1 or not any(map(_may_travel, stacks)):
        return stacks
    waiting, n_cores = deque(stacks), _n_processes()
    total, done = sum(map(_work, stacks)), 0.0
    start = perf_counter()
    while waiting:
        stack = waiting.popleft()
        before = _work(stack)

        def is_worth_it(n_epochs: int, stack=stack) -> bool:
            worked = done + before - _work(stack)
            seconds = perf_counter() - start
            if n_epochs < 2 or worked <= 0:
                return False
            left = seconds * (total - worked) / worked
            return left * (1 - 1 / n_cores) > START_SECONDS + WORTH_SECONDS

        failures, left = engine.train_until(stack, pool, is_worth_it)
        yield [c for c in stack if c not in left], failures
        done += before
        if left:
            waiting.appendleft(left)
            break
    return list(waiting)


def _work(stack: Sequence[StackableFit]) -> float:
    """Return the work that is left in a stack; only ratios mean something."""
    return sum(
        max(0, c.last_epoch - len(c.net.history))
        * len(c.train)
        * (1e3 + sum(w.numel() for w in c.module.parameters()))
        for c in stack
    )


def _may_travel(stack: Sequence[StackableFit]) -> bool:
    """Return whether other processes can train a stack as this one does."""
    return all(
        c.net.device_.type == "cpu" and c.fit.tasks is None and not c.net.verbose
        for c in stack
    )


def _cut(stacks: Sequence[list], n: int) -> list[list[StackableFit]]:
    """Return stacks, those cut that are more than the share of a process."""
    share = sum(map(_work, stacks)) / n
    parts = []
    for stack in stacks:
        n_parts = min(len(stack), math.ceil(_work(stack) / share - 0.25))
        parts += in_parts(stack, math.ceil(len(stack) / max(1, n_parts)))
    return sorted(parts, key=_work, reverse=True)


@contextmanager
def _one_thread():
    """Let torch compute in the calling thread alone."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class _Race:
    """Stacks that wait, and processes that take them."""

    def __init__(self, stacks, pool: DataPool, n: int, verbose: int):
        self.pool, self.n, self.verbose = pool, n, verbose
        self.waiting = deque(_cut([s for s in stacks if _may_travel(s)], n))
        self.staying = deque(s for s in stacks if not _may_travel(s))
        self.away = {}  # future: stack
        self.parcels = Parcels(pool)
        self.settings = torch_settings()
        self.workers = workers(n - 1) if self.waiting else None
        self.n_breaks = 0

    def run(self) -> Iterator[Trained]:
        ended = False
        try:
            with _one_thread():
                while self.waiting or self.staying or self.away:
                    yield from self._round()
            ended = True
        finally:
            if not ended and self.workers is not None:
                forget(self.workers)
            self.parcels.close()

    def _round(self) -> Iterator[Trained]:
        self._send()
        stack = self._next_here()
        if stack:
            failures, left = engine.train_until(stack, self.pool, self._look_around)
            if left:
                self.waiting.extend(_cut([left], 2))
            yield [c for c in stack if c not in left], failures
        for future in first_done(self.away, timeout=0.0 if stack else 0.2):
            trained = self._receive(future)
            if trained is not None:
                yield trained

    def _next_here(self) -> list[StackableFit] | None:
        for queue in (self.staying, self.waiting):
            if queue:
                return queue.popleft()
        return None

    def _send(self) -> None:
        """Give each process that has nothing to do a stack."""
        while self.waiting and self.workers is not None:
            try:
                if len(self.away) >= self.workers.n_ready:
                    return
                stack = self.waiting.popleft()
                parcel = self._packed(stack)
                if parcel is not None:
                    self.away[self.workers.submit(parcel, self.settings)] = stack
            except BrokenProcessPool:
                self._begin_anew()

    def _packed(self, stack) -> bytes | None:
        try:
            return self.parcels.pack(stack)
        except Exception as error:  # whatever a class of the user's may raise
            self.staying.append(stack)
            if self.verbose > 0:
                sys.stderr.write(
                    f"[skreg] {len(stack)} fits stay in this process, since they "
                    f"cannot be pickled: {error}\n"
                )
            return None

    def _look_around(self, n_epochs: int) -> bool:
        """Send what waits; return whether a process has nothing to do."""
        self._send()
        return False

    def _receive(self, future) -> Trained | None:
        stack = self.away.pop(future)
        try:
            outcomes, of_none = unpacked(future.result())
        except BrokenProcessPool:
            self.waiting.appendleft(stack)
            self._begin_anew()
            return None
        failures = {}
        for candidate, outcome in zip(stack, outcomes, strict=True):
            if isinstance(outcome, str):
                failures[candidate.job] = outcome
                continue
            outcome.progress.restore(candidate)
            candidate.fit.looks = False
            candidate.job.error = outcome.error
            _warn_again(candidate.job, outcome.warnings)
        _warn_again(stack[0].job, of_none)
        return stack, failures

    def _begin_anew(self) -> None:
        """Take back what was away, and start other processes, or none."""
        for future in list(self.away):
            self.waiting.appendleft(self.away.pop(future))
        forget(self.workers)
        self.n_breaks += 1
        self.workers = None
        if self.n_breaks < MOST_BREAKS:
            self.workers = workers(self.n - 1)
            return
        warnings.warn(
            f"Processes that train nets have ended {MOST_BREAKS} times, perhaps for "
            "want of memory; the search goes on in this process alone. Give fewer to "
            "parallel_config('skreg', n_jobs=...).",
            stacklevel=2,
        )


def _warn_again(job, texts) -> None:
    """Issue warnings of another process as if they came from here."""
    for message, category, filename, lineno in texts:
        try:
            job.run(warnings.warn_explicit, message, category, filename, lineno)
        except Warning as error:  # filters make it one
            job.error = error
