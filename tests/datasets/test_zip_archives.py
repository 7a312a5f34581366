"""Zip archives that are unsafe, ambiguous or damaged."""

import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import PNG, encode, random_pixels, write_zip

from skreg.datasets import load_image_folder


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
