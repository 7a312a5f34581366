import os

# Figures are drawn, never shown; set before anything imports matplotlib.
os.environ["MPLBACKEND"] = "Agg"
# The array-API checks of scikit-learn are skipped without; read when SciPy is imported.
os.environ["SCIPY_ARRAY_API"] = "1"

import pytest
import torch
from hypothesis import settings

# The first call of an operation loads libraries: a time limit would measure that.
settings.register_profile("skreg", deadline=None)
settings.load_profile("skreg")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The nets of the tests are too small for more, and bits must not depend on it."""
    torch.set_num_threads(1)


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return torch.device("cuda")
