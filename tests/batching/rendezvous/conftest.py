import threading
import warnings

import pytest
from waiting_fits import small

import skreg.batching._backend


@pytest.fixture
def batches(monkeypatch):
    """Sizes of the batches that were trained."""
    sizes = []

    def train_together(jobs, **options):
        sizes.append(len(jobs))
        for job in jobs:
            job.train_alone("a test")

    monkeypatch.setattr(skreg.batching._backend, "train_together", train_together)
    return sizes


@pytest.fixture(autouse=True)
def nothing_is_left_behind(iris):
    small().fit(*iris)  # imports on first use set filters of warnings
    state = [*warnings.filters], warnings.showwarning
    yield
    assert not [t for t in threading.enumerate() if t.name == "skreg"]
    assert ([*warnings.filters], warnings.showwarning) == state
