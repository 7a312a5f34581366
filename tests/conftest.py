import os
import re
import signal
from collections import Counter

# Figures are drawn, never shown; set before anything imports matplotlib.
os.environ["MPLBACKEND"] = "Agg"
# The array-API checks of scikit-learn are skipped without; read when SciPy is imported.
os.environ["SCIPY_ARRAY_API"] = "1"

import pytest
import sklearn
import torch
from hypothesis import settings

# They hold no doctests, and modules of one name cannot be collected.
collect_ignore_glob = ["*conftest.py"]

# Their assertions explain themselves as those of test files do.
pytest.register_assert_rewrite(
    "display_data", "epoch_fits", "fit_spies", "stacked_nets"
)

# The first call of an operation loads libraries: a time limit would measure that.
settings.register_profile("skreg", deadline=None)
settings.load_profile("skreg")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The nets of the tests are too small for more, and bits must not depend on it."""
    torch.set_num_threads(1)


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C interrupt, here and in children, if the tests run in the background.

    A shell starts such programs with SIGINT ignored, which their children inherit.
    """
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def stacks(monkeypatch):
    """Sizes of the stacks that are trained; any two nets make one."""
    from skreg.batching.stacking import engine as _engine
    from skreg.batching.stacking import stack_size as _cost

    sizes, train_until = [], _engine.train_until

    def counted(candidates, pool, is_time):
        sizes.append(len(candidates))
        return train_until(candidates, pool, is_time)

    monkeypatch.setattr(_engine, "train_until", counted)
    monkeypatch.setattr(_cost, "MIN_STACK", 2)
    monkeypatch.setattr(_cost, "wins_race", lambda *args: True)
    return sizes


CHECK = re.compile(r"::test_estimator_checks_of_scikit_learn\[(\w+)\(")


def pytest_terminal_summary(terminalreporter):
    """Say how many of scikit-learn's checks each estimator has passed and failed."""
    counts, lines = {}, []
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            if found := CHECK.search(report.nodeid):
                counts.setdefault(found[1], Counter())[outcome] += 1
            lines += [text for key, text in report.user_properties if key == "checks"]
    if not counts and not lines:
        return
    version = sklearn.__version__
    terminalreporter.section(f"estimator checks of scikit-learn {version}")
    for name, of in sorted(counts.items()):
        skipped = f", {of['skipped']} skipped" if of["skipped"] else ""
        terminalreporter.line(
            f"{name}: {of['passed']} passed, {of['failed']} failed{skipped}"
        )
    for line in sorted(lines):
        terminalreporter.line(line)
