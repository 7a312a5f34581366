"""Files that are there whole or not at all, and results that prove it."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

FORMAT = 1


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file so that it is there whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a rename may outlive its content
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp lets only the owner read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def save_result(path: Path, result: dict, request: dict) -> Path:
    """Write a result with a checksum and the request that it answers.

    Parameters
    ----------
    path : Path
    result : dict
        Plain data, without NaN.
    request : dict
        Plain data: everything that the result depends on.

    Returns
    -------
    Path
    """
    body = {"format": FORMAT, "request": request, "result": result}
    content = body | {"sha256": _checksum(body)}
    return write_atomically(path, json.dumps(content, allow_nan=False).encode())


def load_result(path: Path, request: dict) -> tuple[dict | None, str]:
    """Read a result, if it is sound and answers the request.

    Parameters
    ----------
    path : Path
    request : dict
        As for `save_result`.

    Returns
    -------
    result : dict or None
        None if there is no such result.
    why : str
        Why there is none; "" if there is one.
    """
    try:
        body = json.loads(path.read_bytes())
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            return None, f"{path.name} has another format"
        sound = body.pop("sha256", None) == _checksum(body)
    except FileNotFoundError:
        return None, "it was not finished"
    except (OSError, ValueError, RecursionError):  # of the file, of JSON, or of UTF-8
        return None, f"{path.name} is damaged"
    if not sound or body.keys() != {"format", "request", "result"}:
        return None, f"{path.name} is damaged"
    if body["request"] != request:
        return None, f"{path.name} has other settings"
    return body["result"], ""


def _checksum(body: dict) -> str:
    text = json.dumps(body, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
