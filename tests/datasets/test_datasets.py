"""skreg.datasets: what is loaded is exact, and nothing is lost without a word."""

import io
import socket
import threading
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from skreg.datasets import (
    _download,
    fetch_animal_faces,
    load_digit_images,
    load_image_folder,
    make_noisy_line,
    randomize_labels,
)


def encode(pixels, format="png", mode=None, **options):
    """Return the bytes of an image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, format, **options)
    return stream.getvalue()


def random_pixels(seed=0, shape=(4, 6, 3)):
    return np.random.RandomState(seed).randint(256, size=shape).astype(np.uint8)


PNG = encode(random_pixels())


def write_folder(path, files):
    """Write a dict of names to bytes; a name that ends in "/" is an empty folder."""
    for name, content in files.items():
        target = path / name
        if name.endswith("/"):
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return path


def write_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(params=["folder", "zip"])
def pack(request, tmp_path):
    """Return a function that writes files to a folder, or to an archive of it."""

    def write(files):
        if request.param == "zip":
            return write_zip(tmp_path / "images.zip", files)
        return write_folder(tmp_path / "images", files)

    return write


# load_digit_images --------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn():
    digits, reference = load_digit_images(), load_digits()
    np.testing.assert_array_equal(digits.data[:, 0] * 16, reference.images)
    np.testing.assert_array_equal(digits.target, reference.target)
    np.testing.assert_array_equal(digits.target_names, range(10))
    assert digits.data.shape == (1797, 1, 8, 8)
    assert digits.data.dtype == np.float32
    assert digits.target.dtype == np.int64
    assert reference.DESCR in digits.DESCR


def test_digits_resized_and_in_colour():
    data, _ = load_digit_images(size=(32, 16), channels=3, return_X_y=True)
    assert data.shape == (1797, 3, 32, 16)
    assert data.dtype == np.float32
    assert data.min() >= 0
    assert data.max() <= 1
    np.testing.assert_array_equal(data[:, 0], data[:, 1])
    np.testing.assert_array_equal(data[:, 0], data[:, 2])
    # Interpolated, not made anew: averaged over the blocks, the originals come back.
    blocks = data[:, 0].reshape(1797, 8, 4, 8, 2).mean(axis=(2, 4))
    assert np.corrcoef(blocks.ravel(), load_digits().images.ravel())[0, 1] > 0.97


def test_digits_are_a_fresh_copy_in_every_call():
    load_digit_images().data[:] = 0
    assert load_digit_images().data.max() == 1


@pytest.mark.parametrize(
    "size", [0, -1, 2.0, True, "32", (8,), (8, 0), (8, 8, 8), None]
)
def test_digits_refuse_size(size):
    with pytest.raises(ValueError, match=r"^size=.* pair \(height, width\) .* size=32"):
        load_digit_images(size=size)


def test_digits_refuse_channels():
    with pytest.raises(ValueError, match=r"channels=2 is not one of 1, 3; pass e\.g\."):
        load_digit_images(channels=2)


# load_image_folder: pixels ------------------------------------------------------------


@pytest.mark.parametrize("format", ["png", "bmp", "tiff", "webp"])
def test_lossless_pixels_are_exact(pack, format):
    pixels = random_pixels()
    options = {"lossless": True} if format == "webp" else {}
    path = pack({f"cat/1.{format}": encode(pixels, format, **options)})
    images = load_image_folder(path, size=(4, 6))
    assert images.data.shape == (1, 3, 4, 6)
    assert images.data.dtype == np.float32
    expected = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(images.data[0], expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_all_modes_become_rgb(pack, mode):
    image = Image.fromarray(random_pixels()).convert(mode)
    path = pack({"cat/1.tiff": encode(image, "tiff")})
    data = load_image_folder(path, size=(4, 6)).data
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(data[0], expected, rtol=1e-6)


def test_palette_with_transparency(pack):
    # PIL warns when such an image is converted to RGB at once.
    image = Image.fromarray(random_pixels()).convert("P")
    png = encode(image, transparency=bytes(range(256)))
    data = load_image_folder(pack({"cat/1.png": png}), size=(4, 6)).data
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(data[0], expected, rtol=1e-6)


def test_16_bit_gray_is_scaled_not_cut(pack):
    gray = np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)
    path = pack({"cat/1.tiff": encode(gray, "tiff")})
    data = load_image_folder(path, size=2).data
    np.testing.assert_allclose(data[0, 0] * 255, [[0, 100], [200, 255]])


def test_pixels_of_unknown_range_are_an_error(pack):
    path = pack({"cat/1.tiff": encode(np.eye(4, dtype=np.float32), "tiff")})
    with pytest.raises(ValueError, match=r"'cat/1.tiff'.* mode 'F'.* range is unknown"):
        load_image_folder(path)


def test_first_picture_of_an_animation(pack):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    gif = encode(frames[0], "gif", save_all=True, append_images=frames[1:])
    data = load_image_folder(pack({"cat/1.gif": gif}), size=4).data
    np.testing.assert_array_equal(data[0, :, 0, 0], [1, 0, 0])


def test_size_is_height_and_width(pack):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:] = 255  # the right half is white
    data = load_image_folder(pack({"cat/1.png": encode(pixels)}), size=(2, 4)).data
    assert data.shape == (1, 3, 2, 4)
    np.testing.assert_array_equal(data[0, 0, 0] > 0.5, [False, False, True, True])


def test_memory_is_that_of_the_result(pack):
    path = pack({f"cat/{i}.png": PNG for i in range(300)})
    load_image_folder(path)  # imports of PIL are not to count
    tracemalloc.start()
    try:
        data = load_image_folder(path).data
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * data.nbytes


# load_image_folder: classes, splits, names --------------------------------------------


def test_classes_and_samples_are_sorted(pack):
    images = [encode(np.full((2, 2, 3), i, np.uint8)) for i in range(4)]
    files = dict(
        zip(["dog/b.png", "cat/z", "dog/a.PNG", "Ant/x.png"], images, strict=True)
    )
    bunch = load_image_folder(pack(files), size=2)
    assert bunch.target_names.tolist() == ["Ant", "cat", "dog"]
    assert bunch.filenames.tolist() == ["Ant/x.png", "cat/z", "dog/a.PNG", "dog/b.png"]
    assert bunch.target.tolist() == [0, 1, 2, 2]
    assert bunch.target.dtype == np.int64
    assert bunch.split.tolist() == ["train"] * 4
    np.testing.assert_allclose(bunch.data[:, 0, 0, 0] * 255, [3, 1, 2, 0])
    assert "Ant, cat, dog" in bunch.DESCR


SPLIT_FILES = {
    "val/dog/1.png": PNG,
    "train/dog/1.png": PNG,
    "train/dog/2.png": PNG,
    "train/cat/1.png": PNG,
    "val/cat/1.png": PNG,
}


@pytest.mark.parametrize("wrapper", ["", "afhq/", "afhq_random_32x32/afhq_random/"])
def test_train_and_val(pack, wrapper):
    path = pack({wrapper + name: content for name, content in SPLIT_FILES.items()})
    bunch = load_image_folder(path)
    assert bunch.split.tolist() == ["train"] * 3 + ["val"] * 2
    assert bunch.target.tolist() == [0, 1, 1, 0, 1]
    assert bunch.target_names.tolist() == ["cat", "dog"]
    assert bunch.filenames[0] == f"{wrapper}train/cat/1.png"


@pytest.mark.parametrize("wrapper", ["", "pets/", "a/b/c/"])
def test_classes_without_split(pack, wrapper):
    bunch = load_image_folder(
        pack({f"{wrapper}{c}/1.png": PNG for c in ("cat", "dog")})
    )
    assert bunch.target_names.tolist() == ["cat", "dog"]
    assert bunch.split.tolist() == ["train", "train"]


def test_one_class_is_enough(pack):
    assert load_image_folder(pack({"cat/1.png": PNG})).target_names.tolist() == ["cat"]


def test_return_X_y(pack):
    X, y = load_image_folder(pack(SPLIT_FILES), return_X_y=True)
    assert X.shape == (5, 3, 32, 32)
    assert y.tolist() == [0, 1, 1, 0, 1]


def test_path_may_be_a_string_below_home(tmp_path, monkeypatch):
    write_folder(tmp_path / "pets", {"cat/1.png": PNG})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert len(load_image_folder("~/pets").data) == 1


def test_linked_class_folder_is_read(tmp_path):
    write_folder(tmp_path, {"elsewhere/1.png": PNG, "pets/dog/1.png": PNG})
    (tmp_path / "pets/cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert load_image_folder(tmp_path / "pets").target_names.tolist() == ["cat", "dog"]


def test_litter_is_ignored(pack):
    litter = [
        ".DS_Store",
        "cat/.DS_Store",
        "cat/._1.png",
        "cat/Thumbs.db",
        "cat/desktop.ini",
        ".git/config",
        "__MACOSX/cat/._1.png",
    ]
    bunch = load_image_folder(pack({"cat/1.png": PNG, **dict.fromkeys(litter, b"x")}))
    assert bunch.filenames.tolist() == ["cat/1.png"]


def test_zip_entries_with_dots_and_folder_entries(tmp_path):
    path = write_zip(
        tmp_path / "a.zip", {"./": b"", "./cat/": b"", "./cat//1.png": PNG}
    )
    assert load_image_folder(path).filenames.tolist() == ["cat/1.png"]


# load_image_folder: problems ----------------------------------------------------------

PROBLEMS = {
    "no image": ("cat/notes.txt", b"hello", "is not an image"),
    "empty": ("cat/empty.png", b"", "is not an image"),
    "truncated": ("cat/cut.png", PNG[:-30], "cannot be read"),
    "class folder without files": ("eel/", b"", "is a class folder without images"),
    "class folder of litter": ("eel/.DS_Store", b"", "class folder without images"),
    "file at the root": ("readme.txt", b"", "outside the class folders"),
    "image at the root": ("1.png", PNG, "outside the class folders"),
    "nested folder": ("cat/deep/1.png", PNG, "folder inside a class folder"),
}


def name_of(problem):
    name, _, _ = PROBLEMS[problem]
    return {"class folder of litter": "eel/", "nested folder": "cat/deep/"}.get(
        problem, name
    )


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problem_raises_and_is_named(pack, problem):
    name, content, message = PROBLEMS[problem]
    path = pack({"cat/1.png": PNG, "dog/1.png": PNG, name: content})
    with pytest.raises(
        ValueError, match=f"^'{name_of(problem)}' in .*{message}"
    ) as info:
        load_image_folder(path)
    assert str(path) in str(info.value)
    assert "on_error='warn'" in str(info.value)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problem_warns_and_is_named(pack, problem):
    name, content, message = PROBLEMS[problem]
    path = pack({"cat/1.png": PNG, "dog/1.png": PNG, name: content})
    with pytest.warns(
        UserWarning, match=f"^'{name_of(problem)}' in .*{message}"
    ) as got:
        bunch = load_image_folder(path, on_error="warn")
    assert len(got) == 1
    assert got[0].filename == __file__
    assert bunch.filenames.tolist() == ["cat/1.png", "dog/1.png"]
    assert bunch.target_names.tolist() == ["cat", "dog"]
    assert len(bunch.data) == 2


def test_each_problem_has_its_own_warning(pack):
    bad = {f"cat/{i}.png": PNG[:-30] for i in range(2, 5)}
    with pytest.warns(UserWarning, match="cannot be read") as got:
        bunch = load_image_folder(pack({"cat/1.png": PNG, **bad}), on_error="warn")
    assert [str(w.message).split("'")[1] for w in got] == list(bad)
    assert len(bunch.data) == len(bunch.target) == len(bunch.split) == 1


def test_class_with_no_readable_image_is_no_class(pack):
    path = pack({"cat/1.png": PNG, "ape/1.png": b"x"})
    with pytest.warns(UserWarning, match=r"'ape/1\.png'"):
        bunch = load_image_folder(path, on_error="warn")
    assert bunch.target_names.tolist() == ["cat"]
    assert bunch.target.tolist() == [0]


def test_nothing_readable_is_an_error(pack):
    path = pack({"cat/1.png": b"x"})
    with (
        pytest.warns(UserWarning, match=r"'cat/1\.png'"),
        pytest.raises(ValueError, match="holds no readable image"),
    ):
        load_image_folder(path, on_error="warn")


@pytest.mark.parametrize("stray", ["readme.txt", "test/cat/1.png"])
def test_stray_beside_splits_is_named(pack, stray):
    name = stray.split("/")[0]
    with pytest.raises(ValueError, match=f"'{name}' .* lies beside train/ and val/"):
        load_image_folder(pack({**SPLIT_FILES, stray: PNG}))


def test_stray_beside_wrapper_is_named(pack):
    path = pack({"readme.txt": b"", **{f"a/{k}": v for k, v in SPLIT_FILES.items()}})
    with pytest.warns(UserWarning, match=r"'readme\.txt' .* outside"):
        bunch = load_image_folder(path, on_error="warn")
    assert len(bunch.data) == 5


def test_other_names_of_splits_are_no_classes(pack):
    files = {f"{part}/cat/1.png": PNG for part in ("training", "validation")}
    with pytest.raises(ValueError, match=r"'training/cat/' .* inside a class folder"):
        load_image_folder(pack(files))


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_classes_of_train_and_val_must_agree(pack, on_error):
    files = {"train/cat/1.png": PNG, "train/ape/1.png": PNG}
    files |= {"val/cat/1.png": PNG, "val/dog/1.png": PNG}
    match = r"differ in .* only train has \['ape'\], only val has \['dog'\]"
    with pytest.raises(ValueError, match=match):
        load_image_folder(pack(files), on_error=on_error)


@pytest.mark.parametrize("files", [{}, {"1.png": PNG}], ids=["empty", "no folder"])
def test_no_class_folder_shows_the_layout(tmp_path, files):
    for path in (
        write_zip(tmp_path / "a.zip", files),
        write_folder(tmp_path, {"a/": b""}) / "a",
    ):
        with pytest.raises(
            ValueError, match=r"(?s)no class folder.*train/cat/0001.png"
        ):
            load_image_folder(path)


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.*; check the path"):
        load_image_folder(tmp_path / "absent")


def test_too_large_a_picture_is_refused(pack, monkeypatch):
    path = pack({"cat/1.png": encode(np.zeros((99, 99, 3), np.uint8))})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99 * 33)
    with pytest.raises(ValueError, match=r"'cat/1\.png'.*DecompressionBomb") as info:
        load_image_folder(path)
    assert isinstance(info.value.__cause__, Image.DecompressionBombError)


def test_too_large_a_zip_entry_is_refused_unread(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"cat/1.png": bytes(8001)})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(ValueError, match=r"'cat/1\.png'.* 8001 bytes exceed .* 8000"):
        load_image_folder(path)


def test_lack_of_memory_is_no_fault_of_the_file(pack, monkeypatch):
    def no_memory(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(Image, "open", no_memory)
    with pytest.raises(MemoryError):
        load_image_folder(pack({"cat/1.png": PNG}), on_error="warn")


@pytest.mark.parametrize("size", [0, 1.5, (32, -1), [1, 2, 3]])
def test_folder_refuses_size(pack, size):
    with pytest.raises(ValueError, match=r"^size=.*positive int"):
        load_image_folder(pack({"cat/1.png": PNG}), size=size)


def test_folder_refuses_on_error(pack):
    match = "on_error='ignore' is not one of 'raise', 'warn'"
    with pytest.raises(ValueError, match=match):
        load_image_folder(pack({"cat/1.png": PNG}), on_error="ignore")


# load_image_folder: archives ----------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/cat/1.png",
        "../cat/1.png",
        "cat/../../1.png",
        "cat/..",
        "C:/cat/1.png",
        "c:1.png",
        "cat\\1.png",
        "..\\1.png",
        "__MACOSX/../../1.png",
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_unsafe_zip_entry_is_refused(tmp_path, name, on_error):
    path = write_zip(tmp_path / "a.zip", {"cat/1.png": PNG, name: PNG})
    with pytest.raises(ValueError, match=r"^Zip entry .* is refused") as info:
        load_image_folder(path, on_error=on_error)
    assert repr(name) in str(info.value)
    assert list(tmp_path.iterdir()) == [path]


def test_null_byte_in_zip_entry_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"cat/1?.png": PNG})
    path.write_bytes(path.read_bytes().replace(b"cat/1?.png", b"cat/1\0.png"))
    with pytest.raises(ValueError, match=r"Zip entry 'cat/1\\x00\.png' is refused"):
        load_image_folder(path)


def test_names_with_dots_are_no_harm(pack):
    path = pack({"cat/a..b.png": PNG, "cat/c...png": PNG})
    assert len(load_image_folder(path).data) == 2


def test_zip_entry_that_is_there_twice_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"cat/1.png": PNG, "cat/2.png": PNG})
    path.write_bytes(path.read_bytes().replace(b"cat/2.png", b"cat/1.png"))
    with pytest.raises(ValueError, match=r"'cat/1\.png' is there twice"):
        load_image_folder(path)


@pytest.mark.parametrize("names", [["cat", "cat/1.png"], ["cat/1.png", "cat"]])
def test_zip_entry_that_is_file_and_folder_is_refused(tmp_path, names):
    path = write_zip(tmp_path / "a.zip", dict.fromkeys(names, PNG))
    with pytest.raises(ValueError, match="a file and a folder have the same name"):
        load_image_folder(path)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_truncated_zip(tmp_path, cut):
    path = write_zip(tmp_path / "a.zip", {"cat/1.png": PNG})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"a\.zip' is not a zip archive, or a damaged"):
        load_image_folder(path)


def test_damage_that_only_the_crc_shows(tmp_path):
    bmp = encode(random_pixels(), "bmp")
    path = write_zip(tmp_path / "a.zip", {"cat/1.bmp": bmp}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(bmp) + len(bmp) - 5] ^= 1  # in the midst of the pixels
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"'cat/1\.bmp'.*CRC"):
        load_image_folder(path)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    position=st.integers(0, 10**6),
    value=st.integers(0, 255),
    on_error=st.sampled_from(["raise", "warn"]),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_zip_loads_or_raises_value_error(tmp_path, position, value, on_error):
    path = write_zip(tmp_path / "a.zip", {"cat/1.png": PNG, "dog/1.png": PNG})
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    try:
        bunch = load_image_folder(path, on_error=on_error)
    except ValueError:
        return
    assert len(bunch.data) == len(bunch.target) == len(bunch.filenames)


# fetch_animal_faces -------------------------------------------------------------------

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


# make_noisy_line ----------------------------------------------------------------------


def test_noisy_line_is_the_formula():
    X, y = make_noisy_line(7, noise=0.5, random_state=3)
    x = np.linspace(-1, 1, 7)
    noise = np.random.RandomState(3).standard_normal(7)
    np.testing.assert_array_equal(X, x[:, np.newaxis].astype(np.float32))
    np.testing.assert_array_equal(y, (2 * x + 0.5 * noise).astype(np.float32))
    assert X.dtype == y.dtype == np.float32


def test_noise_has_the_standard_deviation_asked_for():
    X, y = make_noisy_line(20_000, random_state=0)
    residual = y - 2 * X.ravel()
    assert residual.std() == pytest.approx(2, rel=0.02)
    assert residual.mean() == pytest.approx(0, abs=0.05)


def test_noisy_line_leaves_the_global_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_noisy_line(random_state=0)
    randomize_labels([1, 2, 3], random_state=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("n_samples", [0, -1, 2.0, "3", True])
def test_noisy_line_refuses_n_samples(n_samples):
    with pytest.raises(ValueError, match=r"^n_samples=.*positive int; pass e\.g\."):
        make_noisy_line(n_samples)


@pytest.mark.parametrize("noise", [-0.1, np.nan, np.inf, "1", None])
def test_noisy_line_refuses_noise(noise):
    with pytest.raises(ValueError, match=r"^noise=.*finite number >= 0; pass e\.g\."):
        make_noisy_line(noise=noise)


# randomize_labels ---------------------------------------------------------------------

labels = st.one_of(
    st.lists(st.integers(-5, 5), min_size=1, max_size=60),
    st.lists(st.sampled_from(["cat", "dog", "a longer name"]), min_size=1, max_size=60),
    st.lists(st.booleans(), min_size=1, max_size=60),
)
seeds = st.integers(0, 2**32 - 1)


@given(y=labels, fraction=st.floats(0, 1), seed=seeds)
def test_randomized_labels(y, fraction, seed):
    y = np.array(y)
    before = y.copy()
    drawn = randomize_labels(y, fraction, random_state=seed)
    np.testing.assert_array_equal(y, before)
    assert drawn.shape == y.shape
    assert drawn.dtype == y.dtype
    assert set(drawn) <= set(y)
    assert np.sum(drawn != y) <= round(fraction * len(y))
    np.testing.assert_array_equal(
        drawn, randomize_labels(y, fraction, random_state=seed)
    )


@given(y=labels, seed=seeds)
def test_no_fraction_is_a_copy(y, seed):
    y = np.array(y)
    drawn = randomize_labels(y, 0, random_state=seed)
    np.testing.assert_array_equal(drawn, y)
    assert not np.shares_memory(drawn, y)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_share_of_changed_labels(fraction):
    # Of three classes, two draws in three hit another one.
    y = np.repeat(["cat", "dog", "wild"], [1000, 3000, 5000])
    drawn = randomize_labels(y, fraction, random_state=0)
    assert np.mean(drawn != y) == pytest.approx(fraction * 2 / 3, rel=0.05)


def test_labels_are_drawn_uniformly_whatever_their_shares():
    y = np.repeat([0, 1, 2], [8000, 900, 100])
    counts = np.bincount(randomize_labels(y, random_state=0))
    np.testing.assert_allclose(counts / len(y), 1 / 3, atol=0.02)


@pytest.mark.parametrize("dtype", [object, np.int8, np.float64, "U3", "S2"])
def test_dtype_of_labels_is_kept(dtype):
    y = np.array([1, 2, 2, 3] * 5).astype(dtype)
    drawn = randomize_labels(y, random_state=0)
    assert drawn.dtype == y.dtype
    assert set(drawn) <= set(y)


@pytest.mark.parametrize("y", [[], [[1, 2]], 3, np.zeros((3, 1))])
def test_labels_refuse_shape(y):
    with pytest.raises(ValueError, match=r"^y has shape \(.*expected \(n_samples,\)"):
        randomize_labels(y)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, np.nan, "1", None, True])
def test_labels_refuse_fraction(fraction):
    with pytest.raises(ValueError, match=r"^fraction=.*in \[0, 1\]; pass e\.g\."):
        randomize_labels([1, 2], fraction)
