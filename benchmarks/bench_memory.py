"""Peak memory of a fit and a prediction, as a multiple of the data's own size.

The data are 50,000 x 3072 numbers of float32 (614 MB), the net has one hidden layer of
100. Each row is a process of its own; what importing takes is not counted.
"""

import argparse
import resource
import subprocess
import sys

import numpy as np

WORK = ("fit", "sample_weight", "zero weights", "early_stopping")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(work: str, n_samples: int) -> None:
    from skreg import RegularizedNetClassifier

    net = RegularizedNetClassifier(max_epochs=1, device="cpu")
    net.fit(np.eye(20, dtype="f4"), np.arange(20) % 2)
    before = peak()
    X, y = np.empty((n_samples, 3072), dtype="f4"), np.arange(n_samples) % 10
    rng = np.random.default_rng(0)
    for part in np.array_split(X, 100):
        rng.random(out=part, dtype="f4")
    params, weight = {}, None
    if work == "sample_weight":
        weight = rng.random(n_samples)
    elif work == "zero weights":
        weight = (rng.random(n_samples) > 0.1).astype(float)
    elif work == "early_stopping":
        params["early_stopping"] = True
    net.set_params(batch_size=500, **params).fit(X, y, weight)
    fitted = peak()
    net.predict(X)
    ratios = [(number - before) / X.nbytes for number in (fitted, peak())]
    print(f"{work:16}{ratios[0]:8.2f}{ratios[1]:10.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--work", choices=WORK, help="one row, in this process")
    options = parser.parse_args()
    if options.work:
        measure(options.work, options.samples)
        return
    print(f"{'peak / data':16}{'fit':>8}{'+ predict':>10}", flush=True)
    for work in WORK:
        command = [sys.executable, __file__, "--work", work]
        subprocess.run([*command, "--samples", str(options.samples)], check=True)


if __name__ == "__main__":
    main()
