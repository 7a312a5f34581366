"""Two ways through an epoch, with and without skorch's hooks, and one result."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from skorch.callbacks import Callback, EpochScoring, GradientNormClipping, LRScheduler

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker
from skreg.estimators._base import RegularizedNet
from skreg.estimators._epochs import BATCH_METHODS, is_lean
from skreg.transforms import GaussianNoise


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), y


class SeesBatches(Callback):
    """Does nothing, but skorch has to call it."""

    def on_batch_end(self, net, **kwargs):
        pass


class WasLean(Callback):
    def on_train_begin(self, net, **kwargs):
        self.lean_ = net._session.lean


def fit(data, make=RegularizedNetClassifier, callbacks=(), **params):
    was = WasLean()
    params = {"hidden_layer_sizes": 8, "max_epochs": 4, "random_state": 0} | params
    net = make(callbacks=[was, *callbacks], **params)
    X, y = data
    net.fit(X[::2], y[::2], np.arange(75) % 3, X_val=X[1::2], y_val=y[1::2])
    return net, was.lean_


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"lambda1": 1e-2, "lambda2": 1e-2, "batch_size": 16, "dropout": 0.5},
        {"early_stopping": True, "patience": 1, "batch_size": -1},
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.1},
        {"augment": GaussianNoise(0.5), "class_weight": "balanced"},
        {"optimizer": torch.optim.RMSprop, "iterator_train__drop_last": True},
        {"iterator_train": torch.utils.data.DataLoader, "batch_size": 32},
        {"make": RegularizedNetRegressor, "lambda2": 0.1},
    ],
)
def test_both_ways_give_the_same_bits_and_the_same_history(iris, params):
    is_classifier = "make" not in params
    callbacks = [AccuracyTracker(on_train=True)] if is_classifier else []
    lean, was_lean = fit(iris, callbacks=callbacks, **params)
    full, was_full = fit(iris, callbacks=[*callbacks, SeesBatches()], **params)
    assert was_lean
    assert not was_full
    for a, b in zip(lean.module_.parameters(), full.module_.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(lean.history) == len(full.history)
    for a, b in zip(lean.history, full.history, strict=True):
        assert a.keys() == b.keys()
        assert {k: v for k, v in a.items() if k != "dur"} == {
            k: v for k, v in b.items() if k != "dur"
        }


@pytest.mark.parametrize(
    "callback",
    [
        SeesBatches(),
        EpochScoring("accuracy"),
        GradientNormClipping(1.0),
        LRScheduler("StepLR", step_size=1),
    ],
)
def test_who_looks_at_batches_gets_to_see_them(iris, callback):
    assert not fit(iris, callbacks=[callback])[1]


@pytest.mark.parametrize("name", BATCH_METHODS)
def test_who_overrides_a_step_gets_it_called(iris, name):
    def overridden(self, *args, **kwargs):
        return getattr(super(Mine, self), name)(*args, **kwargs)

    Mine = type("Mine", (RegularizedNetClassifier,), {name: overridden})
    assert not fit(iris, make=Mine)[1]


def test_an_optimizer_that_wants_a_closure_gets_it(iris):
    assert not fit(iris, optimizer=torch.optim.LBFGS, lr=0.1)[1]

    class Foreign(torch.optim.SGD):
        def step(self, closure):
            with torch.enable_grad():
                loss = closure()
            super().step()
            return loss

    net, lean = fit(iris, optimizer=Foreign)
    assert not lean
    assert np.isfinite(net.history[-1, "train_loss"])


def test_methods_that_both_ways_call_may_be_overridden(iris):
    class Smoothed(RegularizedNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return 2 * super().get_loss(y_pred, y_true, X=X, training=training)

    doubled, lean = fit(iris, make=Smoothed, lr=0.0)
    assert lean
    plain, _ = fit(iris, lr=0.0)
    assert doubled.history[0, "train_loss"] == pytest.approx(
        2 * plain.history[0, "train_loss"]
    )
    assert is_lean(doubled, RegularizedNet)


def test_optimizers_are_fused_unless_told_otherwise(iris):
    def group(**params):
        return fit(iris, **params)[0].optimizer_.param_groups[0]

    assert group()["fused"]
    assert not group(optimizer__fused=False)["fused"]
    assert group(optimizer__foreach=True)["foreach"]
    assert not group(optimizer=torch.optim.RMSprop).get("fused")


def test_sparse_embeddings_train():
    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.EmbeddingBag(5, 2, sparse=True)

        def forward(self, words):
            return self.embedding(words)

    words = {"words": np.arange(20).reshape(10, 2) % 5}
    net = RegularizedNetClassifier(Words, optimizer=torch.optim.SGD, max_epochs=2)
    assert net.fit(words, np.arange(10) % 2).predict(words).shape == (10,)
