"""Which process trains which stack: this one takes part, workers come as they start."""

import sys
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import torch
from joblib import cpu_count

from skreg.batching._memory import memory
from skreg.batching._pickles import unpacked
from skreg.batching.checkpoint.running import announce
from skreg.batching.processes.parcels import Parcels
from skreg.batching.processes.workers import (
    ENDED,
    first_done,
    forget,
    torch_settings,
    workers,
)
from skreg.batching.stacking import engine
from skreg.batching.stacking.engine import Group, Trained
from skreg.batching.stacking.stack_size import operations
from skreg.batching.stacking.stackable import StackableFit
from skreg.batching.stacking.streams import DataPool

__all__ = ["StackSharing"]

START_SECONDS = 4.0  # until a new process has imported its libraries
MODULES_WORK = 1e3  # of a sample, besides multiplications
SHORT_WORK = 6e10  # multiplications of all samples, in all epochs
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
        n = self.n_processes or _n_processes()
        for group in groups:
            of_sample = MODULES_WORK + operations(group.candidates[0])
            for candidate in group.candidates:
                candidate.work = of_sample
        # How nets are put together does not depend on the time that anything takes:
        # sums of floating-point numbers differ by a rounding with the company.
        n_parts = 1 if self.n_processes is None and _is_short(groups) else n
        share = sum(_work(group.candidates) for group in groups) / n_parts or 1.0
        stacks = [
            stack
            for group in groups
            for stack in group.in_stacks(round(_work(group.candidates) / share + 0.25))
        ]
        stacks.sort(key=_work, reverse=True)
        for stack in stacks:
            announce(stack)
        if self.n_processes is None:
            stacks = yield from _short_ones(stacks, pool)
        if n == 1 or len(stacks) < 2:
            for stack in stacks:
                yield stack, engine.train_stack(stack, pool)[0]
        else:
            yield from _Race(stacks, pool, n, self.verbose).run()


def _is_short(groups: Sequence[Group]) -> bool:
    """Return whether nets of some groups train no longer than a process takes to start.

    It is a rough guess, from the numbers of samples, epochs and weights alone.
    """
    return sum(_work(group.candidates) for group in groups) < SHORT_WORK


def _n_processes() -> int:
    """Return how many processes this machine has cores and memory for.

    No more than torch has threads: one in workers of others, or if the user says so.
    """
    of_memory = int(memory() / 2 / WORKER_BYTES)
    return max(1, min(cpu_count(), torch.get_num_threads(), of_memory))


def _short_ones(stacks, pool):
    """Train here until the rest is worth other processes; return the rest."""
    n_cores = _n_processes()
    if n_cores == 1 or not any(map(_may_travel, stacks)):
        return stacks
    waiting, foresight = deque(stacks), _Foresight(stacks, n_cores)
    while waiting:
        stack = waiting.popleft()
        failures, left = engine.train_stack(stack, pool, foresight.is_worth_more)
        yield [c for c in stack if c not in left], failures
        if left:
            waiting.appendleft(left)
            break
    return list(waiting)


class _Foresight:
    """How long the rest of some stacks will take, from what has been done.

    Parameters
    ----------
    stacks : sequence of list of StackableFit
    n_cores : int
    """

    def __init__(self, stacks, n_cores: int):
        self.stacks, self.n_cores = list(stacks), n_cores
        self.total, self.start = sum(map(_work, stacks)), perf_counter()

    def is_worth_more(self, n_epochs: int) -> bool:
        """Return whether other processes would spare more time than they cost."""
        if n_epochs < 2:
            return False
        left = sum(map(_work, self.stacks))
        seconds = (perf_counter() - self.start) * left / (self.total - left)
        return seconds * (1 - 1 / self.n_cores) > START_SECONDS + WORTH_SECONDS


def _work(stack: Sequence[StackableFit]) -> float:
    """Return the work that is left in a stack; only ratios mean something."""
    return sum(
        c.work * len(c.train) * max(0, c.last_epoch - len(c.net.history))
        for c in stack
        if not c.has_ended
    )


def _may_travel(stack: Sequence[StackableFit]) -> bool:
    """Return whether other processes can train a stack as this one does."""
    return all(
        c.net.device_.type == "cpu" and c.fit.tasks is None and not c.net.verbose
        for c in stack
    )


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
        self.waiting = deque(s for s in stacks if _may_travel(s))
        self.staying = deque(s for s in stacks if not _may_travel(s))
        self.away = {}  # future: stack
        self.parcels = Parcels(pool)
        self.settings = torch_settings()
        self.workers, self.n_breaks = None, 0
        self._start()

    def _start(self) -> None:
        if self.waiting:
            self.workers = workers(min(self.n - 1, len(self.waiting)))

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
            failures, _ = engine.train_stack(stack, self.pool, self._look_around)
            yield stack, failures
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
                if len(self.away) >= min(self.n - 1, self.workers.n_ready):
                    return
                parcel = self._packed(self.waiting[0])
                if parcel is not None:
                    future = self.workers.submit(parcel, self.settings)
                    self.away[future] = self.waiting.popleft()
            except ENDED:
                self._begin_anew()

    def _packed(self, stack) -> bytes | None:
        try:
            return self.parcels.pack(stack)
        except Exception as error:  # whatever a class of the user's may raise
            self._stay(self.waiting.popleft(), error)
            return None

    def _stay(self, stack, error) -> None:
        self.staying.append(stack)
        if self.verbose > 0:
            sys.stderr.write(
                f"[skreg] {len(stack)} fits stay in this process, since another "
                f"cannot train them: {error!r}\n"
            )

    def _look_around(self, n_epochs: int) -> bool:
        """Send what waits to processes that have nothing to do; go on here."""
        self._send()
        return False

    def _receive(self, future) -> Trained | None:
        stack = self.away.pop(future)
        try:
            outcomes, of_none = unpacked(future.result())
        except ENDED:
            self.waiting.appendleft(stack)
            self._begin_anew()
            return None
        except Exception as error:  # of unpickling, or for want of memory
            self._stay(stack, error)
            return None
        failures = {}
        for candidate, outcome in zip(stack, outcomes, strict=True):
            if isinstance(outcome, str):
                failures[candidate.job] = outcome
                if candidate.beginning is not None:
                    candidate.beginning.restore(candidate)
                continue
            outcome.progress.restore(candidate)
            candidate.fit.looks = False
            candidate.job.error = outcome.error
            candidate.job.seconds += outcome.seconds
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
            self._start()
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
