"""What each regulariser adds to an epoch: single fits, stacks of 64, and plain PyTorch.

All are interleaved; ratios are medians of the ratios to the epoch without regulariser
that was measured just before. A peer is a loop of plain PyTorch that does the same, and
its ratio is to the plain loop without it.

Usage: python benchmarks/bench_regularizers.py [--device cuda] [--repeats N]
       [--rows mixup sam_rho ...] [--nets digits animal stack] [--json PATH]
"""

import argparse
import copy
import warnings
from statistics import median
from time import perf_counter

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from measure import machine, synchronize, write_json
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from skreg import RegularizedNetClassifier
from skreg.modules import MLP, AnimalNet

N_NETS = 64
# Of a single net, and of the nets of a stack.
ROWS = {
    "lambda1, lambda2": ({"lambda1": 1e-5, "lambda2": 1e-4}, {"lambda2": (1e-6, 1e-2)}),
    "max_norm": ({"max_norm": 3.0}, {"max_norm": (1, 4)}),
    "proximal": (
        {"lambda1": 1e-5, "proximal": True},
        {"lambda1": (1e-6, 1e-4), "proximal": True},
    ),
    "lambda_group": ({"lambda_group": 1e-4}, {"lambda_group": (1e-5, 1e-3)}),
    "label_smoothing": ({"label_smoothing": 0.1}, {"label_smoothing": (0.01, 0.3)}),
    "mixup": ({"mixup": 0.2}, {"mixup": (0.1, 1)}),
    "cutmix": ({"cutmix": 0.5}, {"cutmix": (0.1, 1)}),
    "input_dropout": ({"input_dropout": 0.1}, {"input_dropout": (0.05, 0.5)}),
    "max_grad_norm": ({"max_grad_norm": 1.0}, {"max_grad_norm": (0.1, 2)}),
    "average": ({"average": "ema"}, {"average": "ema", "average__decay": (0.9, 0.99)}),
    "lr_schedule": ({"lr_schedule": "cosine"}, {"lr_schedule": "cosine"}),
    "sam_rho": ({"sam_rho": 0.05}, {"sam_rho": (0.01, 0.1)}),
    "adversarial_eps": ({"adversarial_eps": 0.1}, {"adversarial_eps": (0.01, 0.2)}),
    "batch norm": ({"module__batch_norm": True}, {"module__batch_norm": True}),
}


def digits():
    """Return digits, an MLP 64-64-10, and options of the fit."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    return X, y, MLP(64, 10, hidden_layer_sizes=64), {"batch_size": 64}


def animal():
    """Return 300 random images of the size of AnimalNet, and this net."""
    rng = np.random.default_rng(0)
    X = rng.random((300, 3, 32, 32), dtype=np.float32)
    options = {"optimizer": torch.optim.SGD, "lr": 0.01, "batch_size": 100}
    return X, rng.integers(3, size=300), AnimalNet(), options


def fit(data, params, device: str) -> float:
    """Return the seconds of an epoch of a single fit."""
    X, y, module, options = data
    if "module__batch_norm" in params:
        module = MLP(64, 10, hidden_layer_sizes=64, batch_norm=True)
        params = {}
    net = RegularizedNetClassifier(
        module, max_epochs=8, random_state=0, device=device, **options, **params
    )
    net.fit(X, y)
    return median(net.history[1:, "dur"])


def fit_stack(data, params, device: str) -> float:
    """Return the seconds of a fit of 64 nets of 6 epochs together."""
    X, y, _, options = data
    net = RegularizedNetClassifier(
        hidden_layer_sizes=64, max_epochs=6, random_state=0, device=device, **options
    )
    nets = []
    for i in range(N_NETS):
        own = {
            name: float(np.geomspace(*value, N_NETS)[i])
            if isinstance(value, tuple)
            else value
            for name, value in params.items()
        }
        nets.append(clone(net).set_params(**own))
    start = perf_counter()
    with joblib.parallel_config("skreg"):
        joblib.Parallel()(joblib.delayed(net.fit)(X, y) for net in nets)
    synchronize(device)
    seconds = perf_counter() - start
    paths = {net.training_path_ for net in nets}
    if paths != {"stack"}:
        reasons = nets[0].training_path_reasons_["stack"]
        raise RuntimeError(f"{params} trained as {paths}: {reasons}.")
    return seconds


class Loop:
    """A loop of plain PyTorch.

    Parameters
    ----------
    data : tuple
    device : str
    name : str or None
        The row that it is a peer of.
    """

    def __init__(self, data, device: str, name: str | None):
        X, y, module, options = data
        self.name = name
        self.X, self.y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
        self.size = options["batch_size"]
        self.module = copy.deepcopy(module).to(device)
        kind = options.get("optimizer", torch.optim.Adam)
        lr = options.get("lr", 1e-3)
        self.optimizer = kind(self.module.parameters(), lr=lr)
        self.n_classes = int(y.max()) + 1
        self.mixup = v2.MixUp(alpha=0.2, num_classes=self.n_classes)
        if name == "average":
            average = get_ema_multi_avg_fn(0.99)
            self.averaged = AveragedModel(self.module, multi_avg_fn=average)
        if name == "lr_schedule":
            kind = torch.optim.lr_scheduler.CosineAnnealingLR
            self.schedule = kind(self.optimizer, 10_000)

    def epoch(self) -> float:
        """Return the seconds of an epoch."""
        start = perf_counter()
        order = torch.randperm(len(self.X), device=self.X.device)
        losses = [
            self.step(order[i]) for i in torch.arange(len(order)).split(self.size)
        ]
        torch.stack(losses).tolist()
        return perf_counter() - start

    def loss(self, x, y):
        options = {"label_smoothing": 0.1} if self.name == "label_smoothing" else {}
        loss = F.cross_entropy(self.module(x), y, **options)
        if self.name == "lambda1, lambda2":
            for w in self.module.parameters():
                loss = loss + 1e-5 * w.abs().sum() + 1e-4 * w.square().sum()
        return loss

    def step(self, rows):
        """Take a step; return the loss."""
        x, y = self.X[rows], self.y[rows]
        if self.name == "mixup":
            x, y = self.mixup(x.flatten(1)[:, None, None], y)
            x = x.reshape(len(x), *self.X.shape[1:])
        if self.name == "input_dropout":
            x = F.dropout(x, 0.1)
        if self.name == "adversarial_eps":
            x = x.requires_grad_()
            (slope,) = torch.autograd.grad(self.loss(x, y), x)
            x = (x.detach() + 0.1 * slope.sign()).clamp(0, 1)
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        weights = list(self.module.parameters())
        if self.name == "sam_rho":
            with torch.no_grad():
                norm = torch.stack([w.grad.norm() for w in weights]).norm()
                moves = [0.05 * w.grad / norm for w in weights]
                for w, move in zip(weights, moves, strict=True):
                    w.add_(move)
            self.optimizer.zero_grad()
            self.loss(x, y).backward()
            with torch.no_grad():
                for w, move in zip(weights, moves, strict=True):
                    w.sub_(move)
        if self.name == "max_grad_norm":
            nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        if self.name == "average":
            self.averaged.update_parameters(self.module)
        if self.name == "lr_schedule":
            self.schedule.step()
        return loss.detach()


PEERS = {
    *("lambda1, lambda2", "label_smoothing", "mixup", "input_dropout", "max_grad_norm"),
    *("average", "lr_schedule", "sam_rho", "adversarial_eps"),
}


def ratio(run, plain, repeats: int) -> float:
    """Return the median ratio of neighbouring runs; the first ones load libraries."""
    pairs = [(plain(), run()) for _ in range(repeats + 1)]
    return median(b / a for a, b in pairs[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    nets = ["digits", "animal", "stack"]
    parser.add_argument("--nets", nargs="*", default=nets, choices=nets)
    parser.add_argument("--json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine(options.device))
    print(f"\n| | {' | '.join(c for n in options.nets for c in columns(n))} |")
    print("|---" * (1 + sum(len(columns(n)) for n in options.nets)) + "|")
    found = []
    for name in options.rows:
        row = {"row": name}
        for net in options.nets:
            row |= measured(name, net, options)
        found.append(row)
        cells = [f"{v:.2f}" if isinstance(v, float) else v for v in row.values()]
        print(f"| {' | '.join(cells)} |", flush=True)
    write_json(options.json, options.device, found)


def columns(net: str) -> list[str]:
    """Return the heads of the columns of a net."""
    return [net] if net == "stack" else [net, f"{net}, PyTorch"]


def measured(name: str, net: str, options) -> dict[str, float | str]:
    """Return the ratios of a row for a net."""
    alone, together = ROWS[name]
    if net == "stack":
        data, device = digits(), options.device
        n = max(3, options.repeats // 3)
        run = fit_stack
        params = together
    else:
        data, device = {"digits": digits, "animal": animal}[net](), options.device
        n, run, params = options.repeats, fit, alone
        if net == "animal" and name == "batch norm":
            return dict.fromkeys(columns(net), "")
    mine = ratio(
        lambda: run(data, params, device), lambda: run(data, {}, device), repeats=n
    )
    if net == "stack":
        return {net: mine}
    peer = ""
    if name in PEERS:
        loops = Loop(data, device, None), Loop(data, device, name)
        peer = ratio(loops[1].epoch, loops[0].epoch, 3 * n)
    return dict(zip(columns(net), (mine, peer), strict=True))


if __name__ == "__main__":
    main()
