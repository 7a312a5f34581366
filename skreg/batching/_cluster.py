"""Tasks go to a Dask cluster in groups; each worker trains its group as one batch."""

import pickle
from collections import deque
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from queue import Empty, SimpleQueue
from traceback import format_exc
from uuid import uuid4

import joblib

from skreg.batching.checkpoint.results import Kept

__all__ = ["ClusterCall", "check_cluster", "count_workers"]

_LARGE = 10_000  # bytes from which on an argument is sent once, not with every task
_PATIENCE = 30  # seconds to wait for a first worker
_MAX_LOSSES = 3  # of the data, with all workers that held them


def check_cluster(client) -> None:
    """Raise if `client` is no client of a Dask cluster."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            f"cluster={client!r} needs Dask, which is not installed; "
            'install it with: pip install "skreg[dask]"'
        ) from error
    if not isinstance(client, Client) or client.asynchronous:
        raise ValueError(
            f"cluster={client!r} must be a dask.distributed.Client that is not "
            'asynchronous; make one with Client("address of the scheduler").'
        )


def count_workers(client) -> int:
    """Return the number of workers, when there is one."""
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError as error:
        raise TimeoutError(
            f"cluster={client!r} has had no worker for {_PATIENCE} seconds; start some "
            "with: dask worker ADDRESS-OF-THE-SCHEDULER"
        ) from error
    return len(client.ncores())


@dataclass(frozen=True)
class _Shared:
    """Stands for an argument that was sent before."""

    index: int


@dataclass
class _Group:
    """Calls of joblib's that one worker runs: of each, the tasks and the callback."""

    calls: list
    n_losses: int = 0


class WorkerTraceback(Exception):
    """Where an error was raised on a worker."""

    def __str__(self):
        return f"\n{self.args[0]}"


@dataclass
class _Failure:
    """An error on its way from a worker, as errors travel without their traceback."""

    error: Exception
    traceback: str

    @classmethod
    def of(cls, error):
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # of many kinds, since classes of errors do as they like
            named = RuntimeError(f"{type(error).__name__}: {error}")
            return cls(named, format_exc())
        return cls(error, format_exc())

    def with_cause(self) -> Exception:
        self.error.__cause__ = WorkerTraceback(self.traceback)
        return self.error


class ClusterCall:
    """The tasks of one call of ``joblib.Parallel``, on their way to a cluster.

    Parameters
    ----------
    client : distributed.Client
    parallel : joblib.Parallel
    max_in_flight : int
        Largest number of tasks in a group.
    n_jobs : int or None
        Of joblib's configuration, for the workers.
    """

    keeper = None  # of results on disk

    def __init__(self, client, parallel, *, max_in_flight, n_jobs):
        self.client = client
        self.parallel = parallel
        self.max_in_flight = max_in_flight
        self.options = {"max_in_flight": max_in_flight, "n_jobs": n_jobs}
        self._pending = deque()
        self._done = SimpleQueue()  # of futures
        self._groups = {}  # future: group
        self._indices = {}  # id: the argument, so that it keeps its id, and its index
        self._shared = []  # futures of arguments

    def submit(self, items: list, callback) -> None:
        self._pending.append((items, callback))

    def wait(self) -> None:
        """Send tasks and hand on results, until there are no more of either."""
        while (self._pending or self._groups) and not self._has_failed():
            self._recall()
            self._send()
            if self._groups and not self._has_failed():
                self._receive()

    def cancel(self) -> None:
        """Take back what has not begun; what a worker has begun, it ends."""
        if self._groups:
            self.client.cancel(list(self._groups))
        self._groups.clear()
        self._pending.clear()
        self._shared.clear()
        self._indices.clear()

    def _has_failed(self) -> bool:
        return getattr(self.parallel, "_aborting", False)

    def _recall(self) -> None:
        """Answer from the checkpoint."""
        unanswered = []
        while self._pending:  # each answer may bring a new task
            items, callback = self._pending.popleft()
            answers = [_recall(function) for function, _, _ in items]
            if all(found for found, _ in answers):
                callback([result for _, result in answers])
            else:
                unanswered.append((items, callback))
        self._pending.extend(unanswered)

    def _send(self) -> None:
        tasks = list(self._pending)
        self._pending.clear()
        n_tasks = len(tasks)
        if n_tasks == 0:
            return
        n_groups = ceil(n_tasks / self.max_in_flight)
        if not self._groups:
            n_groups = max(n_groups, min(n_tasks, count_workers(self.client)))
        for i in range(n_groups):
            part = slice(i * n_tasks // n_groups, (i + 1) * n_tasks // n_groups)
            self._send_group(_Group(tasks[part]))

    def _send_group(self, group) -> None:
        calls = [[self._packed(*item) for item in items] for items, _ in group.calls]
        future = self.client.submit(
            run_group,
            calls,
            self.options,
            *self._shared,
            key=f"skreg-{uuid4().hex}",
            pure=False,
        )
        self._groups[future] = group
        future.add_done_callback(self._done.put)

    def _packed(self, function, args, kwargs) -> tuple:
        if isinstance(function, Kept):
            function = function.function
        args = [self._share(arg) for arg in args]
        return function, args, {name: self._share(arg) for name, arg in kwargs.items()}

    def _share(self, arg):
        from dask.sizeof import sizeof

        if hasattr(arg, "get_params") or isinstance(arg, (str, dict)):
            return arg
        if id(arg) not in self._indices:
            if sizeof(arg) < _LARGE:
                return arg
            # To all workers: whoever is left can give it to one that begins anew.
            future = self.client.scatter([arg], broadcast=True, hash=False)[0]
            self._indices[id(arg)] = arg, len(self._shared)
            self._shared.append(future)
        return _Shared(self._indices[id(arg)][1])

    def _receive(self) -> None:
        future = self._next_done()
        group = self._groups.pop(future)
        lost = future.status in ("cancelled", "lost")
        try:
            outcomes = [] if lost else future.result()
        except CancelledError:  # it has been lost in between
            lost = True
        if lost:
            self._send_again(group)
            return
        for (items, callback), outcome in zip(group.calls, outcomes, strict=True):
            if isinstance(outcome, _Failure):
                callback(outcome.with_cause())
                continue
            for (function, _, _), result in zip(items, outcome, strict=True):
                if isinstance(function, Kept):
                    function.keep(result)
            callback(outcome)

    def _next_done(self):
        while True:
            with suppress(Empty):
                # In pieces: on Windows, an interrupt does not end the wait for a lock.
                return self._done.get(timeout=0.2)

    def _send_again(self, group) -> None:
        group.n_losses += 1
        if group.n_losses > _MAX_LOSSES:
            raise RuntimeError(
                f"The workers that held the data of a group were lost {_MAX_LOSSES} "
                "times; see their logs, or give the group less to do at once with a "
                "smaller max_in_flight."
            )
        self._shared.clear()
        self._indices.clear()
        count_workers(self.client)  # of which there may be none at the moment
        self._send_group(group)


def _recall(function) -> tuple[bool, object]:
    return function.recall() if isinstance(function, Kept) else (False, None)


def run_group(calls: list, options: dict, *shared) -> list:
    """Run the tasks of a group on a worker; failures are among the results.

    Parameters
    ----------
    calls : list of list of (function, args, kwargs)
    options : dict
        For ``joblib.parallel_config``.
    *shared : the arguments that the tasks refer to
    """
    with joblib.parallel_config("skreg", **options):
        return joblib.Parallel()(joblib.delayed(_run)(call, shared) for call in calls)


def _run(call, shared):
    def restored(arg):
        return shared[arg.index] if isinstance(arg, _Shared) else arg

    try:
        return [
            function(
                *map(restored, args), **{k: restored(arg) for k, arg in kwargs.items()}
            )
            for function, args, kwargs in call
        ]
    except Exception as error:
        return _Failure.of(error)
