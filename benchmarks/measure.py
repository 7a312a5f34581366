"""What the benchmarks share: machine, a net, times taken in turns, numbers on disk."""

import json
import platform
import sys
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter

import torch
from torch import nn

LIBRARIES = ("torch", "skorch", "scikit-learn", "numpy", "joblib", "keras", "jax")


def machine(device: str = "cpu") -> dict:
    """Return date, device, and the versions of what is installed."""
    return {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: v for name in LIBRARIES if (v := _version(name))},
    }


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def small_cnn(n_channels: int, size: int) -> nn.Module:
    """Return two convolutions and a linear layer, for images of size x size pixels."""
    return nn.Sequential(
        nn.Conv2d(n_channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * (size // 2) ** 2, 10),
    )


def synchronize(device: str) -> None:
    """Wait for what a GPU has been given to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(function: Callable[[], object], device: str = "cpu") -> float:
    """Return how long a call takes."""
    synchronize(device)
    start = perf_counter()
    function()
    synchronize(device)
    return perf_counter() - start


def in_turns(
    functions: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """Call all functions, then all again; return what each has returned.

    A first call of each, which loads libraries, is not counted.
    """
    for function in functions.values():
        function()
    found = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            found[name].append(function())
    return found


def write_json(path: str | None, device: str, rows: list[dict]) -> None:
    """Write rows and machine, if there is a path."""
    if path:
        with open(path, "w") as file:
            json.dump({**machine(device), "rows": rows}, file, indent=1)
