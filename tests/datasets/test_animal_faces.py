"""A download that is interrupted, changed, damaged or shared ends well."""

import socket
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError

import numpy as np
import pytest
from image_files import encode, random_pixels, write_zip

from skreg.datasets import _download, fetch_animal_faces

FACES = {
    f"afhq/{split}/{label}/{i}.png": encode(random_pixels(i, (32, 32, 3)))
    for split, n in (("train", 4), ("val", 1))
    for label in ("cat", "dog", "wild")
    for i in range(n)
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The bytes of a small archive of animal faces."""
    return write_zip(tmp_path_factory.mktemp("faces") / "a.zip", FACES).read_bytes()


class Handler(BaseHTTPRequestHandler):
    """Answers GET as the attributes of its server say."""

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.path, wanted, self.headers.get("If-Range")))
        time.sleep(server.delay)
        if server.redirect and self.path != "/file":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self.start_of_range(wanted)
        if start > len(server.body):
            self.send_error(416)
            return
        body = server.body[start:]
        self.send_response(206 if start else server.status)
        length = len(body) if server.length is None else server.length
        if server.length != "":
            self.send_header("Content-Length", str(length))
        for name, value in server.headers.items():
            self.send_header(name, value)
        if start:
            first = start + server.range_error
            size = len(server.body)
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.end_headers()
        self.wfile.write(body[: server.cut])
        self.wfile.flush()
        server.stall.wait(5)

    def start_of_range(self, wanted):
        server = self.server
        if wanted is None or not server.ranges:
            return 0
        version = server.headers.get("ETag", server.headers.get("Last-Modified"))
        if server.if_range and self.headers.get("If-Range") != version:
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, format, *args):
        pass


class Server(ThreadingHTTPServer):
    """A server on 127.0.0.1; each attribute is one way to behave."""

    daemon_threads = False  # closing waits for them

    def __init__(self, body):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests = []  # (path, Range, If-Range)
        self.body = body
        self.status = 200
        self.headers = {"ETag": '"v1"'}
        self.length = None  # of Content-Length; "" for no such header
        self.cut = None  # close the connection after so many bytes
        self.delay = 0.0  # seconds before the answer
        self.stall = threading.Event()  # clear: neither send nor close
        self.stall.set()
        self.redirect = False
        self.ranges = True  # whether Range is known
        self.if_range = True  # whether If-Range is known
        self.range_error = 0  # added to the start that Content-Range tells

    def handle_error(self, request, client_address):
        """Say nothing when a client hangs up."""


@contextmanager
def serving(body):
    with Server(body) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        thread.start()
        try:
            yield server
        finally:
            server.stall.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server(archive, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(archive) as server:
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    """Return a function that fetches from `server` to ``tmp_path / "home"``."""

    def call(variant="original", **kwargs):
        options = {"data_home": tmp_path / "home", "base_url": server.url}
        return fetch_animal_faces(variant, **{"progress": False} | options | kwargs)

    return call


@pytest.fixture
def cached(tmp_path):
    """The place of the archive in the cache."""
    return tmp_path / "home" / "afhq.zip"


def part_of(path):
    return path.with_name(path.name + ".part")


def left_behind(cached):
    """Return what is in the cache, locks aside."""
    return sorted(p.name for p in cached.parent.iterdir() if p.suffix != ".lock")


@pytest.mark.parametrize(
    ("variant", "path"),
    [
        ("original", "/kgfvj/download"),
        ("random", "/9sj7p/download"),
        ("partially_random", "/wvgkq/download"),
    ],
)
def test_fetch_then_cache(fetch, server, variant, path):
    faces = fetch(variant)
    assert server.requests == [(path, None, None)]
    assert faces.data.shape == (15, 3, 32, 32)
    assert faces.target_names.tolist() == ["cat", "dog", "wild"]
    assert np.unique(faces.split, return_counts=True)[1].tolist() == [12, 3]
    assert variant in faces.DESCR
    assert "StarGAN" in faces.DESCR
    assert server.url + path in faces.DESCR
    again = fetch(variant)
    assert len(server.requests) == 1
    np.testing.assert_array_equal(again.data, faces.data)


def test_fetched_pixels_are_exact_and_only_the_archive_is_kept(fetch, cached, archive):
    X, y = fetch(return_X_y=True)
    expected = random_pixels(0, (32, 32, 3)).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(X[0], expected)
    assert y.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0, 1, 2]
    assert cached.read_bytes() == archive
    assert left_behind(cached) == ["afhq.zip"]


def test_fetch_resizes(fetch):
    assert fetch(size=(8, 16)).data.shape == (15, 3, 8, 16)


def test_slash_after_base_url(fetch, server):
    fetch(base_url=server.url + "/mirror/")
    assert server.requests[0][0] == "/mirror/kgfvj/download"


@pytest.mark.parametrize("redirect", [False, True])
@pytest.mark.parametrize("cut", [1, 1000, -1])
def test_interrupted_then_resumed(fetch, server, cached, archive, cut, redirect):
    server.redirect = redirect
    server.cut = cut
    with pytest.raises(
        ConnectionError, match=r"ended after .* bytes.* continued"
    ) as info:
        fetch()
    assert f"of {len(archive)} bytes" in str(info.value)
    assert not cached.exists()
    assert part_of(cached).read_bytes() == archive[:cut]

    server.cut = None
    assert len(fetch().data) == 15
    start = len(archive[:cut])
    assert server.requests[-1][1:] == (f"bytes={start}-", '"v1"')
    assert cached.read_bytes() == archive
    assert left_behind(cached) == ["afhq.zip"]


def test_interrupted_again_and_again(fetch, server, cached, archive):
    server.cut = 1 + len(archive) // 5
    for _ in range(4):
        with pytest.raises(ConnectionError):
            fetch()
    fetch()
    assert len(server.requests) == 5
    assert cached.read_bytes() == archive


def test_interrupted_before_the_first_byte(fetch, server, cached, archive):
    server.cut = 0
    with pytest.raises(ConnectionError, match="ended after 0 of"):
        fetch()
    server.cut = None
    fetch()
    assert server.requests[-1][1] is None
    assert cached.read_bytes() == archive


def test_interrupted_by_the_user(fetch, server, cached, archive, monkeypatch):
    def interrupted(source, target):
        target.write(source.read(700))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_download.shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert left_behind(cached) == ["afhq.zip.part", "afhq.zip.part.json"]
    fetch()
    assert server.requests[-1][1] == "bytes=700-"
    assert cached.read_bytes() == archive


def interrupt(fetch, server, cut=1000):
    server.cut = cut
    with pytest.raises(ConnectionError):
        fetch()
    server.cut = None


def test_resume_by_date_of_modification(fetch, server):
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    server.headers = {"ETag": 'W/"weak"', "Last-Modified": date}
    server.if_range = False
    interrupt(fetch, server)
    fetch()
    assert server.requests[-1][1:] == ("bytes=1000-", date)


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}], ids=["none", "weak"])
def test_no_resume_without_a_version(fetch, server, cached, archive, headers):
    server.headers = headers
    interrupt(fetch, server)
    fetch()
    assert server.requests[-1][1] is None
    assert cached.read_bytes() == archive


def test_server_without_ranges(fetch, server, cached, archive):
    server.ranges = False
    interrupt(fetch, server)
    fetch()
    assert server.requests[-1][1] == "bytes=1000-"
    assert len(server.requests) == 2
    assert cached.read_bytes() == archive


@pytest.mark.parametrize("if_range", [True, False])
def test_changed_on_the_server_meanwhile(fetch, server, cached, tmp_path, if_range):
    interrupt(fetch, server)
    newer = write_zip(tmp_path / "b.zip", dict(reversed(FACES.items()))).read_bytes()
    server.body, server.headers, server.if_range = newer, {"ETag": '"v2"'}, if_range
    fetch()
    assert cached.read_bytes() == newer


def test_shorter_on_the_server_meanwhile(fetch, server, cached, archive):
    interrupt(fetch, server)
    part = part_of(cached)
    part.write_bytes(archive + b"more than the server has")
    fetch()
    assert [bool(wanted) for _, wanted, _ in server.requests] == [False, True, False]
    assert cached.read_bytes() == archive


def test_wrong_content_range(fetch, server, cached, archive):
    interrupt(fetch, server)
    server.range_error = 1
    fetch()
    assert server.requests[-1][1] is None
    assert cached.read_bytes() == archive


def test_part_from_another_server_does_not_count(fetch, server, cached, archive):
    interrupt(fetch, server)
    with serving(archive) as mirror:
        fetch(base_url=mirror.url)
        assert mirror.requests == [("/kgfvj/download", None, None)]
    assert cached.read_bytes() == archive


def test_damaged_version_file_does_not_count(fetch, server, cached):
    interrupt(fetch, server)
    cached.with_name("afhq.zip.part.json").write_text("{", encoding="utf-8")
    fetch()
    assert server.requests[-1][1] is None


def test_damaged_part_is_found_and_dropped(fetch, server, cached, archive):
    interrupt(fetch, server)
    part_of(cached).write_bytes(bytes(1000))
    with pytest.raises(ConnectionError, match="damaged"):
        fetch()
    assert left_behind(cached) == []
    fetch()
    assert cached.read_bytes() == archive


def assert_error_helps(error, server, cached):
    """The error tells the address, the file name and the way by hand."""
    message = str(error)
    assert f"open {server.url}/kgfvj/download in a browser" in message
    assert f"save it as {str(cached)!r}" in message
    assert error.__cause__ is not None
    assert not cached.exists()


def test_web_page_instead_of_archive(fetch, server, cached):
    server.body = b"<!DOCTYPE html><title>Sign in</title>"
    with pytest.raises(ConnectionError, match=r"a web page.*<!DOCTYPE html>") as info:
        fetch()
    assert_error_helps(info.value, server, cached)
    assert left_behind(cached) == []


def test_truncated_archive_of_the_size_told(fetch, server, cached, archive):
    server.body = archive[:-10]
    with pytest.raises(ConnectionError, match="answer is damaged or none") as info:
        fetch()
    assert_error_helps(info.value, server, cached)
    assert left_behind(cached) == []


def test_damaged_entry_is_named(fetch, server, cached, tmp_path):
    path = write_zip(tmp_path / "b.zip", FACES, zipfile.ZIP_STORED)
    server.body = path.read_bytes().replace(b"IDAT", b"iDAT", 1)
    with pytest.raises(
        ConnectionError, match=f"entry '{next(iter(FACES))}'.*is damaged"
    ):
        fetch()
    assert left_behind(cached) == []


def test_content_length_too_large(fetch, server, cached, archive):
    server.length = len(archive) + 5
    with pytest.raises(ConnectionError, match="ended after") as info:
        fetch()
    assert_error_helps(info.value, server, cached)
    server.length = None
    fetch()
    assert cached.read_bytes() == archive


def test_content_length_too_small(fetch, server, cached, archive):
    server.length = len(archive) - 5
    with pytest.raises(ConnectionError, match="damaged or none"):
        fetch()
    assert left_behind(cached) == []


def test_no_content_length(fetch, server, cached, archive):
    server.length = ""
    fetch()
    assert cached.read_bytes() == archive


@pytest.mark.parametrize("status", [404, 500])
def test_http_error(fetch, server, cached, status):
    server.status = status
    with pytest.raises(ConnectionError, match=f"HTTP Error {status}") as info:
        fetch()
    assert_error_helps(info.value, server, cached)
    assert isinstance(info.value.__cause__, HTTPError)


def test_unexpected_success(fetch, server, cached):
    server.status = 203
    with pytest.raises(ConnectionError, match="HTTP status 203") as info:
        fetch()
    assert_error_helps(info.value, server, cached)


def test_connection_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ConnectionError, match="To get the file by hand, open"):
            fetch_animal_faces(data_home=tmp_path, base_url=base_url, progress=False)
    assert not (tmp_path / "afhq.zip").exists()


@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_silent_server(fetch, server, cached, monkeypatch, delay):
    monkeypatch.setattr(_download, "TIMEOUT", 0.2)
    server.delay = delay  # silent before the answer, or in the midst of it
    server.cut = 1000
    server.stall.clear()
    with pytest.raises(ConnectionError, match="timed out") as info:
        fetch()
    assert_error_helps(info.value, server, cached)


def test_full_disk_is_no_matter_of_the_network(fetch, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_download.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left") as info:
        fetch()
    assert not isinstance(info.value, ConnectionError)


def test_many_at_once_make_one_download(fetch, server, cached, archive):
    server.delay = 0.2
    with ThreadPoolExecutor(4) as pool:
        results = [task.result() for task in [pool.submit(fetch) for _ in range(4)]]
    assert len(server.requests) == 1
    assert cached.read_bytes() == archive
    for faces in results[1:]:
        np.testing.assert_array_equal(faces.data, results[0].data)


def test_the_next_in_line_resumes_what_failed(fetch, server, cached, archive):
    server.cut = len(archive) * 2 // 3
    server.delay = 0.1
    with ThreadPoolExecutor(2) as pool:
        errors = [task.exception() for task in [pool.submit(fetch) for _ in range(2)]]
    assert sorted(error is None for error in errors) == [False, True]
    assert server.requests[1][1] == f"bytes={server.cut}-"
    assert cached.read_bytes() == archive


def test_download_if_missing_false(fetch, server, cached):
    with pytest.raises(FileNotFoundError, match="download_if_missing=False") as info:
        fetch(download_if_missing=False)
    assert f"save it as {str(cached)!r}" in str(info.value)
    assert server.requests == []
    assert not cached.parent.exists()


def test_archive_put_there_by_hand(fetch, server, cached, archive):
    cached.parent.mkdir()
    cached.write_bytes(archive)
    assert len(fetch(download_if_missing=False).data) == 15
    assert server.requests == []
    cached.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"afhq\.zip' is not a zip archive"):
        fetch()


def test_data_home_from_the_environment(fetch, tmp_path, monkeypatch):
    monkeypatch.setenv("SKREG_DATA", str(tmp_path / "elsewhere"))
    fetch(data_home=None)
    assert (tmp_path / "elsewhere" / "afhq.zip").is_file()


def test_data_home_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("SKREG_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"https://osf\.io/kgfvj/download"
    ) as info:
        fetch_animal_faces(download_if_missing=False)
    assert str(tmp_path / "skreg_data" / "afhq.zip") in str(info.value)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_bar(fetch, capsys, progress):
    fetch(progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("afhq.zip" in err and "100%" in err) == progress


@pytest.mark.parametrize(
    ("argument", "match"),
    [
        (
            {"variant": "cats"},
            "variant='cats' is not one of 'original', 'random', 'par",
        ),
        ({"size": 0}, "size=0 is neither"),
        ({"base_url": "file:///tmp"}, "base_url='file:///tmp' does not .*load_image_f"),
    ],
)
def test_fetch_refuses_arguments_before_it_downloads(fetch, server, argument, match):
    with pytest.raises(ValueError, match=match):
        fetch(**argument)
    assert server.requests == []
