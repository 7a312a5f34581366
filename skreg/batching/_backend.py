"""The joblib backend under whose name a search trains its nets together."""

from collections import Counter
from contextlib import contextmanager
from functools import partial
from numbers import Integral

from joblib import cpu_count
from joblib.parallel import (
    FallbackToBackend,
    Parallel,
    SequentialBackend,
    ThreadingBackend,
    get_active_backend,
)

from skreg.batching._broker import Broker
from skreg.batching._cluster import ClusterCall, check_cluster, count_workers
from skreg.batching._memory import memory
from skreg.batching._tasks import Call, OwnTime, current_task
from skreg.batching.checkpoint.results import Checkpoint, Keeper
from skreg.batching.processes.sharing import StackSharing
from skreg.batching.stacking.engine import train_together

__all__ = ["SkregBackend"]

MOST_IN_FLIGHT = 100_000


class SkregBackend(ThreadingBackend):
    """Runs tasks in threads, and trains the nets that they fit as one batch.

    ``with joblib.parallel_config("skreg"):`` makes one; the keyword arguments given
    there arrive here.

    Parameters
    ----------
    nesting_level, inner_max_num_threads
        Joblib's own.
    max_in_flight : int, default=256
        Number of fits that may wait for each other, each in a thread of its own and
        with its own part of the data. A longer search runs in waves, and so does one
        whose waiting fits would hold more than a quarter of the memory.
    checkpoint : path-like, default=None
        Folder in which the results of tasks are kept as they end, and stacks of nets
        every few seconds. A task whose result is there is not run again: a search that
        was killed goes on where it was.
        Results belong to function, arguments (estimator, parameters, data, split), code
        and versions; nothing is taken from there if one of these has changed.
    cluster : distributed.Client, default=None
        Dask cluster that the tasks go to, in groups. Each worker trains the nets of its
        group as one batch, on its own device. What lies in a checkpoint stays here.

    Notes
    -----
    ``n_jobs`` of ``parallel_config`` is the number of processes that train, this one
    included, and of tasks that compute at the same time while no net is trained
    (preprocessing, scoring, other estimators); fits that wait are not counted. ``None``
    means one task at a time, and as many processes as spare time: short searches stay
    in this process, long ones take all cores. The number 1, here or given to a
    meta-estimator, means what it means to joblib: one by one, in the calling thread,
    unbatched. Other numbers given to a meta-estimator change nothing.
    """

    # None, where a meta-estimator is given no number, asks for as many as may wait.
    default_n_jobs = -1
    # A fit cannot be ended from outside.
    supports_timeout = False

    def __init__(
        self,
        nesting_level=None,
        inner_max_num_threads=None,
        max_in_flight=256,
        checkpoint=None,
        cluster=None,
    ):
        super().__init__(
            nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads
        )
        is_integer = isinstance(max_in_flight, Integral) and max_in_flight is not True
        if not is_integer or not 1 <= max_in_flight <= MOST_IN_FLIGHT:
            raise ValueError(
                f"max_in_flight={max_in_flight!r} must be an integer from 1 to "
                f"{MOST_IN_FLIGHT}: the number of fits that may wait for each other, "
                "each in a thread of its own."
            )
        self.max_in_flight = max_in_flight
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint)
        self.checkpoint = checkpoint
        if cluster is not None:
            check_cluster(cluster)
            self.uses_threads = self.supports_sharedmem = False
        self.cluster = cluster
        self._counts = Counter()  # of the tasks that were made
        self._calls = []  # one inside the other, if tasks are made by a call

    def effective_n_jobs(self, n_jobs):
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs == 1:
            return 1
        n_groups = 1 if self.cluster is None else count_workers(self.cluster)
        # At least 2, since joblib takes 1 for a loop without a backend.
        return max(2, n_groups * self.max_in_flight)

    def configure(self, n_jobs=1, parallel=None, **backend_kwargs):
        if getattr(parallel, "return_generator", False):
            # Results that are asked for one by one are computed one by one.
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        # Such tasks write their results into memory, where no checkpoint sees them.
        self._returns_results = backend_kwargs.get("require") != "sharedmem"
        return super().configure(n_jobs, parallel, **backend_kwargs)

    def get_nested_backend(self):
        level = (self.nesting_level or 0) + 1
        nested = SkregBackend(
            level, max_in_flight=self.max_in_flight, checkpoint=self.checkpoint
        )
        return nested, None

    def start_call(self):
        call = self._new_call()
        if self.checkpoint is not None and self._returns_results:
            call.keeper = Keeper(self.checkpoint, self._counts)
        self._calls.append(call)

    def _new_call(self):
        backend, n_jobs = get_active_backend()
        if backend is not self:
            n_jobs = None
        if self.cluster is not None:
            return ClusterCall(
                self.cluster,
                self.parallel,
                max_in_flight=self.max_in_flight,
                n_jobs=n_jobs,
            )
        parent = current_task()
        broker = self._new_broker(n_jobs) if parent is None else parent.call.broker
        return Call(broker, self.parallel, parent)

    def _new_broker(self, n_jobs) -> Broker:
        # Many meta-estimators have no verbosity, and give 0: then that of the context.
        verbose = max(self.parallel.verbose, Parallel().verbose)
        if n_jobs is not None and n_jobs < 0:
            n_jobs = max(cpu_count() + 1 + n_jobs, 1)
        sharing = StackSharing(n_jobs, verbose)
        n_jobs = n_jobs or 1
        return Broker(
            partial(train_together, verbose=verbose, train_stacks=sharing),
            max_in_flight=self.max_in_flight,
            # The task and the net hold a copy each, and training needs room as well.
            max_bytes=memory() / 8,
            n_running=n_jobs,
        )

    def _get_pool(self):
        return self._calls[-1]

    def submit(self, func, callback=None):
        call = self._calls[-1]
        if self.cluster is None:  # there, workers do
            func.items = [(OwnTime(f), *arguments) for f, *arguments in func.items]
        if call.keeper is not None:
            func.items = [call.keeper.keep(*item) for item in func.items]
        if self.cluster is not None:
            return call.submit(func.items, callback)
        return super().submit(func, callback)

    @contextmanager
    def retrieval_context(self):
        """Wait for all results, which joblib then finds at hand."""
        self._calls[-1].wait()
        yield

    def abort_everything(self, ensure_ready=True):
        self._calls[-1].cancel()

    def stop_call(self):
        call = self._calls.pop()
        call.cancel()  # threads may need a moment to end
        is_outermost = self.checkpoint is not None and current_task() is None
        if is_outermost and not getattr(self.parallel, "_exception", False):
            self.checkpoint.forget_stacks()

    def terminate(self):
        """Do nothing: threads end with the call they were started for."""
