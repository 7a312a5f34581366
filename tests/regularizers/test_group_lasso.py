"""lambda_group: inputs or units are kept or left out as wholes, at the minimum."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from same_nets import PATHS, assert_a_stack, assert_same, on_paths, tensors
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import MultiTaskLasso
from skorch.callbacks import LRScheduler
from torch import nn, optim

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.penalties import group_soft_threshold, soft_threshold
from skreg.regularizers import GroupLasso
from skreg.regularizers.units import hidden_units, inputs

X, Y = make_regression(80, 12, n_informative=4, n_targets=3, noise=5, random_state=0)
X, Y = (X - X.mean(axis=0)) / X.std(axis=0), (Y - Y.mean(axis=0)) / Y.std(axis=0) + 1
LINEAR = {"hidden_layer_sizes": (), "scale_target": False, "batch_size": -1}
LINEAR |= {"dtype": "float64", "random_state": 0, "max_epochs": 400}
COOLED = [("cooled", LRScheduler("ExponentialLR", gamma=0.985))]
OPTIMIZERS = {
    "SGD": {"optimizer": optim.SGD, "lr": 0.2},
    "momentum": {"optimizer": optim.SGD, "lr": 0.05, "optimizer__momentum": 0.9},
    "Adam": {"lr": 0.2, "optimizer__betas": (0.9, 0.99), "callbacks": COOLED},
    "RMSprop": {"optimizer": optim.RMSprop, "lr": 0.2, "callbacks": COOLED},
}


def regressor(lambda_group=0.1, **params):
    return RegularizedNetRegressor(lambda_group=lambda_group, **LINEAR | params)


# -- the proximal step ----------------------------------------------------------------

numbers = st.floats(-10, 10) | st.just(0.0)
groups = npst.arrays(np.float64, (3, 4), elements=numbers)
exponents = npst.arrays(np.float64, (3, 4), elements=st.floats(-8, 4))


def assert_proximal(w, z, threshold, sizes):
    """Check that zero is a subgradient of |z - w|^2 / (2 d) + t |z| in each group."""
    for before, after, size in zip(w, z, sizes, strict=True):
        slope, norm = (before - after) / size, after.norm()
        if norm == 0:
            assert slope.norm() <= threshold * (1 + 1e-9)
        else:
            rest = (slope - threshold * after / norm).abs()
            assert (rest <= 1e-9 * threshold + 1e-12 * (before / size).abs()).all()


@given(groups, st.floats(1e-6, 100), exponents)
def test_the_proximal_step_in_any_diagonal_metric(rows, threshold, exponents):
    w, sizes = torch.from_numpy(rows), 10 ** torch.from_numpy(exponents)
    z = group_soft_threshold(w, threshold, sizes)
    assert_proximal(w, z, threshold, sizes)
    assert (z * w >= 0).all()
    assert (z.abs() <= w.abs()).all()


@given(groups, st.floats(1e-6, 100), st.floats(1e-6, 100))
def test_with_equal_step_sizes_it_is_block_soft_thresholding(rows, threshold, size):
    w = torch.from_numpy(rows)
    z = group_soft_threshold(w, threshold, size)
    sizes = torch.full_like(w, size)
    assert_proximal(w, z, threshold, sizes)
    norm, cut = w.norm(dim=1, keepdim=True), threshold * size
    expected = torch.where(norm > cut, w - cut * w / norm, 0.0)
    torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        group_soft_threshold(w, threshold, sizes), z, rtol=1e-9, atol=1e-12
    )


@given(npst.arrays(np.float64, (5, 1), elements=numbers), st.floats(1e-6, 100))
def test_a_group_of_one_is_soft_thresholding(rows, threshold):
    w = torch.from_numpy(rows)
    for sizes in (0.5, torch.full_like(w, 0.5)):
        z = group_soft_threshold(w, threshold, sizes)
        expected = soft_threshold(w, threshold * 0.5)
        torch.testing.assert_close(z, expected, rtol=1e-9, atol=1e-12)


def test_groups_without_a_threshold_rest_bit_for_bit():
    w = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    w[0, 0, 0], w[0, 1] = torch.inf, 0.0
    sizes = torch.rand(2, 5, 3)
    z = group_soft_threshold(w, torch.tensor([0.0, 1e3]).view(2, 1, 1), sizes)
    assert torch.equal(z[0], w[0])
    assert torch.equal(z[1], torch.zeros(5, 3))
    assert torch.equal(group_soft_threshold(w, 0.0, 1.0), w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_ranges_of_weights_and_step_sizes_are_safe(dtype):
    generator = torch.Generator().manual_seed(0)
    limit = torch.finfo(dtype).max ** 0.4
    w = torch.randn(99, 7, generator=generator, dtype=dtype)
    w *= limit ** torch.empty(99, 7, dtype=dtype).uniform_(-1, 1, generator=generator)
    sizes = 10 ** torch.empty(99, 7, dtype=dtype).uniform_(-6, 6, generator=generator)
    z = group_soft_threshold(w, 1.0, sizes)
    assert z.isfinite().all()
    kept = z.norm(dim=1) > 0
    assert (z[kept].norm(dim=1) > 0).all()
    assert ((w / sizes)[~kept].norm(dim=1) <= 1).all()


# -- the minimum ----------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("path", PATHS)
def test_a_linear_net_of_several_targets_is_the_multi_task_lasso(optimizer, path):
    """The weights of an input are one for each target; errors are means over them."""
    net = regressor(0.1, **OPTIMIZERS[optimizer])
    (net,) = on_paths(net, X, Y, [path])
    alpha = 0.1 * np.sqrt(3) * 3 / 2
    expected = MultiTaskLasso(alpha=alpha, tol=1e-14, max_iter=10**5).fit(X, Y)
    w, b = (p.numpy() for p in tensors(net))
    np.testing.assert_allclose(w, expected.coef_, atol=1e-4, rtol=0)
    np.testing.assert_allclose(b, expected.intercept_, atol=1e-4, rtol=0)
    inactive = (expected.coef_ == 0).all(axis=0)
    assert 0 < inactive.sum() < len(inactive)
    np.testing.assert_array_equal(w == 0, expected.coef_ == 0)


def of_channels(out_features):
    """A linear function of 6 groups of 2 features each."""
    return nn.Sequential(
        nn.Unflatten(1, (6, 2)), nn.Conv1d(6, out_features, 2), nn.Flatten()
    )


def fista(gradient, step, strength, shape, n_steps=2000):
    """Minimise f + strength * sum of the norms over the groups, the axis 1 of `shape`.

    Beck and Teboulle (2009), in numpy; the last entry of a row, a bias, is free.
    """
    w = v = np.zeros(shape)
    t = 1.0
    for _ in range(n_steps):
        z = v - step * gradient(v)
        norms = np.sqrt((z[:, :-1].reshape(shape[0], 6, 2) ** 2).sum(axis=(0, 2)))
        factor = np.repeat(np.maximum(1 - step * strength / norms, 0), 2)
        z[:, :-1] *= factor
        t, last = (1 + np.sqrt(1 + 4 * t * t)) / 2, t
        v, w = z + (last - 1) / t * (z - w), z
    return w


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_groups_of_a_linear_function_are_those_of_a_plain_solver(optimizer):
    y = Y[:, :1]
    ones = np.hstack([X, np.ones((len(X), 1))])
    step = 1 / (2 * np.linalg.eigvalsh(ones.T @ ones / len(X)).max())
    expected = fista(
        lambda w: 2 * (ones @ w.T - y).T @ ones / len(X),
        *(step, 0.2 * np.sqrt(2), (1, 13)),
    )
    net = regressor(0.2, module=of_channels, **OPTIMIZERS[optimizer]).fit(X, y[:, 0])
    assert_solves(net, expected)


def assert_solves(net, expected):
    w, b = (p.numpy() for p in tensors(net))
    w = w.reshape(len(w), -1)
    np.testing.assert_allclose(w, expected[:, :-1], atol=1e-4, rtol=0)
    b, free = b - b.mean() * (len(b) > 1), expected[:, -1]
    np.testing.assert_allclose(b, free - free.mean() * (len(b) > 1), atol=1e-4)
    np.testing.assert_array_equal(w == 0, expected[:, :-1] == 0)
    assert 0 < (w == 0).sum() < w.size


def test_groups_of_a_classifier_are_those_of_a_plain_solver():
    points, kinds = make_classification(
        n_samples=150, n_features=12, n_informative=4, n_classes=3, random_state=0
    )
    points = (points - points.mean(axis=0)) / points.std(axis=0)
    ones = np.hstack([points, np.ones((len(points), 1))])
    step = 2 / np.linalg.eigvalsh(ones.T @ ones / len(points)).max()

    def gradient(w):
        p = np.exp(ones @ w.T)
        p = p / p.sum(axis=1, keepdims=True) - np.eye(3)[kinds]
        return p.T @ ones / len(points)

    expected = fista(gradient, step, 0.03 * np.sqrt(6), (3, 13))
    params = LINEAR | OPTIMIZERS["momentum"] | {"lr": 0.4, "max_epochs": 800}
    del params["scale_target"]
    net = RegularizedNetClassifier(of_channels, lambda_group=0.03, **params)
    assert_solves(net.fit(points, kinds), expected)


def perceptron(in_features, out_features):
    return nn.Sequential(
        *(nn.Linear(in_features, 8), nn.Tanh()),
        *(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, out_features)),
    )


@pytest.mark.parametrize("groups", ["inputs", "units"])
@pytest.mark.parametrize(
    ("optimizer", "lambda1", "atol"), [("momentum", 0.0, 1e-4), ("Adam", 0.003, 5e-4)]
)
def test_the_subgradient_of_the_objective_holds_zero(groups, optimizer, lambda1, atol):
    """Also with an L1 penalty: the sparse group lasso (Simon et al., 2013)."""
    params = {"momentum": OPTIMIZERS["momentum"] | {"lr": 0.1}}
    schedule = LRScheduler("StepLR", step_size=400, gamma=0.2)
    params["Adam"] = {"lr": 0.01, "optimizer__betas": (0.9, 0.9)}
    params["Adam"]["callbacks"] = [("cooled", schedule)]
    strengths = {"lambda1": lambda1, "proximal": True, "lambda2": 0.01}
    net = regressor(
        *(0.02,),
        **{"groups": groups, "module": perceptron, "max_epochs": 800},
        **params[optimizer] | strengths,
    ).fit(X, Y)
    outputs = net.module_(torch.from_numpy(X))
    nn.functional.mse_loss(outputs, torch.from_numpy(Y)).backward()
    named = dict(net.module_.named_parameters())
    slopes = {name: w.grad + 2 * 0.01 * w.detach() for name, w in named.items()}
    blocks = hidden_units(net.module_, "") if groups == "units" else [()]
    blocks = blocks if groups == "units" else [(inputs(net.module_, ""),)]
    n_zeros, grouped = 0, set()
    for block in blocks:
        w = torch.cat([u.rows(named[u.name].detach()) for u in block], -1)
        g = torch.cat([u.rows(slopes[u.name]) for u in block], -1)
        grouped |= {u.name for u in block}
        n_zeros += assert_optimal(w, g, 0.02 * w.shape[1] ** 0.5, lambda1, atol)
    assert n_zeros > 0
    for name, w in named.items():
        if name not in grouped:
            rows = w.detach().reshape(1, -1), slopes[name].reshape(1, -1)
            assert_optimal(*rows, 0.0, lambda1, atol)


def assert_optimal(w, g, strength, lambda1, atol):
    """Check groups, the rows, of the sparse group lasso; return how many are zero."""
    norm = w.norm(dim=1, keepdim=True)
    zero = norm[:, 0] == 0
    least = (g[zero].abs() - lambda1).clamp(min=0).norm(dim=1)
    assert (least <= strength + atol).all()
    g, w = (g + strength * w / norm)[~zero], w[~zero]
    moves = w != 0
    expected = -lambda1 * w.sign()[moves]
    torch.testing.assert_close(g[moves], expected, rtol=0, atol=atol)
    assert (g[~moves].abs() <= lambda1 + atol).all()
    return int(zero.sum())


@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_exactly_the_informative_features_survive(optimizer):
    data, y, truth = make_regression(
        200, 50, n_informative=5, noise=3, coef=True, random_state=0
    )
    params = {"momentum": OPTIMIZERS["momentum"], "Adam": {"lr": 0.01}}
    net = RegularizedNetRegressor(
        *(None,),
        **{"hidden_layer_sizes": 20, "lambda_group": 0.02, "batch_size": 50},
        **{"max_epochs": 100, "random_state": 0} | params[optimizer],
    ).fit(data, y)
    active = (tensors(net)[0] != 0).any(dim=0).numpy()
    np.testing.assert_array_equal(active, truth != 0)
    assert net.score(data, y) > 0.97


# -- paths and stacks -----------------------------------------------------------------

SMALL = {"hidden_layer_sizes": (8, 6), "max_epochs": 5, "batch_size": 20, "lr": 0.02}
PROXIMAL = {"lambda1": 0.001, "proximal": True, "max_norm": 1.0}


@pytest.mark.parametrize("groups", ["inputs", "units"])
@pytest.mark.parametrize("more", [{}, PROXIMAL])
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_every_path_trains_the_same_net(groups, more, optimizer):
    params = OPTIMIZERS[optimizer] | {"callbacks": None} | SMALL | more
    nets = on_paths(regressor(0.2, groups=groups, **params), X, Y)
    assert_same(nets[1:], nets[:1] * 2)
    zeros = [w == 0 for w in tensors(nets[0])]
    assert any(z.any() for z in zeros)
    for other in nets[1:]:
        assert all(map(torch.equal, zeros, [w == 0 for w in tensors(other)]))


def convolutional(in_features, out_features):
    return nn.Sequential(
        nn.Unflatten(1, (2, in_features // 2)),
        *(nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Flatten()),
        nn.Linear(4 * (in_features // 2 - 2), out_features),
    )


@pytest.mark.parametrize("module", [None, perceptron, convolutional])
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_nets_of_a_stack_have_strengths_and_groups_of_their_own(
    module, optimizer, stacks
):
    params = OPTIMIZERS[optimizer] | SMALL | {"module": module, "callbacks": None}
    params |= {"lr": 0.01, "max_epochs": 8}
    nets = [
        regressor(0.0, **params),
        regressor(0.05, **params),
        regressor(0.03, groups="units", **params),
        regressor(0.1, lambda1=0.01, proximal=True, **params),
        regressor(0.001, groups="units", max_norm=0.5, lambda2=0.1, **params),
        regressor(10.0, groups="units", **params),
    ]
    found = assert_a_stack(nets, X, Y)
    for net, one in zip(found, nets, strict=True):
        zeros = [w == 0 for w in tensors(one.fit(X, Y))]
        assert all(map(torch.equal, zeros, [w == 0 for w in tensors(net)]))
    *hidden, out, free = tensors(found[-1])
    assert not any(w.any() for w in hidden)  # the output layer is none of the groups
    assert out.all()
    assert free.all()
    # "inputs" leave biases alone, "units" do not.
    assert tensors(found[1])[1].all()


# -- what else there is ---------------------------------------------------------------


@pytest.mark.parametrize("groups", ["inputs", "units"])
def test_the_penalty_is_part_of_the_objective(groups):
    params = OPTIMIZERS["SGD"] | SMALL | {"batch_size": -1, "max_epochs": 1}
    net = regressor(0.1, groups=groups, lambda2=0.1, **params)
    for one in on_paths(net, X, Y):
        named = {n: w.detach().clone() for n, w in one.module_.named_parameters()}
        loss = ((one.predict(X) - Y) ** 2).mean()
        one.set_params(warm_start=True).fit(X, Y)
        penalty = sum(0.1 * (w**2).sum() for w in named.values())
        if groups == "inputs":
            rows = [named["fc1.weight"].T]
        else:
            pairs = [(named[f"{fc}.weight"], named[f"{fc}.bias"]) for fc in FC]
            rows = [torch.hstack([w, b[:, None]]) for w, b in pairs]
        for each in rows:
            penalty += 0.1 * each.shape[1] ** 0.5 * each.norm(dim=1).sum()
        assert one.history[-1, "train_penalty"] == pytest.approx(float(penalty))
        assert one.history[-1, "train_loss"] == pytest.approx(loss + float(penalty))


FC = ["fc1", "fc2"]


def test_without_a_strength_nothing_changes_bit_for_bit():
    nets = [regressor(0.0, groups=g, **SMALL).fit(X, Y) for g in ("inputs", "units")]
    nets.append(regressor(1e-30, **SMALL).fit(X, Y))
    assert_same(nets[:1], nets[1:2], rtol=0)
    for w, v in zip(tensors(nets[0]), tensors(nets[2]), strict=True):
        torch.testing.assert_close(w, v, rtol=1e-12, atol=1e-14)


def test_an_own_group_lasso_does_it_too():
    params = OPTIMIZERS["momentum"] | SMALL
    for groups in ("inputs", "units"):
        own = GroupLasso(0.03, groups)
        mine = regressor(0.0, regularizers=[own], **params).fit(X, Y)
        assert_same([mine], [regressor(0.03, groups=groups, **params).fit(X, Y)])


class Backwards(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.output = nn.Linear(7, out_features)
        self.hidden = nn.Linear(in_features, 7)

    def forward(self, x):
        return self.output(torch.relu(self.hidden(x)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"optimizer": optim.Rprop},
            r"GroupLasso\(lambda_group=0.1\).*=Rprop does not",
        ),
        ({"groups": "outputs"}, "groups='outputs' must be 'inputs' or 'units'"),
        ({"groups": None}, "groups=None must be 'inputs' or 'units'"),
        ({"lambda_group": -1}, "lambda_group=-1 must be a finite number >= 0"),
        ({"groups": "units"}, "lambda_group=0.1: MLP has no hidden layer"),
        ({"module": Backwards}, "'output', has 7 inputs, but a sample has 12"),
        (
            {"module": Backwards, "groups": "units"},
            "'hidden', has 7 outputs, but the module has 3",
        ),
    ],
)
def test_errors_say_what_is_allowed(params, message):
    with pytest.raises(ValueError, match=message):
        regressor(**{"lambda_group": 0.1} | params).fit(X, Y)
