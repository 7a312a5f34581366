"""Data with names and units, and user code that looks at a fit."""

import numpy as np
from sklearn.datasets import load_iris, make_regression
from skorch.callbacks import Callback
from torch.utils.data import Dataset

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

NAMES = np.array(["c1", "c2", "c3"])


def make_flowers():
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order].astype(np.float32), NAMES[y[order]]


def make_numbers():
    X, y = make_regression(120, 4, noise=5, random_state=0)
    return X.astype(np.float32), y * 3 + 500


def make_pairs():
    X, y = make_regression(120, 4, n_targets=2, noise=5, random_state=0)
    return X.astype(np.float32), y * [3, 0.1] + [500, -7]


def classifier(**params):
    params = {"hidden_layer_sizes": 16, "max_epochs": 4, "random_state": 0} | params
    return RegularizedNetClassifier(**({"lr": 0.1, "batch_size": -1} | params))


def regressor(**params):
    params = {"hidden_layer_sizes": 16, "max_epochs": 4, "random_state": 0} | params
    return RegularizedNetRegressor(**({"lr": 0.1, "batch_size": -1} | params))


class Pairs(Dataset):
    """A Dataset of the user's, whose targets are as in the file."""

    def __init__(self, X, y):
        self.inputs, self.labels = X, y

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        return self.inputs[i], self.labels[i]


class Looks(Callback):
    """Predicts and scores in every hook, and keeps what it is told."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def _look(self, net):
        predicted = net.predict(self.X)
        assert predicted.dtype.kind == np.asarray(self.y).dtype.kind
        self.scores_.append((net.score(self.X, self.y), predicted))

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.scores_, self.told_ = [], {"begin": (X, y)}
        self._look(net)

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.told_["datasets"] = dataset_train, dataset_valid
        self._look(net)

    def on_batch_begin(self, net, **kwargs):
        self._look(net)

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self._look(net)

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        self.told_["batch", training] = batch
        self._look(net)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        assert self.told_["datasets"][0] is dataset_train
        assert self.told_["datasets"][1] is dataset_valid
        self._look(net)

    def on_train_end(self, net, X=None, y=None, **kwargs):
        self.told_["end"] = X, y
        self._look(net)
