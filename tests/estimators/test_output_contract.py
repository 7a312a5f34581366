"""What modules may return: one contract, in training, validation and prediction."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_regression
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.utils.data import TensorDataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker
from skreg.robustness import fgsm, robust_accuracy

X, y = load_digits(return_X_y=True)
X, y = X[:65].astype(np.float32) / 16, y[:65]
PREDICTIONS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]


class Squeezed(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, X):
        return self.linear(X).squeeze()


class Without(Squeezed):
    """Returns tensors of no shape in training, and what it is told to later."""

    made = None

    def forward(self, X):
        outputs = self.linear(X)
        return outputs if self.made is None else type(self).made(outputs)


@pytest.fixture
def returning(monkeypatch):
    """Return a fitted net whose module then returns something else."""

    def make(function):
        net = RegularizedNetClassifier(Without, max_epochs=1).fit(X, y)
        monkeypatch.setattr(Without, "made", staticmethod(function))
        return net

    return make


def small(**params):
    params = {"module": Squeezed, "max_epochs": 2, "random_state": 0} | params
    return RegularizedNetClassifier(**params)


@pytest.mark.parametrize("method", PREDICTIONS)
def test_a_lost_axis_is_told_of_in_predictions_as_in_training(method):
    net = small().fit(X[:64], y[:64])
    assert len(getattr(net, method)(X[:2])) == 2
    expected = r"outputs of shape \(10,\) for a batch of 1 samples.*expected \(1, 10\)"
    with pytest.raises(ValueError, match=expected):
        getattr(net, method)(X[:1])
    with pytest.raises(ValueError, match=expected):
        net.score(X[:1], y[:1])


@pytest.mark.parametrize("backend", ["threading", "skreg"])
@pytest.mark.parametrize("where", ["training", "validation", "lone validation"])
def test_a_lost_axis_of_the_last_batch_is_told_of(where, backend):
    net = small(batch_size=32)
    data = {
        "training": ((X, y), {}),
        "validation": ((X[:64], y[:64]), {"X_val": X, "y_val": y}),
        "lone validation": ((X[:64], y[:64]), {"X_val": X[:1], "y_val": y[:1]}),
    }
    args, options = data[where]
    fits = [joblib.delayed(net.fit)(*args, **options)]
    with (
        joblib.parallel_config(backend),
        pytest.raises(ValueError, match=r"\(10,\) for a batch of 1 samples"),
    ):
        joblib.Parallel(n_jobs=2)(fits)


@pytest.mark.parametrize(
    ("made", "described"),
    [
        (lambda out: {"logits": out}, r"a dict with the keys \['logits'\]"),
        (lambda out: None, "None"),
        (lambda out: [out], "a list"),
        (lambda out: (None, out), "a tuple that begins with a NoneType"),
        (lambda out: (), "a tuple"),
    ],
)
def test_outputs_that_are_no_tensors_are_told_of(made, described, returning):
    net = returning(made)
    expected = f"The module returned {described}; its forward must return a tensor"
    uses = [
        lambda: net.predict(X),
        lambda: net.predict_proba(X),
        lambda: net.predict_log_proba(X),
        lambda: net.decision_function(X),
        lambda: net.score(X, y),
        lambda: robust_accuracy(net, X, y, eps=0.1),
        lambda: fgsm(net, X, y, eps=0.1),
        lambda: net.partial_fit(X, y),
        lambda: RegularizedNetClassifier(Without).fit(X, y),
        lambda: RegularizedNetRegressor(Without).fit(X, y),
    ]
    for use in uses:
        with pytest.raises(TypeError, match=expected):
            use()


@pytest.mark.parametrize(
    "made",
    [lambda out: out[:-1], lambda out: out[:, :-1], lambda out: out.unsqueeze(2)],
    ids=["rows", "columns", "axes"],
)
def test_outputs_of_another_shape_are_told_of(made, returning):
    net = returning(made)
    expected = r"returned outputs of shape .* for a batch of 65 .*expected \(65, 10\)"
    uses = [
        lambda: net.predict(X),
        lambda: net.decision_function(TensorDataset(*map(torch.as_tensor, (X, y)))),
        lambda: net.forward(X),
        lambda: net.score(X, y),
        lambda: robust_accuracy(net, X, y, eps=[0, 0.1]),
        lambda: net.set_params(batch_size=-1).partial_fit(X, y),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=expected):
            use()


def test_an_accuracy_of_the_training_data_is_not_of_fewer(monkeypatch):
    class InTrainingOnly(Squeezed):
        def forward(self, X):
            return self.linear(X)[slice(None) if self.training else slice(1)]

    net = small(module=InTrainingOnly, callbacks=[AccuracyTracker(on_train=True)])
    with pytest.raises(ValueError, match=r"shape \(1, 10\) for a batch of"):
        net.fit(X, y)


# -- regressors ----------------------------------------------------------------------

A, b = make_regression(65, 5, noise=1, random_state=0)


class Flat(Squeezed):
    def forward(self, X):
        return self.linear(X)[:, 0]


class Kept(Squeezed):
    def forward(self, X):
        return self.linear(X)


@pytest.mark.parametrize("n", [64, 65], ids=["full", "lone last"])
@pytest.mark.parametrize("module", [Flat, Squeezed])
def test_a_single_target_needs_no_axis(module, n):
    params = {"max_epochs": 3, "batch_size": 32, "random_state": 0, "lr": 0.01}
    fits = {
        kind: RegularizedNetRegressor(kind, **params).fit(
            A[:n], b[:n], X_val=A, y_val=b
        )
        for kind in (module, Kept)
    }
    net, expected = fits.values()
    np.testing.assert_allclose(net.predict(A), expected.predict(A), rtol=1e-10)
    np.testing.assert_allclose(net.predict(A[:1]), expected.predict(A[:1]), rtol=1e-10)
    for key in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(net.history[:, key], expected.history[:, key])
    assert fgsm(net, A, b, eps=0.1).shape == A.shape
    with joblib.parallel_config("skreg"):
        (stacked,) = joblib.Parallel(n_jobs=2)(
            [joblib.delayed(net.fit)(A[:n], b[:n], X_val=A, y_val=b)]
        )
    np.testing.assert_allclose(stacked.predict(A), expected.predict(A), rtol=1e-8)


@pytest.mark.parametrize("module", [Flat, Squeezed])
def test_such_modules_train_in_stacks_as_alone(module):
    net = RegularizedNetRegressor(module, max_epochs=3, random_state=0, lr=0.01)
    search = GridSearchCV(net, {"lambda2": [0.0, 1e-2]}, cv=3)
    alone = search.fit(A, b).cv_results_["mean_test_score"]
    with joblib.parallel_config("skreg"):
        together = search.fit(A, b).cv_results_["mean_test_score"]
    np.testing.assert_allclose(together, alone, rtol=1e-8)


def test_several_targets_need_their_axis():
    net = RegularizedNetRegressor(Flat, max_epochs=1)
    with pytest.raises(
        ValueError, match=r"shape \(64,\), but the targets .* \(64, 2\)"
    ):
        net.fit(A, np.stack([b, b], axis=1))
