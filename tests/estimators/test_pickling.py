"""Pickles and copies of nets whose parts are ordinary objects."""

import copy
import pickle

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import cross_validate
from torch import nn

from skreg import RegularizedNetClassifier
from skreg.batching.checkpoint.fingerprint import Fingerprints

COPIES = {
    "cloudpickle": lambda net: pickle.loads(cloudpickle.dumps(net)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def make_local():
    """Return a module whose class has no place in any file, and that ties weights."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
            self.last.weight = self.first.weight

        def forward(self, x):
            self.seen = self.last(self.first(x).relu())  # not a leaf, in training
            return self.seen[:, :3]

    return Tied()


def local(**params):
    params = {"max_epochs": 3, "random_state": 0} | params
    return RegularizedNetClassifier(make_local(), **params)


def assert_same_weights(a, b):
    for mine, theirs in zip(
        a.module_.parameters(), b.module_.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_copies_of_a_local_class_share_what_the_net_shares(iris, way, early_stopping):
    X, y = iris
    net = local(early_stopping=early_stopping, optimizer=torch.optim.AdamW).fit(X, y)
    expected = net.predict_proba(X)
    copied = COPIES[way](net)
    assert copied.module_.first.weight is copied.module_.last.weight
    of_optimizer = copied.optimizer_.param_groups[0]["params"]
    assert all(
        a is b for a, b in zip(of_optimizer, copied.module_.parameters(), strict=True)
    )
    assert np.array_equal(copied.predict_proba(X), expected)
    copied.partial_fit(X, y)
    assert len(net.history) == 3
    assert np.array_equal(net.predict_proba(X), expected)  # it has weights of its own
    assert_same_weights(copied, net.partial_fit(X, y))
    assert copied.history[:, "train_loss"] == net.history[:, "train_loss"]


@pytest.mark.slow
def test_processes_take_and_return_nets_of_a_local_class(iris):
    X, y = iris
    net = local().fit(X, y)
    found = cross_validate(net, X, y, cv=2, n_jobs=2, return_estimator=True)
    for estimator in found["estimator"]:
        assert type(estimator.module_).__name__ == "Tied"
        assert estimator.module_.first.weight is estimator.module_.last.weight
        assert estimator.partial_fit(X, y).history[-1, "train_loss"] > 0
    bagging = BaggingClassifier(net, n_estimators=2, n_jobs=2).fit(X, y)
    assert bagging.predict(X).shape == y.shape


def test_copies_in_one_pickle_stay_one(iris):
    X, y = iris
    net = local().fit(X, y)
    pair = {"net": net, "module": net.module_, "again": net}
    loaded = pickle.loads(cloudpickle.dumps(pair))
    assert loaded["again"] is loaded["net"]
    assert loaded["net"].module_ is loaded["module"]
    twin = copy.deepcopy(pair)
    assert twin["net"] is twin["again"] is not net
    assert twin["net"].module_ is twin["module"] is not net.module_


def test_a_shallow_copy_shares_parameters_only(iris):
    X, y = iris
    net = local(callbacks=[], criterion__weight=torch.ones(3)).fit(X, y)
    copied = copy.copy(net)
    assert copied.callbacks is net.callbacks
    assert copied.criterion__weight is net.criterion__weight
    copied.set_params(optimizer__weight_decay=0.1)
    assert "optimizer__weight_decay" not in net.get_params()
    assert copied.module is net.module
    assert copied.history is not net.history
    assert copied.callbacks_[0][1] is not net.callbacks_[0][1]


def test_weights_computed_from_parameters_can_be_copied(iris):
    X, y = iris
    module = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    net = RegularizedNetClassifier(module, max_epochs=2, random_state=0).fit(X, y)
    copied = copy.deepcopy(net).partial_fit(X, y)
    assert_same_weights(copied, net.partial_fit(X, y))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(iris, protocol, tmp_path):
    X, y = iris
    net = RegularizedNetClassifier(max_epochs=2, random_state=0).fit(X, y)
    loaded = pickle.loads(pickle.dumps(net, protocol=protocol))
    assert np.array_equal(loaded.predict_proba(X), net.predict_proba(X))
    joblib.dump(net, tmp_path / "net", protocol=protocol, compress=3)
    loaded = joblib.load(tmp_path / "net")
    assert np.array_equal(loaded.predict_proba(X), net.predict_proba(X))


def test_a_net_has_a_state_of_plain_objects_for_other_formats(iris):
    """As skops asks for it: no tensor, no dtype of torch, that only pickle can make."""
    X, y = iris
    net = RegularizedNetClassifier(max_epochs=2, random_state=0).fit(X, y)
    state = net.__getstate__()
    made = [nn.Module, torch.Tensor, torch.optim.Optimizer, torch.dtype]
    assert not [k for k, v in state.items() if isinstance(v, tuple(made))]
    twin = RegularizedNetClassifier.__new__(RegularizedNetClassifier)
    twin.__setstate__(pickle.loads(pickle.dumps(state)))
    assert np.array_equal(twin.predict_proba(X), net.predict_proba(X))
    assert_same_weights(twin.partial_fit(X, y), net.partial_fit(X, y))


def test_subclasses_may_keep_attributes_out_of_pickles(iris):
    X, y = iris

    class Cached(RegularizedNetClassifier):
        def __getstate__(self):
            return {k: v for k, v in super().__getstate__().items() if k != "cache_"}

    net = Cached(max_epochs=1, random_state=0).fit(X, y)
    net.cache_ = "large"
    for make in (*COPIES.values(), lambda n: pickle.loads(cloudpickle.dumps(n))):
        copied = make(net)
        assert not hasattr(copied, "cache_")
        assert np.array_equal(copied.predict_proba(X), net.predict_proba(X))


def test_checkpoints_know_a_fitted_net_again(iris):
    """Names of calls depend on its weights, not on where in memory they are."""
    X, y = iris
    net = RegularizedNetClassifier(max_epochs=1, random_state=0).fit(X, y)
    name, same, other = (
        Fingerprints().of("", RegularizedNetClassifier.fit, (fitted, X, y), {})
        for fitted in (net, copy.deepcopy(net), copy.deepcopy(net).partial_fit(X, y))
    )
    assert name == same != other


def test_a_net_can_be_pickled_while_it_trains(iris):
    from skorch.callbacks import Callback

    class Snapshot(Callback):
        def on_epoch_end(self, net, **kwargs):
            self.taken = pickle.loads(cloudpickle.dumps(net))

    X, y = iris
    net = local(callbacks=[("snapshot", Snapshot())], max_epochs=2)
    net.set_params(callbacks=[Snapshot()]).fit(X, y)
    taken = dict(net.callbacks_)["Snapshot"].taken
    assert len(taken.history) == 2
    assert np.array_equal(taken.predict_proba(X), net.predict_proba(X))


@pytest.mark.cuda
def test_what_lies_on_cuda_comes_back_to_it(cuda, iris):
    X, y = iris
    net = local(device="cuda", early_stopping=True, amp="float16").fit(X, y)
    for make in COPIES.values():
        copied, again = make(net), copy.deepcopy(net)
        assert copied.module_.first.weight is copied.module_.last.weight
        assert copied.module_.first.weight.device.type == "cuda"
        assert_same_weights(copied.partial_fit(X, y), again.partial_fit(X, y))
