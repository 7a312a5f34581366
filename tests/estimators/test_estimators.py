import copy
import inspect
import pickle
import random
import subprocess
import sys
import threading
import tracemalloc
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from skorch.callbacks import EpochScoring, ProgressBar
from skorch.dataset import ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torchvision.datasets import FakeData

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.callbacks import AccuracyTracker
from skreg.modules import MLP, AnimalNet, AnimalNetDropout, ToyNet
from skreg.penalties import elastic_net, frobenius_norm
from skreg.training.batches import ArrayDataset


@pytest.fixture(scope="module")
def images():
    """Noise images of three classes that differ in brightness."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2], 20))
    X = rng.normal(y[:, None, None, None] / 4, 1.0, size=(60, 3, 32, 32))
    return X.astype(np.float32), np.array(["cat", "dog", "wild"])[y]


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), y


def small(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 4, "random_state": 0} | params
    return RegularizedNetClassifier(**params)


def weights(net):
    return [w.detach() for w in net.module_.parameters()]


def equal_weights(a, b):
    return all(map(torch.equal, weights(a), weights(b)))


# -- the objective, against plain PyTorch -------------------------------------------


def plain_loop(X, y, *, seed, lr, momentum, lambda1, lambda2, epochs):
    """The course's training loop: full batch, penalties as Python sums."""
    torch.manual_seed(seed)
    net = AnimalNet()
    start = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    norms, losses = [], []
    for _ in range(epochs):
        net.train()
        optimizer.zero_grad()
        loss = F.nll_loss(F.log_softmax(net(X), dim=1), y)
        l1 = sum(w.abs().sum() for w in net.parameters())
        l2 = sum((w**2).sum() for w in net.parameters())
        loss = loss + lambda1 * l1 + lambda2 * l2
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        norms.append(sum((w**2).sum() for w in net.parameters()).sqrt().item())
    return start, norms, losses


def test_parity_with_the_plain_loop_of_the_course(images):
    X, labels = images
    classes, y = np.unique(labels, return_inverse=True)
    start, norms, losses = plain_loop(
        torch.from_numpy(X),
        torch.from_numpy(y),
        seed=2021,
        lr=5e-3,
        momentum=0.99,
        lambda1=1e-3,
        lambda2=1e-3,
        epochs=30,
    )
    settings = {
        "optimizer": torch.optim.SGD,
        "lr": 5e-3,
        "optimizer__momentum": 0.99,
        "lambda1": 1e-3,
        "lambda2": 1e-3,
        "batch_size": -1,
        "random_state": 2021,
    }
    untrained = RegularizedNetClassifier(AnimalNet, max_epochs=0, **settings)
    untrained.fit(X, labels)
    assert untrained.module_.state_dict().keys() == start.keys()
    for name, w in untrained.module_.state_dict().items():
        assert torch.equal(w, start[name])

    net = RegularizedNetClassifier(AnimalNet, max_epochs=30, **settings)
    net.fit(X, labels)
    np.testing.assert_allclose(net.history[:, "param_norm"], norms, rtol=1e-4)
    np.testing.assert_allclose(net.history[:, "train_loss"], losses, rtol=1e-4)
    assert list(net.classes_) == list(classes)


def test_log_softmax_and_nll_loss_are_cross_entropy(images):
    class LogSoftmaxNet(AnimalNet):
        def forward(self, x):
            return F.log_softmax(super().forward(x), dim=1)

    logits = small(module=AnimalNet).fit(*images)
    for criterion in (nn.CrossEntropyLoss, nn.NLLLoss):
        net = small(module=LogSoftmaxNet, criterion=criterion).fit(*images)
        np.testing.assert_allclose(
            net.predict_proba(images[0]), logits.predict_proba(images[0]), atol=1e-4
        )
        np.testing.assert_allclose(
            net.history[:, "train_loss"], logits.history[:, "train_loss"], rtol=1e-4
        )


@pytest.mark.parametrize("penalize", ["all", "weights", ["fc2.*"]])
def test_gradient_of_get_loss_is_the_numerical_derivative(iris, penalize):
    X, y = iris[0].astype(np.float64), iris[1]
    net = small(lambda1=0.3, lambda2=0.7, penalize=penalize, activation="tanh")
    del net.activation
    net.set_params(module__activation="tanh").fit(X, y)
    names = [name for name, _ in net.module_.named_parameters()]
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    def objective(*values):
        outputs = torch.func.functional_call(
            net.module_, dict(zip(names, values, strict=True)), X
        )
        data_loss = net.get_loss(outputs, y, training=False)
        chosen = [
            v
            for name, v in zip(names, values, strict=True)
            if penalize == "all"
            or (penalize == "weights" and name.endswith("weight"))
            or (penalize == ["fc2.*"] and name.startswith("fc2."))
        ]
        return data_loss + elastic_net(chosen, 0.3, 0.7)

    params = tuple(net.module_.parameters())
    assert torch.autograd.gradcheck(objective, params)
    expected = torch.autograd.grad(objective(*params), params)
    got = torch.autograd.grad(net.get_loss(net.module_(X), y, training=True), params)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_validation_loss_holds_no_penalty(images):
    X, y = images
    net = small(lambda1=1.0, lambda2=1.0, batch_size=-1, max_epochs=3)
    net.fit(X, y, X_val=X, y_val=y)
    with torch.no_grad():
        logits = net.module_(torch.from_numpy(X))
    codes = torch.from_numpy(np.searchsorted(net.classes_, y))
    plain = F.cross_entropy(logits, codes).item()
    assert net.history[-1, "valid_loss"] == pytest.approx(plain, rel=1e-6)
    assert net.get_loss(logits, codes).item() == pytest.approx(plain, rel=1e-6)
    penalty = elastic_net(weights(net), 1.0, 1.0).item()
    assert net.get_loss(logits, codes, training=True).item() == pytest.approx(
        plain + penalty, rel=1e-6
    )


def test_train_loss_is_data_loss_plus_train_penalty(iris):
    X, y = iris
    net = small(lambda1=0.01, lambda2=0.02, batch_size=-1, max_epochs=1, lr=0.0)
    net.fit(X, y, X_val=X, y_val=y)  # with lr=0 the weights are as they were
    loss, penalty, valid_loss = net.history[
        0, ("train_loss", "train_penalty", "valid_loss")
    ]
    assert penalty == pytest.approx(elastic_net(weights(net), 0.01, 0.02).item())
    assert loss == pytest.approx(valid_loss + penalty)


def test_zero_lambdas_equal_no_penalty_bit_for_bit(iris):
    class NoPenalty(RegularizedNetClassifier):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            return self.criterion_(y_pred, y_true)

    X, y = iris
    ours = small(lambda1=0.0, lambda2=0, dropout=0.3).fit(X, y)
    plain = NoPenalty(**ours.get_params(deep=False)).fit(X, y)
    assert equal_weights(ours, plain)
    assert set(ours.history[:, "train_penalty"]) == {0.0}


@pytest.mark.parametrize("name", ["lambda1", "lambda2"])
def test_larger_lambda_smaller_norm(iris, name):
    norms = [
        small(max_epochs=60, **{name: value}).fit(*iris).history[-1, "param_norm"]
        for value in [0, 1e-3, 1e-2, 1e-1]
    ]
    assert all(a > b for a, b in pairwise(norms))


def test_penalty_shrinks_only_what_it_covers(iris):
    sgd = {"optimizer": torch.optim.SGD, "lr": 0.01}
    net = small(lambda2=10.0, penalize=["fc1.weight"], max_epochs=50, **sgd)
    norms = net.fit(*iris).history[-1, "param_norms"]
    assert norms["fc1.weight"] < 0.05
    assert min(norms["fc2.weight"], norms["fc1.bias"], norms["fc2.bias"]) > 0.1


def test_sgd_weight_decay_is_twice_lambda2(iris):
    X, y = iris[0].astype(np.float64), iris[1]
    sgd = {"optimizer": torch.optim.SGD, "lr": 0.1, "optimizer__momentum": 0.9}
    ours = small(lambda2=0.01, **sgd).fit(X, y)
    decay = small(optimizer__weight_decay=0.02, **sgd).fit(X, y)
    for a, b in zip(weights(ours), weights(decay), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


LBFGS = {
    "hidden_layer_sizes": (),
    "optimizer": torch.optim.LBFGS,
    "optimizer__line_search_fn": "strong_wolfe",
    "lr": 1.0,
    "batch_size": -1,
    "max_epochs": 100,
}


def test_linear_net_with_l2_is_logistic_regression(iris):
    """Same minimiser: C scales the sum of losses, 1 / 2 the sum of squares."""
    X, y = iris[0].astype(np.float64), iris[1]
    ours = small(lambda2=0.01, penalize="weights", **LBFGS).fit(X, y)
    peer = LogisticRegression(C=1 / (2 * 0.01 * len(X)), tol=1e-8, max_iter=10_000)
    peer.fit(X, y)
    np.testing.assert_allclose(ours.module_.fc1.weight.detach(), peer.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-4)


def test_linear_net_with_l2_is_ridge():
    X, y = load_diabetes(return_X_y=True)
    X = 20 * X
    params = LBFGS | {"lambda2": 0.1, "penalize": "weights", "scale_target": False}
    ours = RegularizedNetRegressor(**params).fit(X, y)
    peer = Ridge(alpha=0.1 * len(X)).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), peer.predict(X), rtol=1e-5)


def test_callbacks_and_subclasses_may_change_lambda_during_the_fit(iris):
    class Annealed(RegularizedNetClassifier):
        def on_epoch_begin(self, net, **kwargs):
            super().on_epoch_begin(net, **kwargs)
            self.lambda2 = 0.1 * (len(self.history) == 2)

    net = Annealed(**small(max_epochs=3).get_params(deep=False)).fit(*iris)
    penalties = net.history[:, "train_penalty"]
    assert penalties[0] == penalties[2] == 0.0
    assert penalties[1] > 0


# -- defaults -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "ours", "peer"),
    [
        (load_digits, RegularizedNetClassifier, MLPClassifier),
        (load_iris, RegularizedNetClassifier, MLPClassifier),
        (load_diabetes, RegularizedNetRegressor, MLPRegressor),
    ],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer:UserWarning")
def test_defaults_learn_as_well_as_those_of_scikit_learn(load, ours, peer):
    X, y = load(return_X_y=True)
    X = X.astype(np.float32)
    scores = cross_val_score(ours(random_state=0), X, y)
    assert scores.mean() > cross_val_score(peer(random_state=0), X, y).mean() - 0.01


def test_every_parameter_shows_in_the_signature():
    common = {"lambda1", "lambda2", "penalize", "dropout", "lr", "early_stopping"}
    for estimator in (RegularizedNetClassifier, RegularizedNetRegressor):
        signature = inspect.signature(estimator)
        assert common < set(signature.parameters)
        assert set(estimator().get_params(deep=False)) == set(signature.parameters) - {
            "kwargs"
        }
        for name in set(signature.parameters) - {
            "kwargs",
            "iterator_valid",
            "callbacks",
        }:
            assert name in estimator.__doc__, name
    assert "classes" in inspect.signature(RegularizedNetClassifier).parameters
    assert "scale_target" in inspect.signature(RegularizedNetRegressor).parameters


def test_a_subclass_adds_parameters_without_repeating_signatures():
    class Mine(RegularizedNetClassifier):
        def __init__(self, *args, sharpness=1.0, lr=0.5, **kwargs):
            super().__init__(*args, lr=lr, **kwargs)
            self.sharpness = sharpness

    net = clone(Mine(AnimalNet, sharpness=2.0, lambda1=0.1, module__in_features=7))
    params = net.get_params(deep=False)
    assert params["module"] is AnimalNet
    assert (params["sharpness"], params["lr"], params["lambda1"]) == (2.0, 0.5, 0.1)
    assert params["module__in_features"] == 7


def test_init_only_stores():
    net = RegularizedNetClassifier(lambda1=-1, module__nonsense=3)
    params = net.get_params(deep=False)
    # Those with a prefix are kept together, in one private attribute.
    stored = {**vars(net), **net._kwargs}
    del stored["_kwargs"]
    assert stored.keys() == params.keys()
    assert all(stored[name] is params[name] for name in params)


def test_unknown_parameter_is_named():
    with pytest.raises(ValueError, match=r"unexpected argument.* lamda1"):
        small(lamda1=0.1).fit([[0.0], [1.0]], [0, 1])


# -- randomness ---------------------------------------------------------------------


def global_states():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        np.random.get_state()[2],  # noqa: NPY002
        random.getstate(),
    )


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


# -- data of all kinds --------------------------------------------------------------


def test_string_labels_and_probabilities(iris):
    X, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])
    net = small(max_epochs=60, lr=0.01).fit(X, names[y])
    assert list(net.classes_) == sorted(names)
    assert net.score(X, names[y]) > 0.9
    proba = net.predict_proba(X)
    assert proba.shape == (150, 3)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert np.array_equal(net.predict(X), net.classes_[proba.argmax(axis=1)])


@pytest.mark.parametrize("labels", [[3, 7], [False, True], ["no", "yes"], [-1.0, 1.0]])
def test_labels_need_not_be_indices(labels):
    X = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    y = np.array(labels)[(X[:, 0] > 0).astype(int)]
    net = small(max_epochs=100, lr=0.02).fit(X, y)
    assert net.predict(X).dtype == y.dtype
    assert net.score(X, y) == 1


@pytest.mark.parametrize(
    ("dtype", "trained"),
    [
        (np.float64, torch.float64),
        (np.float32, torch.float32),
        (np.float16, torch.float32),
        (np.int64, torch.float32),
        (np.uint8, torch.float32),
        (bool, torch.float32),
    ],
)
def test_dtype_follows_X(dtype, trained):
    X = np.arange(20).reshape(10, 2).astype(dtype)
    net = small().fit(X, [0, 1] * 5)
    assert {w.dtype for w in weights(net)} == {trained}
    assert net.predict_proba(X).dtype == np.dtype(str(trained).removeprefix("torch."))
    forced = small(dtype="float64").fit(X, [0, 1] * 5)
    assert {w.dtype for w in weights(forced)} == {torch.float64}


def test_frames_lists_and_tensors_give_the_same_net(iris):
    X, y = iris
    reference = small().fit(X, y)
    frame = pd.DataFrame(X, columns=list("abcd"))
    net = small().fit(frame, pd.Series(y))
    assert list(net.feature_names_in_) == list("abcd")
    assert equal_weights(net, reference)
    assert np.array_equal(net.predict(frame), reference.predict(X))
    tensors = small().fit(torch.from_numpy(X), torch.from_numpy(y))
    assert equal_weights(tensors, reference)
    assert equal_weights(small(dtype="float32").fit(X.tolist(), y.tolist()), reference)


def test_images_fill_in_the_sizes_of_a_module(images):
    X, y = images
    net = small(module=AnimalNet).fit(X[:, :1, :8, :8], y)
    assert net.module_.fc1.in_features == 64
    assert small(module=AnimalNet).fit(X, y).input_shape_ == (3, 32, 32)
    with pytest.raises(
        ValueError, match=r"shape \(3, 32, 31\).*fitted on .*\(3, 32, 32\)"
    ):
        small(module=AnimalNet).fit(X, y).predict(X[:, :, :, :31])


def test_what_the_user_sets_for_the_module_wins(images):
    net = RegularizedNetClassifier(
        module__hidden_layer_sizes=(5,), module__activation="tanh", max_epochs=1
    ).fit(*images)
    assert net.module_.fc1.out_features == 5
    assert isinstance(net.module_.activation, nn.Tanh)


class Unknown(torch.utils.data.Dataset):
    """A Dataset that shows nothing but what the protocol asks for."""

    def __init__(self, X, y):
        self.pairs = list(zip(X, y, strict=True))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        return self.pairs[i]


@pytest.mark.parametrize("labels", [[0, 1, 2], [10, 20, 30], ["a", "b", "c"]])
def test_datasets_give_the_net_of_their_arrays(iris, labels):
    X, y = iris[0], np.array(labels)[iris[1]]
    reference = small(shuffle=False).fit(X, y)
    datasets = [Unknown(X, y), Subset(Unknown(X, y), range(150))]
    if not isinstance(labels[0], str):
        datasets.append(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)))
    for dataset in datasets:
        net = small(shuffle=False).fit(dataset)
        assert list(net.classes_) == labels
        assert equal_weights(net, reference)
        assert np.array_equal(net.predict(dataset), reference.predict(X))
        assert net.fit(dataset, X_val=dataset).history[-1, "valid_acc"] == np.mean(
            reference.predict(X) == y
        )


def test_dataset_in_a_dataloader_is_shuffled_and_reproducible(iris):
    dataset = Unknown(*iris)
    a, b = (small(batch_size=16).fit(dataset) for _ in range(2))
    assert equal_weights(a, b)
    assert not equal_weights(a, small(batch_size=16, shuffle=False).fit(dataset))
    workers = small(batch_size=16, iterator_train__num_workers=1).fit(dataset)
    assert equal_weights(a, workers)


def test_arrays_through_a_dataloader_give_the_same_net(iris):
    in_memory = small(shuffle=False).fit(*iris)
    loader = small(shuffle=False, iterator_train=DataLoader).fit(*iris)
    assert equal_weights(in_memory, loader)


def test_dict_of_inputs_reaches_forward_by_name(iris):
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(2, 3)

        def forward(self, left, right):
            return self.a(left) + self.b(right)

    X, y = iris
    inputs = {"left": X[:, :2], "right": X[:, 2:]}
    net = small(module=TwoInputs, max_epochs=100, lr=0.05).fit(inputs, y)
    assert net.score(inputs, y) > 0.9


def test_module_instance_is_copied_and_keeps_its_weights(iris):
    module = MLP(4, 3)
    before = copy.deepcopy(module.state_dict())
    net = small(module=module, max_epochs=0).fit(*iris)
    assert all(torch.equal(w, before[n]) for n, w in net.module_.state_dict().items())
    net.set_params(max_epochs=3).fit(*iris)
    assert all(torch.equal(w, before[n]) for n, w in module.state_dict().items())
    assert clone(net).module is not None


def test_lazy_modules_see_the_data_first(images):
    net = small(module=nn.Sequential, max_epochs=1)

    class Lazy(nn.Module):
        def __init__(self, out_features):
            super().__init__()
            self.net = nn.Sequential(
                nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(out_features)
            )

        def forward(self, x):
            return self.net(x)

    net.set_params(module=Lazy).fit(*images)
    assert net.predict_proba(images[0]).shape == (60, 3)


def test_dropout_sets_every_dropout_layer(images):
    net = small(module=AnimalNetDropout, dropout=0.125).fit(*images)
    assert (net.module_.dropout1.p, net.module_.dropout2.p) == (0.125, 0.125)
    net.set_params(dropout=None).fit(*images)
    assert (net.module_.dropout1.p, net.module_.dropout2.p) == (0.5, 0.3)
    with pytest.raises(ValueError, match="AnimalNet has no dropout layer"):
        small(module=AnimalNet, dropout=0.5).fit(*images)


# -- regression ---------------------------------------------------------------------


def test_predictions_do_not_depend_on_the_unit_of_y():
    X, y = load_diabetes(return_X_y=True)
    net = RegularizedNetRegressor(random_state=0, max_epochs=10)
    one = net.fit(X, y).predict(X)
    other = net.fit(X, 1e6 * y - 1e9).predict(X)
    np.testing.assert_allclose((other + 1e9) / 1e6, one, rtol=1e-6)
    constant = net.fit(X, np.full(len(y), 7.0)).predict(X)
    np.testing.assert_allclose(constant, 7, atol=1)


def test_shape_of_y_is_the_shape_of_predictions():
    X = np.random.default_rng(0).normal(size=(50, 3))
    for shape in [(50,), (50, 1), (50, 2)]:
        y = np.resize(X.sum(axis=1), shape)
        net = RegularizedNetRegressor(max_epochs=2).fit(X, y)
        assert net.predict(X).shape == shape
    assert not hasattr(net, "predict_proba")


def test_raw_targets_are_fitted_as_they_are():
    X = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    y = 2 * X[:, 0]
    settings = {"scale_target": False, "batch_size": -1, "random_state": 2021}
    net = RegularizedNetRegressor(ToyNet, max_epochs=30, **settings).fit(X, y)
    torch.manual_seed(2021)
    plain = ToyNet()
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.mse_loss(plain(torch.from_numpy(X)), torch.from_numpy(y)[:, None])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(net.history[:, "train_loss"], losses, rtol=1e-4)
    assert frobenius_norm(net.module_) == pytest.approx(frobenius_norm(plain), rel=1e-4)


# -- skorch -------------------------------------------------------------------------


@pytest.mark.parametrize("use_caching", [True, False])
@pytest.mark.parametrize("on_train", [True, False])
def test_epoch_scoring_of_skorch_sees_consistent_labels(images, on_train, use_caching):
    scoring = EpochScoring(
        "accuracy", name="acc", on_train=on_train, use_caching=use_caching
    )
    X, y = images
    net = small(module=AnimalNet, callbacks=[scoring], batch_size=-1, max_epochs=3)
    net.fit(X, y, X_val=X, y_val=y)
    if not use_caching or not on_train:
        assert net.history[-1, "acc"] == net.score(X, y)
    assert net.history[-1, "acc"] > 0.5


def test_train_split_of_skorch(images):
    X, y = images
    net = small(module=AnimalNet, train_split=ValidSplit(5, stratified=True)).fit(X, y)
    assert 0 <= net.history[-1, "valid_acc"] <= 1
    codes = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    held_out = TensorDataset(torch.from_numpy(X), codes)
    net = small(module=AnimalNet, train_split=predefined_split(held_out))
    net.fit(X, np.unique(y, return_inverse=True)[1])
    assert net.history[-1, "valid_acc"] == net.score(X, codes.numpy())


def test_user_callbacks_and_their_parameters(iris):
    net = small(callbacks__norms=None, callbacks__divergence_guard=None).fit(*iris)
    assert "param_norm" not in net.history[0]
    printed = []
    small(verbose=1, callbacks__print_log__sink=printed.append).fit(*iris)
    assert "param_norm" in printed[0]
    assert "param_norms" not in printed[0]


def test_progress_bar_of_skorch(iris, capsys):
    small(callbacks=[ProgressBar()]).fit(*iris)
    assert "0/3 [" in capsys.readouterr().err  # three batches of 64


def test_steps_of_skorch_may_be_taken_by_hand(iris):
    """Without fit there is no session: no weights of samples, no validation data."""
    X, y = iris
    net = small(module=MLP, module__in_features=4, module__out_features=3, lambda1=0.1)
    net.initialize()
    net.classes_inferred_ = np.arange(3)
    net.fit_loop(X, y, epochs=2)
    assert len(net.history) == 2
    batch = torch.from_numpy(X), torch.from_numpy(y)
    loss = net.train_step(batch)["loss"].item()
    assert loss > net.validation_step(batch)["loss"].item()


def test_lbfgs_works(iris):
    net = small(optimizer=torch.optim.LBFGS, lr=0.1, batch_size=-1, lambda2=1e-3)
    assert net.fit(*iris).score(*iris) > 0.9


def test_pickle_copy_and_clone(iris):
    X, y = iris
    net = small(lambda1=1e-3, dropout=0.1).fit(X, y)
    for copied in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert np.array_equal(copied.predict_proba(X), net.predict_proba(X))
        assert copied.get_params(deep=False) == net.get_params(deep=False)
        assert copied.device == "auto"
    unfitted = clone(net)
    assert "module_" not in vars(unfitted)
    assert equal_weights(unfitted.fit(X, y), net)


def test_grid_search(iris):
    grid = {"lambda1": [0, 10.0], "module__activation": ["relu", "tanh"]}
    search = GridSearchCV(small(max_epochs=30, lr=0.02), grid, cv=3).fit(*iris)
    assert search.best_params_["lambda1"] == 0
    assert search.best_score_ > 0.8


def test_regressor_rejects_outputs_that_would_broadcast():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, 1)

        def forward(self, x):
            return self.fc(x)[:, 0]

    X = [[0.0], [1], [2]]
    with pytest.raises(ValueError, match=r"outputs of shape \(3,\).*of shape \(3, 2\)"):
        RegularizedNetRegressor(Flat).fit(X, [[0.0, 1], [1, 2], [2, 0]])
    # Of a single target the axis may be missing: (3,) is not subtracted from (3, 1).
    net = RegularizedNetRegressor(Flat, max_epochs=1).fit(X, [0.0, 1, 2])
    assert net.predict(X).shape == (3,)


# -- bad input ----------------------------------------------------------------------


BAD_PARAMETERS = [
    ("lambda1", -0.1, r"lambda1=-0\.1 must be a finite number >= 0; use 0"),
    ("lambda2", float("nan"), "lambda2=nan must be a finite number >= 0"),
    ("lambda2", "1e-3", "lambda2='1e-3' must be a finite number >= 0"),
    ("lambda1", True, "lambda1=True must be a finite number"),
    ("dropout", 1.5, r"dropout=1\.5 must be None or a probability in \[0, 1\]"),
    ("dropout", -0.1, r"dropout=-0\.1 must be None or a probability"),
    ("penalize", "biases", "penalize='biases' must be 'all', 'weights' or a list"),
    ("penalize", ["conv*"], r"\['conv\*'\] matches no parameter.*'fc1\.weight'"),
    ("device", "gpu", "device='gpu' cannot be used on this machine .* use 'auto'"),
    ("device", "xla", "device='xla' cannot be used on this machine"),
    ("lr", -1, "lr=-1 must be a finite number >= 0"),
    ("max_epochs", 2.5, r"max_epochs=2\.5 must be an integer >= 0"),
    ("batch_size", 0, "batch_size=0 must be a positive integer or -1"),
    ("patience", -1, "patience=-1 must be an integer >= 0"),
    ("validation_fraction", 1.0, r"validation_fraction=1\.0 must be .* 0 and 1"),
    ("random_state", -1, "random_state=-1 must be None, an integer"),
    ("dtype", "int8", "dtype='int8' must be 'auto', 'float32' or 'float64'"),
    ("optimizer", "adam", "optimizer='adam' must be an optimizer class"),
    ("early_stopping", "yes", "early_stopping='yes' must be a bool"),
    ("hidden_layer_sizes", (0,), r"hidden_layer_sizes=\(0,\) must be a positive"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_PARAMETERS)
def test_bad_parameters(iris, name, value, message):
    with pytest.raises(ValueError, match=message):
        small(**{name: value}).fit(*iris)


def test_all_bad_parameters_are_listed_at_once(iris):
    with pytest.raises(ValueError, match=r"lambda1=-1 .*\n.*dropout=2 .*\n.*lr=-3 "):
        small(lambda1=-1, dropout=2, lr=-3).fit(*iris)


BAD_DATA = {
    "NaN": ([[np.nan], [1.0]], [0, 1], "Input X contains NaN"),
    "infinity": ([[np.inf], [1.0]], [0, 1], "Input X contains infinity"),
    "empty": (np.empty((0, 3)), [], r"0 sample\(s\)"),
    "no features": (np.empty((3, 0)), [0, 1, 0], r"0 feature\(s\)"),
    "one dimension": ([0.0, 1.0], [0, 1], "Expected 2D array, got 1D array"),
    "lengths": ([[0.0], [1.0]], [0, 1, 0], "inconsistent numbers of samples"),
    "one class": ([[0.0], [1.0]], ["cat", "cat"], "at least 2 classes.*1 class: 'cat'"),
    "no y": ([[0.0], [1.0]], None, "requires y to be passed"),
    "continuous y": ([[0.0], [1.0]], [0.5, 1.5], "Unknown label type"),
    "NaN in y": ([[0.0], [1.0]], [np.nan, 1], "Input y contains NaN"),
    "text": ([["a"], ["b"]], [0, 1], "could not convert string to float"),
    "empty dataset": (TensorDataset(torch.zeros(0, 3)), None, "Dataset of 0 samples"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(case):
    X, y, message = BAD_DATA[case]
    with pytest.raises(ValueError, match=message):
        small().fit(X, y)


def test_iterable_dataset_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield torch.zeros(1), 0

    with pytest.raises(ValueError, match=r"IterableDataset.*map-style"):
        small().fit(Stream())


def test_bad_validation_data(iris):
    X, y = iris
    with pytest.raises(ValueError, match="X_val and y_val belong together"):
        small().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match=r"labels \[9\] that are none of the classes"):
        small().fit(X, y, X_val=X[:1], y_val=[9])
    with pytest.raises(ValueError, match="X has 3 features"):
        small().fit(X, y, X_val=X[:, :3], y_val=y)


def test_module_with_the_wrong_number_of_outputs(iris):
    with pytest.raises(ValueError, match=r"shape \(64, 2\).*there are 3 classes"):
        small(module__out_features=2).fit(*iris)


def test_a_failed_fit_can_be_repeated(iris):
    net = small(module__out_features=2)
    with pytest.raises(ValueError, match="3 classes"):
        net.fit(*iris)
    net.set_params(module__out_features=3).fit(*iris)
    assert equal_weights(net, small().fit(*iris))


def test_initialize_without_data_says_what_is_missing():
    with pytest.raises(ValueError, match="call fit, or pass a module"):
        RegularizedNetClassifier().initialize()
    net = RegularizedNetRegressor(ToyNet, random_state=0).initialize()
    assert len(weights(net)) == 6


@given(st.integers(1, 40), st.sampled_from([1, 3, 16, 64, -1]))
@settings(max_examples=20)
def test_predictions_do_not_depend_on_the_batch_size(n, batch_size):
    X = np.random.default_rng(0).normal(size=(40, 3))
    net = small(max_epochs=1).fit(X, np.arange(40) % 3)
    whole = net.predict_proba(X)[:n]
    net.set_params(batch_size=batch_size)
    np.testing.assert_allclose(net.predict_proba(X[:n]), whole, rtol=1e-10)


@pytest.mark.cuda
def test_cuda_gives_the_same_net_up_to_rounding(cuda, images):
    X, y = images
    params = {"module": AnimalNet, "lambda1": 1e-3, "lambda2": 1e-3, "batch_size": 16}
    cpu = small(device="cpu", **params).fit(X, y, X_val=X, y_val=y)
    for device in ("cuda", "auto"):
        net = small(device=device, **params).fit(X, y, X_val=X, y_val=y)
        assert net.device_.type == "cuda"
        for a, b in zip(weights(net), weights(cpu), strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-2, atol=1e-3)
        assert net.predict_proba(X).shape == (60, 3)


@pytest.mark.cuda
def test_cuda_random_state_is_left_alone_and_dropout_repeats(cuda, images):
    before = torch.cuda.get_rng_state()
    a, b = (small(module=AnimalNetDropout).fit(*images) for _ in range(2))
    assert equal_weights(a, b)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_criterion_with_weights_of_classes_follows_the_dtype(iris):
    X, y = iris
    for criterion in (
        {"criterion__weight": torch.tensor([1.0, 2.0, 3.0])},
        {"criterion": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))},
    ):
        single, double = small(**criterion).fit(X, y), small(**criterion)
        double.fit(X.astype(np.float64), y)
        assert double.criterion_.weight.dtype == torch.float64
        np.testing.assert_allclose(
            single.predict_proba(X), double.predict_proba(X), atol=1e-3
        )


def test_a_last_batch_that_batch_normalisation_cannot_take(iris):
    class Normalized(nn.Module):
        def __init__(self, in_features, out_features):
            super().__init__()
            self.norm = nn.BatchNorm1d(in_features)
            self.fc = nn.Linear(in_features, out_features)

        def forward(self, x):
            return self.fc(self.norm(x))

    fitted = small(module=Normalized, batch_size=149, max_epochs=1).fit(*iris)
    assert [b["train_batch_size"] for b in fitted.history[-1, "batches"]] == [150]
    with pytest.raises(ValueError, match=r"batch_size=1 .* batch normalisation"):
        small(module=Normalized, batch_size=1).fit(*iris)
    small(module=Normalized, batch_size=149, iterator_train__drop_last=True).fit(*iris)


def test_images_of_pil_are_no_numbers():
    dataset = FakeData(6, (3, 8, 8), num_classes=2, transform=None)
    with pytest.raises(ValueError, match="FakeData yields PIL images; give it a"):
        small().fit(dataset, y=[0, 1] * 3)


def test_too_few_samples_to_hold_some_out():
    with pytest.warns(
        UserWarning, match=r"hold out validation_fraction=0\.1 of 3 .*X_val"
    ):
        net = small(early_stopping=True).fit([[0.0], [1], [2]], [0, 1, 2])
    assert net.best_epoch_ == len(net.history)


COMPONENTS = ["module", "criterion", "callbacks", "train_split"]


@pytest.mark.parametrize("name", [*COMPONENTS, "predict_nonlinearity", "verbose"])
def test_components_that_are_none(iris, name):
    with pytest.raises(ValueError, match=f"{name}='x' must be"):
        small(**{name: "x"}).fit(*iris)


# -- memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("params", [{}, {"batch_size": -1}, {"shuffle": False}])
def test_memory_maps_are_not_read_into_memory(tmp_path, mode, params):
    shape = 4000, 500
    mapped = np.memmap(tmp_path / "X", np.float32, "w+", shape=shape)
    mapped[:] = np.random.default_rng(0).random(shape, dtype=np.float32)
    mapped.flush()
    X = np.memmap(tmp_path / "X", np.float32, mode, shape=shape)
    y = np.arange(4000) % 2
    net = RegularizedNetClassifier(hidden_layer_sizes=4, max_epochs=2, **params)
    net.fit(X[:100], y[:100])  # what is loaded at the first fit is not counted
    tensors = ArrayDataset(X, y).tensors(torch.device("cpu"))
    assert tensors[0].data_ptr() == X.ctypes.data
    tracemalloc.start()
    net.fit(X, y, X_val=X, y_val=y).predict(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < X.nbytes / 4


def test_a_fit_takes_little_more_memory_than_its_data():
    script = """
import numpy as np, resource
from skreg import RegularizedNetClassifier
net = RegularizedNetClassifier(hidden_layer_sizes=8, max_epochs=2)
net.fit(np.zeros((10, 5), np.float32), np.arange(10) % 2)

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

X = np.full((100_000, 500), 0.5, np.float32)
X[:, 0] = np.arange(100_000) / 100_000
y, before = np.arange(100_000) % 2, peak()
net.fit(X, y, np.linspace(1, 2, 100_000)).predict(X)
print((peak() - before) / X.nbytes)
"""
    pytest.importorskip("resource", reason="Windows tells no peak of memory")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.2
