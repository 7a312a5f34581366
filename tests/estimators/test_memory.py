"""Memory that a fit takes beyond its data, and data that stay in files."""

import multiprocessing
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from skreg import RegularizedNetClassifier
from skreg.training.batches import Rows, is_mapped

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="limits of memory are those of Linux"
)
PRELUDE = """
import resource
import numpy as np
import torch
from skreg import RegularizedNetClassifier

torch.set_num_threads(1)


def allow_more(mebibytes):
    with open("/proc/self/status") as file:
        sizes = dict(line.split(":") for line in file)
    used = int(sizes["VmData"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + mebibytes * 2**20, -1))


def net(**params):
    return RegularizedNetClassifier(
        max_epochs=1, batch_size=256, hidden_layer_sizes=8, device="cpu", **params
    )


net().fit(np.eye(50, dtype="f4"), np.arange(50) % 2)  # loads libraries
"""


def run(script, *arguments):
    code = PRELUDE + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


USE = """
    n = len(X)
    y = np.arange(n) % 2
    weight = np.linspace(1, 2, n)
    net().fit(X, y).predict(X)
    net().fit(X, y, sample_weight=weight)
    weight[:99] = 0
    net().fit(X, y, sample_weight=weight)
    net(early_stopping=True).fit(X, y).score(X, y)
"""


@pytest.mark.slow
@pytest.mark.parametrize("copy", ["X", "X.copy()"])
def test_no_fit_or_prediction_copies_arrays(copy):
    done = run(
        f"""
    X = np.ones((8000, 3072), dtype="f4")  # 94 MiB
    allow_more(70)
    X = {copy}
    """
        + USE
    )
    if copy == "X":
        assert done.returncode == 0, done.stderr
    else:  # the limit is one
        assert "MemoryError" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "dtype", "n_features"),
    [("r", "f4", 4000), ("r+", "f4", 4000), ("r", "u1", 16_000)],
)
def test_arrays_in_files_are_not_read_into_memory(tmp_path, mode, dtype, n_features):
    path, shape = tmp_path / "X", (10_000, n_features)  # 153 MiB, sparse on the disk
    np.memmap(path, dtype, "w+", shape=shape)[::2, 0] = 1
    done = run(
        f"""
    import sys
    X = np.memmap(sys.argv[1], "{dtype}", "{mode}", shape={shape})
    allow_more(120)
    """
        + USE,
        path,
    )
    assert done.returncode == 0, done.stderr


def mapped(tmp_path, X, mode="r"):
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode=mode)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("params", [{}, {"early_stopping": True}, {"dropout": 0.5}])
def test_a_file_gives_the_net_that_memory_gives(tmp_path, mode, params):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 5)).astype("f4"), np.arange(90) % 3
    weight = np.arange(90.0) % 4
    net = RegularizedNetClassifier(
        max_epochs=3, batch_size=32, random_state=0, lambda1=1e-3, **params
    )
    expected = net.fit(X, y, weight)
    proba, losses = expected.predict_proba(X), net.history[:, "train_loss"]
    file = mapped(tmp_path, X, mode)
    net.fit(file, y, weight)
    np.testing.assert_array_equal(net.predict_proba(file), proba)
    assert net.history[:, "train_loss"] == losses
    np.testing.assert_array_equal(file, X)


@pytest.mark.parametrize("dtype", ["u1", "i8", "f2", "bool"])
def test_numbers_of_other_kinds_in_files(tmp_path, dtype):
    X = np.random.default_rng(0).integers(0, 2, (60, 4)).astype(dtype)
    y = X[:, 0].astype(int)
    net = RegularizedNetClassifier(max_epochs=2, random_state=0)
    proba = net.fit(X, y).predict_proba(X)
    file = mapped(tmp_path, X)
    np.testing.assert_array_equal(net.fit(file, y).predict_proba(file), proba)
    assert net.module_.fc1.weight.dtype is torch.float32


def test_bad_files_are_refused(tmp_path):
    X = np.ones((20, 3), dtype="f4")
    X[7, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        RegularizedNetClassifier().fit(mapped(tmp_path, X), np.arange(20) % 2)


def test_what_is_mapped(tmp_path):
    X = np.ones((6, 2))
    file = mapped(tmp_path, X)
    for view in (file, np.asarray(file), file[2:], file.T, file.reshape(2, 6)):
        assert is_mapped(view)
    for array in (X, X[1:], np.array(file), file + 1, file[[0, 1]], [1], None):
        assert not is_mapped(array)


def test_rows_are_those_of_the_array():
    X, indices = np.arange(20.0).reshape(10, 2), np.array([7, 1, 3])
    rows = Rows(X, indices)
    np.testing.assert_array_equal(rows, X[indices])
    np.testing.assert_array_equal(rows[1:], X[[1, 3]])
    assert (rows.min(), rows.max(), rows.shape) == (2, 15, (3, 2))


def test_a_folder_of_images_is_streamed_by_workers(tmp_path):
    from PIL import Image
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(6):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{i}.png")
    folder = ImageFolder(tmp_path, ToTensor())
    net = RegularizedNetClassifier(max_epochs=2, batch_size=4, random_state=0)
    before = multiprocessing.active_children()  # of other tests, for the next search
    alone = net.fit(folder).predict_proba(folder)
    net.set_params(iterator_train__num_workers=1, iterator_valid__num_workers=1)
    np.testing.assert_array_equal(net.fit(folder).predict_proba(folder), alone)
    assert set(multiprocessing.active_children()) <= set(before)
