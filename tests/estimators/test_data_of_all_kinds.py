"""Data of all kinds: labels, dtypes, frames, images, Datasets, targets."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_nets import equal_weights, small, weights
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.modules import MLP, AnimalNet, AnimalNetDropout, ToyNet
from skreg.penalties import frobenius_norm


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
