"""The name of the backend and its options."""

import inspect
import subprocess
import sys
from pathlib import Path

import joblib
import pytest

import skreg.batching._backend


def test_joblib_knows_the_name_before_it_is_used():
    script = """if True:
        import sys, joblib, skreg
        assert "torch" not in sys.modules
        assert joblib.Parallel(backend="skreg")([joblib.delayed(pow)(2, 3)]) == [8]
        with joblib.parallel_config("skreg"):
            assert joblib.Parallel()([joblib.delayed(pow)(2, 3)]) == [8]
    """
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_package_alone_loads_nothing():
    script = "import skreg, sys; assert not {'joblib', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_guide_names_the_options():
    guide = Path(__file__).parents[3] / "docs" / "guide" / "batching.rst"
    text = guide.read_text(encoding="utf-8")
    options = inspect.signature(skreg.batching.SkregBackend).parameters
    for name, option in options.items():
        if name not in ("nesting_level", "inner_max_num_threads"):
            is_told = f"``{name}={option.default}``" in text
            assert is_told or (option.default is None and f"``{name}=" in text), name


@pytest.mark.parametrize("value", [0, -1, 2.5, True, 10**9, "many"])
def test_bad_number_of_fits(value):
    message = f"max_in_flight={value!r} must be an integer from 1 to 100000"
    with pytest.raises(ValueError, match=message):
        joblib.parallel_config("skreg", max_in_flight=value)
