"""Folders of images: what is loaded is exact, and nothing is lost without a word."""

import tracemalloc
import zipfile

import numpy as np
import pytest
from image_files import PNG, encode, random_pixels, write_folder, write_zip
from PIL import Image

from skreg.datasets import load_image_folder

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
