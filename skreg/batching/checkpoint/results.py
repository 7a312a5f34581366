"""Results of tasks on disk, so that a search that was killed goes on where it was."""

import hashlib
import os
import pickle
import tempfile
import time
import warnings
from collections import Counter
from contextvars import ContextVar
from pathlib import Path

from skreg.batching._pickles import packed
from skreg.batching._tasks import current_task
from skreg.batching.checkpoint.fingerprint import Fingerprints
from skreg.batching.checkpoint.running import Places, places

__all__ = ["Checkpoint", "Keeper", "Kept"]

_RUNNING = "running-"  # begins the names of stacks

UNFINISHED_SECONDS = 600.0

_HEAD = b"skreg result 1\n"

# The key of the task at hand; inner tasks are told apart by the task they belong to.
_scope = ContextVar("scope", default="")


class Checkpoint:
    """A folder of results, one file each.

    Parameters
    ----------
    path : path-like
        Made if it does not exist. Files are pickles: only use a folder whose contents
        you trust.
    """

    def __init__(self, path):
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ValueError(
                f"checkpoint={path!r} must be None or the path of a folder, in which "
                "the results of fits are to be kept."
            )
        self.path = Path(path)
        self.stacks = set()  # names of those that ran in this process or for it
        self._running = None  # fits by their keys; read when one is asked for
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(
                f"checkpoint={str(path)!r} is a file; give the path of a folder, in "
                "which the results of fits are to be kept."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"checkpoint={str(path)!r} cannot be made ({error}); give the path of "
                "a folder that can be written to."
            ) from error

    def __getstate__(self):
        return vars(self) | {"_running": None}  # other processes save, and read nothing

    def load(self, key: str) -> tuple[bool, object]:
        """Return whether there is a result, and the result."""
        file = self._file(key)
        if not file.exists():
            return False, None
        try:
            return True, _unpack(file.read_bytes())
        except Exception as error:
            warnings.warn(
                f"The result in {file} is damaged ({error!r}); it is computed anew.",
                stacklevel=2,
            )
            return False, None

    def save(self, key: str, result) -> None:
        """Keep a result; warn, and go on, if that is not possible."""
        try:
            self._write(self._file(key), _pack(result))
        except Exception as error:
            warnings.warn(
                f"A result cannot be kept in checkpoint={str(self.path)!r}, and the "
                f"search goes on without ({error!r}).",
                stacklevel=2,
            )

    def save_stack(self, name: str, fits: dict) -> None:
        """Keep the fits of a stack that runs, by their keys; warn if that fails."""
        self.save(f"{_RUNNING}{name}", fits)

    def running_fit(self, key: str):
        """Return what ``save_stack`` has kept of a fit, or None."""
        if self._running is None:
            self._running = {}
            for file in sorted(self.path.glob(f"{_RUNNING[:2]}/{_RUNNING}*.pickle")):
                self._running |= self.load(file.stem)[1] or {}
        return self._running.get(key)

    def forget_stacks(self) -> None:
        """Remove the stacks that ran: the results of their tasks are kept."""
        for name in self.stacks:
            self._file(f"{_RUNNING}{name}").unlink(missing_ok=True)
        self.stacks.clear()
        self._running = None
        for part in self.path.glob(f"{_RUNNING[:2]}/*.part"):
            if time.time() - part.stat().st_mtime > UNFINISHED_SECONDS:
                part.unlink(missing_ok=True)  # of a process that was killed

    def _file(self, key) -> Path:
        return self.path / key[:2] / f"{key}.pickle"

    def _write(self, file, content) -> None:
        file.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as part:
                part.write(content)
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise


class Keeper:
    """Answers the tasks of one call from a checkpoint, and keeps what they return.

    Of the tasks of an inner call, only those that train nets are kept.

    Parameters
    ----------
    checkpoint : Checkpoint
    counts : Counter
        How often the outermost calls have made which task: the same task twice is two
        tasks, of which each draws its own random numbers.
    """

    def __init__(self, checkpoint: Checkpoint, counts: Counter):
        self.checkpoint = checkpoint
        self.scope = _scope.get()
        self.is_inner = current_task() is not None
        self.counts = Counter() if self.is_inner else counts
        self._fingerprints = Fingerprints()

    def keep(self, function, args: tuple, kwargs: dict) -> tuple:
        """Return the task, as one that is answered from the checkpoint if possible."""
        if self.is_inner and not self.scope:  # the outer task has no name
            return function, args, kwargs
        try:
            name = self._fingerprints.of(self.scope, function, args, kwargs)
        except Exception as error:
            warnings.warn(
                "A task is not kept in the checkpoint, since its arguments cannot be "
                f"told from others ({error!r}).",
                stacklevel=2,
            )
            return function, args, kwargs
        self.counts[name] += 1
        key = hashlib.sha256(f"{name} {self.counts[name]}".encode()).hexdigest()[:40]
        return Kept(self.checkpoint, key, function, self.is_inner), args, kwargs


class Kept:
    """A function whose result is on disk, or will be."""

    def __init__(self, checkpoint, key, function, only_nets):
        self.checkpoint = checkpoint
        self.key = key
        self.function = function
        self.only_nets = only_nets

    def __call__(self, *args, **kwargs):
        found, result = self.recall()
        if found:
            return result
        of_fits = places.set(Places(self.checkpoint, self.key))
        token = _scope.set(self.key)
        task = current_task()
        n_fits = task.n_fits
        try:
            result = self.function(*args, **kwargs)
        finally:
            _scope.reset(token)
            places.reset(of_fits)
        if task.n_fits > n_fits or not self.only_nets:
            self.keep(result)
        return result

    def recall(self) -> tuple[bool, object]:
        return self.checkpoint.load(self.key)

    def keep(self, result) -> None:
        if not _has_failed(result):
            self.checkpoint.save(self.key, result)


def _has_failed(result) -> bool:
    """Tell a fit whose scores are ``error_score``; a rerun gives it another chance."""
    return isinstance(result, dict) and result.get("fit_error") is not None


def _pack(result) -> bytes:
    content = packed(result)
    return _HEAD + hashlib.sha256(content).digest() + content


def _unpack(data: bytes):
    start = len(_HEAD) + hashlib.sha256().digest_size
    head, digest, content = data[: len(_HEAD)], data[len(_HEAD) : start], data[start:]
    if head != _HEAD or hashlib.sha256(content).digest() != digest:
        raise ValueError("not what was written")
    return pickle.loads(content)
