"""Nets that train together or alone, and whether they are the same."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skreg import RegularizedNetClassifier

EXACT = {"rtol": 1e-8, "atol": 1e-10}


def net(make=RegularizedNetClassifier, **params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 4, "random_state": 0} | params
    return make(batch_size=params.pop("batch_size", 16), **params)


def fit(estimator, X, y, **fit_params):
    return estimator.fit(X, y, **fit_params)


def together(*fits, **config):
    """Run fits, each (net, X, y, fit_params), in the backend; return fitted nets."""
    with joblib.parallel_config("skreg", **config):
        return joblib.Parallel()(
            joblib.delayed(fit)(clone(estimator), X, y, **(rest[0] if rest else {}))
            for estimator, X, y, *rest in fits
        )


def alone(*fits):
    return [
        fit(clone(estimator), X, y, **(rest[0] if rest else {}))
        for estimator, X, y, *rest in fits
    ]


def assert_same_nets(mine, theirs, rtol=1e-8, atol=1e-10):
    for a, b in zip(mine, theirs, strict=True):
        tensors = b.module_.state_dict()
        for name, tensor in a.module_.state_dict().items():
            torch.testing.assert_close(tensor, tensors[name], rtol=rtol, atol=atol)
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert len(a.history) == len(b.history)
        for x, y in zip(a.history, b.history, strict=True):
            assert x.keys() == y.keys()
            for key in x.keys() - {"batches", "dur", "param_norms"}:
                assert x[key] == pytest.approx(y[key], rel=rtol, abs=atol), key
            assert x["dur"] >= 0
            if "param_norms" in x:
                assert x["param_norms"] == pytest.approx(
                    y["param_norms"], rel=rtol, abs=atol
                )
            assert len(x["batches"]) == len(y["batches"])
            for p, q in zip(x["batches"], y["batches"], strict=True):
                assert p == pytest.approx(q, rel=rtol, abs=atol)


def images(X):
    """Turn rows of 4 numbers into images of 2 channels."""
    return np.stack([X, X[:, ::-1]], axis=1).reshape(-1, 2, 2, 2)


class Convolutional(nn.Module):
    def __init__(self, out_features, norm=True, dropout=0.2):
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, 2, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.dropout2d = nn.Dropout2d(dropout)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(4 * 9, out_features)

    def forward(self, x):
        x = torch.relu(self.norm(self.convolution(x)))
        return self.linear(self.dropout(self.dropout2d(x).flatten(1)))


SGD = {"optimizer": torch.optim.SGD, "lr": 0.05}


def next_place(stack):
    """Return which step of an epoch, counted from 0, a stack is about to take."""
    n = len(stack.candidates[0].batches)
    stack.place = (vars(stack).get("place", -1) + 1) % n
    return stack.place
