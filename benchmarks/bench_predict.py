"""What predictions cost beside the module's own forward pass.

The module is called with all rows at once, without gradients; ``predict`` and
``predict_proba`` also check the data, make probabilities of logits, and look for
numbers that are not finite; ``score`` compares as well.

Usage: python benchmarks/bench_predict.py [--device cuda] [--repeats N] [--json PATH]
"""

import argparse
from statistics import median

import numpy as np
import torch
from measure import in_turns, machine, seconds, small_cnn, write_json

from skreg import RegularizedNetClassifier
from skreg.modules import MLP, AnimalNet

NETS = {
    "MLP 64-64-10": (lambda: MLP(64, 10, 64), (64,)),
    "MLP 784-256-10": (lambda: MLP(784, 10, 256), (784,)),
    "AnimalNet": (AnimalNet, (3, 32, 32)),
    "small CNN, 3x32x32": (lambda: small_cnn(3, 32), (3, 32, 32)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json")
    options = parser.parse_args()
    print(machine(options.device))
    rng, rows = np.random.default_rng(0), []
    print("\n| net | rows | module, ms | predict | predict_proba | score |")
    print("|---|---|---|---|---|---|")
    for name, (make, shape) in NETS.items():
        X = rng.normal(size=(10_000, *shape)).astype(np.float32)
        y = rng.integers(0, 3, len(X))
        torch.manual_seed(0)
        net = RegularizedNetClassifier(
            make(), max_epochs=1, random_state=0, device=options.device
        )
        if name != "AnimalNet":
            y[:10] = np.arange(10)
        net.fit(X[:100], y[:100])
        for n in (1000, 10_000):
            medians = compare(net, X[:n], y[:n], options)
            base = medians["module"]
            ratios = [medians[m] / base for m in ("predict", "predict_proba", "score")]
            cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"| {name} | {n} | {1e3 * base:.2f} | {cells} |")
            rows.append({"net": name, "rows": n, "seconds": medians})
    write_json(options.json, options.device, rows)


def compare(net, X, y, options):
    module = net.module_.eval()

    def forward():
        with torch.no_grad():
            module(torch.from_numpy(X).to(options.device)).cpu()

    calls = {
        "module": forward,
        "predict": lambda: net.predict(X),
        "predict_proba": lambda: net.predict_proba(X),
        "score": lambda: net.score(X, y),
    }
    timed = {
        name: lambda call=call: seconds(call, options.device)
        for name, call in calls.items()
    }
    times = in_turns(timed, options.repeats)
    return {name: median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
