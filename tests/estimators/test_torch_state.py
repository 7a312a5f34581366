"""Nets do not depend on what a program has set for all of torch, or of NumPy."""

import warnings
from contextlib import contextmanager, nullcontext

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.robustness import pgd, robust_accuracy
from skreg.transforms import GaussianNoise, RandomFlip, RandomRotation, RandomShift

X, y = load_iris(return_X_y=True)
X = X.astype(np.float32)
IMAGES = (load_digits().images[:120, None] / 16).astype(np.float32)
DIGITS = load_digits().target[:120]


class Convolution(nn.Module):
    """Makes tensors of the default dtype, on the default device."""

    def __init__(self):
        super().__init__()
        self.convolution, self.drop = nn.Conv2d(1, 4, 3), nn.Dropout2d(0.3)
        self.last = nn.LazyLinear(10)
        self.register_buffer("offset", torch.tensor(0.5))

    def forward(self, x):
        x = self.drop(self.convolution(x).relu()).flatten(1)
        return self.last(x * torch.full((len(x), 1), 1.5) + self.offset)


AUGMENT = nn.Sequential(
    RandomFlip(0.5, 0.5), RandomShift(2), RandomRotation(20), GaussianNoise(0.1)
)
CLASSIFIER, REGRESSOR = RegularizedNetClassifier, RegularizedNetRegressor
NETS = {
    "plain": (CLASSIFIER, {"dropout": 0.3, "early_stopping": True}),
    "own module": (CLASSIFIER, {"module": Convolution, "augment": AUGMENT}),
    "augmented": (CLASSIFIER, {"augment": AUGMENT, "lambda1": 1e-3}),
    "attacked": (CLASSIFIER, {"adversarial_eps": 0.1, "adversarial_norm": "l2"}),
    "amp": (CLASSIFIER, {"amp": "bfloat16"}),
    "LBFGS": (CLASSIFIER, {"optimizer": torch.optim.LBFGS}),
    "float64": (REGRESSOR, {"dtype": "float64", "dropout": 0.1}),
}


@contextmanager
def setting(setter, value, default):
    setter(value)
    try:
        yield
    finally:
        setter(default)


STATES = {
    "float64": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "default device": lambda: setting(torch.set_default_device, "meta", None),
    "device": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "np.errstate": lambda: np.errstate(all="raise"),
}


def fit_three(name, backend):
    """Return the weights, and the predictions, of nets that were fitted on folds."""
    make, params = NETS[name]
    net = make(**{"max_epochs": 2, "random_state": 0, **params})
    images = "augment" in params
    data = (IMAGES, DIGITS) if images else (X, y)
    with joblib.parallel_config("skreg") if backend else nullcontext():
        found = cross_validate(
            net, *data, cv=3, return_estimator=True, error_score="raise"
        )
    nets = found["estimator"]
    tensors = [tensor for net in nets for tensor in net.module_.state_dict().values()]
    return tensors, [net.predict(data[0]) for net in nets]


@pytest.fixture(scope="module")
def expected():
    return {
        (name, backend): fit_three(name, backend)
        for name in NETS
        for backend in (False, True)
    }


@pytest.mark.parametrize("backend", [False, True])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("state", STATES)
def test_weights_are_the_same(state, name, backend, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deterministic algorithms warn
        with STATES[state]():
            dtype, device = torch.get_default_dtype(), torch.get_default_device()
            tensors, predictions = fit_three(name, backend)
            assert torch.get_default_dtype() == dtype
            assert torch.get_default_device() == device
    for mine, theirs in zip(tensors, expected[name, backend][0], strict=True):
        assert mine.dtype == theirs.dtype
        assert not mine.is_inference()
        if name == "own module" and backend:  # vmap's sums have no fixed order
            torch.testing.assert_close(mine, theirs)
        else:
            assert torch.equal(mine, theirs)
    for mine, theirs in zip(predictions, expected[name, backend][1], strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("state", STATES)
def test_a_warm_start_and_an_initialised_net(state):
    module = {"module__in_features": 4, "module__out_features": 3}
    params = {"max_epochs": 2, "random_state": 0, "warm_start": True, **module}
    cold = RegularizedNetClassifier(**params).initialize().fit(X, y)
    cold.set_params(optimizer=torch.optim.SGD).fit(X, y)
    with STATES[state]():
        net = RegularizedNetClassifier(**params).initialize().fit(X, y)
        net.set_params(optimizer=torch.optim.SGD).fit(X, y)
    for mine, theirs in zip(
        net.module_.parameters(), cold.module_.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_augmentations_draw_the_same(dtype):
    x, results = torch.from_numpy(IMAGES), []
    for default in (torch.float32, dtype):
        with (
            setting(torch.set_default_dtype, default, torch.float32),
            torch.random.fork_rng(devices=[]),
        ):
            torch.manual_seed(0)
            results.append(AUGMENT.train()(x))
    assert torch.equal(*results)


@pytest.mark.parametrize("state", STATES)
def test_attacks_find_the_same(state):
    net = RegularizedNetClassifier(random_state=0, max_epochs=2).fit(X, y)

    def attack():
        options = {"eps": 0.3, "random_state": 0}
        return pgd(net, X, y, **options), robust_accuracy(net, X, y, **options)

    expected = attack()
    with STATES[state]():
        found = attack()
    assert all(map(np.array_equal, found, expected))


class Notes(TransformerMixin, BaseEstimator):
    """Notes the default dtype whenever it is at work."""

    seen = []

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        Notes.seen.append(torch.get_default_dtype())
        return X


def test_code_around_the_nets_keeps_its_default_dtype():
    """While nets wait for each other, and while some are finished before others."""
    params = {"random_state": 0, "max_epochs": 2}
    alone = {"optimizer": torch.optim.LBFGS}  # trained one by one, and done earlier
    Notes.seen.clear()
    with setting(torch.set_default_dtype, torch.float64, torch.float32):
        for net in (
            RegularizedNetClassifier(**params),
            RegularizedNetClassifier(**params, **alone),
        ):
            with joblib.parallel_config("skreg"):
                cross_validate(make_pipeline(Notes(), net), X, y, cv=4)
        assert torch.get_default_dtype() == torch.float64
    assert len(Notes.seen) >= 16
    assert set(Notes.seen) == {torch.float64}


def test_threads_that_fit_at_once_put_the_default_dtype_back():
    net = RegularizedNetClassifier(random_state=0, max_epochs=20)
    expected = net.fit(X, y).predict_proba(X)
    with setting(torch.set_default_dtype, torch.float64, torch.float32):
        with joblib.parallel_config("threading", n_jobs=4):
            found = cross_validate(net, X, y, cv=8, return_estimator=True)
        assert torch.get_default_dtype() == torch.float64
        again = cross_validate(net, X, y, cv=8, return_estimator=True)
        assert np.array_equal(net.fit(X, y).predict_proba(X), expected)
    for a, b in zip(found["estimator"], again["estimator"], strict=True):
        assert np.array_equal(a.predict_proba(X), b.predict_proba(X))
