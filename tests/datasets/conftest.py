import pytest
from image_files import write_folder, write_zip


@pytest.fixture(params=["folder", "zip"])
def pack(request, tmp_path):
    """Return a function that writes files to a folder, or to an archive of it."""

    def write(files):
        if request.param == "zip":
            return write_zip(tmp_path / "images.zip", files)
        return write_folder(tmp_path / "images", files)

    return write
