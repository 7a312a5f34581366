"""Modules of many kinds: which can be stacked, and why others train alone."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_validate
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import ValidSplit
from stacked_nets import (
    EXACT,
    Convolutional,
    alone,
    assert_same_nets,
    fit,
    images,
    net,
    next_place,
    together,
)
from torch import nn

from skreg import RegularizedNetClassifier
from skreg.batching.stacking import stack_size as _cost
from skreg.batching.stacking.stack import Stack


class Watches(Callback):
    def on_epoch_end(self, net, **kwargs):
        pass


class OtherLoss(RegularizedNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return 2 * super().get_loss(y_pred, y_true, X=X, training=training)


class Scaled(nn.Module):
    """Has a parameter that is one number."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        x -= 0.1  # in place, as some do
        return self.linear(x) * self.scale


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.NAdam]
)
def test_parameters_that_are_numbers_and_modules_in_place(iris, stacks, optimizer):
    X, y = iris
    fits = [
        (
            net(module=Scaled, lambda1=l1, lambda2=0.1, optimizer=optimizer),
            X[rows],
            y[rows],
        )
        for l1 in (0, 0.1)
        for rows in (slice(100), slice(20, 120))
    ]
    before = X.copy()
    mine, theirs = together(*fits), alone(*fits)
    assert stacks == [4]
    assert np.array_equal(X, before)
    assert_same_nets(mine, theirs)
    for a, b in zip(mine, theirs, strict=True):
        a.partial_fit(X, y)
        b.partial_fit(X, y)
    assert_same_nets(mine, theirs)


def test_a_stack_that_fails_leaves_its_nets_and_all_others_to_be_trained(
    iris, stacks, monkeypatch, capfd
):
    X, y = iris
    step = Stack.step

    def broken(self):
        i, result = next_place(self), step(self)
        if i == 1 and self.candidates[0].net.hidden_layer_sizes == 4:
            raise ArithmeticError("simulated")
        return result

    monkeypatch.setattr(Stack, "step", broken)
    fits = [
        (net(hidden_layer_sizes=h, lambda1=l1), X, y) for h in (4, 5) for l1 in (0, 0.1)
    ]
    assert_same_nets(together(*fits, verbose=1), alone(*fits))
    assert (
        "a stack of them failed: ArithmeticError: simulated" in capfd.readouterr().err
    )


class Average(nn.Module):
    """Assigns to its buffer."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + x.detach().mean()
        return self.linear(x) * (1 + self.mean)


class Unique(Average):
    def forward(self, x):
        return self.linear(x) * len(torch.unique(x))


class Words(nn.Module):
    def __init__(self, out_features):
        super().__init__()
        self.words = nn.Embedding(20, 3, padding_idx=0)
        self.linear = nn.Linear(12, out_features)

    def forward(self, x):
        return self.linear(self.words((x.abs() * 4).long()).flatten(1))


class Stubborn(nn.Module):
    """Its result depends on numbers, so that no two can run as one."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x):
        x = self.linear(x)
        return x if x.sum() > 0 else 2 * x


class Random(Stubborn):
    def forward(self, x):
        return self.linear(x + torch.rand_like(x))


class Drawing(Stubborn):
    def forward(self, x):
        return self.linear(x) * np.random.uniform(0.5, 1)  # noqa: NPY002


class Counting(Stubborn):
    """Keeps a number of its own, that decides what it computes."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        return self.linear(x) * (1 + self.steps)


class Remembering(Counting):
    """Changes what an attribute holds that cannot be pickled."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.seen = {"size": len, "key": lambda x: x, "sums": [0.0]}

    def forward(self, x):
        self.seen["sums"].append(float(len(x)))
        return self.linear(x) * sum(self.seen["sums"])


class Tracking(Counting):
    """Moves a tensor that is not registered as a buffer."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.mean = torch.zeros(in_features)

    def forward(self, x):
        if self.training:
            self.mean += 0.1 * (x.detach().mean(0) - self.mean)
        return self.linear(x - self.mean)


def made_of(part, forward, train=nn.Module.train):
    """Return the class of a net whose hidden values go through `forward(net, z)`."""

    class Net(nn.Module):
        def __init__(self, in_features, out_features):
            super().__init__()
            self.first, self.part = nn.Linear(in_features, 8), part()
            self.last = nn.Linear(8, out_features)

        def forward(self, x):
            return self.last(forward(self, torch.tanh(self.first(x))))

        def train(self, mode=True):
            return train(self, mode)

    return Net


def count_trainings(net, mode):
    vars(net)["calls"] = vars(net).get("calls", 0) + 1
    return nn.Module.train(net, mode)


def count_full_batches(net, z):
    net.calls = getattr(net, "calls", 0) + (len(z) == 16)
    return z * net.calls


def halve_gradient(net, z):
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient / 2)
    return z


def dropped_in_place(net, z):
    z = z + 0
    net.part(z)
    return z


# What goes through the hidden layer, and the net's other parts.
CUSTOM = {
    "parameters that have no part": (lambda: nn.Linear(8, 8), lambda net, z: z),
    "has parameters that have no part": (
        lambda: nn.Linear(8, 8),
        lambda net, z: net.part(z) if len(z) == 16 else z,
    ),
    "its outputs": (
        lambda: nn.Linear(8, 8),
        lambda net, z: z if net.training else net.part(z),
    ),
    "others under vmap": (
        lambda: nn.Dropout(0.3),
        lambda net, z: net.part(z.view(-1, 2, 4).mT).mT.reshape(-1, 8),
    ),
    "the outputs": (lambda: nn.Dropout(0.3, inplace=True), dropped_in_place),
    "outputs of its module": (
        lambda: nn.Dropout(0.3),
        lambda net, z: net.part(z) if isinstance(net.part, nn.Dropout) else z,
    ),
    "the gradients of its module": (nn.Identity, halve_gradient),
    "attribute 'calls'": (nn.Identity, count_full_batches),
    "changes its attribute 'calls'": (
        nn.Identity,
        lambda net, z: z * net.calls,
        count_trainings,
    ),
}


def two_blocks():
    dropout = nn.Dropout(0.3)
    return nn.Sequential(
        nn.Sequential(nn.Linear(8, 8), dropout), nn.Sequential(nn.Tanh(), dropout)
    )


STACKED = {
    "dropout in two places": (two_blocks, lambda net, z: net.part(z)),
    "flattened": (
        lambda: nn.Dropout(0.3),
        lambda net, z: net.part(z.view(-1, 4)).view(-1, 8),
    ),
    "samples second": (
        lambda: nn.Dropout(0.3),
        lambda net, z: net.part(torch.stack([z, -z, z / 2])).sum(0),
    ),
    "twice": (lambda: nn.Dropout(0.3), lambda net, z: net.part(net.part(z))),
    "batch norm": (lambda: nn.BatchNorm1d(8), lambda net, z: net.part(z)),
    "recurrent": (
        lambda: nn.GRU(2, 2, batch_first=True),
        lambda net, z: net.part(z.view(-1, 4, 2))[0].reshape(-1, 8),
    ),
    "attention": (
        lambda: nn.MultiheadAttention(4, 2, batch_first=True),
        lambda net, z: net.part(*[z.view(-1, 2, 4)] * 3)[0].reshape(-1, 8),
    ),
}


class DroppedInputs(nn.Module):
    """Also holds its parts in a list."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.dropout, self.first = nn.Dropout(0.3), nn.Linear(in_features, 6)
        self.last = nn.Linear(6, out_features)
        self.layers = [self.first, nn.Tanh(), self.last]
        self.again = self.first.forward

    def forward(self, x):
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x)
        return x


def test_dropout_of_inputs_and_parts_in_a_list(iris, stacks):
    fits = [
        (net(module=DroppedInputs, dropout=p, lr=lr, random_state=seed), *iris)
        for p in (0.2, 0.5)
        for lr in (0.01, 0.1)
        for seed in (0, 1)
    ]
    for some in (fits, fits[:1] + fits[2:3]):  # of two streams, and of one
        stacks.clear()
        mine = together(*some)
        assert stacks == [len(some)]
        assert_same_nets(mine, alone(*some))


@pytest.mark.parametrize("name", STACKED)
def test_modules_of_many_kinds(iris, stacks, name):
    part, module = STACKED[name][0], made_of(*STACKED[name])
    ps = (
        (0.2, 0.5)
        if any(isinstance(m, nn.Dropout) for m in part().modules())
        else (None, None)
    )
    params = {"module": module, "optimizer": torch.optim.SGD}
    fits = [(net(**params, dropout=p, lr=lr), *iris) for p in ps for lr in (0.01, 0.1)]
    mine = together(*fits)
    # What vmap does in a slow way only trains alone.
    assert stacks == ([] if name in ("recurrent", "attention") else [4])
    assert_same_nets(mine, alone(*fits))


def hooked(in_features, out_features):
    module = nn.Linear(in_features, out_features)
    module.register_forward_hook(lambda module, args, outputs: 2 * outputs)
    return module


def patched(in_features, out_features):
    module = nn.Linear(in_features, out_features)
    module.forward = lambda x: x @ module.weight.T
    return module


ALONE = {
    "replaces its buffers": {"module": Average},
    "vmap cannot run": {"module": Unique},
    "embedding with padding": {"module": Words},
    "compiled, or replaced": {"module": patched},
    "its module has hooks": {"module": hooked},
    "callback Watches": {"callbacks": [Watches()]},
    "callback LRScheduler": {
        "callbacks": [LRScheduler("StepLR", step_size=1, step_every="batch")]
    },
    "OtherLoss overrides get_loss": {"make": OtherLoss},
    "optimizer LBFGS": {"optimizer": torch.optim.LBFGS},
    "vmap": {"module": Stubborn},
    "random": {"module": Random},
    "draws from numpy.random": {"module": Drawing},
    "changes its attribute 'steps'": {"module": Counting},
    "changes its attribute 'seen'": {"module": Remembering},
    "changes its attribute 'mean'": {"module": Tracking},
    "criterion MultiMarginLoss": {"criterion": nn.MultiMarginLoss},
    "augment=": {"augment": torch.nn.Identity()},
    "not arrays in memory": {"iterator_train": torch.utils.data.DataLoader},
    "validation data are shuffled, or not all": {
        "train_split": ValidSplit(3),
        "iterator_valid__drop_last": True,
    },
    "options of its optimizer": {
        "optimizer__eps": torch.tensor([1e-8], dtype=torch.float64),
        "optimizer__foreach": False,
    },
    **{
        reason: {"module": made_of(*custom), "optimizer__weight_decay": 0.1}
        for reason, custom in CUSTOM.items()
    },
}


@pytest.mark.parametrize("reason", ALONE)
def test_what_cannot_be_stacked_trains_alone_and_says_why(iris, stacks, capfd, reason):
    X, y = iris
    params = {"max_epochs": 2} | ALONE[reason]
    fits = [(net(**params, lambda1=x), X, y) for x in (0, 0.01)]
    fits += [(net(lambda1=x), X, y) for x in (0, 0.01)]
    with joblib.parallel_config("skreg"):
        mine = joblib.Parallel(verbose=1)(
            joblib.delayed(fit)(clone(estimator), X, y) for estimator, X, y in fits
        )
    told = [line for line in capfd.readouterr().err.splitlines() if "alone" in line]
    assert len(told) == 1
    assert "2 of 4 fits" in told[0]
    assert stacks == [2]
    assert reason in told[0]
    theirs = alone(*fits)
    assert_same_nets(mine, theirs)
    for a, b in zip(mine[:2], theirs[:2], strict=True):
        for name in ("steps", "calls"):
            assert getattr(a.module_, name, None) == getattr(b.module_, name, None)


def test_nothing_is_said_unless_asked_for(iris, capfd):
    together((net(callbacks=[Watches()]), *iris))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("verbose", [0, 1])
def test_meta_estimators_without_verbosity_take_that_of_the_context(
    iris, capfd, verbose
):
    with joblib.parallel_config("skreg", verbose=verbose):
        cross_validate(net(callbacks=[Watches()]), *iris, cv=3)
    assert capfd.readouterr().err.count("3 of 3 fits trained alone") == verbose


class Centred(nn.Module):
    """Its samples see each other, in training and in evaluation."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.first = nn.Linear(in_features, 6)
        self.last = nn.Linear(6, out_features)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x):
        z = torch.tanh(self.first(x))
        z = z - z.mean(0)
        if self.training:
            self.scale.mul_(0.9).add_(0.1 * z.detach().std())
        return self.last(z / self.scale)


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        ([slice(100), slice(20, 120)], [4]),
        ([slice(100), slice(20, 118)], [2, 2]),  # other data sets to train on
        ([slice(100), slice(20, 121)], [2, 2]),  # other validation sets
    ],
)
def test_samples_that_see_each_other_see_no_others(iris, stacks, rows, sizes):
    X, y = iris
    fits = [
        (net(module=Centred, lambda1=l1, train_split=ValidSplit(7)), X[part], y[part])
        for l1 in (0, 0.01)
        for part in rows
    ]
    mine, theirs = together(*fits), alone(*fits)
    assert stacks == sizes
    assert_same_nets(mine, theirs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.module_.scale, b.module_.scale, **EXACT)


def test_the_global_random_states_are_left_alone(iris):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    together(*[(net(dropout=0.5, random_state=s), *iris) for s in range(3)])
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_a_module_that_cannot_be_measured_leaves_the_others_alone(
    iris, monkeypatch, capfd, fails
):
    def without_graph(net, z):
        with torch.set_grad_enabled(net.training):
            return net.part(z)

    def broken(*args):
        raise ArithmeticError("simulated")

    if fails:
        monkeypatch.setattr(_cost, "wins_race", broken)
    module = made_of(lambda: nn.Linear(8, 8), without_graph)
    fits = [
        (net(**params, lr=lr), *iris)
        for params in ({"module": module}, {})
        for lr in (0.01, 0.02, 0.03)
    ]
    assert_same_nets(together(*fits, verbose=1), alone(*fits))
    assert ("failed: ArithmeticError: simulated" in capfd.readouterr().err) == fails


@pytest.mark.cuda
def test_stacks_on_cuda(iris, stacks, cuda):
    X, y = iris
    fits = [(net(lambda1=l1, dropout=0, device="cuda"), X, y) for l1 in (0, 0.01, 0.1)]
    mine = together(*fits)
    assert stacks == [3]
    assert_same_nets(mine, alone(*fits))
    dropped = [(net(dropout=0.5, random_state=s, device="cuda"), X, y) for s in (0, 1)]
    assert_same_nets(together(*dropped), together(*dropped[::-1])[::-1])


class InPlace(Convolutional):
    def forward(self, x):
        return super().forward(x.relu_())


def test_modules_that_work_in_place_leave_the_data_alone(stacks, iris):
    X = images(iris[0])
    before = X.copy()
    fits = [
        (net(module=InPlace, lr=lr, shuffle=False, batch_size=-1), X, iris[1])
        for lr in (0.001, 0.01)
    ]
    mine = together(*fits)
    assert stacks == [2]
    np.testing.assert_array_equal(X, before)
    assert_same_nets(mine, alone(*fits))
