import time

import pytest
from sklearn.datasets import load_digits

from skreg.batching.processes import sharing
from skreg.batching.processes.workers import Workers, workers


@pytest.fixture
def sent(monkeypatch):
    """Sizes of the parcels that other processes get, which are there at once."""
    sizes, submit = [], Workers.submit

    def noted(self, parcel, settings):
        sizes.append(len(parcel))
        return submit(self, parcel, settings)

    monkeypatch.setattr(Workers, "submit", noted)
    started = workers(1)
    while started.n_ready < 1:  # it imports its libraries
        time.sleep(0.05)
    monkeypatch.setattr(Workers, "n_ready", property(lambda self: self.n))
    return sizes


@pytest.fixture
def long(monkeypatch):
    """Let any search be worth other processes, on a machine of two cores."""
    monkeypatch.setattr(sharing, "_n_processes", lambda: 2)
    monkeypatch.setattr(sharing, "SHORT_WORK", 0.0)
    monkeypatch.setattr(sharing, "START_SECONDS", -10.0)


@pytest.fixture(scope="session")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X[:300] / 16).astype("float32"), y[:300]
