"""Memory maps stay in their files, and a fit takes little more memory than its data."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from skreg import RegularizedNetClassifier
from skreg.training.batches import ArrayDataset


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("params", [{}, {"batch_size": -1}, {"shuffle": False}])
def test_memory_maps_are_not_read_into_memory(tmp_path, mode, params):
    shape = 4000, 500
    mapped = np.memmap(tmp_path / "X", np.float32, "w+", shape=shape)
    mapped[:] = np.random.default_rng(0).random(shape, dtype=np.float32)
    mapped.flush()
    X = np.memmap(tmp_path / "X", np.float32, mode, shape=shape)
    y = np.arange(4000) % 2
    net = RegularizedNetClassifier(hidden_layer_sizes=4, max_epochs=2, **params)
    net.fit(X[:100], y[:100])  # what is loaded at the first fit is not counted
    tensors = ArrayDataset(X, y).tensors(torch.device("cpu"))
    assert tensors[0].data_ptr() == X.ctypes.data
    tracemalloc.start()
    net.fit(X, y, X_val=X, y_val=y).predict(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < X.nbytes / 4


@pytest.mark.slow
def test_a_fit_takes_little_more_memory_than_its_data():
    script = """
import numpy as np, resource
from skreg import RegularizedNetClassifier
net = RegularizedNetClassifier(hidden_layer_sizes=8, max_epochs=2)
net.fit(np.zeros((10, 5), np.float32), np.arange(10) % 2)

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

X = np.full((100_000, 500), 0.5, np.float32)
X[:, 0] = np.arange(100_000) / 100_000
y, before = np.arange(100_000) % 2, peak()
net.fit(X, y, np.linspace(1, 2, 100_000)).predict(X)
print((peak() - before) / X.nbytes)
"""
    pytest.importorskip("resource", reason="Windows tells no peak of memory")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.2
