"""What importing an estimator costs, beyond the libraries that it stands on."""

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

CONTENDERS = {
    "torch, sklearn, skorch": "import torch, sklearn, skorch",
    "skreg": "import skreg; skreg.RegularizedNetClassifier",
}
TIMED = "import resource\n{}\nu = resource.getrusage(0)\nprint(u.ru_utime + u.ru_stime)"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    wall = {name: [] for name in CONTENDERS}
    cpu = {name: [] for name in CONTENDERS}
    for _ in range(options.repeats):
        for name, code in CONTENDERS.items():
            start = perf_counter()
            command = [sys.executable, "-c", TIMED.format(code)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            wall[name].append(perf_counter() - start)
            cpu[name].append(float(done.stdout))
    print(f"{'import':26}{'wall, s':>10}{'ratio':>8}{'CPU, s':>10}{'ratio':>8}")
    first = next(iter(CONTENDERS))
    for name in CONTENDERS:
        row = [
            number
            for times in (wall, cpu)
            for number in (
                median(times[name]),
                median(times[name]) / median(times[first]),
            )
        ]
        print(f"{name:26}{row[0]:10.2f}{row[1]:8.2f}{row[2]:10.2f}{row[3]:8.2f}")


if __name__ == "__main__":
    main()
