"""A change: two checkouts of this library on the same work, in turns.

Each checkout has a process of its own, which waits while the other one works. Where a
process lies in memory makes it up to 8 % faster or slower for all of its life, so that
several pairs of processes are measured. The table shows medians, the geometric mean
over pairs of the median ratio of neighbouring runs, and its range; quiet and, with
``--busy``, beside two processes that want the processor all the time.

Usage: git worktree add ../before HEAD~1
       python benchmarks/bench_change.py ../before . [--busy] [--json PATH]
       [--processes N] [--repeats N]
       [--rows fit-animal fit-digits search-90 search-cnn early]
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from math import exp, log
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

HERE = Path(__file__).parent


def fit_animal():
    """Fit AnimalNet on 100 images."""
    from bench_fit import animal_net, run_skreg

    run_skreg(animal_net(), "cpu")


def fit_digits():
    """Fit a small MLP on digits."""
    from bench_fit import digits, run_skreg

    run_skreg(digits(), "cpu")


def search_90():
    """Search 90 fits of a small MLP under the backend."""
    from bench_search import digits_search, run_backend

    run_backend(digits_search(6, 5, 3), "cpu")


def search_cnn():
    """Search 36 fits of a small CNN under the backend."""
    from bench_search import cnn_search, run_backend

    run_backend(cnn_search(), "cpu")


def early():
    """Search 30 fits with early stopping under the backend."""
    import joblib
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV

    from skreg import RegularizedNetClassifier

    X, y = load_digits(return_X_y=True)
    net = RegularizedNetClassifier(
        hidden_layer_sizes=64,
        early_stopping=True,
        patience=1000,
        max_epochs=15,
        random_state=0,
    )
    grid = {"lambda2": np.logspace(-6, -2, 10)}
    with joblib.parallel_config("skreg"):
        GridSearchCV(net, grid, cv=3).fit((X / 16).astype(np.float32), y)


ROWS = {
    "fit-animal": fit_animal,
    "fit-digits": fit_digits,
    "search-90": search_90,
    "search-cnn": search_cnn,
    "early": early,
}


def serve() -> None:
    """Run the rows that are asked for on standard input; answer with their seconds."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        start = perf_counter()
        ROWS[line.strip()]()
        print(perf_counter() - start, flush=True)


class Checkout:
    """A process that runs rows with the library of a checkout.

    Parameters
    ----------
    path : Path
        The checkout; the work itself is that of this file's folder.
    """

    def __init__(self, path: Path):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{path.resolve()}:{HERE}"},
        )

    def seconds(self, row: str) -> float:
        self.process.stdin.write(row + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The process for {row!r} has ended; see its error.")
        return float(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def _spin():
    while True:
        pass


@contextmanager
def spinning(n: int):
    """Keep `n` processes busy meanwhile."""
    processes = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(n)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def compare(before: Checkout, after: Checkout, row: str, repeats: int) -> list:
    """Return pairs of seconds of neighbouring runs."""
    pairs = []
    for i in range(repeats + 1):
        first, second = (before, after) if i % 2 else (after, before)
        times = {first: first.seconds(row), second: second.seconds(row)}
        pairs.append((times[before], times[after]))
    return pairs[1:]  # the first run of each loads libraries


def measured(options, n_others: int) -> list[dict]:
    """Return medians of both checkouts by row, and ratios by pair of processes."""
    times = {row: [] for row in options.rows}
    for i in range(options.processes):
        started = [Checkout(path) for path in options.checkouts[:: -1 if i % 2 else 1]]
        before, after = started[:: -1 if i % 2 else 1]
        try:
            with spinning(n_others):
                for row in options.rows:
                    times[row].append(compare(before, after, row, options.repeats))
        finally:
            for checkout in started:
                checkout.close()
    found = []
    for row, of_processes in times.items():
        ratios = [median(b / a for a, b in pairs) for pairs in of_processes]
        pairs = [pair for pairs in of_processes for pair in pairs]
        found.append(
            {
                "row": row,
                "before": median(a for a, _ in pairs),
                "after": median(b for _, b in pairs),
                "ratio": exp(fmean(map(log, ratios))),
                "lowest": min(ratios),
                "highest": max(ratios),
                "others": n_others,
            }
        )
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="BEFORE AFTER")
    parser.add_argument("--repeats", type=int, default=5, help="of each process")
    parser.add_argument("--processes", type=int, default=4, help="of each checkout")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--busy", action="store_true", help="also beside two others")
    parser.add_argument("--json")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    if len(options.checkouts) != 2:
        parser.error("two checkouts are needed: before and after the change")
    from measure import machine, write_json

    print(machine())
    found = []
    for n_others in (0, 2) if options.busy else (0,):
        print(f"\n{n_others} other processes\n")
        print("| | before, s | after, s | after / before | by process |")
        print("|---|---|---|---|---|", flush=True)
        rows = measured(options, n_others)
        for of in rows:
            print(
                f"| {of['row']} | {of['before']:.3f} | {of['after']:.3f} "
                f"| {of['ratio']:.3f} | {of['lowest']:.2f} to {of['highest']:.2f} |",
                flush=True,
            )
        found += rows
    write_json(options.json, "cpu", found)


if __name__ == "__main__":
    main()
