"""Small nets and their weights."""

import torch

from skreg import RegularizedNetClassifier


def small(**params):
    params = {"hidden_layer_sizes": 8, "max_epochs": 4, "random_state": 0} | params
    return RegularizedNetClassifier(**params)


def weights(net):
    return [w.detach() for w in net.module_.parameters()]


def equal_weights(a, b):
    return all(map(torch.equal, weights(a), weights(b)))
