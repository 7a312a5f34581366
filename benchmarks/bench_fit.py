"""One fit: this library and its peers on the same work, time per epoch.

All contenders run interleaved in one process, from the same initial weights where they
share a framework, and must end at about the same training loss; Keras takes part if it
is installed, with the backend that it is configured for. Prints tables of medians,
ratios and the arithmetic floor, which is the work's matrix products at the rate
measured for them; ``--json PATH`` writes the numbers with versions and device.

Usage: python benchmarks/bench_fit.py [--device cuda] [--repeats N] [--scaling]
       [--without skorch ...] [--json PATH]
"""

import argparse
import warnings
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from math import prod
from statistics import median
from time import perf_counter

import numpy as np
import skorch
import torch
import torch.nn.functional as F
from measure import in_turns, machine, synchronize, write_json
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from skorch.callbacks import Callback, EpochScoring
from skorch.helper import predefined_split

from skreg import RegularizedNetClassifier
from skreg.callbacks import AccuracyTracker
from skreg.modules import MLP, AnimalNet


@dataclass
class Work:
    """A net, its data and how to train it."""

    name: str
    sizes: tuple  # features of each layer
    X: np.ndarray
    y: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray
    epochs: int
    lambda1: float
    lambda2: float
    optimizer: type
    lr: float
    momentum: float | None
    batch_size: int
    train_accuracy: bool

    def module(self):
        if self.sizes == (3072, 128, 32, 3):
            return AnimalNet()
        return MLP(self.sizes[0], self.sizes[-1], self.sizes[1:-1])

    def optimizer_options(self):
        return {} if self.momentum is None else {"momentum": self.momentum}

    def flop_per_epoch(self):
        """Count the products of a pass forward, backward and over validation data."""
        weights = [a * b for a, b in pairwise(self.sizes)]
        forward = 2 * sum(weights)
        step = forward + 2 * weights[0] + 4 * sum(weights[1:])
        return len(self.X) * step + len(self.X_val) * forward


def animal_net(n=100, epochs=60):
    rng = np.random.default_rng(0)
    centres = 0.1 * rng.normal(size=(3, 3, 32, 32))
    y = rng.permuted(np.arange(2 * n) % 3)
    X = (centres[y] + 0.5 * rng.normal(size=(2 * n, 3, 32, 32))).astype(np.float32)
    return Work(
        f"AnimalNet, {n} images in one batch, L1 + L2, both accuracies, norm",
        (3072, 128, 32, 3),
        X[:n],
        y[:n],
        X[n:],
        y[n:],
        epochs,
        1e-3,
        1e-3,
        torch.optim.SGD,
        5e-3,
        0.9,
        -1,
        True,
    )


def digits(epochs=15):
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X, X_val, y, y_val = train_test_split(X, y, test_size=360, random_state=0)
    return Work(
        "digits, MLP 64-64-10, Adam, batches of 64, L1 + L2, validation accuracy",
        (64, 64, 10),
        X,
        y,
        X_val,
        y_val,
        epochs,
        1e-5,
        1e-4,
        torch.optim.Adam,
        1e-3,
        None,
        64,
        False,
    )


def scaled(n, hidden, epochs, batch_size=-1):
    """Random images for a net of one hidden layer, to see how cost grows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n + 100, 100)).astype(np.float32)
    y = rng.integers(0, 10, n + 100)
    parts = X[:n], y[:n], X[n:], y[n:]
    n_parameters = 100 * hidden + hidden + 10 * hidden + 10
    name = f"{n} samples, {n_parameters} parameters"
    optimizer = torch.optim.SGD, 1e-3, 0.9
    return Work(
        name,
        (100, hidden, 10),
        *parts,
        epochs,
        1e-4,
        1e-4,
        *optimizer,
        batch_size,
        True,
    )


# -- contenders: each trains, and returns (seconds per epoch, final objective) --------


def run_skreg(work, device):
    net = RegularizedNetClassifier(
        lambda *_: work.module(),
        lambda1=work.lambda1,
        lambda2=work.lambda2,
        optimizer=work.optimizer,
        lr=work.lr,
        **{f"optimizer__{k}": v for k, v in work.optimizer_options().items()},
        max_epochs=work.epochs,
        batch_size=work.batch_size,
        random_state=0,
        device=device,
        callbacks=[AccuracyTracker(on_train=True)] if work.train_accuracy else None,
    )
    start = perf_counter()
    net.fit(work.X, work.y, X_val=work.X_val, y_val=work.y_val)
    seconds = perf_counter() - start
    keys = {"train_loss", "train_penalty", "valid_loss", "valid_acc", "param_norm"}
    missing = keys - net.history[-1].keys()
    if missing:
        raise RuntimeError(f"The history lacks {missing}.")
    return seconds / work.epochs, float(net.history[-1, "train_loss"])


def run_plain(work, device):
    """Train with the loop one would write: all data in memory, nothing tuned."""
    torch.manual_seed(0)
    net = work.module().to(device)
    options = work.optimizer_options()
    optimizer = work.optimizer(net.parameters(), lr=work.lr, **options)
    X, y, X_val, y_val = (
        torch.from_numpy(a).to(device) for a in (work.X, work.y, work.X_val, work.y_val)
    )
    size = len(X) if work.batch_size == -1 else work.batch_size
    start = perf_counter()
    for _ in range(work.epochs):
        net.train()
        total = 0.0
        order = torch.randperm(len(X), device=device)
        for pick in order.split(size) if size < len(X) else [slice(None)]:
            optimizer.zero_grad()
            l1 = sum(w.abs().sum() for w in net.parameters())
            l2 = sum((w**2).sum() for w in net.parameters())
            loss = F.cross_entropy(net(X[pick]), y[pick])
            loss = loss + work.lambda1 * l1 + work.lambda2 * l2
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y[pick])
        net.eval()
        with torch.no_grad():
            if work.train_accuracy:
                (net(X).argmax(1) == y).float().mean().item()
            outputs = net(X_val)
            F.cross_entropy(outputs, y_val).item()
            (outputs.argmax(1) == y_val).float().mean().item()
            sum((w**2).sum() for w in net.parameters()).sqrt().item()
    return (perf_counter() - start) / work.epochs, total / len(X)


class SkorchNet(skorch.NeuralNetClassifier):
    """skorch as its guide shows regularisation."""

    def __init__(self, *args, lambda1=0.0, lambda2=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.lambda1 = lambda1
        self.lambda2 = lambda2

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X=X, training=training)
        if training:
            weights = list(self.module_.parameters())
            loss = loss + self.lambda1 * sum(w.abs().sum() for w in weights)
            loss = loss + self.lambda2 * sum((w**2).sum() for w in weights)
        return loss


class Norm(Callback):
    def on_epoch_end(self, net, **kwargs):
        norm = sum((w**2).sum() for w in net.module_.parameters()).sqrt().item()
        net.history.record("param_norm", norm)


def run_skorch(work, device):
    torch.manual_seed(0)
    callbacks = [Norm()]
    if work.train_accuracy:
        score = EpochScoring(
            "accuracy", lower_is_better=False, name="train_acc", on_train=True
        )
        callbacks.append(score)
    net = SkorchNet(
        work.module(),
        criterion=torch.nn.CrossEntropyLoss,
        lambda1=work.lambda1,
        lambda2=work.lambda2,
        optimizer=work.optimizer,
        lr=work.lr,
        **{f"optimizer__{k}": v for k, v in work.optimizer_options().items()},
        max_epochs=work.epochs,
        batch_size=work.batch_size,
        iterator_train__shuffle=work.batch_size != -1,
        train_split=predefined_split(skorch.dataset.Dataset(work.X_val, work.y_val)),
        device=device,
        callbacks=callbacks,
        verbose=0,
    )
    start = perf_counter()
    net.fit(work.X, work.y)
    seconds = perf_counter() - start
    return seconds / work.epochs, net.history[-1, "train_loss"]


def run_mlp(work, device):
    """Train scikit-learn's MLP: no L1, no norms; validation accuracy where ours has it.

    Its alpha is halved and divided by the batch's size: alpha = 2 n lambda2.
    """
    sgd = work.optimizer is torch.optim.SGD
    size = len(work.X) if work.batch_size == -1 else work.batch_size
    options = {"momentum": work.momentum, "nesterovs_momentum": False} if sgd else {}
    net = MLPClassifier(
        work.sizes[1:-1],
        solver="sgd" if sgd else "adam",
        alpha=2 * size * work.lambda2,
        batch_size=size,
        learning_rate_init=work.lr,
        max_iter=work.epochs,
        n_iter_no_change=work.epochs + 1,
        random_state=0,
        **options,
    )
    X, X_val = (a.reshape(len(a), -1) for a in (work.X, work.X_val))
    start = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(X, work.y)
    seconds = (perf_counter() - start) / work.epochs
    start = perf_counter()
    net.score(X_val, work.y_val)
    return seconds + perf_counter() - start, net.loss_


def run_keras(work, device):
    """Train with Keras: both penalties and accuracies, no norms."""
    import keras

    keras.utils.set_random_seed(0)

    def dense(n_out, activation):
        return keras.layers.Dense(
            n_out,
            activation,
            kernel_initializer=keras.initializers.VarianceScaling(
                1 / 3, "fan_in", "uniform"
            ),  # PyTorch's
            kernel_regularizer=keras.regularizers.L1L2(work.lambda1, work.lambda2),
            bias_regularizer=keras.regularizers.L1L2(work.lambda1, work.lambda2),
        )

    hidden, last = work.sizes[1:-1], work.sizes[-1]
    net = keras.Sequential(
        [
            keras.layers.Input((work.sizes[0],)),
            *(dense(n, "relu") for n in hidden),
            dense(last, None),
        ]
    )
    kind = {torch.optim.SGD: "SGD", torch.optim.Adam: "Adam"}[work.optimizer]
    net.compile(
        getattr(keras.optimizers, kind)(work.lr, **work.optimizer_options()),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    X, X_val = (a.reshape(len(a), -1) for a in (work.X, work.X_val))
    options = {
        "batch_size": len(X) if work.batch_size == -1 else work.batch_size,
        "validation_data": (X_val, work.y_val),
        "verbose": 0,
    }
    net.fit(X, work.y, epochs=2, **options)  # compiles
    n, start = work.epochs - 2, perf_counter()
    history = net.fit(X, work.y, epochs=n, **options).history
    return (perf_counter() - start) / n, history["loss"][-1]


CONTENDERS = {
    "skreg": run_skreg,
    "plain PyTorch": run_plain,
    "skorch": run_skorch,
    "scikit-learn MLP (L2 only, no norms)": run_mlp,
}
if find_spec("keras"):
    CONTENDERS["Keras (no norms)"] = run_keras
# scikit-learn has no L1, and initial weights of its own.
TOLERANCES = {"skreg": 0.1, "skorch": 0.1, "Keras (no norms)": 0.15}


def gemm_rate(work, device):
    """Return the rate in FLOP/s of the work's largest product."""
    n_in, n_out = max(pairwise(work.sizes), key=prod)
    n = len(work.X) if work.batch_size == -1 else work.batch_size
    a, b = torch.randn(n, n_in, device=device), torch.randn(n_in, n_out, device=device)
    times = []
    for _ in range(30):
        synchronize(device)
        start = perf_counter()
        for _ in range(10):
            torch.mm(a, b)
        synchronize(device)
        times.append((perf_counter() - start) / 10)
    return 2 * n * n_in * n_out / median(times)


def compare(work, contenders, options):
    """Run the contenders in turns; return all times, losses and the floor."""
    runs = in_turns(
        {name: partial(CONTENDERS[name], work, options.device) for name in contenders},
        options.repeats,
    )
    times = {name: [seconds for seconds, _ in found] for name, found in runs.items()}
    losses = {name: float(found[-1][1]) for name, found in runs.items()}
    floor = work.flop_per_epoch() / gemm_rate(work, options.device)
    reference = losses["plain PyTorch"]
    for name in TOLERANCES.keys() & losses.keys():
        if abs(losses[name] - reference) > TOLERANCES[name] * reference:
            raise RuntimeError(
                f"{work.name}: {name} ended at {losses[name]}, not {reference}."
            )
    return times, losses, floor


def report(work, times, losses, floor):
    medians = {name: median(values) for name, values in times.items()}
    base = medians["skreg"]
    print(f"\n{work.name}\n\n| | ms per epoch | best, worst | skreg / this | loss |")
    print("|---|---|---|---|---|")
    for name, seconds in medians.items():
        spread = f"{1e3 * min(times[name]):.2f}, {1e3 * max(times[name]):.2f}"
        cells = f"{1e3 * seconds:.2f} | {spread} | {base / seconds:.2f}"
        print(f"| {name} | {cells} | {losses[name]:.3f} |")
    print(f"| arithmetic floor | {1e3 * floor:.2f} | | {base / floor:.2f} | |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--scaling", action="store_true", help="against n and size")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--json")
    options = parser.parse_args()
    print(machine(options.device))
    rows = []
    everybody = [
        name for name in CONTENDERS if not any(map(name.__contains__, options.without))
    ]
    work_and_peers = [(animal_net(), everybody), (digits(), everybody)]
    if options.scaling:
        peers = ["skreg", "plain PyTorch"]
        work_and_peers = [
            *(
                (scaled(n, 100, max(10, 20_000 // n)), peers)
                for n in (100, 1000, 10_000, 50_000)
            ),
            *((scaled(200, h, e), peers) for h, e in ((9, 60), (90, 60), (900, 30))),
            *((scaled(200, h, e), peers) for h, e in ((9_000, 10), (90_000, 3))),
        ]
    for work, contenders in work_and_peers:
        times, losses, floor = compare(work, contenders, options)
        report(work, times, losses, floor)
        rows.append(
            {
                "work": work.name,
                "seconds_per_epoch": times,
                "final_loss": losses,
                "floor": floor,
            }
        )
    write_json(options.json, options.device, rows)


if __name__ == "__main__":
    main()
