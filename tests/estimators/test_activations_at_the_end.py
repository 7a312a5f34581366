"""Regressors whose modules cannot return negative numbers."""

import joblib
import numpy as np
import pytest
import torch
from callback_spies import SeesBatches
from joblib import delayed
from torch import nn

from skreg import RegularizedNetRegressor
from skreg.batching.stacking import stack_size as _cost

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4)).astype(np.float32)
y = np.exp(X[:, 0]).astype(np.float32)


class Exp(nn.Module):
    def forward(self, x):
        return torch.exp(x)


def regressor(last, **params):
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), last)
    params = {"max_epochs": 2, "random_state": 0} | params
    return RegularizedNetRegressor(module, **params)


LAST = {
    "a ReLU": nn.ReLU(),
    "a softplus": nn.Softplus(),
    "an exponential": Exp(),
    "a GELU": nn.GELU(),
    "a SiLU": nn.SiLU(),
}


@pytest.mark.parametrize("params", [{}, {"callbacks": [SeesBatches()]}])
@pytest.mark.parametrize("name", LAST)
def test_they_do_not_go_with_standardised_targets(name, params):
    with pytest.warns(UserWarning, match=f"ends in {name}.*scale_tar.*=F") as caught:
        regressor(LAST[name], **params).fit(X, y)
    assert len(caught) == 1
    # Warnings are errors in these tests.
    regressor(LAST[name], scale_target=False, **params).fit(X, y)


@pytest.mark.parametrize("last", [nn.Tanh(), nn.LeakyReLU(), nn.Identity(), nn.ELU()])
def test_nothing_is_said_of_modules_with_negative_outputs(last):
    regressor(last).fit(X, y)


@pytest.mark.parametrize("name", ["a ReLU", "an exponential"])
def test_stacks_tell_of_it_once(name, monkeypatch, capfd):
    monkeypatch.setattr(_cost, "wins_race", lambda *args: True)
    nets = [regressor(LAST[name], max_epochs=n) for n in (1, 2, 3)]
    match = f"ends in {name}"
    with joblib.parallel_config("skreg"), pytest.warns(match=match) as caught:
        joblib.Parallel(verbose=1)(delayed(net.fit)(X, y) for net in nets)
    assert "alone" not in capfd.readouterr().err
    assert len(caught) == 1
