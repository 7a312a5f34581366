"""Mixed precision."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
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


@pytest.mark.parametrize("callbacks", [None, [Hook()]])
def test_bfloat16(callbacks):
    X, y = data()
    common = {"max_epochs": 20, "lr": 0.05, "lambda2": 1e-3, "random_state": 0}
    common["callbacks"] = callbacks
    net = RegularizedNetClassifier(Spy, amp="bfloat16", device="cpu", **common)
    net.fit(X, y, X_val=X, y_val=y)
    proba = net.predict_proba(X)
    assert net.module_.seen == {torch.bfloat16}
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


def test_bfloat16_takes_the_net_by_autograd_and_predicts_floats():
    X, y = data()
    net = RegularizedNetRegressor(amp="bfloat16", max_epochs=2, device="cpu")
    assert net.fit(X, y.astype("f4")).predict(X).dtype == np.float32


def test_what_amp_refuses():
    X, y = data()
    with pytest.raises(ValueError, match=r"amp='float8' must be None or 'bfloat16'"):
        RegularizedNetClassifier(amp="float8").fit(X, y)
    with pytest.raises(ValueError, match=r"amp='bfloat16' needs .* float32"):
        RegularizedNetClassifier(amp="bfloat16").fit(X.astype("f8"), y)
