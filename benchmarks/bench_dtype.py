"""What training in float64 costs against float32: time per epoch, interleaved medians.

Usage: python benchmarks/bench_dtype.py [--device cuda] [--repeats N]
"""

import argparse
from statistics import median
from time import perf_counter

import numpy as np
import torch
from sklearn.datasets import load_digits

from skreg import RegularizedNetClassifier
from skreg.modules import AnimalNet


def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def photographs():
    rng = np.random.default_rng(0)
    return rng.normal(size=(1000, 3, 32, 32)), rng.integers(0, 3, 1000)


WORK = {
    "digits, MLP 64-100-10, batches of 64": (digits, {}, 10),
    "1000 images 3x32x32, AnimalNet, one batch": (
        photographs,
        {"module": AnimalNet, "batch_size": -1},
        20,
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    name = "CPU" if options.device == "cpu" else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| work | float32, ms per epoch | float64 | ratio |\n|---|---|---|---|")
    for work, (load, params, epochs) in WORK.items():
        X, y = load()
        times = {np.float32: [], np.float64: []}
        for _ in range(options.repeats):
            for dtype, seconds in times.items():
                net = RegularizedNetClassifier(
                    device=options.device, max_epochs=epochs, random_state=0, **params
                )
                start = perf_counter()
                net.fit(X.astype(dtype), y)
                seconds.append((perf_counter() - start) / epochs)
        single, double = (1e3 * median(seconds) for seconds in times.values())
        print(f"| {work} | {single:.1f} | {double:.1f} | {double / single:.2f} |")


if __name__ == "__main__":
    main()
