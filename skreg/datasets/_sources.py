"""Names and bytes of the files below a folder, or in a zip archive of one.

Names are relative to the root, with "/" between their parts; the name of a folder ends
in "/". Archives are read in memory and never unpacked, so none of their entries can be
written outside a target folder; names that would be are refused all the same.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile, ZipInfo

from PIL import Image

__all__ = ["FolderSource", "ZipSource", "open_source"]

# What operating systems leave behind in folders, besides names that begin with a dot.
_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}

_UNSAFE_NAME = re.compile(
    r"""
      ^/               # absolute
    | ^[A-Za-z]:       # drive letter
    | \\               # a separator on Windows, a character of the name elsewhere
    | (^|/)\.\.(/|$)   # leads out of the folder
    | \0               # ends the name for some readers and not for others
    """,
    re.VERBOSE,
)


class FolderSource:
    """The files below the folder `root`; links are followed."""

    def __init__(self, root: Path):
        self._root = root

    def names(self) -> Iterator[str]:
        """Yield the names of all files and folders but litter."""
        for folder, subfolders, files in os.walk(
            self._root, followlinks=True, onerror=_raise
        ):
            subfolders[:] = [name for name in subfolders if not _is_litter(name)]
            prefix = Path(folder).relative_to(self._root)
            yield from ((prefix / name).as_posix() + "/" for name in subfolders)
            yield from (
                (prefix / name).as_posix() for name in files if not _is_litter(name)
            )

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return (self._root / name).open("rb")


class ZipSource:
    """The entries of `archive`.

    Raises
    ------
    ValueError
        If the name of an entry is unsafe, or that of an earlier one; it is named.
    """

    def __init__(self, archive: ZipFile):
        self._archive = archive
        self._entries: dict[str, ZipInfo] = {}
        for entry in archive.infolist():
            name = _safe_name(entry)
            if name in self._entries and not entry.is_dir():
                raise ValueError(
                    f"Zip entry {entry.filename!r} is there twice, and it is unclear "
                    "which one counts; pack the archive again."
                )
            self._entries[name] = entry

    def names(self) -> Iterator[str]:
        """Yield the names of all files and folders but litter."""
        yield from map(_without_litter, self._entries)

    def open(self, name: str) -> BinaryIO:
        """Read a file, check its CRC, and open it."""
        entry = self._entries[name]
        # An archive of a few kB may claim gigabytes: keep to PIL's own limit, which is
        # two times MAX_IMAGE_PIXELS (or None), here of four bytes each.
        limit = 8 * (Image.MAX_IMAGE_PIXELS or math.inf)
        if entry.file_size > limit:
            raise Image.DecompressionBombError(
                f"its {entry.file_size} bytes exceed the limit of {limit} bytes"
            )
        return BytesIO(self._archive.read(entry))


@contextmanager
def open_source(path: Path) -> Iterator[FolderSource | ZipSource]:
    """Open the folder or zip archive `path`."""
    if path.is_dir():
        yield FolderSource(path)
    elif path.is_file():
        with _open_zip(path) as archive:
            yield ZipSource(archive)
    else:
        raise FileNotFoundError(
            f"There is no folder or zip archive {str(path)!r} (seen from "
            f"{os.getcwd()!r}); check the path."
        )


def _open_zip(path: Path) -> ZipFile:
    try:
        return ZipFile(path)
    except PermissionError:
        raise  # nothing is wrong with the archive
    except (BadZipFile, NotImplementedError, OSError, ValueError) as exc:
        raise ValueError(
            f"{str(path)!r} is not a zip archive, or a damaged one ({exc}); download "
            "or pack it again, or pass a folder."
        ) from exc


def _safe_name(entry: ZipInfo) -> str:
    # ZipInfo.filename is already cleaned, and differently on each operating system.
    if _UNSAFE_NAME.search(entry.orig_filename):
        raise ValueError(
            f"Zip entry {entry.orig_filename!r} is refused: its name is absolute, or "
            "has a drive letter, a backslash, a null byte or '..' in it; pack the "
            "archive again with relative names and '/'."
        )
    # "./a//b" and "a/b" are one name.
    return PurePosixPath(entry.filename).as_posix() + "/" * entry.is_dir()


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in _LITTER


def _without_litter(name: str) -> str:
    """Return `name`, or if part of it is litter, the name of the folder before that."""
    parts = name.split("/")
    kept = list(takewhile(lambda part: not _is_litter(part), parts))
    return name if kept == parts else "".join(f"{part}/" for part in kept)


def _raise(error: OSError):
    """Let os.walk tell of a folder that cannot be listed, which it skips by default."""
    raise error
