"""What adversarial training gains, and what it takes: digits, means of several seeds.

Usage: python benchmarks/bench_adversarial.py [--seeds N]
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits

from skreg import RegularizedNetClassifier
from skreg.robustness import robust_accuracy

TRAINING = {
    "nothing": {},
    "adversarial_eps=0.1": {"adversarial_eps": 0.1},
    "adversarial_eps=0.1, 3 steps": {"adversarial_eps": 0.1, "adversarial_steps": 3},
    "adversarial_eps=0.5, l2": {"adversarial_eps": 0.5, "adversarial_norm": "l2"},
}
ATTACKS = ({"eps": 0.1}, {"eps": 0.5, "norm": "l2"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(parser.parse_args().seeds)
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X, y, X_test, y_test = X[:1000], y[:1000], X[1000:], y[1000:]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| trained with | accuracy | PGD linf 0.1 | PGD l2 0.5 | ms per epoch |")
    print("|---|---|---|---|---|")
    for name, params in TRAINING.items():
        rows = []
        for seed in seeds:
            net = RegularizedNetClassifier(max_epochs=20, random_state=seed, **params)
            net.fit(X, y)
            attacked = [robust_accuracy(net, X_test, y_test, **a) for a in ATTACKS]
            milliseconds = 1e3 * np.median(net.history[:, "dur"])
            rows.append([net.score(X_test, y_test), *attacked, milliseconds])
        clean, linf, l2, milliseconds = np.mean(rows, axis=0)
        print(f"| {name} | {clean:.3f} | {linf:.3f} | {l2:.3f} | {milliseconds:.1f} |")


if __name__ == "__main__":
    main()
