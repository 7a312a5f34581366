"""A task of joblib's that runs in a thread of its own, and the call it belongs to."""

import threading
from contextvars import ContextVar, copy_context
from functools import partial
from queue import SimpleQueue

from skreg.batching._warnings import WarningState
from skreg.training.trainer import trainer

__all__ = ["Call", "OwnTime", "Task", "current_task"]

_current = ContextVar("current_task", default=None)


def current_task():
    """Return the task whose own thread this is, or None."""
    task = _current.get()
    # Contexts get copied into other threads, whose waiting nobody counts.
    if task is None or task.thread is not threading.current_thread():
        return None
    return task


class Call:
    """The tasks of one call of ``joblib.Parallel``; stands in for a pool of threads.

    Parameters
    ----------
    broker : Broker
    parallel : joblib.Parallel
    parent : Task or None
        The task that calls; None if the caller is no task of the broker.
    """

    def __init__(self, broker, parallel, parent):
        self.broker = broker
        self.parallel = parallel
        self.parent = parent
        self.keeper = None  # of results on disk
        self.depth = 0 if parent is None else parent.call.depth + 1
        self.context = copy_context()
        self.warnings = WarningState.current()
        self.pending = []  # tasks that came before the caller waits for them
        self.is_open = False  # the caller waits
        self.unfinished = 0
        self.waiter = None  # the parent, while it waits
        self.error = None  # of joblib's own, in the thread of a task
        self._cancelled = False

    def apply_async(self, function, args, callback, error_callback) -> "Task":
        """Take a task, as a ``multiprocessing.pool.Pool`` does."""
        task = Task(self, partial(function, *args), callback)
        self.broker.submit(task)
        return task

    def wait(self) -> None:
        """Let the tasks run until they have ended, or one has failed."""
        self.broker.wait_for(self)

    def cancel(self) -> None:
        """End the tasks; return when they have ended."""
        self.broker.cancel(self)

    def mark_cancelled(self) -> None:
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        return self._cancelled or (
            self.parent is not None and self.parent.call.cancelled
        )

    @property
    def over(self) -> bool:
        """Whether the caller has nothing to wait for."""
        return self.unfinished == 0 or self.has_failed

    @property
    def has_failed(self) -> bool:
        """Whether joblib wants to raise the error of a task, or has failed itself."""
        if self._cancelled:
            return False
        return self.error is not None or getattr(self.parallel, "_aborting", False)

    def is_within(self, call: "Call") -> bool:
        """Return whether this is `call`, or a call of one of its tasks."""
        if self is call:
            return True
        return self.parent is not None and self.parent.call.is_within(call)


class Task:
    """One function call of joblib's.

    Parameters
    ----------
    call : Call
    function : callable
        Returns exceptions, does not raise them: joblib sees to that.
    callback : callable
        Takes the result; dispatches further tasks.
    """

    def __init__(self, call, function, callback):
        self.call = call
        self.function = function
        self.callback = callback
        self.thread = None
        self.n_fits = 0
        self.idle_seconds = 0.0  # while its nets waited, or trained with others
        self.turn = SimpleQueue()  # holds an item when a paused task may go on
        self.warnings = call.warnings

    def run(self) -> None:
        self.thread = threading.current_thread()
        result = self.call.context.copy().run(self._compute)
        self.function = None  # large data may hang on it
        try:
            # joblib takes further tasks from its iterator here: no fit in there may
            # wait for others, since joblib's lock is held. So, outside of the context.
            self.callback(result)
        except BaseException as error:
            self.call.error = error

    def _compute(self):
        _current.set(self)
        trainer.set(partial(self.call.broker.arrive, self))
        self.resume()
        return self.function()

    def pause(self) -> None:
        """Note what is the interpreter's, before another thread gets its turn."""
        self.warnings = WarningState.current()

    def resume(self) -> None:
        if self.call.broker.takes_turns:
            self.warnings.install()


class OwnTime:
    """A function of scikit-learn's whose ``fit_time`` is that of its own fit.

    It takes the time by the clock, with all that other fits have taken meanwhile.

    Parameters
    ----------
    function : callable
    """

    def __init__(self, function):
        self._wrapped = function
        # As scikit-learn's own wrapper has them.
        self.function = getattr(function, "function", function)
        self.config = getattr(function, "config", None)

    def __call__(self, *args, **kwargs):
        task = current_task()
        idle = 0.0 if task is None else task.idle_seconds
        result = self._wrapped(*args, **kwargs)
        if task is not None and isinstance(result, dict) and "fit_time" in result:
            own = result["fit_time"] - (task.idle_seconds - idle)
            result["fit_time"] = max(own, 0.0)
        return result
