"""Parcels: fits of a stack as bytes, and large arrays in files that processes share."""

import io
import mmap
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cloudpickle
import numpy as np
from joblib.externals.loky.backend import resource_tracker

from skreg.batching._jobs import Job
from skreg.batching._pickles import Pickler
from skreg.batching.checkpoint.code_hash import is_installed
from skreg.batching.stacking.stackable import StackableFit
from skreg.batching.stacking.streams import DataPool

__all__ = ["Parcels", "opened"]

SHARED_BYTES = 2**15  # smaller arrays travel with each parcel
_IN_MEMORY = Path("/dev/shm")  # a file system in memory, where there is one
_HOME, _ARRAY = "home", "array"


class Parcels:
    """Packs fits for other processes.

    Each large array is written once, however many fits of however many parcels use it,
    and processes map the file into their memory instead of reading a copy.

    Parameters
    ----------
    pool : DataPool
        In which equal data sets are one.
    """

    def __init__(self, pool: DataPool):
        self._pool = pool
        self._folder = None
        self._files = {}  # id: the array, so that it keeps its id, and its place

    def pack(self, candidates: Sequence[StackableFit]) -> bytes:
        """Return fits as bytes, for ``opened``.

        Raises
        ------
        Exception
            If one holds what cannot be pickled, of whatever kind.
        """
        parts, at_home = [], []
        for c in candidates:
            valid = None if c.valid is None else self._pool.unique(c.valid)
            train = self._pool.unique(c.train)
            parts.append((c.fit, train, valid, _Batches(c.batches), *_rest_of(c)))
            # No arrays: a dataset may hold the same.
            at_home += [c.fit.validation, c.fit.targets, c.net.train_split]
            at_home += [c.train, c.valid, c.job]
        known = {id(t) for part in parts for t in part[1:3]}
        at_home = {id(o): o for o in at_home if o is not None and id(o) not in known}
        file = io.BytesIO()
        with _own_code_by_value():
            _Packer(file, self, at_home).dump(parts)
        return file.getvalue()

    def place_of(self, array: np.ndarray) -> tuple:
        """Return where other processes find an array, which is written if need be."""
        if id(array) not in self._files:
            name = str(self._new_file(array))
            self._files[id(array)] = array, (name, array.dtype.str, array.shape)
        return self._files[id(array)][1]

    def _new_file(self, array) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="skreg-", dir=_root(array)))
            # A process of loky's removes it if this one is killed.
            resource_tracker.register(str(self._folder), "folder")
        folder = self._folder
        if shutil.disk_usage(folder).free < 2 * array.nbytes:
            raise OSError(
                f"no room for data of {array.nbytes} bytes in {folder}; set the "
                "environment variable JOBLIB_TEMP_FOLDER to another folder"
            )
        file = folder / f"{len(self._files)}.bin"
        array.tofile(file)
        return file

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            resource_tracker.unregister(str(self._folder), "folder")
            self._folder = None
        self._files.clear()


def _root(array) -> str | None:
    """Return the folder for temporary files; None is the system's."""
    if folder := os.environ.get("JOBLIB_TEMP_FOLDER"):
        return folder
    if not os.access(_IN_MEMORY, os.W_OK):
        return None
    has_room = shutil.disk_usage(_IN_MEMORY).free > 16 * array.nbytes + 2**28
    return str(_IN_MEMORY) if has_room else None


_LIBRARIES = {
    *("joblib", "numpy", "pandas", "scipy", "sklearn"),
    *("skorch", "skreg", "torch", "torchvision"),
}


@contextmanager
def _own_code_by_value() -> Iterator[None]:
    """Let functions and classes of the user's modules be pickled as they are now.

    A process that has imported a module before knows neither what a notebook has
    reloaded since, nor globals that have been set.
    """
    registered = cloudpickle.list_registry_pickle_by_value()
    own = [
        module
        for name, module in list(sys.modules.items())
        if isinstance(getattr(module, "__file__", None), str)
        and name.partition(".")[0] not in _LIBRARIES
        and getattr(module, "__name__", None) == name
        and name not in registered
        and not is_installed(name)
    ]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


class _Batches:
    """How batches are cut, without the data that they are cut from."""

    def __init__(self, batches):
        self.kind = type(batches)
        self.attributes = {k: v for k, v in vars(batches).items() if k != "dataset"}

    def of(self, dataset):
        batches = self.kind.__new__(self.kind)
        vars(batches).update(self.attributes, dataset=dataset)
        return batches


def _rest_of(c: StackableFit) -> tuple:
    return (
        c.valid_batch_size,
        c.layers,
        c.last_epoch,
        c.job.place,
        c.company,
        c.identity,
    )


class _Packer(Pickler):
    """Leaves data where they are."""

    def __init__(self, file, parcels, at_home):
        super().__init__(file)
        self._parcels, self._at_home = parcels, at_home

    def persistent_id(self, obj):
        if id(obj) in self._at_home:
            return (_HOME,)
        is_large = type(obj) is np.ndarray and obj.nbytes >= SHARED_BYTES
        if is_large and obj.dtype.kind in "biufc" and obj.flags.c_contiguous:
            return _ARRAY, *self._parcels.place_of(obj)
        return None


class _Unpacker(pickle.Unpickler):
    def persistent_load(self, pid):
        if pid[0] == _HOME:
            return None
        _, file, dtype, shape = pid
        with open(file, "rb") as f:
            mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        # Not as np.memmap, which is read batch by batch: these are in memory.
        return np.frombuffer(memoryview(mapped), dtype).reshape(shape)


def opened(parcel: bytes) -> list[StackableFit]:
    """Return the fits of a parcel, in the process that is to train them."""
    candidates = []
    parts = _Unpacker(io.BytesIO(parcel)).load()
    for fit, train, valid, batches, size, layers, last, place, *kept in parts:
        fit.net._session = fit
        job = Job(fit, None, None, place=place)
        data = train, valid, batches.of(train), size
        candidates.append(StackableFit(job, *data, layers, (), last))
        candidates[-1].company, candidates[-1].identity = kept
    return candidates
