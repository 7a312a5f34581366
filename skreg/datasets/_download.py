"""Download a zip archive: resumed after an interruption, in its place only when whole.

While ``name.zip`` is on its way, its bytes are in ``name.zip.part``. Beside that,
``name.zip.part.json`` says which version of the remote file they are from: the server
is asked to continue that version only (``If-Range``), or else to send all of the new
one.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from zipfile import ZipFile

from filelock import FileLock
from tqdm import tqdm

__all__ = ["NETWORK_ERRORS", "download_zip"]

# What download_zip raises when the network or the server is to blame, not the disk.
NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)

# Seconds without a sign of the server, at most: on connecting, and on each read.
TIMEOUT = 30.0

_Response = HTTPResponse | HTTPError
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def download_zip(url: str, path: Path, *, progress: bool = True) -> None:
    """Download the zip archive at `url` to `path`, unless it is there already.

    Parameters
    ----------
    url : str
        An http or https address.
    path : Path
        The file appears when it has been received and checked in full (the size the
        server told, and the CRC of each entry), and in one step. Missing folders are
        made.
    progress : bool, default=True
        Show a progress bar on stderr.

    Raises
    ------
    OSError or http.client.HTTPException
        One of `NETWORK_ERRORS` if the file could not be had. What has been received is
        kept, and the next call continues from there; an answer that is no zip archive
        is deleted. Other errors, such as a full disk, are what they are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of several processes, one downloads and the others wait for it. The system frees
    # the lock of a process that dies.
    with FileLock(f"{path}.lock"):
        if path.exists():
            return
        part = _Part(path)
        _receive(url, part, progress)
        try:
            _check_zip(part.file)
        except ConnectionError:
            part.discard()
            raise
        os.replace(part.file, path)
        part.discard()


class _Part:
    """The bytes received so far, and the version of the remote file they are from."""

    def __init__(self, path: Path):
        self.file = path.with_name(f"{path.name}.part")
        self._version = path.with_name(f"{path.name}.part.json")

    def state(self, url: str) -> tuple[int, str | None]:
        """Return the number of bytes received and their version; (0, None) for a start.

        A part of an unknown version, or from another address, does not count.
        """
        try:
            size = self.file.stat().st_size
            version = json.loads(self._version.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return 0, None
        return (size, version["version"]) if version["url"] == url else (0, None)

    def restart(self, url: str, version: str | None) -> None:
        """Drop the bytes received; note the version of those to come."""
        # In this order, so that at no time bytes lie beside the version of others.
        self.discard()
        if version is not None:
            self._version.write_text(
                json.dumps({"url": url, "version": version}), encoding="utf-8"
            )

    def discard(self) -> None:
        self.file.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)


def _receive(url: str, part: _Part, progress: bool) -> None:
    """Append to `part` what is missing of the file at `url`."""
    response, start = _open(url, *part.state(url))
    with response:
        if start == 0:
            part.restart(url, _version_of(response.headers))
        size = _size_of(response.headers, start)
        with (
            part.file.open("ab") as file,
            tqdm.wrapattr(
                response,
                "read",
                desc=part.file.stem,
                total=size,
                initial=start,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                disable=not progress,
            ) as stream,
        ):
            shutil.copyfileobj(stream, file)
    received = part.file.stat().st_size
    if size is not None and received != size:
        # An early end of the connection raises nothing by itself.
        raise ConnectionError(f"the answer ended after {received} of {size} bytes")


def _open(url: str, start: int, version: str | None) -> tuple[_Response, int]:
    """Open `url` at byte `start` of `version` if the server can, else at byte 0."""
    if start and version is not None:
        response = _get(url, {"Range": f"bytes={start}-", "If-Range": version})
        if response.status == 200:
            return response, 0
        if _continues(response, start, version):
            return response, start
        response.close()
    response = _get(url, {})
    if response.status != 200:
        response.close()
        raise ConnectionError(f"the server answered with HTTP status {response.status}")
    return response, 0


def _get(url: str, headers: Mapping[str, str]) -> _Response:
    request = Request(url, headers={"User-Agent": "skreg", **headers})
    try:
        return urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # nothing lies in that Range: an answer, if a useless one
            return error
        error.close()
        raise


def _continues(response: _Response, start: int, version: str | None) -> bool:
    content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (
        response.status == 206
        and content_range is not None
        and int(content_range[1]) == start
        # Some servers do not know If-Range. An answer may leave out its version.
        and _version_of(response.headers) in (version, None)
    )


def _version_of(headers: Message) -> str | None:
    """Return what If-Range takes: a strong ETag, or else the date of modification."""
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified")


def _size_of(headers: Message, start: int) -> int | None:
    """Return the size of the whole file in bytes; None if the server does not tell."""
    if start:
        content_range = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        size = content_range[2] if content_range else ""
    else:
        size = headers.get("Content-Length", "")
    return int(size) if size.isdecimal() else None


def _check_zip(path: Path) -> None:
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as exc:  # zipfile raises many types for damaged bytes
        with path.open("rb") as file:
            begin = file.read(60)
        kind = "a web page" if begin.lstrip().startswith(b"<") else "damaged or none"
        raise ConnectionError(
            f"expected a zip archive, the answer is {kind}: it begins with {begin!r}"
        ) from exc
    if damaged is not None:
        raise ConnectionError(f"entry {damaged!r} of the archive received is damaged")
