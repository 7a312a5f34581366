"""Time to import this library against what it stands on, in interleaved new processes.

Usage: python benchmarks/bench_import.py [--repeats N]
"""

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

IMPORTS = {
    "torch, sklearn, skorch": "import torch, sklearn, skorch",
    "RegularizedNetClassifier": "from skreg import RegularizedNetClassifier",
    "python -m skreg --help": None,
}


def seconds(code):
    if code is None:
        command = [sys.executable, "-m", "skreg", "--help"]
    else:
        command = [sys.executable, "-c", code]
    start = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    times = {name: [] for name in IMPORTS}
    for repeat in range(options.repeats + 1):
        for name, code in IMPORTS.items():
            elapsed = seconds(code)
            if repeat:  # the first ones read files from the disk
                times[name].append(elapsed)
    base = median(times["torch, sklearn, skorch"])
    print("| | seconds (median) | ratio |\n|---|---|---|")
    for name, values in times.items():
        print(f"| {name} | {median(values):.2f} | {median(values) / base:.2f} |")


if __name__ == "__main__":
    main()
