"""Worker processes: started once, kept for the searches that follow, ended at exit."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import Future, wait

import torch
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import (
    BrokenProcessPool,
    ShutdownExecutorError,
)

from skreg.batching._pickles import packed, portable_error
from skreg.batching._warnings import WarningState
from skreg.batching.processes.parcels import opened
from skreg.batching.stacking.engine import train_stack
from skreg.batching.stacking.progress import FitProgress
from skreg.batching.stacking.streams import DataPool

__all__ = ["ENDED", "Outcome", "Workers", "workers"]

# What is raised when processes have been killed, or ended by another search.
ENDED = BrokenProcessPool, ShutdownExecutorError

IDLE_SECONDS = 300  # after which a process that has nothing to do ends
# Two BLAS threads that wait for each other cost a busy machine ten times the work.
_ENVIRONMENT = {
    f"{library}_NUM_THREADS": "1"
    for library in ("OMP", "MKL", "OPENBLAS", "BLIS", "NUMEXPR", "VECLIB_MAXIMUM")
}


class Workers:
    """A pool of processes, each with one thread of its own for arithmetic.

    Parameters
    ----------
    n : int
    """

    def __init__(self, n: int):
        self.n = n
        self._executor = ProcessPoolExecutor(
            n,
            timeout=IDLE_SECONDS,
            env=_ENVIRONMENT,
            initializer=_begin,
            initargs=(os.getpid(),),
        )
        self._calls = []
        self.call()

    def call(self) -> None:
        """Ask all processes to answer, which are started if they are not there."""
        self._calls = [self._executor.submit(_answer) for _ in range(self.n)]

    @property
    def n_ready(self) -> int:
        """How many have answered."""
        if all(call.done() for call in self._calls):
            return self.n
        return len({call.result() for call in self._calls if call.done()})

    def submit(self, parcel: bytes, settings: dict) -> Future:
        """Let a process train the fits of a parcel; the result is for ``unpacked``."""
        return self._executor.submit(train_parcel, parcel, settings)

    def kill(self) -> None:
        """End all processes, whatever they do."""
        self._executor.shutdown(wait=True, kill_workers=True)


_lock = threading.Lock()
_kept: dict[int, Workers] = {}  # by the process that has started them


def workers(n: int) -> Workers:
    """Return `n` or more processes, those of the last search if possible."""
    with _lock:
        found = _kept.get(os.getpid())
        if found is not None and found.n >= n:
            try:
                found.call()
            except ENDED:
                found = None
        elif found is not None:
            found.kill()
            found = None
        if found is None:
            found = _kept[os.getpid()] = Workers(n)
        return found


def forget(ended: Workers) -> None:
    """Kill processes, and start new ones for the next search."""
    with _lock:
        if _kept.get(os.getpid()) is ended:
            del _kept[os.getpid()]
    ended.kill()


# -- in the worker ---------------------------------------------------------------------


def _begin(parent: int) -> None:
    # Ctrl-C in a terminal goes to all processes; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that has started it is there no more."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _answer() -> int:
    time.sleep(0.01)  # so that another process takes the next call
    return os.getpid()


class Outcome:
    """What training has made of a fit of a parcel."""

    def __init__(self, candidate, caught):
        self.progress = FitProgress(candidate)
        self.error = portable_error(candidate.job.error)
        self.seconds = candidate.job.seconds
        self.warnings = _texts(caught)


def _texts(caught: Iterable[warnings.WarningMessage]) -> list[tuple]:
    return [(w.message, w.category, w.filename, w.lineno) for w in caught]


def recorder() -> tuple[WarningState, list]:
    """Return a state in which all warnings go into a list, and the list."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return WarningState.current(), caught


def train_parcel(parcel: bytes, settings: dict) -> bytes:
    """Train the fits of a parcel, and pack what becomes of them.

    Parameters
    ----------
    parcel : bytes
    settings : dict
        torch's, of the process that has packed it.

    Returns
    -------
    bytes
        Of the outcome of each fit that has been trained, or why it has not, and the
        warnings that belong to none of them.
    """
    torch.set_float32_matmul_precision(settings["matmul_precision"])
    torch.use_deterministic_algorithms(
        settings["deterministic"], warn_only=settings["warn_only"]
    )
    outside = WarningState.current()
    state, of_none = recorder()
    state.install()
    try:
        candidates = opened(parcel)
        caught = []
        for candidate in candidates:
            candidate.job._warnings, of_job = recorder()
            caught.append(of_job)
        failures, _ = train_stack(candidates, DataPool())
        outcomes = [
            failures[c.job] if c.job in failures else Outcome(c, of_job)
            for c, of_job in zip(candidates, caught, strict=True)
        ]
        return packed((outcomes, _texts(of_none)))
    finally:
        outside.install()


def torch_settings() -> dict:
    """Return what training depends on, besides the fits, for ``train_parcel``."""
    return {
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
    }


def first_done(futures: Iterable[Future], timeout: float) -> list[Future]:
    """Return the futures that are done, when one is, or after a while."""
    futures = list(futures)
    wait(futures, timeout, return_when="FIRST_COMPLETED")
    return [future for future in futures if future.done()]
