"""Mixed precision."""

import pickle

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor


class Spy(nn.Module):
    """Notes the dtype in which its linear layer computed."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.seen = set()

    def forward(self, x):
        outputs = self.fc(x)
        self.seen.add(outputs.dtype)
        return outputs


class Hook(Callback):
    def on_batch_end(self, net, **kwargs):
        """Make every batch go through skorch's hooks."""


def data():
    X = np.random.default_rng(0).normal(size=(80, 4)).astype("f4")
    return X, (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
@pytest.mark.parametrize("callbacks", [None, [Hook()]])
def test_the_module_computes_in_half_the_bits_and_nothing_else(callbacks, amp):
    X, y = data()
    common = {"max_epochs": 20, "lr": 0.05, "lambda2": 1e-3, "random_state": 0}
    common["callbacks"] = callbacks
    net = RegularizedNetClassifier(Spy, amp=amp, device="cpu", **common)
    net.fit(X, y, X_val=X, y_val=y)
    proba = net.predict_proba(X)
    assert net.module_.seen == {getattr(torch, amp)}
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    again = net.set_params(amp=None).predict_proba(X)  # as it was fitted
    np.testing.assert_array_equal(again, proba)
    assert net.module_.fc.weight.dtype is torch.float32
    weights = [w.detach().double() for w in net.module_.parameters()]
    plain = RegularizedNetClassifier(Spy, device="cpu", **common).fit(X, y)
    assert plain.module_.seen == {torch.float32}
    for mine, full in zip(weights, plain.module_.parameters(), strict=True):
        torch.testing.assert_close(mine, full.detach().double(), atol=0.05, rtol=0.05)
    assert net.score(X, y) > 0.9


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_fully_connected_nets_go_through_autograd_and_predict_floats(amp, monkeypatch):
    def refuse(*args):
        raise AssertionError("written-out backpropagation knows no mixed precision")

    monkeypatch.setattr("skreg.backprop.Backprop.forward", refuse)
    X, y = data()
    net = RegularizedNetRegressor(amp=amp, max_epochs=2, device="cpu")
    assert net.fit(X, y.astype("f4")).predict(X).dtype == np.float32


def test_a_search_trains_them_one_by_one_with_the_same_scores(capsys):
    X, y = data()
    net = RegularizedNetClassifier(
        amp="bfloat16", max_epochs=3, device="cpu", random_state=0
    )
    search = GridSearchCV(net, {"lambda2": [0, 1e-3, 1e-2]}, cv=2)
    plain = clone(search).fit(X, y).cv_results_["mean_test_score"]
    with parallel_config("skreg", verbose=1):
        together = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(together, plain)
    assert "amp='bfloat16' is not for stacks" in capsys.readouterr().err


class Gradients(Callback):
    """Keeps the gradients of the first batch whose gradients are finite."""

    def on_grad_computed(self, net, named_parameters, **kwargs):
        grads = {name: w.grad.clone() for name, w in named_parameters}
        if not vars(self).get("seen") and all(
            g.isfinite().all() for g in grads.values()
        ):
            self.seen = grads


def test_callbacks_see_gradients_that_are_not_scaled():
    X, y = data()
    seen = []
    for amp in (None, "float16"):
        gradients = Gradients()
        net = RegularizedNetClassifier(
            Spy, amp=amp, device="cpu", random_state=0, lr=0.0, max_epochs=1
        )
        net.set_params(callbacks=[gradients], batch_size=-1).fit(X, y)
        seen.append(gradients.seen)
    for name, gradient in seen[0].items():
        torch.testing.assert_close(seen[1][name], gradient, rtol=2e-3, atol=2e-4)


def test_clipping_bounds_the_steps_of_float16():
    X, y = data()
    net = RegularizedNetClassifier(
        Spy, amp="float16", device="cpu", optimizer=torch.optim.SGD, lr=1.0
    )
    net.set_params(callbacks=[GradientNormClipping(0.01)], batch_size=-1, max_epochs=1)
    net.initialize()
    before = [w.detach().clone() for w in net.module_.parameters()]
    net.partial_fit(X, y)
    change = [w - v for w, v in zip(net.module_.parameters(), before, strict=True)]
    length = torch.cat([part.flatten() for part in change]).norm().item()
    assert length == pytest.approx(0.01, rel=1e-3)


class Explosive(nn.Module):
    """The gradient of its weight overflows in float16 once losses are scaled by 1e4."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x * 30)


def test_steps_whose_gradients_overflow_are_left_out_and_the_scale_is_halved():
    X, y = data()
    net = RegularizedNetClassifier(
        Explosive, amp="float16", device="cpu", random_state=0, lr=0.01, max_epochs=0
    )
    net.fit(X, y)
    before = net.module_.fc.weight.detach().clone()
    first_scale = net._amp.scaler._scaler.get_scale()
    net.set_params(max_epochs=1, batch_size=-1).partial_fit(X, y)
    assert torch.equal(net.module_.fc.weight, before)
    assert net._amp.scaler._scaler.get_scale() == first_scale / 2
    net.set_params(max_epochs=100, lr=0.05).partial_fit(X, y)
    assert net.score(X, y) > 0.9


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_partial_fits_are_one_fit_and_pickles_go_on(amp):
    X, y = data()
    net = RegularizedNetClassifier(
        Spy, amp=amp, device="cpu", random_state=0, lr=0.01, max_epochs=6
    )
    whole = clone(net).fit(X, y)
    parts = clone(net).set_params(max_epochs=2).fit(X, y)
    parts.partial_fit(X, y)
    parts = pickle.loads(pickle.dumps(parts)).partial_fit(X, y)
    for a, b in zip(
        whole.module_.parameters(), parts.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_lbfgs():
    X, y = data()
    net = RegularizedNetClassifier(
        Spy, optimizer=torch.optim.LBFGS, lr=0.1, batch_size=-1, max_epochs=5
    )
    net.set_params(device="cpu", amp="bfloat16").fit(X, y)
    assert net.score(X, y) > 0.9
    with pytest.raises(ValueError, match=r"amp='float16' .* LBFGS .* use amp='bfl"):
        net.set_params(amp="float16").fit(X, y)


class OwnBackward(RegularizedNetClassifier):
    def train_step_single(self, batch, **fit_params):
        X, y = batch
        y_pred = self.infer(X, **fit_params)
        loss = self.get_loss(y_pred, y, X=X, training=True)
        loss.backward()
        return {"loss": loss, "y_pred": y_pred}


class Accumulates(RegularizedNetClassifier):
    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        if len(self.history[-1, "batches"]) % 2 == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (OwnBackward, "train_step_single is overridden"),
        (Accumulates, "gradients of several batches are added up"),
    ],
)
def test_steps_of_ones_own_are_for_bfloat16(make, problem):
    X, y = data()
    make(amp="bfloat16", max_epochs=2, batch_size=16).fit(X, y)
    with pytest.raises(ValueError, match=f"amp='float16' .* {problem}; use amp='bfl"):
        make(amp="float16", max_epochs=2, batch_size=16).fit(X, y)


def test_what_amp_refuses():
    X, y = data()
    allowed = "must be None, 'bfloat16' or 'float16'"
    with pytest.raises(ValueError, match=f"amp='float8' {allowed}"):
        RegularizedNetClassifier(amp="float8").fit(X, y)
    with pytest.raises(ValueError, match=r"amp='bfloat16' needs .* float32"):
        RegularizedNetClassifier(amp="bfloat16", dtype="float64").fit(X, y)


@pytest.mark.cuda
@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_on_a_gpu(amp, cuda):
    X, y = data()
    net = RegularizedNetClassifier(
        Spy, amp=amp, device="cuda", lr=0.05, max_epochs=20, random_state=0
    ).fit(X, y)
    assert net.module_.seen == {getattr(torch, amp)}
    assert net.score(X, y) > 0.9
