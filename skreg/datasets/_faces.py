"""The animal faces of the course, from the Open Science Framework."""

import os
from pathlib import Path
from typing import NamedTuple

from skreg.datasets._base import as_answer, check_one_of, check_size
from skreg.datasets._download import NETWORK_ERRORS, download_zip
from skreg.datasets._folder import load_image_folder

__all__ = ["fetch_animal_faces"]


class _Archive(NamedTuple):
    osf_id: str
    filename: str
    labels: str


_ARCHIVES = {
    "original": _Archive("kgfvj", "afhq.zip", "true"),
    "random": _Archive("9sj7p", "afhq_random_32x32.zip", "all drawn at random"),
    "partially_random": _Archive(
        "wvgkq", "afhq_10_32x32.zip", "true but for 10 %, which are drawn at random"
    ),
}

_DESCR = """\
Animal faces
------------
Photographs of the faces of cats, dogs and wild animals, 32 x 32 pixels, RGB, in a
training and a validation part (`split`). Labels of the variant {variant!r}: {labels}.

The images are AFHQ, "Animal Faces-HQ", in the 32 x 32 version of the Neuromatch Academy
course on deep learning, from {url}.

Reference: Choi, Uh, Yoo and Ha, "StarGAN v2: Diverse Image Synthesis for Multiple
Domains", CVPR 2020. Random labels: Zhang, Bengio, Hardt, Recht and Vinyals,
"Understanding deep learning requires rethinking generalization", ICLR 2017."""


def fetch_animal_faces(
    variant="original",
    *,
    data_home=None,
    size=32,
    base_url=None,
    download_if_missing=True,
    progress=True,
    return_X_y=False,
):
    """Load photographs of animal faces: cat, dog, wild. Download them if necessary.

    The archive is kept in `data_home`; later calls need no network. A download that was
    interrupted is continued by the next call, if the server can do that. Several
    processes may call at the same time: one downloads, the others wait for it.

    Parameters
    ----------
    variant : {"original", "random", "partially_random"}, default="original"
        Labels as they are, or all drawn at random, or 10 % of them.
    data_home : str or path-like, default=None
        Folder of the archives, made if missing. None is the environment variable
        ``SKREG_DATA``, or else ``~/skreg_data``.
    size : int or pair of int (height, width), default=32
        Size in pixels. The originals are 32 x 32; any other size is interpolated.
    base_url : str, default=None
        Address of a server with the paths of the Open Science Framework. None is
        "https://osf.io".
    download_if_missing : bool, default=True
        If False, raise an error if the archive is not in `data_home`.
    progress : bool, default=True
        Show a progress bar on stderr while downloading.
    return_X_y : bool, default=False
        Return ``(data, target)`` of both splits instead of a Bunch.

    Returns
    -------
    faces : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_samples, 3, height, width), dtype float32
            RGB in [0, 1]. About 200 MB at the default size.
        target : ndarray of shape (n_samples,), dtype int64
            Indices into `target_names`.
        target_names : ndarray of shape (3,), dtype str
            cat, dog, wild.
        split : ndarray of shape (n_samples,), dtype str
            "train" or "val".
        filenames : ndarray of shape (n_samples,), dtype str
            Names in the archive.
        DESCR : str
            Where the images come from.

    (data, target) : tuple if ``return_X_y=True``

    Raises
    ------
    FileNotFoundError
        If the archive is not in `data_home` and ``download_if_missing=False``.
    ConnectionError
        If it cannot be downloaded, or what the server sends is no zip archive. It tells
        how to get the archive by hand.
    ValueError
        If `variant`, `size` or `base_url` is not one of the above, or the archive in
        `data_home`, put there by hand, cannot be read.

    See Also
    --------
    load_image_folder : Load images of your own.

    References
    ----------
    Choi, Uh, Yoo and Ha, "StarGAN v2: Diverse Image Synthesis for Multiple Domains",
    CVPR 2020.

    Examples
    --------
    >>> from skreg.datasets import fetch_animal_faces
    >>> faces = fetch_animal_faces()  # doctest: +SKIP
    >>> X_train = faces.data[faces.split == "train"]  # doctest: +SKIP
    """
    check_one_of("variant", variant, tuple(_ARCHIVES))
    check_size(size)  # an error now, not after the download
    archive = _ARCHIVES[variant]
    url = f"{_check_base_url(base_url)}/{archive.osf_id}/download"
    path = _data_home(data_home) / archive.filename
    if not path.exists():
        _fetch(url, path, download_if_missing, progress)
    faces = load_image_folder(path, size=size)
    faces.DESCR = _DESCR.format(variant=variant, labels=archive.labels, url=url)
    return as_answer(faces, return_X_y)


def _check_base_url(base_url) -> str:
    if base_url is None:
        return "https://osf.io"
    if not str(base_url).startswith(("https://", "http://")):
        raise ValueError(
            f"base_url={base_url!r} does not begin with https:// or http://; for an "
            "archive on this computer, call load_image_folder."
        )
    return str(base_url).rstrip("/")


def _data_home(data_home) -> Path:
    home = data_home or os.environ.get("SKREG_DATA") or "~/skreg_data"
    return Path(home).expanduser()


def _fetch(url: str, path: Path, download_if_missing: bool, progress: bool) -> None:
    by_hand = (
        f"To get the file by hand, open {url} in a browser, save it as {str(path)!r}, "
        "and call fetch_animal_faces again with the same arguments."
    )
    if not download_if_missing:
        raise FileNotFoundError(
            f"There is no {str(path)!r}, and download_if_missing=False; pass True to "
            f"download it. {by_hand}"
        )
    try:
        download_zip(url, path, progress=progress)
    except NETWORK_ERRORS as exc:
        raise ConnectionError(
            f"Could not download {url} ({type(exc).__name__}: {exc}). Call again for "
            f"another try; a partial download is continued. {by_hand}"
        ) from exc
