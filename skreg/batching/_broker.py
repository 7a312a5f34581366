"""The rendezvous: fits wait for each other, and are trained when all have come."""

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue

from skreg._utils.garbage import older_objects_frozen
from skreg._utils.torch_state import plain_torch, without_plain_dtype
from skreg.batching._interrupts import interrupts_wait
from skreg.batching._jobs import Job
from skreg.batching._memory import Ledger, buffers_of
from skreg.batching._tasks import Call, Task
from skreg.batching._warnings import WarningState
from skreg.batching.checkpoint.running import places

__all__ = ["Broker", "Cancelled"]


class Cancelled(BaseException):
    """Ends the tasks of a call that has ended; no ``except Exception`` may hold it."""


class Broker:
    """Runs tasks in threads that take turns, and trains the fits in which they pause.

    A task runs until it ends, reaches the training of a net, or waits for tasks of its
    own (a search inside a search). Then the next task gets its turn. When no task can
    go on, all that can be has arrived: the fits that wait are trained as one batch, in
    the thread of the outermost caller. There, torch's settings of threads are as the
    caller made them, and Ctrl-C interrupts the training itself.

    It cannot deadlock. A task that can run is never made to wait for one that cannot:
    fits wait only while something else runs, the limit on the fits that wait counts no
    task that waits for others, and if a task that runs makes no progress, because it
    waits for a lock that a paused one holds, then the others stop waiting for it.

    Parameters
    ----------
    train_batch : callable
        Trains the nets of a list of jobs. It may call ``finish`` of a job to let its
        task go on early.
    max_in_flight : int, default=256
        Number of fits that may wait: of threads, and of copies of training data.
    max_bytes : float, default=inf
        Size of the data of fits that may wait; what they share counts once.
    n_running : int, default=1
        Number of tasks that may run at the same time. With one, whatever belongs to
        the interpreter (the filters of warnings, NumPy's global generator) is used as
        if tasks ran one after the other.
    patience : float, default=5.0
        Seconds without progress after which a task that runs is no longer waited for,
        if the process does not compute either; 60 times as long if it does.
    """

    def __init__(
        self,
        train_batch: Callable[[list[Job]], None],
        *,
        max_in_flight: int = 256,
        max_bytes: float = float("inf"),
        n_running: int = 1,
        patience: float = 5.0,
    ):
        self._train_batch = train_batch
        self._max_in_flight = max_in_flight
        self._max_bytes = max_bytes
        self._n_running = n_running
        self._patience = patience
        self._lock = threading.Lock()
        self._news = SimpleQueue()  # for the conductor: something has changed
        self._conductor = None
        self._root = None
        self._outside = None  # state of warnings of the conductor
        self._order = itertools.count()
        self._queue = []  # heap of tasks that have not begun, the deepest first
        self._ready = deque()  # paused tasks that may go on
        self._waiting = []  # fits that have arrived
        self._training = []  # fits that are trained at the moment
        self._data = Ledger()  # of both
        self._running = set()
        self._stuck = set()  # tasks that run and are not waited for
        self._threads = []
        self._live = {}  # thread: its task, from its first to its last step
        self._closed = False
        self._note_progress()

    @property
    def takes_turns(self) -> bool:
        return self._n_running == 1

    # -- called by tasks ------------------------------------------------------------

    def submit(self, task: Task) -> None:
        """Take a task, to begin when its caller waits."""
        with self._lock:
            task.call.unfinished += 1
            if not task.call.is_open:
                task.call.pending.append(task)
            else:
                self._enqueue(task)
                self._advance()

    def arrive(self, task: Task, fit, X, y) -> None:
        """Wait until the net is trained; what a task does instead of ``fit_loop``."""
        if task.thread is not threading.current_thread():
            fit.net.fit_loop(X, y, **fit.fit_params)
            return
        task.n_fits += 1
        of_task = places.get()
        job = Job(fit, X, y, place=of_task and of_task.next())
        job.buffers = buffers_of(job)
        job.on_finish = partial(self._release, (job, task))
        start = time.perf_counter()
        self._pause(task, partial(self._let_wait, (job, task)))
        task.idle_seconds += time.perf_counter() - start - job.seconds
        if job.error is not None:
            raise job.error

    def wait_for(self, call: Call) -> None:
        """Let the tasks of a call run, until they have ended or one has failed."""
        if call.parent is None:
            self._conduct(call)
        else:
            self._pause(call.parent, partial(self._open, call))
        if call.error is not None:
            raise call.error

    def cancel(self, call: Call) -> None:
        """End the tasks of a call; return when they have ended."""
        if call.parent is None:
            self._close()
            return
        with self._lock:
            call.mark_cancelled()
            for task in [*call.pending, *(entry[-1] for entry in self._queue)]:
                if task.call.is_within(call):
                    self._forget(task)
            self._queue = [e for e in self._queue if not e[-1].call.is_within(call)]
            heapq.heapify(self._queue)
            call.pending.clear()
            for entry in [*self._waiting, *self._training]:
                if entry[1].call.is_within(call):
                    self._let_go(entry)
            if call.unfinished == 0:
                return
        self._pause(call.parent, partial(self._open, call))

    def _pause(self, task, note) -> None:
        """Give the turn away, and wait for it; `note` writes down what for."""
        task.pause()
        with self._lock:
            may_pause = not (self._closed or task.call.cancelled)
            if may_pause:
                self._leave(task)
                note()
                self._advance()
        if may_pause:
            task.turn.get()
            task.resume()
        if self._closed or task.call.cancelled:
            raise Cancelled

    # -- the threads ----------------------------------------------------------------

    def _work(self, task) -> None:
        thread = threading.current_thread()
        while task is not None:
            with self._lock:
                self._live[thread] = task
                closed = self._closed
            if not closed:
                task.run()
            task = self._next(task)
        with self._lock:
            del self._live[thread]

    def _next(self, done) -> Task | None:
        """End a task; return one that the same thread can begin."""
        with self._lock:
            self._leave(done)
            self._forget(done)
            if self._ready or not self._may_begin():
                self._advance()
                return None
            task = heapq.heappop(self._queue)[-1]
            self._running.add(task)
            return task

    # -- the conductor: the thread of the outermost caller --------------------------

    def _conduct(self, call) -> None:
        self._outside = WarningState.current()
        try:
            with self._locked():
                self._conductor, self._root = threading.get_ident(), call
                self._note_progress()
                self._open(call)
                self._advance()
            with older_objects_frozen():
                self._train_until_over()
        except Cancelled:
            pass  # out of the training of a batch, of which a task has failed
        finally:
            self._conductor = None
            self._outside.install()

    def _train_until_over(self) -> None:
        while True:
            with self._locked():
                if self._root.over:
                    return
                if not self._active() and self._waiting:
                    self._training, self._waiting = self._waiting, []
            if self._training:
                self._train([job for job, _ in self._training])
            else:
                self._wait()

    def _train(self, jobs) -> None:
        self._outside.install()
        try:
            # As in a new thread, whatever the caller has switched off.
            with plain_torch():
                self._train_batch(jobs)
        except Exception as error:
            for job, _ in self._training:
                job.error = job.error or error
        with self._locked():
            self._note_progress()
            for entry in list(self._training):
                self._let_go(entry)
            self._advance()

    def _release(self, entry) -> None:
        """Let the task of a trained net go on, until nothing runs any more."""
        with without_plain_dtype():
            self._let_others_run(entry)

    def _let_others_run(self, entry) -> None:
        with self._locked():
            if entry not in self._training:
                return
            self._note_progress()
            self._let_go(entry)
            self._advance()
        if threading.get_ident() != self._conductor:
            return
        while True:
            with self._locked():
                if self._root.has_failed:
                    raise Cancelled
                if self._root.over or not self._active():
                    break
            self._wait()
        self._outside.install()

    def _wait(self) -> None:
        try:
            # In pieces: on Windows, an interrupt does not end the wait for a lock.
            self._news.get(timeout=min(self._patience, 0.2))
        except Empty:
            with self._locked():
                if self._is_stalled():
                    self._note_progress()
                    self._stuck |= self._running
                    self._advance()

    def _is_stalled(self) -> bool:
        """Tell tasks that wait, for a lock perhaps, from those that are slow."""
        start, used = self._window
        elapsed = time.monotonic() - start
        if elapsed < self._patience:
            return False
        self._window = time.monotonic(), time.process_time()
        is_idle = time.process_time() - used < 0.05 * elapsed
        return is_idle or time.monotonic() - self._last_progress > 60 * self._patience

    def _close(self) -> None:
        """End all tasks; return when their threads have ended."""
        with self._locked():
            self._closed = True  # from here on, no thread pauses, and none is started
            for task in self._live.values():
                task.turn.put(None)
        for thread in self._threads:
            thread.join()
        if self._outside is not None:
            self._outside.install()

    @contextmanager
    def _locked(self):
        """Hold the lock in the thread that Ctrl-C interrupts."""
        with interrupts_wait(), self._lock:
            yield

    # -- with the lock held ---------------------------------------------------------

    def _advance(self) -> None:
        """Give turns to tasks, as long as there are both."""
        while self._ready and self._has_turn():
            task = self._ready.popleft()
            self._running.add(task)
            task.turn.put(None)
        while self._may_begin():
            task = heapq.heappop(self._queue)[-1]
            self._running.add(task)
            if not self._start(task):
                break
        # Each time the conductor wakes up for nothing costs two switches of threads.
        if self._closed or not self._active() or (self._root and self._root.over):
            self._news.put(None)

    def _start(self, task) -> bool:
        thread = threading.Thread(
            target=self._work, args=(task,), name="skreg", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._running.discard(task)
            self._enqueue(task)
            self._max_in_flight = len(self._waiting) + len(self._training)
            if self._max_in_flight == 0:
                self._root.error = error
            return False
        if len(self._threads) > 2 * self._max_in_flight:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(thread)
        return True

    def _has_turn(self) -> bool:
        if self._closed or self._root is None or self._root.over:
            return False
        return len(self._active()) < self._n_running

    def _may_begin(self) -> bool:
        return self._queue and self._has_room() and self._has_turn()

    def _has_room(self) -> bool:
        in_flight = len(self._waiting) + len(self._training)
        return in_flight < self._max_in_flight and self._data.n_bytes < self._max_bytes

    def _active(self) -> set:
        return self._running - self._stuck if self._stuck else self._running

    def _open(self, call) -> None:
        """Let the tasks of a call begin, and its caller wait."""
        call.is_open = True
        call.waiter = call.parent
        for task in call.pending:
            self._enqueue(task)
        call.pending.clear()
        self._end_if_over(call)

    def _enqueue(self, task) -> None:
        # The deepest first: a search inside a search ends before the next one begins.
        heapq.heappush(self._queue, (-task.call.depth, next(self._order), task))

    def _forget(self, task) -> None:
        task.call.unfinished -= 1
        self._end_if_over(task.call)

    def _end_if_over(self, call) -> None:
        if call.over and call.waiter is not None:
            self._ready.append(call.waiter)
            call.waiter = None

    def _let_wait(self, entry) -> None:
        self._waiting.append(entry)
        self._data.add(entry[0].buffers)

    def _let_go(self, entry) -> None:
        for place in (self._waiting, self._training):
            if entry in place:
                place.remove(entry)
                self._data.remove(entry[0].buffers)
                self._ready.append(entry[1])

    def _leave(self, task) -> None:
        self._running.discard(task)
        self._stuck.discard(task)
        self._note_progress()

    def _note_progress(self) -> None:
        self._last_progress = time.monotonic()
        self._window = self._last_progress, time.process_time()
