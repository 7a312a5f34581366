"""Seeds decide all, and global generators stay as they are."""

import threading

import numpy as np
import pytest
import torch
from plain_nets import equal_weights, small
from random_states import global_states
from torch.utils.data import Subset, TensorDataset

from skreg import RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker
from skreg.modules import AnimalNetDropout


@pytest.mark.parametrize("random_state", [0, None])
@pytest.mark.parametrize(
    "params", [{}, {"early_stopping": True}, {"dataset": TensorDataset}]
)
def test_fit_and_predict_leave_the_global_random_states_alone(
    images, random_state, params
):
    X, y = images
    data = (X, y)
    if "dataset" in params:
        codes = torch.from_numpy(np.unique(y, return_inverse=True)[1])
        data, params = (
            (Subset(TensorDataset(torch.from_numpy(X), codes), range(60)),),
            {},
        )
    before = global_states()
    net = small(module=AnimalNetDropout, random_state=random_state, **params)
    net.set_params(callbacks=[AccuracyTracker(on_train=True)])
    net.fit(*data)
    net.predict(*data[:1])
    assert global_states() == before


@pytest.mark.parametrize("params", [{}, {"batch_size": 7, "dropout": 0.5}])
def test_same_random_state_same_bits(iris, params):
    X, y = iris
    a, b = small(**params).fit(X, y), small(**params)
    torch.rand(3), np.random.rand(3)  # noqa: NPY002
    b.fit(X, y)
    assert equal_weights(a, b)
    assert a.history[:, "train_loss"] == b.history[:, "train_loss"]
    assert not equal_weights(a, small(**params | {"random_state": 1}).fit(X, y))
    assert equal_weights(a, a.fit(X, y))


def test_no_random_state_means_a_new_one_each_time(iris):
    a, b = (small(random_state=None).fit(*iris) for _ in range(2))
    assert not equal_weights(a, b)


def test_random_state_instance_is_drawn_from(iris):
    rng = np.random.RandomState(0)
    a, b = (small(random_state=rng).fit(*iris) for _ in range(2))
    assert not equal_weights(a, b)
    assert equal_weights(a, small(random_state=np.random.RandomState(0)).fit(*iris))


def test_dropout_in_threads_draws_what_it_draws_alone(iris):
    def nets():
        return [small(dropout=0.5, random_state=i, max_epochs=20) for i in range(4)]

    alone, together = nets(), nets()
    for net in alone:
        net.fit(*iris)
    threads = [threading.Thread(target=net.fit, args=iris) for net in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(equal_weights, alone, together))


def test_partial_fit_epoch_by_epoch_is_one_fit(iris):
    X, y = iris
    whole = small(dropout=0.3, max_epochs=4).fit(X, y)
    parts = small(dropout=0.3, max_epochs=1)
    for _ in range(4):
        parts.partial_fit(X, y)
    assert equal_weights(whole, parts)
    assert whole.history[:, "train_loss"] == parts.history[:, "train_loss"]
    warm = small(dropout=0.3, max_epochs=2, warm_start=True).fit(X, y).fit(X, y)
    assert equal_weights(whole, warm)


def test_each_epoch_has_an_order_of_its_own():
    orders = []

    class Spy(RegularizedNetRegressor):
        def train_step(self, batch, **kwargs):
            orders[-1].extend(batch[0][:, 0].tolist())
            return super().train_step(batch, **kwargs)

        def on_epoch_begin(self, net, **kwargs):
            super().on_epoch_begin(net, **kwargs)
            orders.append([])

    X = np.arange(10.0)[:, None]
    Spy(batch_size=3, max_epochs=3, random_state=0).fit(X, X[:, 0])
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(10)) for order in orders)
    orders.clear()
    Spy(batch_size=3, max_epochs=2, shuffle=False).fit(X, X[:, 0])
    assert orders == [list(range(10))] * 2


@pytest.mark.cuda
def test_cuda_random_state_is_left_alone_and_dropout_repeats(cuda, images):
    before = torch.cuda.get_rng_state()
    a, b = (small(module=AnimalNetDropout).fit(*images) for _ in range(2))
    assert equal_weights(a, b)
    assert torch.equal(torch.cuda.get_rng_state(), before)
