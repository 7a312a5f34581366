"""Small nets and their weights, for the tests of the contract."""

import torch

from skreg import RegularizedNetClassifier, RegularizedNetRegressor

SGD = {"optimizer": torch.optim.SGD, "lr": 0.05, "optimizer__momentum": 0.9}


def small(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 5, "random_state": 0} | params
    return RegularizedNetClassifier(**params)


def small_regressor(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 5, "random_state": 0} | params
    return RegularizedNetRegressor(**params)


def weights(net):
    return [w.detach() for w in net.module_.parameters()]


def equal_weights(a, b):
    return all(map(torch.equal, weights(a), weights(b)))


def assert_close_weights(a, b, atol):
    for left, right in zip(weights(a), weights(b), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=atol)


def pairs_dataset(pairs):
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return len(pairs)

        def __getitem__(self, i):
            return pairs[i]

    return Pairs()
