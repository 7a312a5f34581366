"""A whole search: the backend "skreg" against one fit after the other, and peers.

All of ``GridSearchCV.fit`` is timed, contenders interleaved in one process; medians and
ratios. Each row checks that contenders of this library found the same scores. The floor
is the search's matrix products at the rate measured for the largest of them.

Usage: python benchmarks/bench_search.py [--device cuda] [--repeats N] [--data PATH]
       [--rows 90 500 animal cnn] [--growth] [--without skorch ...] [--json PATH]

``--data`` is a folder or zip with a folder of images per class, for the row "animal".
"""

import argparse
import warnings
from itertools import pairwise
from math import prod
from statistics import median
from time import perf_counter

import joblib
import numpy as np
import skorch
import torch
from measure import machine, small_cnn, synchronize, write_json
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from torch import nn

from skreg import RegularizedNetClassifier
from skreg.modules import MLP, AnimalNet

warnings.simplefilter("ignore", ConvergenceWarning)
# MLP is asked for more than there is in a fold, to have all of it in one batch.
warnings.filterwarnings("ignore", message="Got `batch_size` less than 1 or larger")


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


class Search:
    """A grid over lambda1 and lambda2.

    Parameters
    ----------
    name : str
    X, y : arrays
    module : callable
        Makes the module.
    n1, n2, cv : int
        Values of lambda1 and of lambda2, and folds.
    sizes : tuple of int or None
        Features of each layer, of a fully connected net.
    **training : dict
        ``optimizer``, ``lr``, ``momentum``, ``batch_size``, ``max_epochs``.
    """

    def __init__(self, name, X, y, module, n1, n2, cv, sizes=None, **training):
        self.name, self.X, self.y, self.module = name, X, y, module
        self.cv, self.sizes, self.training = cv, sizes, training
        self.grid = {
            "lambda1": [0.0, *np.logspace(-6, -2, n1 - 1)][:n1],
            "lambda2": [0.0, *np.logspace(-5, -2, n2 - 1)][:n2],
        }
        self.n_fits = n1 * n2 * cv

    def options(self, prefix="optimizer__"):
        momentum = self.training.get("momentum")
        return {
            "optimizer": self.training["optimizer"],
            "lr": self.training["lr"],
            "max_epochs": self.training["max_epochs"],
            "batch_size": self.training["batch_size"],
            **({} if momentum is None else {f"{prefix}momentum": momentum}),
        }

    def floor(self, device):
        """Return the seconds that the matrix products take."""
        if self.sizes is None:
            return None
        weights = [a * b for a, b in pairwise(self.sizes)]
        n = len(self.X) * (self.cv - 1) // self.cv
        forward = 2 * sum(weights)
        step = forward + 2 * weights[0] + 4 * sum(weights[1:])
        flop = self.n_fits * (
            n * step * self.training["max_epochs"] + len(self.X) // self.cv * forward
        )
        return flop / gemm_rate(self.sizes, n, self.training["batch_size"], device)


def gemm_rate(sizes, n, batch_size, device):
    n_in, n_out = max(pairwise(sizes), key=prod)
    n = n if batch_size == -1 else batch_size
    a = torch.randn(n, n_in, device=device)
    b = torch.randn(n_in, 30 * n_out, device=device)  # 30 nets with the same inputs
    times = []
    for _ in range(30):
        synchronize(device)
        start = perf_counter()
        torch.mm(a, b)
        synchronize(device)
        times.append(perf_counter() - start)
    return 60 * n * n_in * n_out / median(times)


def make_net(search, device):
    return RegularizedNetClassifier(
        lambda *_: search.module(), random_state=0, device=device, **search.options()
    )


def run_backend(search, device):
    grid = GridSearchCV(make_net(search, device), search.grid, cv=search.cv)
    with joblib.parallel_config("skreg"):
        return grid.fit(search.X, search.y)


def run_plain(search, device, n_jobs=1):
    grid = GridSearchCV(
        make_module_net(search, device), search.grid, cv=search.cv, n_jobs=n_jobs
    )
    return grid.fit(search.X, search.y)


def make_module_net(search, device):
    """Make a net that loky's processes can be sent: its module is an instance."""
    net = make_net(search, device)
    torch.manual_seed(0)
    return net.set_params(module=search.module())


def run_two_jobs(search, device):
    return run_plain(search, device, n_jobs=2)


def run_skorch(search, device):
    net = SkorchNet(
        search.module(),
        criterion=nn.CrossEntropyLoss,
        **search.options(),
        iterator_train__shuffle=search.training["batch_size"] != -1,
        train_split=None,
        device=device,
        verbose=0,
    )
    grid = GridSearchCV(net, search.grid, cv=search.cv)
    return grid.fit(search.X, search.y.astype(np.int64))


def run_mlp(search, device):
    """Search with scikit-learn's MLP: as many fits, of an L2 penalty only."""
    sgd = search.training["optimizer"] is torch.optim.SGD
    batch_size = search.training["batch_size"]
    options = (
        {"momentum": search.training["momentum"], "nesterovs_momentum": False}
        if sgd
        else {}
    )
    net = MLPClassifier(
        search.sizes[1:-1],
        solver="sgd" if sgd else "adam",
        learning_rate_init=search.training["lr"],
        batch_size=len(search.X) if batch_size == -1 else batch_size,
        max_iter=search.training["max_epochs"],
        n_iter_no_change=search.training["max_epochs"] + 1,
        random_state=0,
        **options,
    )
    grid = {"alpha": np.logspace(-4, 1, search.n_fits // search.cv)}
    X = search.X.reshape(len(search.X), -1)
    return GridSearchCV(net, grid, cv=search.cv, n_jobs=2).fit(X, search.y)


CONTENDERS = {
    "skreg, backend": run_backend,
    "skreg, n_jobs=1": run_plain,
    "skreg, n_jobs=2": run_two_jobs,
    "skorch, n_jobs=1": run_skorch,
    "scikit-learn MLP (L2 only), n_jobs=2": run_mlp,
}


def digits_search(n1, n2, cv, epochs=15):
    X, y = load_digits(return_X_y=True)
    return Search(
        f"digits, MLP 64-64-10, {n1 * n2 * cv} fits of {epochs} epochs",
        (X / 16).astype(np.float32),
        y,
        lambda: MLP(64, 10, 64),
        *(n1, n2, cv),
        sizes=(64, 64, 10),
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=64,
        max_epochs=epochs,
    )


def animal_searches(path):
    from skreg.datasets import load_image_folder

    data = load_image_folder(path)
    order = np.random.default_rng(0).permutation(len(data.target))
    for n, epochs in ((30, 30), (100, 30), (1000, 10)):
        rows = order[: 3 * n // 2]
        yield Search(
            f"AnimalNet, 3 folds with {n} training images, 36 fits of {epochs} epochs",
            (2 * data.data[rows] - 1).astype(np.float32),
            data.target[rows],
            AnimalNet,
            *(4, 3, 3),
            sizes=(3072, 128, 32, len(data.target_names)),
            optimizer=torch.optim.SGD,
            lr=5e-3,
            momentum=0.9,
            batch_size=-1,
            max_epochs=epochs,
        )


def cnn_search():
    X, y = load_digits(return_X_y=True)
    return Search(
        "digits, small CNN, 36 fits of 5 epochs",
        (X / 16).astype(np.float32).reshape(-1, 1, 8, 8),
        y,
        lambda: small_cnn(1, 8),
        *(4, 3, 3),
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=64,
        max_epochs=5,
    )


def compare(search, names, options):
    times, results = {name: [] for name in names}, {}
    for _ in range(options.repeats):
        for name in names:
            synchronize(options.device)
            start = perf_counter()
            results[name] = CONTENDERS[name](search, options.device)
            synchronize(options.device)
            times[name].append(perf_counter() - start)
    scores = {
        name: results[name].cv_results_["mean_test_score"]
        for name in names
        if name.startswith("skreg")
    }
    reference = scores["skreg, backend"]
    for name, values in scores.items():
        # Rounding decides a sample now and then.
        if np.abs(values - reference).max() > 0.02:
            raise RuntimeError(f"{search.name}: {name} found other scores.")
    return {name: median(values) for name, values in times.items()}


def report(search, medians, floor):
    base = medians["skreg, backend"]
    print(f"\n{search.name}\n\n| | seconds | this / backend |\n|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} | {seconds / base:.1f} |")
    if floor is not None:
        print(f"| arithmetic floor | {floor:.2f} | {floor / base:.2f} |")


def growth(options):
    """Print the cost per fit against the number of fits."""
    print("\n| fits | backend, ms per fit | n_jobs=1, ms per fit |\n|---|---|---|")
    for n1, n2, cv in ((1, 1, 2), (2, 2, 2), (4, 4, 2), (8, 8, 2), (16, 16, 2)):
        search = digits_search(n1, n2, cv)
        names = ["skreg, backend"]
        if search.n_fits <= 32:
            names.append("skreg, n_jobs=1")
        medians = compare(search, names, options)
        cells = [f"{1e3 * medians[n] / (search.n_fits + 1):.1f}" for n in names]
        print(f"| {search.n_fits} + refit | {' | '.join([*cells, '', ''][:2])} |")
    search = digits_search(20, 25, 2)
    medians = compare(search, ["skreg, backend"], options)
    print(f"| 1000 + refit | {1e3 * medians['skreg, backend'] / 1001:.1f} | |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data")
    parser.add_argument("--rows", nargs="*", default=["90", "500", "animal", "cnn"])
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--json")
    options = parser.parse_args()
    print(machine(options.device))
    searches = []
    if "90" in options.rows:
        searches.append(digits_search(6, 5, 3))
    if "500" in options.rows:
        searches.append(digits_search(10, 10, 5))
    if "animal" in options.rows and options.data:
        searches += animal_searches(options.data)
    if "cnn" in options.rows:
        searches.append(cnn_search())
    rows, warm_up = [], digits_search(2, 2, 2, epochs=1)
    for name, run in CONTENDERS.items():  # libraries are loaded, processes started
        if not any(part in name for part in options.without):
            run(warm_up, options.device)
    for search in searches:
        names = [
            name
            for name in CONTENDERS
            if not any(part in name for part in options.without)
            and (search.sizes is not None or "MLP" not in name)
        ]
        medians = compare(search, names, options)
        floor = search.floor(options.device)
        report(search, medians, floor)
        rows.append({"search": search.name, "seconds": medians, "floor": floor})
    if options.growth:
        growth(options)
    write_json(options.json, options.device, rows)


if __name__ == "__main__":
    main()
