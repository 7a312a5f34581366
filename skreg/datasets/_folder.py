"""Images from a folder per class, or from a zip archive of such folders."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from sklearn.utils import Bunch

from skreg.datasets._base import as_answer, check_one_of, check_size
from skreg.datasets._sources import FolderSource, ZipSource, open_source

__all__ = ["load_image_folder"]

_SPLITS = ("train", "val")

_LAYOUT = """\
Expected one folder per class with images in it:
    cat/0001.png
    dog/0001.png
or the same classes below train/ and val/:
    train/cat/0001.png    val/cat/0001.png
    train/dog/0001.png    val/dog/0001.png
The whole may lie in a wrapper folder."""

Tree = dict[str, "Tree | None"]  # name -> what the folder holds, or None for a file
Report = Callable[..., None]  # report(name, problem, cause=None)


class _Sample(NamedTuple):
    name: str
    label: str
    split: str


def load_image_folder(path, *, size=32, on_error="raise", return_X_y=False):
    """Load images from a folder per class, or from a zip archive of such folders.

    The names of the folders are the classes, sorted. Where ``train/`` and ``val/`` hold
    the class folders, `split` tells which of the two a sample comes from. Folders
    wrapped around these, such as ``afhq/train/cat/0001.jpg``, are looked through::

        cat/0001.png        train/cat/0001.png    val/cat/0001.png
        dog/0001.png        train/dog/0001.png    val/dog/0001.png

    No file is left out silently, except what operating systems leave behind: names that
    begin with a dot, ``__MACOSX``, ``Thumbs.db`` and ``desktop.ini``. Archives are read
    in memory, not unpacked.

    Parameters
    ----------
    path : str or path-like
        The folder or zip archive. ``~`` is the home folder.
    size : int or pair of int (height, width), default=32
        Size in pixels that images are resized to (bilinear, antialiased); the aspect
        ratio is not kept. Images that have this size keep their exact pixel values.
    on_error : {"raise", "warn"}, default="raise"
        What to do about a file that is no image, a damaged image, a file outside the
        class folders, a folder inside one, or a class folder without files: raise an
        error that names it, or leave it out with a warning that names it. A class with
        no image left is no class then.
    return_X_y : bool, default=False
        Return ``(data, target)`` of both splits instead of a Bunch.

    Returns
    -------
    images : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_samples, 3, height, width), dtype float32
            RGB in [0, 1]; an alpha channel is dropped, of an animation the first
            picture is taken, 16-bit gray values are rounded to 8 bits, and EXIF
            orientation is ignored. Sorted by split, class and name.
        target : ndarray of shape (n_samples,), dtype int64
            Indices into `target_names`.
        target_names : ndarray of shape (n_classes,), dtype str
            Names of the class folders, sorted.
        split : ndarray of shape (n_samples,), dtype str
            "train" or "val"; all "train" if there are no two such folders.
        filenames : ndarray of shape (n_samples,), dtype str
            Names relative to `path`, with "/".
        DESCR : str
            About the data set.
    (data, target) : tuple if ``return_X_y=True``

    Raises
    ------
    FileNotFoundError
        If there is no such path.
    ValueError
        If `size` or `on_error` is not one of the above; if `path` is a file that is no
        zip archive, or an archive with an entry whose name is absolute, has a drive
        letter or a backslash, leads out of it with "..", or comes twice; if there is no
        class folder or no image; if train and val differ in their class folders; with
        ``on_error="raise"`` also for what is listed there, chained to the error of PIL
        (for a picture too large to be safe, a ``DecompressionBombError``).

    Warns
    -----
    UserWarning
        With ``on_error="warn"``, for each file or folder left out.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skreg.datasets import load_image_folder
    >>> with TemporaryDirectory() as folder:
    ...     for name in "cat", "dog":
    ...         Path(folder, name).mkdir()
    ...         Image.new("RGB", (64, 48), "red").save(Path(folder, name, "1.png"))
    ...     faces = load_image_folder(folder, size=32)
    >>> faces.data.shape, faces.target, faces.target_names
    ((2, 3, 32, 32), array([0, 1]), array(['cat', 'dog'], dtype='<U3'))
    """
    path = Path(path).expanduser()
    size = check_size(size)
    check_one_of("on_error", on_error, ("raise", "warn"))
    problems: list[str] = []
    report = _make_report(path, problems if on_error == "warn" else None)
    with open_source(path) as source:
        samples = _find_samples(_make_tree(source.names()), path, report)
        data, samples = _read_images(source, samples, size, report)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    if not samples:
        raise ValueError(f"{str(path)!r} holds no readable image.\n{_LAYOUT}")
    return as_answer(_make_bunch(path, data, samples), return_X_y)


def _make_report(path: Path, problems: list[str] | None) -> Report:
    """Return a function that notes a problem in `problems`, or raises it if None."""

    def report(name, problem, cause=None):
        message = f"{name!r} in {str(path)!r} {problem}"
        if problems is None:
            raise ValueError(
                f"{message}. Repair or remove it, or pass on_error='warn' to leave it "
                "out with a warning."
            ) from cause
        problems.append(f"{message}; it is left out.")

    return report


# Which samples there are --------------------------------------------------------------


def _make_tree(names: Iterable[str]) -> Tree:
    tree: Tree = {}
    for name in names:
        *folders, file = name.split("/")  # for a folder, `file` is empty
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if node is None:
                raise _both_file_and_folder(name)
        if file and node.setdefault(file) is not None:
            raise _both_file_and_folder(name)
    return tree


def _both_file_and_folder(name: str) -> ValueError:
    # No file system has this, but an archive can.
    return ValueError(
        f"Zip entry {name!r}: a file and a folder have the same name; pack the archive "
        "again."
    )


def _find_samples(tree: Tree, path: Path, report: Report) -> list[_Sample]:
    tree, prefix = _unwrap(tree, report)
    if not _folders(tree):
        raise ValueError(f"{str(path)!r} holds no class folder.\n{_LAYOUT}")
    if not _has_splits(tree):
        return list(_samples_of_split(tree, prefix, "train", report))
    _check_same_classes(tree, path)
    for name in sorted(tree.keys() - set(_SPLITS)):
        report(prefix + name, "lies beside train/ and val/, outside the class folders")
    folders = _folders(tree)
    return [
        sample
        for split in _SPLITS
        for sample in _samples_of_split(
            folders[split], f"{prefix}{split}/", split, report
        )
    ]


def _unwrap(tree: Tree, report: Report) -> tuple[Tree, str]:
    """Look through folders that hold no class folders but one folder of these."""
    prefix = ""
    while not _has_splits(tree) and len(folders := _folders(tree)) == 1:
        [(name, folder)] = folders.items()
        if not _folders(folder):
            break  # the one folder is a class
        for file in sorted(tree.keys() - folders.keys()):
            report(prefix + file, "lies outside the class folders")
        tree, prefix = folder, f"{prefix}{name}/"
    return tree, prefix


def _folders(tree: Tree) -> dict[str, Tree]:
    return {name: node for name, node in tree.items() if node is not None}


def _has_splits(tree: Tree) -> bool:
    return _folders(tree).keys() >= set(_SPLITS)


def _check_same_classes(tree: Tree, path: Path) -> None:
    folders = _folders(tree)
    train, val = (_folders(folders[split]).keys() for split in _SPLITS)
    if train != val:
        raise ValueError(
            f"train/ and val/ of {str(path)!r} differ in their class folders: only "
            f"train has {sorted(train - val)}, only val has {sorted(val - train)}; "
            "both need a folder for every class."
        )


def _samples_of_split(
    tree: Tree, prefix: str, split: str, report: Report
) -> Iterator[_Sample]:
    for label, folder in sorted(tree.items()):
        if folder is None:
            report(prefix + label, "lies outside the class folders")
        elif not folder:
            report(f"{prefix}{label}/", "is a class folder without images")
        else:
            yield from _samples_of_class(folder, f"{prefix}{label}/", split, report)


def _samples_of_class(
    folder: Tree, prefix: str, split: str, report: Report
) -> Iterator[_Sample]:
    label = prefix.split("/")[-2]
    for name, node in sorted(folder.items()):
        if node is None:
            yield _Sample(prefix + name, label, split)
        else:
            # Taken for part of the class, "valid/cat/" would make a class "valid".
            report(f"{prefix}{name}/", "is a folder inside a class folder")


# Their pixels -------------------------------------------------------------------------


def _read_images(
    source: FolderSource | ZipSource,
    samples: list[_Sample],
    size: tuple[int, int],
    report: Report,
) -> tuple[np.ndarray, list[_Sample]]:
    """Return the images that can be read, and the samples they belong to."""
    # One array from the start: a list of images to stack would need the memory twice.
    data = np.empty((len(samples), 3, *size), dtype=np.float32)
    kept = []
    for sample in samples:
        try:
            with source.open(sample.name) as stream:
                pixels = _read_pixels(stream, size)
        except UnidentifiedImageError as exc:
            report(sample.name, "is not an image that PIL can read", exc)
        except MemoryError:
            raise  # no fault of the file
        except Exception as exc:  # zipfile and PIL raise many types for damaged bytes
            report(sample.name, f"cannot be read ({type(exc).__name__}: {exc})", exc)
        else:
            data[len(kept)] = pixels.transpose(2, 0, 1)
            kept.append(sample)
    data = data[: len(kept)]
    data /= 255
    return data, kept


def _read_pixels(stream: BinaryIO, size: tuple[int, int]) -> np.ndarray:
    """Return an image as an array of shape (height, width, 3), dtype uint8."""
    with Image.open(stream) as image:
        rgb = _to_rgb(image)
    height, width = size
    # PIL's bilinear filter is antialiased; at an unchanged size it leaves all as it is.
    return np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # PIL would cut at 255, not scale
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels have PIL mode {image.mode!r}, whose range is unknown; save it "
            "with 8 or 16 bits"
        )
    elif "transparency" in image.info:  # PIL warns where this becomes RGB at once
        image = image.convert("RGBA")
    return image.convert("RGB")


def _make_bunch(path: Path, data: np.ndarray, samples: list[_Sample]) -> Bunch:
    filenames, labels, split = map(np.array, zip(*samples, strict=True))
    target_names, target = np.unique(labels, return_inverse=True)
    return Bunch(
        data=data,
        target=target.astype(np.int64),
        target_names=target_names,
        split=split,
        filenames=filenames,
        DESCR=(
            f"{len(data)} RGB images of shape {data.shape[1:]} from {str(path)!r}, as "
            f"float32 in [0, 1].\nClasses, from the names of the folders: "
            f"{', '.join(target_names)}."
        ),
    )
