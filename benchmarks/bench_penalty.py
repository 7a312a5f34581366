"""What the L1 and L2 penalties add to a training step, and to an epoch of a fit.

Interleaved runs in one process; medians; AnimalNet, full batch of 100 images, SGD with
momentum. Usage: python benchmarks/bench_penalty.py [--repeats N] [--samples N]
"""

import argparse
from statistics import median
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F

from skreg import RegularizedNetClassifier
from skreg.modules import AnimalNet
from skreg.regularizers import ElasticNet
from skreg.training.regularizing import Active, penalized

LAMBDA = 1e-3


def no_penalty(net):
    return lambda loss: loss


def python_sums(net):
    params = list(net.parameters())

    def objective(loss):
        l1 = sum(w.abs().sum() for w in params)
        return loss + LAMBDA * l1 + LAMBDA * sum((w**2).sum() for w in params)

    return objective


def written_out(net):
    work, weights = Active([ElasticNet(LAMBDA, LAMBDA)]), dict(net.named_parameters())
    work.begin(net)
    return lambda loss: penalized(loss, work, weights)[0]


def time_step(penalty, X, y, n_steps):
    torch.manual_seed(0)
    net = AnimalNet()
    objective = penalty(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=5e-3, momentum=0.99)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    start = perf_counter()
    for _ in range(n_steps):
        optimizer.zero_grad()
        objective(F.cross_entropy(net(X), y)).backward()
        optimizer.step()
    return (perf_counter() - start) / n_steps


def time_fit(coefficient, X, y, n_epochs):
    net = RegularizedNetClassifier(
        AnimalNet,
        lambda1=coefficient,
        lambda2=coefficient,
        optimizer=torch.optim.SGD,
        lr=5e-3,
        optimizer__momentum=0.99,
        batch_size=-1,
        max_epochs=n_epochs,
        random_state=0,
        device="cpu",
    )
    start = perf_counter()
    net.fit(X, y)
    return (perf_counter() - start) / n_epochs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    X = rng.normal(size=(options.samples, 3, 32, 32)).astype(np.float32)
    y = rng.integers(0, 3, options.samples)
    contenders = {
        "step, no penalty": lambda: time_step(no_penalty, X, y, options.epochs),
        "step, Python sums": lambda: time_step(python_sums, X, y, options.epochs),
        "step, ElasticNet": lambda: time_step(written_out, X, y, options.epochs),
        "fit, no penalty": lambda: time_fit(0.0, X, y, options.epochs),
        "fit, L1 + L2": lambda: time_fit(LAMBDA, X, y, options.epochs),
    }
    times = {name: [] for name in contenders}
    for _ in range(options.repeats):
        for name, run in contenders.items():
            times[name].append(1e3 * run())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| | ms (median) | ratio |\n|---|---|---|")
    for name, values in times.items():
        base = times[f"{name.split(',')[0]}, no penalty"]
        print(
            f"| {name} | {median(values):.2f} | {median(values) / median(base):.2f} |"
        )


if __name__ == "__main__":
    main()
