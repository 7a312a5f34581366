"""max_norm bounds the incoming weights of each unit after each step."""

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_validate
from skorch.callbacks import Callback
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from skreg import RegularizedNetClassifier
from skreg.estimators.paths import forced_path
from skreg.regularizers import MaxNorm

X, Y = load_iris(return_X_y=True)
SMALL = {"hidden_layer_sizes": 6, "max_epochs": 3, "batch_size": 40, "lr": 0.1}
SMALL |= {"random_state": 0, "dtype": "float64"}


def net(max_norm, **params):
    return RegularizedNetClassifier(max_norm=max_norm, **SMALL | params)


def norms(module):
    """The norms of the rows of all matrices."""
    return torch.cat(
        [w.detach().norm(dim=1) for w in module.parameters() if w.ndim > 1]
    )


def projected(layer, bound):
    """Return the parameters of a layer after one projection."""
    module = nn.Sequential(layer)
    work = MaxNorm(bound)
    work.begin(module)
    weights = {name: w.detach().clone() for name, w in module.named_parameters()}
    work.project(weights, {})
    return {name.removeprefix("0."): w for name, w in weights.items()}


rows = npst.arrays(np.float64, (3, 4), elements=st.floats(-10, 10) | st.just(0.0))


@given(rows, st.floats(0.01, 10))
def test_it_is_the_nearest_point_within_the_bound(rows, bound):
    layer = nn.Linear(4, 3).double()
    layer.weight.data = torch.from_numpy(rows)
    found = projected(layer, bound)
    assert torch.equal(found["bias"], layer.bias.detach())
    for w, p in zip(layer.weight.detach(), found["weight"], strict=True):
        assert p.norm() <= bound * (1 + 1e-12)
        if w.norm() <= bound:
            assert torch.equal(p, w)
        else:  # what is cut off points along the normal of the ball, at its surface
            torch.testing.assert_close(p, w * bound / w.norm())
            torch.testing.assert_close((w - p).norm() * bound, torch.dot(w - p, p))


LAYERS = {
    "linear": (nn.Linear(4, 3), lambda w: w),
    "convolution": (nn.Conv2d(4, 6, 3, groups=2), lambda w: w.flatten(1)),
    "transposed": (nn.ConvTranspose1d(4, 6, 3), lambda w: w.transpose(0, 1).flatten(1)),
    "groups": (
        nn.ConvTranspose2d(4, 6, (2, 3), groups=2),
        lambda w: w.view(2, 2, 3, 2, 3).transpose(1, 2).reshape(6, -1),
    ),
    "bilinear": (nn.Bilinear(2, 3, 5), lambda w: w.flatten(1)),
    "recurrent": (nn.LSTM(4, 3), lambda w: w),
}


@pytest.mark.parametrize("name", LAYERS)
def test_units_are_outputs_whatever_the_layer(name):
    layer, by_unit = LAYERS[name]
    before = {key: w.detach().clone() for key, w in layer.named_parameters()}
    found = projected(layer, 0.2)
    for key, w in before.items():
        if w.ndim == 1:
            assert torch.equal(found[key], w)
            continue
        expected = by_unit(w)
        norm = expected.norm(dim=1, keepdim=True)
        assert (norm > 0.2).any()
        expected = expected * (0.2 / norm).clamp(max=1)
        torch.testing.assert_close(by_unit(found[key]), expected)


@pytest.mark.parametrize("n_outputs", [4, 6])
def test_units_of_a_transposed_convolution_are_what_one_output_sees(n_outputs):
    """An input of one sees the weights: the outputs of a unit depend on its own."""
    layer = nn.ConvTranspose1d(2, n_outputs, 3, groups=2, bias=False).double()
    unit = 1  # of the first group, which sees the first input
    seen = layer(torch.eye(2).double().unsqueeze(-1)).detach()[0, unit]
    found = projected(layer, 0.1)["weight"]
    after = nn.functional.conv_transpose1d(
        torch.eye(2).double().unsqueeze(-1), found, groups=2
    )[0, unit]
    torch.testing.assert_close(after, seen * min(1.0, 0.1 / float(seen.norm())))


class Watches(Callback):
    def __init__(self, when):
        self.when = when

    def _look(self, net):
        self.norms_.append(norms(net.module_).max().item())

    def on_train_begin(self, net, **kwargs):
        self.norms_ = []

    def on_epoch_end(self, net, **kwargs):
        if self.when == "epochs":
            self._look(net)

    def on_batch_begin(self, net, **kwargs):
        if self.when == "batches" and len(net.history[-1, "batches"]) > 1:
            self._look(net)


@pytest.mark.parametrize("when", ["epochs", "batches"])
def test_no_unit_is_beyond_the_bound_after_any_step(when):
    watch = Watches(when)
    fitted = net(0.4, callbacks=[("watch", watch)]).fit(X, Y)
    kept = dict(fitted.callbacks_)["watch"].norms_
    assert len(kept) >= 3
    assert max(kept) <= 0.4 * (1 + 1e-9)
    assert norms(net(None).fit(X, Y).module_).max() > 0.4


@pytest.mark.parametrize("path", ["backprop", "autograd", "hooks"])
def test_it_is_the_plain_training_loop_with_a_projection(path):
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    with forced_path(path):
        ours = net(0.3, module=start, optimizer=torch.optim.SGD, batch_size=-1)
        ours.fit(X, Y)
    optimizer = torch.optim.SGD(start.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        outputs = start(torch.from_numpy(X))
        nn.functional.cross_entropy(outputs, torch.from_numpy(Y)).backward()
        optimizer.step()
        with torch.no_grad():
            for layer in (start[0], start[2]):
                norm = layer.weight.norm(dim=1, keepdim=True)
                layer.weight.mul_((0.3 / norm).clamp(max=1))
    for w, v in zip(ours.module_.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(w.detach(), v.detach(), rtol=1e-10, atol=1e-12)


def convolutional(in_features, out_features):
    return nn.Sequential(
        nn.Unflatten(1, (1, in_features)),
        nn.Conv1d(1, 3, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3 * (in_features - 1), out_features),
    )


@pytest.mark.parametrize("module", [None, convolutional])
def test_nets_of_a_stack_have_bounds_of_their_own(module):
    grid = {"max_norm": [None, 0.2, 0.5], "lambda2": [0.0, 1e-3]}
    params = {"module": module} if module else {}

    def search(backend):
        with joblib.parallel_config("skreg" if backend else "sequential"):
            return GridSearchCV(net(None, **params), grid, cv=3).fit(X, Y)

    together, alone = search(True), search(False)
    key = "mean_test_score"
    np.testing.assert_allclose(together.cv_results_[key], alone.cv_results_[key])
    with joblib.parallel_config("skreg"):
        found = cross_validate(net(0.2, **params), X, Y, cv=3, return_estimator=True)
    for one in found["estimator"]:
        assert module or one.training_path_ == "stack"
        flat = [w.flatten(1) for w in one.module_.parameters() if w.ndim > 1]
        assert max(w.norm(dim=1).max() for w in flat) <= 0.2 * (1 + 1e-9)


def test_a_bound_that_is_never_reached_changes_no_bit():
    free, bounded = net(None).fit(X, Y), net(1e6).fit(X, Y)
    for w, v in zip(
        free.module_.parameters(), bounded.module_.parameters(), strict=True
    ):
        assert torch.equal(w, v)


@pytest.mark.parametrize("value", [0, -1.0, np.inf, np.nan, True, "3"])
def test_other_values_are_errors(value):
    with pytest.raises(ValueError, match=r"max_norm=.*must be None or a finite number"):
        net(value).fit(X, Y)


class Free(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(out_features, in_features))

    def forward(self, x):
        return x @ self.w.T


def normalized(in_features, out_features):
    return nn.Sequential(weight_norm(nn.Linear(in_features, out_features)))


@pytest.mark.parametrize(
    ("module", "message"),
    [(Free, "Free has none"), (normalized, "computed from others")],
)
def test_modules_without_such_weights_are_errors(module, message):
    with pytest.raises(ValueError, match=message):
        net(1.0, module=module).fit(X, Y)
    net(None, module=module).fit(X, Y)
