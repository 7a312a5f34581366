"""Nets on every path, in stacks and alone, and whether they are the same."""

import re

import joblib
import torch
from sklearn.base import clone

from skreg.estimators.paths import forced_path

PATHS = ["backprop", "autograd", "hooks"]


def tensors(net):
    """Return the weights that matter.

    Batch normalisation takes away the bias before it, whose gradient is zero: of its
    rounding error, Adam makes steps.
    """
    weights = dict(net.module_.named_parameters())
    idle = {n.replace("norm", "fc") for n in weights if re.match(r"norm\d+\.bias", n)}
    return [w.detach() for name, w in weights.items() if name not in idle]


def on_paths(net, X, y, paths=PATHS, **fit_params):
    """Return the nets that the paths train."""
    nets = []
    for path in paths:
        with forced_path(path):
            nets.append(clone(net).fit(X, y, **fit_params))
        assert nets[-1].training_path_ == path
    return nets


def together(nets, X, y, **fit_params):
    """Return copies that train in a stack, if they can."""
    with joblib.parallel_config("skreg"):
        fits = (joblib.delayed(clone(net).fit)(X, y, **fit_params) for net in nets)
        return joblib.Parallel()(fits)


def assert_same(nets, others, rtol=1e-9):
    """Check weights and losses of training; rtol=0 compares all bits."""
    for one, other in zip(nets, others, strict=True):
        for w, v in zip(tensors(one), tensors(other), strict=True):
            torch.testing.assert_close(w, v, rtol=rtol, atol=rtol / 100)
        for key in ("train_loss", "train_penalty"):
            mine, theirs = (
                torch.tensor(net.history[:, key], dtype=torch.float64)
                for net in (one, other)
            )
            torch.testing.assert_close(mine, theirs, rtol=rtol, atol=rtol / 100)


def assert_a_stack(nets, X, y, rtol=1e-8, **fit_params):
    """Check that nets train in a stack, each as it does alone; return them."""
    stacked = together(nets, X, y, **fit_params)
    alone = [clone(net).fit(X, y, **fit_params) for net in nets]
    assert_same(stacked, alone, rtol)
    assert [net.training_path_ for net in stacked] == ["stack"] * len(nets)
    return stacked
