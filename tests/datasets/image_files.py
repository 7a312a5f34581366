"""Image files, in folders and in zip archives."""

import io
import zipfile

import numpy as np
from PIL import Image


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
