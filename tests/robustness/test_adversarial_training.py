"""Adversarial training: a step is taken on the attacked batch."""

import joblib
import numpy as np
import pytest
import torch
from attack_norms import FREE, NORMS, flat_length
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.model_selection import GridSearchCV
from torch import nn

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.robustness import fgsm, pgd, robust_accuracy
from skreg.transforms import GaussianNoise


def weights(net):
    return torch.cat([w.detach().flatten() for w in net.module_.parameters()])


def small(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 3, "random_state": 0} | params
    return RegularizedNetClassifier(**params)


@pytest.mark.parametrize(
    ("params", "margin"),
    [
        ({"adversarial_eps": 0.1}, 0.08),
        ({"adversarial_eps": 0.1, "adversarial_steps": 3}, 0.08),
        ({"adversarial_eps": 0.5, "adversarial_norm": "l2"}, 0.02),
    ],
)
def test_adversarial_training_raises_robust_accuracy(digits, params, margin):
    """Of ten seeds, none gained less than 0.106 in linf, or than 0.048 in l2."""
    X, y, X_test, y_test = digits
    norm = params.get("adversarial_norm", "linf")
    size = {"eps": params["adversarial_eps"], "norm": norm}
    for seed in range(2):
        net = small(hidden_layer_sizes=100, max_epochs=20, random_state=seed).fit(X, y)
        adversarial = clone(net).set_params(**params).fit(X, y)
        before, after = (
            robust_accuracy(n, X_test, y_test, **size) for n in (net, adversarial)
        )
        assert after > before + margin


def test_eps_zero_is_as_without(iris):
    plain = small(dropout=0.5, lambda2=1e-3, augment=GaussianNoise(0.1)).fit(*iris)
    zero = clone(plain).set_params(adversarial_eps=0, adversarial_steps=5).fit(*iris)
    assert torch.equal(weights(plain), weights(zero))
    assert plain.history[:, "train_loss"] == zero.history[:, "train_loss"]
    attacked = clone(plain).set_params(adversarial_eps=0.1).fit(*iris)
    assert not torch.equal(weights(plain), weights(attacked))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("norm", NORMS)
def test_a_step_is_taken_on_the_attacked_batch(iris, steps, norm):
    """One batch, one epoch: the loss recorded is that of attacked inputs."""
    X, y = iris
    attack = {"adversarial_eps": 0.3, "adversarial_norm": norm}
    net = small(batch_size=-1, max_epochs=1, adversarial_steps=steps, **attack)
    net.fit(X, y, X_val=X, y_val=y)
    start = small(batch_size=-1, max_epochs=0).fit(X, y)
    by_hand = fgsm(start, X, y, eps=0.3, norm=norm)
    losses = [nn.CrossEntropyLoss()(start.infer(x), encoded(y)) for x in (X, by_hand)]
    clean, attacked = (loss.item() for loss in losses)
    assert clean < attacked
    if steps == 1:
        assert_allclose(net.history[0, "train_loss"], attacked, rtol=1e-9)
        by_one_step = clone(start).set_params(max_epochs=1).fit(by_hand, y)
        assert_allclose(weights(net), weights(by_one_step), rtol=0, atol=1e-9)
    else:
        assert clean < net.history[0, "train_loss"] < 1.1 * attacked
        assert net.history[0, "train_loss"] != attacked
    # What is validated is not attacked.
    loss = nn.CrossEntropyLoss()(net.infer(X), encoded(y)).item()
    assert_allclose(net.history[0, "valid_loss"], loss, rtol=1e-6)


def encoded(y):
    return torch.as_tensor(np.searchsorted(np.unique(y), y))


def test_attacks_see_the_net_without_dropout_and_leave_its_statistics(iris):
    modes = []

    class Net(nn.Sequential):
        def __init__(self):
            layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)
            super().__init__(*layers)

        def forward(self, x):
            modes.append({part.training for part in self.modules()})
            return super().forward(x)

    params = {"module": Net, "batch_size": 50, "max_epochs": 1}
    net = small(adversarial_eps=0.1, adversarial_steps=3, **params).fit(*iris)
    # Three gradients and the loss of where they led, then the step; thrice.
    assert modes == ([{False}] * 4 + [{True}]) * 3
    assert net.module_[1].num_batches_tracked == 3


@pytest.mark.parametrize("steps", [1, 2])
def test_with_and_without_hooks_around_batches(iris, steps):
    from skorch.callbacks import Callback

    class SeesBatches(Callback):
        def on_batch_end(self, net, **kwargs):
            assert isinstance(kwargs["batch"], tuple)

    params = {"adversarial_eps": 0.2, "adversarial_steps": steps, "batch_size": 16}
    nets = [
        small(callbacks=callbacks, dropout=0.3, lambda1=1e-3, **params).fit(*iris)
        for callbacks in ([], [SeesBatches()])
    ]
    assert_allclose(*map(weights, nets), rtol=0, atol=1e-9)
    losses = [net.history[:, "train_loss"] for net in nets]
    assert_allclose(*losses)


def test_adversarial_training_in_a_search_on_the_batching_backend(iris):
    search = GridSearchCV(
        small(max_epochs=5, lr=0.01),
        {"adversarial_eps": [0, 0.3], "lambda2": [0, 1e-2]},
        scoring="neg_log_loss",
        cv=2,
    )
    alone = clone(search).fit(*iris).cv_results_["mean_test_score"]
    with joblib.parallel_config("skreg"):
        together = clone(search).fit(*iris).cv_results_["mean_test_score"]
    assert_allclose(together, alone)
    assert (np.abs(alone[:2] - alone[2:]) > 1e-3).all()


def test_adversarial_training_is_reproducible_and_draws_nothing_else(iris):
    params = {"adversarial_eps": 0.2, "adversarial_steps": 2}
    state = torch.get_rng_state()
    one, same = (small(**params).fit(*iris) for _ in range(2))
    assert torch.equal(weights(one), weights(same))
    assert torch.equal(torch.get_rng_state(), state)
    steps = small(**params).set_params(max_epochs=1)
    for _ in range(3):
        steps.partial_fit(*iris)
    assert torch.equal(weights(one), weights(steps))


def test_augmentation_comes_first_and_the_range_is_that_of_the_data(iris):
    X, y = iris
    seen = []

    def augment(X):
        seen.append((X + 5).numpy())
        return X + 5

    class Net(nn.Linear):
        def forward(self, x):
            if self.training:
                seen.append(x.detach().numpy())
            return super().forward(x)

    net = small(
        module=Net,
        module__in_features=4,
        module__out_features=3,
        adversarial_eps=0.25,
        batch_size=-1,
        max_epochs=1,
    ).fit(X, y)
    (plain,) = seen
    assert_allclose(np.abs(plain - X).max(), 0.25)
    assert plain.min() >= X.min()
    assert plain.max() <= X.max()
    seen.clear()
    net.set_params(augment=augment).fit(X, y)
    shifted, attacked = seen
    change = attacked - shifted
    assert_allclose(shifted, X + 5)
    assert_allclose(np.abs(change).max(), 0.25)
    # Beyond the range of the data nothing goes further out.
    beyond = X.max() < X + 5
    assert change[beyond].max() <= 0
    assert change[~beyond].max() > 0


def test_adversarial_training_from_datasets(iris):
    class Pairs(torch.utils.data.Dataset):
        def __init__(self, X, y):
            self.X, self.y = X, y

        def __len__(self):
            return len(self.X)

        def __getitem__(self, i):
            return self.X[i], self.y[i]

    X, y = iris[0].astype(np.float32), encoded(iris[1]).numpy()
    params = {"adversarial_eps": 0.2, "shuffle": False}
    net = small(**params).fit(Pairs(X, y))
    arrays = small(**params).fit(X, y)
    assert_allclose(weights(net), weights(arrays), rtol=0, atol=1e-6)
    integers = small(**params).fit(Pairs(X.astype(int), y))
    arrays = small(**params).fit(X.astype(int), y)
    assert_allclose(weights(integers), weights(arrays), rtol=0, atol=1e-6)
    table = nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"floating-point numbers; got torch\.int64"):
        small(module=table, **params).fit(Pairs(X.astype(int), y))


def test_inputs_that_cannot_be_attacked():
    class Net(nn.Linear):
        def forward(self, a):
            return super().forward(a)

    X = {"a": np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)}
    net = small(module=Net, module__in_features=4, module__out_features=2)
    net.fit(X, np.arange(10) % 2)
    with pytest.raises(ValueError, match=r"adversarial_eps=0.1 needs inputs in one ar"):
        net.set_params(adversarial_eps=0.1).fit(X, np.arange(10) % 2)


def test_what_is_passed_on_to_forward_reaches_the_attack(iris):
    class Net(nn.Linear):
        def forward(self, x, factor):
            return super().forward(x * factor)

    net = small(module=Net, module__in_features=4, module__out_features=3)
    net.set_params(adversarial_eps=0.1).fit(*iris, factor=2.0)
    assert len(net.history) == 3


def test_adversarial_regression():
    X, y = make_regression(200, 10, noise=1, random_state=0)
    X = X.astype(np.float32)

    def error_under_attack(net):
        attacked = fgsm(net, X, y, eps=0.3, bounds=FREE)
        return np.mean((net.predict(attacked) - y) ** 2)

    fits = [
        RegularizedNetRegressor(max_epochs=30, random_state=0, **params).fit(X, y)
        for params in ({}, {"adversarial_eps": 0.3})
    ]
    plain, adversarial = map(error_under_attack, fits)
    assert adversarial < 0.9 * plain


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"adversarial_eps": -1}, "adversarial_eps=-1 must be a finite number >= 0"),
        ({"adversarial_eps": None}, "adversarial_eps=None must be"),
        ({"adversarial_norm": "l1"}, "adversarial_norm='l1' must be 'linf' or 'l2'"),
        ({"adversarial_norm": 2}, "adversarial_norm=2 must be"),
        ({"adversarial_steps": 0}, "adversarial_steps=0 must be a positive integer"),
    ],
)
def test_bad_parameters(iris, params, match):
    with pytest.raises(ValueError, match=match):
        small(**params).fit(*iris)


@pytest.mark.cuda
@pytest.mark.parametrize("norm", NORMS)
def test_on_cuda(cuda, digits, norm):
    X, y, X_test, y_test = digits
    nets = [
        small(device=device, adversarial_eps=0.1, adversarial_norm=norm).fit(X, y)
        for device in ("cpu", "cuda")
    ]
    assert_allclose(*(weights(net).cpu() for net in nets), rtol=0, atol=1e-3)
    net = nets[1]
    attacked = pgd(net, X_test, y_test, eps=0.1, norm=norm)
    assert (flat_length(attacked - X_test, norm) <= 0.1 + 1e-6).all()
    by_cpu = robust_accuracy(nets[0], X_test, y_test, eps=0.1, norm=norm)
    by_cuda = robust_accuracy(net, X_test, y_test, eps=0.1, norm=norm)
    assert_allclose(by_cuda, by_cpu, atol=0.02)
    small(device="cuda", adversarial_eps=0.1, adversarial_steps=2).fit(X, y)
