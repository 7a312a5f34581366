"""What early stopping holds out by itself: groups, and what its splits are told."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from skorch.dataset import ValidSplit
from torch.utils.data import Dataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.modules import MLP


class Watched:
    """Mixin: remembers the rows that were trained on and held out."""

    def get_split_datasets(self, X, y=None, **fit_params):
        self.parts = super().get_split_datasets(X, y, **fit_params)
        return self.parts


class Clf(Watched, RegularizedNetClassifier):
    pass


class Reg(Watched, RegularizedNetRegressor):
    pass


def grouped():
    """Return samples of 10 groups, the last of which alone holds class 2."""
    groups = np.repeat(np.arange(10), 10)
    y = np.where(groups == 9, 2, np.arange(100) % 2)
    X = np.random.default_rng(0).normal(size=(100, 3)) + y[:, None]
    X[:, 0] = groups
    return X, y, groups


def test_groups_are_drawn_again_until_all_classes_are_trained_on():
    X, y, groups = grouped()
    n_drawn_again = 0
    for seed in range(12):
        options = {"early_stopping": True, "validation_fraction": 0.3, "max_epochs": 1}
        net = Clf(random_state=seed, **options).fit(X, y, groups=groups)
        train, valid = (part.X[:, 0] for part in net.parts)
        assert 9 in train
        assert len(np.unique(valid)) == 3
        assert not set(train) & set(valid)
        again = Clf(random_state=seed, **options).fit(X, y, groups=groups)
        np.testing.assert_array_equal(again.parts[1].X, net.parts[1].X)
        # Numbers know no classes: the first draw counts.
        other = Reg(random_state=seed, **options).fit(X, y, groups=groups)
        is_good = 9 in other.parts[0].X[:, 0]
        n_drawn_again += not is_good
        assert is_good == np.array_equal(valid, other.parts[1].X[:, 0])
        n_groups = len(np.unique(other.parts[1].X[:, 0]))
        assert n_groups == 3
    assert 0 < n_drawn_again < 12


def test_without_such_groups_the_net_trains_on_all():
    X, y = load_iris(return_X_y=True)
    net = Clf(early_stopping=True, max_epochs=2, random_state=0)
    with pytest.warns(UserWarning, match="too few groups hold it"):
        net.fit(X, y, groups=y)
    train, valid = net.parts
    assert valid is None
    assert len(train) == 150


class Scaled(MLP):
    def forward(self, x, scale=1.0):
        return super().forward(scale * x)


@pytest.mark.parametrize("holdout", ["random", "last"])
@pytest.mark.parametrize("with_groups", [False, True])
@pytest.mark.parametrize("cls", [Clf, Reg])
def test_own_splits_take_no_parameters_of_forward(cls, with_groups, holdout):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.arange(60) % 2
    groups = np.arange(60) // 4 if with_groups else None
    options = {"early_stopping": True, "max_epochs": 3, "holdout": holdout}
    options |= {"random_state": 0, "dtype": "float64"}
    net = cls(module=Scaled, **options).fit(X, y, groups=groups, scale=2.0)
    doubled = cls(**options).fit(2 * X, y, groups=groups)
    key = "valid_loss"
    np.testing.assert_allclose(net.history[:, key], doubled.history[:, key])


def test_a_split_of_the_user_goes_on_getting_them():
    X, y = load_iris(return_X_y=True)
    seen = {}

    def split(dataset, y, **params):
        seen.update(params)
        return ValidSplit(5, stratified=True)(dataset, y)

    Clf(module=Scaled, max_epochs=1, early_stopping=True, train_split=split).fit(
        X, y, scale=2.0
    )
    assert seen == {"scale": 2.0}


class Read(Dataset):
    """A Dataset that a DataLoader reads."""

    def __init__(self, X, y):
        self.pairs = X, y

    def __len__(self):
        return len(self.pairs[1])

    def __getitem__(self, i):
        return tuple(part[i] for part in self.pairs)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_makes_the_same_batches_unless_it_shuffles(shuffle):
    """As the guide says."""
    X, y = load_iris(return_X_y=True)
    net = RegularizedNetClassifier(max_epochs=2, random_state=0, shuffle=shuffle)
    X = X.astype("float32")
    of_arrays = net.fit(X, y).predict_proba(X)
    of_loader = net.fit(Read(X, y)).predict_proba(X)
    assert np.allclose(of_arrays, of_loader, atol=1e-6) != shuffle
