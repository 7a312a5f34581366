"""Attacks know the range of the training data, and say where they are blind."""

import pickle

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.utils.data import DataLoader

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.datasets import load_digit_images
from skreg.displays import AttackedImagesDisplay, RobustnessDisplay
from skreg.robustness import fgsm, make_robust_scorer, pgd, robust_accuracy


@pytest.fixture(scope="module")
def digits():
    X, y = load_digit_images(return_X_y=True)
    return X[:300], y[:300], X[300:], y[300:]


@pytest.fixture(scope="module")
def digits_net(digits):
    return small(max_epochs=20).fit(*digits[:2])


def small(make=RegularizedNetClassifier, **params):
    return make(**{"max_epochs": 2, "random_state": 0, **params})


class Pairs(torch.utils.data.Dataset):
    def __init__(self, X, y):
        self.X, self.targets = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.targets[i]


# -- the range of the training data -------------------------------------------------


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("bounds", [None, (0, 1)])
def test_samples_are_attacked_as_among_others(digits, digits_net, attack, bounds):
    X, y = digits[2][:100], digits[3][:100]
    X = np.clip(X, 0.2, 0.8)  # far from the bounds
    options = {"eps": 0.3, "bounds": bounds}
    among_others = attack(digits_net, X, y, **options)
    np.testing.assert_allclose(
        attack(digits_net, X[:10], y[:10], **options), among_others[:10], atol=1e-6
    )
    assert among_others.min() < 0.1
    assert among_others.max() > 0.9


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("n", [1, 7, 16])
def test_random_climbs_do_not_depend_on_what_follows(norm, n):
    X = np.random.default_rng(0).uniform(size=(40, 5))
    y = (X[:, 0] > 0.5).astype(int)
    net = small(max_epochs=5).fit(X, y)
    # Tiny steps end close to where they began.
    options = {"eps": 0.2, "norm": norm, "steps": 1, "step_size": 1e-3}
    whole = pgd(net, X, y, n_restarts=3, **options)
    part = pgd(net, X[:n], y[:n], n_restarts=3, **options)
    np.testing.assert_allclose(part, whole[:n], atol=1e-9)
    assert (whole != pgd(net, X, y, n_restarts=1, **options)).any()


def test_a_constant_row_is_not_robust_for_being_alone(digits, digits_net):
    gray = np.full((1, *digits[0].shape[1:]), 0.5, np.float32)
    y = digits_net.predict(gray)
    attacked = fgsm(digits_net, gray, y, eps=0.1)
    np.testing.assert_allclose(np.abs(attacked - gray).max(), 0.1, rtol=1e-5)
    assert robust_accuracy(digits_net, gray, y, eps=0.5) == 0


def test_robust_accuracy_of_parts_is_that_of_the_whole(digits, digits_net):
    X, y = np.clip(digits[2][:100], 0.2, 0.8), digits[3][:100]
    options = {"eps": 0.15, "attack": "fgsm"}
    whole = robust_accuracy(digits_net, X, y, **options)
    scorer = make_robust_scorer(**options)
    parts = [
        [robust_accuracy(digits_net, X[k : k + 1], y[k : k + 1], **options), score]
        for k in range(100)
        for score in [scorer(digits_net, X[k : k + 1], y[k : k + 1])]
    ]
    np.testing.assert_allclose(np.mean(parts, axis=0), whole)
    assert 0 < whole < 1


def test_displays_attack_within_the_range_too(digits, digits_net):
    X, y = np.clip(digits[2][:20], 0.3, 0.7), digits[3][:20]
    display = RobustnessDisplay.from_estimator(digits_net, X, y, eps=[0, 0.3])
    expected = robust_accuracy(digits_net, X, y, eps=[0, 0.3], bounds=(0, 1))
    (accuracies,) = display.accuracies.values()
    np.testing.assert_array_equal(accuracies[0], expected)
    images = AttackedImagesDisplay.from_estimator(digits_net, X[:5], y[:5], eps=0.3)
    assert images.images.min() == 0


@pytest.mark.parametrize("make", [RegularizedNetClassifier, RegularizedNetRegressor])
def test_fit_keeps_the_range_and_partial_fit_extends_it(make, tmp_path):
    X = np.random.default_rng(0).uniform(-1, 3, size=(40, 5))
    y = np.arange(40) % 2
    net = small(make).fit(X, y)
    assert net.input_range_ == (X.min(), X.max())
    assert pickle.loads(pickle.dumps(net)).input_range_ == net.input_range_
    assert not hasattr(clone(net), "input_range_")
    net.partial_fit(2 * X[:20], y[:20])
    assert net.input_range_ == (
        min(X.min(), 2 * X[:20].min()),
        max(X.max(), 2 * X[:20].max()),
    )
    net.set_params(warm_start=True).fit(0.1 * X, y)
    assert net.input_range_[1] >= X.max()
    net.set_params(warm_start=False).fit(0.1 * X, y)
    assert net.input_range_ == ((0.1 * X).min(), (0.1 * X).max())
    with joblib.parallel_config("skreg"):
        fits = joblib.Parallel()(joblib.delayed(small(make).fit)(X, y) for _ in "ab")
    assert {fitted.input_range_ for fitted in fits} == {(X.min(), X.max())}


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_of_all_kinds_of_data(eps, tmp_path):
    X = np.random.default_rng(0).uniform(1, 3, size=(40, 5)).astype(np.float32)
    y = np.arange(40) % 2
    expected = float(X.min()), float(X.max())
    mapped = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", X.dtype, X.shape)
    mapped[:] = X
    kinds = {
        "file": (mapped, y),
        "list": (X.tolist(), y),
        "tensor": (torch.as_tensor(X), y),
        "dataset": (Pairs(X, y), None),
    }
    for name, data in kinds.items():
        net = small(adversarial_eps=eps).fit(*data)
        np.testing.assert_allclose(net.input_range_, expected, rtol=1e-6, err_msg=name)
    loaded = small(adversarial_eps=eps, iterator_train=DataLoader).fit(X, y)
    assert loaded.input_range_ == expected
    # The zeros of a matrix are numbers as any others.
    sparse = small(adversarial_eps=eps).fit(sp.csr_matrix(X * (X > 2)), y)
    assert sparse.input_range_ == (0, expected[1])


def test_a_dataset_is_read_no_more_often_for_it():
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)

    class Counts(Pairs):
        n_read = 0

        def __getitem__(self, i):
            self.n_read += 1
            return super().__getitem__(i)

    data = Counts(X, np.arange(20) % 2)
    net = small(max_epochs=3).fit(data)
    assert data.n_read < 3 * 20 + 5  # and the first sample, for its shape
    assert net.input_range_ == (X.min(), X.max())
    net.partial_fit(Counts(2 * X, data.targets))
    assert net.input_range_ == (2 * X.min(), 2 * X.max())


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_dataset_of_integers(dtype):
    X = np.random.default_rng(0).integers(3, 250, size=(40, 5)).astype(dtype)
    net = small().fit(Pairs(X, np.arange(40) % 2))
    assert net.input_range_ == (X.min(), X.max())
    assert net.input_range_ == small().fit(X, np.arange(40) % 2).input_range_


def test_a_dataset_of_dicts_cannot_be_attacked_and_says_so():
    class Dicts(Pairs):
        def __getitem__(self, i):
            return {"x": self.X[i]}, self.targets[i]

    data = Dicts(np.ones((9, 3), np.float32), np.arange(9) % 2)
    net = small(module=nn.Linear(3, 2), adversarial_eps=0.1)
    with pytest.raises(ValueError, match=r"adversarial_eps=0\.1 needs inputs in one"):
        net.fit(data)


def test_inputs_in_a_dict_have_no_range():
    class OfDict(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(x)

    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    net = small(module=OfDict).fit({"x": X}, np.arange(20) % 2)
    assert not hasattr(net, "input_range_")


def test_a_net_without_a_range_says_what_it_does_instead(digits, digits_net, tmp_path):
    X, y = np.clip(digits[2][:20], 0.3, 0.7), digits[3][:20]
    digits_net.save_params(f_params=tmp_path / "weights.pt")
    loaded = small(module=digits_net.module_).partial_fit(*digits[:2])
    loaded.load_params(f_params=tmp_path / "weights.pt")
    del loaded.input_range_
    with pytest.warns(UserWarning, match=r"has no input_range_.*bounds=\(low, high\)"):
        attacked = fgsm(loaded, X, y, eps=0.3)
    assert attacked.min() >= np.float32(0.3)
    fgsm(loaded, X, y, eps=0.3, bounds=(0, 1))  # and no warning


def test_samples_out_of_the_range_are_not_moved_further_out(digits, digits_net):
    X, y = 1.4 * digits[2][:50] - 0.2, digits[3][:50]
    attacked = pgd(digits_net, X, y, eps=0.1)
    assert (attacked >= np.minimum(X, 0) - 1e-6).all()
    assert (attacked <= np.maximum(X, 1) + 1e-6).all()
    assert (attacked[X > 1.15] < 1.2).any()
    with pytest.raises(ValueError, match="X must lie within bounds"):
        pgd(digits_net, X, y, eps=0.1, bounds=(0, 1))


def test_adversarial_training_stays_in_the_range_of_all_it_was_trained_on():
    X = np.random.default_rng(0).uniform(0, 1, size=(40, 5))
    y = np.arange(40) % 2
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            if self.training:
                seen.append(x.detach())
            return super().forward(x)

    sizes = {"module__in_features": 5, "module__out_features": 2}
    net = small(module=Spy, adversarial_eps=0.5, batch_size=-1, **sizes).fit(X, y)
    seen.clear()
    net.partial_fit(np.full((8, 5), 0.5), y[:8])
    assert min(x.min() for x in seen) < 0.3
    assert max(x.max() for x in seen) > 0.7


# -- attacks without gradients ------------------------------------------------------


class Layers(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class Quantized(Layers):
    """Sees 256 shades."""

    def forward(self, x):
        return super().forward(torch.round(x * 255) / 255)


class Detached(Layers):
    def forward(self, x):
        return super().forward(x.detach())


class WithoutGradients(Layers):
    def forward(self, x):
        with torch.set_grad_enabled(self.training):
            return super().forward(x)


@pytest.mark.parametrize("module", [Quantized, Detached])
def test_a_blind_attack_says_so(digits, module):
    net = small(module=module, max_epochs=20).fit(*digits[:2])
    X, y = digits[2][:60], digits[3][:60]
    n_right = int(net.score(X, y) * 60 + 0.5)
    assert n_right > 30
    with pytest.warns(UserWarning, match=f"blind: .* zero for {n_right} of {n_right} "):
        robust_accuracy(net, X, y, eps=0.1, steps=3)
    for attack in (fgsm, pgd):
        with pytest.warns(UserWarning, match="zero for 60 of 60 samples"):
            attack(net, X, y, eps=0.1, batch_size=25)
    with pytest.warns(UserWarning, match="attack is blind"):
        make_robust_scorer(0.1, attack="fgsm")(make_pipeline(net), X, y)
    # Without an attack there is nothing to be said.
    assert robust_accuracy(net, X, y, eps=0) == net.score(X, y)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("module", [Quantized, Detached])
def test_blind_adversarial_training_says_so_once(digits, module, steps):
    net = small(module=module, adversarial_eps=0.1, adversarial_steps=steps)
    with pytest.warns(UserWarning, match="training is not adversarial") as warned:
        net.fit(*digits[:2])
    assert len(warned) == 1


def test_no_gradients_at_all_are_an_error(digits):
    net = small(module=WithoutGradients).fit(*digits[:2])
    X, y = digits[2][:10], digits[3][:10]
    for attack in (fgsm, pgd, robust_accuracy):
        with pytest.raises(
            ValueError, match=r"WithoutGradients have no gradients.*no_"
        ):
            attack(net, X, y, eps=0.1)
    net.set_params(adversarial_eps=0.1)
    with pytest.raises(ValueError, match="WithoutGradients have no gradients"):
        net.fit(*digits[:2])
