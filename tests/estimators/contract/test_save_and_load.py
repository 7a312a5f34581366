"""Pickles, clones and saved weights, from one device to the other."""

import copy
import pickle
import sys
import warnings

import joblib
import numpy as np
import pytest
import torch
from contract_nets import equal_weights, small, small_regressor, weights
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skreg import RegularizedNetRegressor
from skreg.estimators import _pickling
from skreg.modules import MLP

ROUND_TRIPS = {
    "pickle": lambda net, _: pickle.loads(pickle.dumps(net)),
    "deepcopy": lambda net, _: copy.deepcopy(net),
    "joblib": lambda net, path: joblib.load(joblib.dump(net, path / "net")[0]),
}


@pytest.mark.parametrize("way", ROUND_TRIPS)
def test_round_trips(iris, tmp_path, way):
    X, y = iris
    params = {"lambda1": 1e-3, "module__activation": "tanh", "callbacks__norms": None}
    unfitted = ROUND_TRIPS[way](small(**params), tmp_path)
    with pytest.raises(NotFittedError):
        check_is_fitted(unfitted)
    fitted = small(**params).fit(X, y, X_val=X, y_val=y)
    copied = ROUND_TRIPS[way](fitted, tmp_path)
    check_is_fitted(copied)
    assert copied.get_params(deep=False) == fitted.get_params(deep=False)
    assert np.array_equal(copied.predict_proba(X), fitted.predict_proba(X))
    assert copied.history == fitted.history
    assert equal_weights(copied.partial_fit(X, y), fitted.partial_fit(X, y))
    assert equal_weights(unfitted.fit(X, y), small(**params).fit(X, y))


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_pickles_that_say_cuda_load_on_a_cpu(iris, device, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device: real pickles are tested")
    X, y = iris
    net = small(early_stopping=True).fit(X, y).set_params(device=device)
    net.device_ = torch.device("cuda")
    with monkeypatch.context() as patch:
        patch.setattr(_pickling, "_device_of", lambda tensor: "cuda:0")
        pickled = pickle.dumps(net)
    assert b"cuda:0" in pickled
    net.device_ = torch.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # skorch says that the device has changed
        loaded = pickle.loads(pickled)
    assert loaded.device_.type == "cpu"
    assert np.array_equal(loaded.predict_proba(X), net.predict_proba(X))
    assert equal_weights(loaded.partial_fit(X, y), net.partial_fit(X, y))


def test_clone_keeps_every_parameter():
    net = RegularizedNetRegressor(
        nn.Linear, module__in_features=3, lambda1=0.1, callbacks__norms=None, dropout=0
    )
    params = net.get_params(deep=False)
    assert clone(net).get_params(deep=False) == params
    assert {"module__in_features", "callbacks__norms", "scale_target"} < set(params)
    assert "callbacks__print_log__sink" in net.get_params()


@pytest.mark.parametrize("use_safetensors", [False, True])
def test_save_and_load_params(iris, tmp_path, use_safetensors):
    X, y = iris
    net, file = small().fit(X, y), tmp_path / "weights"
    net.save_params(f_params=file, use_safetensors=use_safetensors)
    other = small(random_state=1).fit(X, y)
    assert not equal_weights(net, other)
    other.load_params(f_params=file, use_safetensors=use_safetensors)
    assert np.array_equal(net.predict_proba(X), other.predict_proba(X))
    assert other.device == "auto"


def test_weights_may_be_saved_and_loaded_before_there_are_data(iris, tmp_path):
    X, y = iris
    params = {"module": MLP, "module__in_features": 4, "module__out_features": 3}
    saved, loaded = (small(**params, random_state=i).initialize() for i in (0, 1))
    saved.save_params(f_params=tmp_path / "weights")
    loaded.load_params(f_params=tmp_path / "weights")
    assert equal_weights(saved, loaded)
    probabilities = loaded.predict_proba(X)
    assert probabilities.shape == (150, 3)
    for call in (
        loaded.predict,
        lambda X: loaded.score(X, y),
        lambda X: loaded.classes_,
    ):
        with pytest.raises(
            NotFittedError, match="call fit, or set the parameter class"
        ):
            call(X)
    with pytest.raises(NotFittedError):
        check_is_fitted(loaded)
    loaded.set_params(classes=["a", "b", "c"])
    assert np.array_equal(
        loaded.predict(X), np.array(["a", "b", "c"])[probabilities.argmax(axis=1)]
    )
    value = {"module": MLP, "module__in_features": 4, "module__out_features": 1}
    with pytest.raises(NotFittedError):
        RegularizedNetRegressor(**value).initialize().predict(X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("regression", [False, True])
def test_training_goes_on_from_loaded_weights(iris, dtype, regression):
    """Fine-tuning, as with skorch: initialize, load_params, partial_fit."""
    X, y = iris[0].astype(dtype), iris[1]
    make, n_outputs = (small_regressor, 1) if regression else (small, 3)
    net = make(module=MLP(4, n_outputs), max_epochs=2).initialize()
    start = copy.deepcopy(net.module_)
    with pytest.raises(NotFittedError):
        net.predict(X)
    for _ in range(2):
        net.partial_fit(X, y)
    assert weights(net)[0].dtype == torch.from_numpy(X).dtype
    assert equal_weights(net, make(module=start, max_epochs=4).fit(X, y))
    assert net.n_features_in_ == 4
    with pytest.raises(ValueError, match="X has 3 features"):
        net.partial_fit(X[:, :3], y)
    warm = make(module=MLP(4, n_outputs), warm_start=True, max_epochs=0).initialize()
    before = copy.deepcopy(warm.module_).to(torch.from_numpy(X).dtype)
    warm.fit(X, y)
    assert all(map(torch.equal, warm.module_.parameters(), before.parameters()))


def test_html_and_text_representation(iris):
    net = small(lambda1=0.5)
    assert "lambda1=0.5" in repr(net)
    assert "lambda1" in net._repr_html_()
    assert "RegularizedNetClassifier" in net.fit(*iris)._repr_html_()


@pytest.mark.cuda
def test_pickles_of_cuda_load_where_there_is_none(cuda, iris, tmp_path):
    import subprocess

    X, y = iris
    for device in ("auto", "cuda"):
        net = small(device=device, early_stopping=True).fit(X, y)
        joblib.dump((net, X, net.predict_proba(X)), tmp_path / "net")
        code = (
            "import joblib, numpy, warnings; warnings.simplefilter('ignore')\n"
            f"net, X, expected = joblib.load({str(tmp_path / 'net')!r})\n"
            "assert net.device_.type == 'cpu'\n"
            "numpy.testing.assert_allclose(net.predict_proba(X), expected, rtol=1e-6)"
        )
        environment = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.cuda
def test_pickles_of_a_cpu_go_on_on_cuda(cuda, iris):
    X, y = iris
    net = small(device="auto", max_epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        net.fit(X, y)
        assert net.device_.type == "cpu"
        expected, pickled = net.predict_proba(X), pickle.dumps(net)
    loaded = pickle.loads(pickled)
    assert loaded.device_.type == "cuda"
    assert next(loaded.module_.parameters()).device.type == "cuda"
    np.testing.assert_allclose(loaded.predict_proba(X), expected, rtol=1e-6)
    np.testing.assert_allclose(
        loaded.partial_fit(X, y).predict_proba(X),
        small(device="cpu", max_epochs=4).fit(X, y).predict_proba(X),
        rtol=1e-5,
    )


@pytest.mark.cuda
def test_weights_saved_on_one_device_load_on_the_other(cuda, iris, tmp_path):
    X, y = iris
    for safe in (False, True):
        for source, target in (("cuda", "cpu"), ("cpu", "cuda")):
            net = small(device=source).fit(X, y)
            net.save_params(f_params=tmp_path / "weights", use_safetensors=safe)
            other = small(device=target, random_state=1).fit(X, y)
            other.load_params(f_params=tmp_path / "weights", use_safetensors=safe)
            assert next(other.module_.parameters()).device.type == target
            np.testing.assert_allclose(
                other.predict_proba(X), net.predict_proba(X), rtol=1e-6
            )
