"""What is held out of training data, and samples that a split leaves out."""

import joblib
import numpy as np
import pytest
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    TimeSeriesSplit,
)
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch.utils.data import Dataset, Subset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor


class Seen(Callback):
    """Remembers the first feature of what is trained and validated on."""

    def on_train_begin(self, net, **kwargs):
        self.train = self.valid = None

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.train, self.valid = (
            [float(np.asarray(dataset[i][0])[0]) for i in range(len(dataset))]
            for dataset in (dataset_train, dataset_valid)
        )


def in_order(n=60):
    return np.arange(n, dtype="f4")[:, None] / n, np.arange(n) % 2


def stopped(cls=RegularizedNetClassifier, **params):
    return cls(
        early_stopping=True, max_epochs=1, callbacks=[Seen()], random_state=0, **params
    )


def parts(net):
    seen = dict(net.callbacks_)["Seen"]
    return seen.train, seen.valid


@pytest.mark.parametrize("cls", [RegularizedNetClassifier, RegularizedNetRegressor])
@pytest.mark.parametrize("fraction", [0.1, 0.25])
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_last_part_is_held_out(cls, fraction, shuffle):
    X, y = in_order()
    net = stopped(
        cls, holdout="last", validation_fraction=fraction, shuffle=shuffle
    ).fit(X, y)
    train, valid = parts(net)
    n_valid = round(fraction * 60)
    assert train == X[:-n_valid, 0].tolist()
    assert valid == X[-n_valid:, 0].tolist()


def test_by_default_the_samples_held_out_are_random():
    X, y = in_order()
    _, valid = parts(stopped(shuffle=False).fit(X, y))
    assert valid != X[-6:, 0].tolist()
    assert stopped().holdout == "random"


def test_weights_and_datasets_keep_their_order():
    class Pairs(Dataset):
        def __len__(self):
            return 60

        def __getitem__(self, i):
            return X[i], y[i]

    X, y = in_order()
    weight = np.ones(60)
    weight[-3:] = 0
    _, valid = parts(stopped(holdout="last").fit(X, y, weight))
    assert valid == X[51:57, 0].tolist()
    _, valid = parts(stopped(holdout="last").fit(Pairs()))
    assert valid == X[-6:, 0].tolist()


def test_the_last_groups_are_held_out():
    X, y = in_order()
    groups = np.repeat(["march", "april", "may", "june"], [30, 10, 5, 15])
    net = stopped(holdout="last", validation_fraction=0.5)
    _, valid = parts(net.fit(X, y, groups=groups))
    assert valid == X[40:, 0].tolist()
    _, valid = parts(stopped(holdout="last").fit(X, y, groups=groups))
    assert valid == X[45:, 0].tolist()
    with pytest.raises(ValueError, match="of a group must follow each other"):
        net.fit(X, y, groups=np.arange(60) % 4)


def test_no_last_part_is_everything():
    X, y = in_order(4)
    net = stopped(holdout="last", validation_fraction=0.9)
    with pytest.raises(ValueError, match=r"validation_fraction=0\.9 of 4.*X_val"):
        net.fit(X, y)
    with pytest.raises(ValueError, match="would be all of them"):
        net.fit(*in_order(), groups=np.zeros(60))


def test_sorted_labels_are_noticed():
    X, _ = in_order()
    y = np.repeat(["oak", "yew", "elm"], [30, 27, 3])
    net = stopped(holdout="last")
    with pytest.raises(ValueError, match=r"classes \['elm'\] are in the last part"):
        net.fit(X, y)
    y = np.repeat(["elm", "oak", "elm", "oak"], [10, 20, 20, 10])
    with pytest.warns(UserWarning, match=r"hold none of the classes \['elm'\]"):
        net.fit(X, y)
    stopped(RegularizedNetRegressor, holdout="last").fit(X, np.repeat([0, 1], 30))


@pytest.mark.parametrize("value", ["first", None, 0.1])
def test_other_parts_are_refused(value):
    with pytest.raises(ValueError, match=r"holdout=.* must be 'random' or 'last'"):
        stopped(holdout=value).fit(*in_order())


def test_stacks_hold_out_the_same():
    X, _ = in_order(90)
    X = X.astype(float)
    y = np.sin(20 * X[:, 0])
    net = RegularizedNetRegressor(
        early_stopping=True, max_epochs=8, patience=1, holdout="last", random_state=0
    )
    grid = {"holdout": ["last", "random"], "lr": [0.3, 0.03, 0.003]}
    found = []
    for backend in ("threading", "skreg"):
        with joblib.parallel_config(backend):
            search = GridSearchCV(net, grid, cv=KFold(3)).fit(X, y)
        found.append(search)
    plain, stacked = found
    np.testing.assert_allclose(
        stacked.cv_results_["mean_test_score"],
        plain.cv_results_["mean_test_score"],
        atol=1e-8,
    )
    assert len(set(plain.cv_results_["mean_test_score"])) == 6
    assert stacked.best_estimator_.best_epoch_ == plain.best_estimator_.best_epoch_


@pytest.mark.parametrize("backend", ["threading", "skreg"])
def test_unused_samples_are_warned_of(backend):
    X, y = in_order(120)
    split = ValidSplit(TimeSeriesSplit(5))
    net = RegularizedNetClassifier(max_epochs=1, train_split=split)
    with (
        joblib.parallel_config(backend),
        pytest.warns(UserWarning, match=r"trains on 20 of 120 .* 80 are in neither"),
    ):
        net.fit(X, y)
    half = ValidSplit(ShuffleSplit(1, test_size=0.25, train_size=0.5))
    with pytest.warns(UserWarning, match="60 of 120 samples and validates on 30; 30"):
        net.set_params(train_split=half).fit(X, y)


def test_splits_that_use_everything_are_not_warned_of():
    X, y = in_order()

    def everything(dataset, y=None):
        return dataset, None

    net = RegularizedNetClassifier(max_epochs=1)

    def chosen(dataset, y=None):
        return Subset(dataset, range(40)), None

    splits = ValidSplit(5), ValidSplit(0.2, stratified=True), everything, chosen
    for split in splits:
        net.set_params(train_split=split).fit(X, y)
    net.set_params(train_split=ValidSplit(GroupKFold(3)))
    net.fit(X, y, groups=np.arange(60) % 3)


def test_samples_that_both_parts_share_are_no_unused_ones():
    def overlapping(dataset, y=None):
        return Subset(dataset, range(40)), Subset(dataset, range(20, 59))

    X, y = in_order()
    with pytest.warns(UserWarning, match="; 1 are in neither"):
        RegularizedNetClassifier(max_epochs=1, train_split=overlapping).fit(X, y)
