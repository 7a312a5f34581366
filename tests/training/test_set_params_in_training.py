"""What a callback sets in mid-training acts from the next epoch on, or warns."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from skorch.callbacks import Callback

from skreg import RegularizedNetClassifier
from skreg.transforms import GaussianNoise

X, Y = make_classification(200, 10, random_state=0)
X = X.astype(np.float32)
PARAMS = {"hidden_layer_sizes": 8, "max_epochs": 6, "random_state": 0, "lr": 0.01}


class Sets(Callback):
    def __init__(self, **params):
        self.params = params

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3:
            net.set_params(**self.params)


def losses(before, change):
    sets = [("sets", Sets(**change))] if change else None
    net = RegularizedNetClassifier(**PARAMS | before, callbacks=sets).fit(X, Y)
    return np.array(net.history[:, "train_loss"])


ACTS = [
    ({}, {"adversarial_eps": 0.5}),
    ({}, {"adversarial_eps": 0.5, "adversarial_norm": "l2"}),
    ({"adversarial_eps": 0.5}, {"adversarial_eps": 0.0}),
    ({}, {"criterion__label_smoothing": 0.5}),
    ({"dropout": 0.01}, {"dropout": 0.8}),
    ({}, {"augment": GaussianNoise(2.0)}),
    ({}, {"lambda2": 1.0}),
    ({}, {"max_norm": 0.1}),
    ({}, {"lr": 0.5}),
]


def with_dropout(in_features, out_features):
    return torch.nn.Sequential(
        torch.nn.Linear(in_features, 8),
        torch.nn.ReLU(),
        torch.nn.Dropout(),
        torch.nn.Linear(8, out_features),
    )


@pytest.mark.parametrize(("before", "change"), ACTS, ids=[str(a) for _, a in ACTS])
def test_it_acts_from_this_epoch_on(before, change):
    if "dropout" in before:
        before = {**before, "module": with_dropout}
    plain, changed = losses(before, {}), losses(before, change)
    np.testing.assert_array_equal(plain[:2], changed[:2])
    # The callback is told as the third epoch begins.
    assert (np.abs(plain[3:] - changed[3:]) > 1e-6).all()


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": torch.optim.SGD},
        {"module__activation": "tanh"},
        {"class_weight": {0: 1, 1: 5}},
        {"early_stopping": True, "patience": 3},
    ],
    ids=str,
)
def test_a_warning_tells_of_what_waits_for_the_next_fit(change):
    names = ", ".join(sorted(change))
    with pytest.warns(UserWarning, match=rf"set_params\({names}\) during training"):
        changed = losses({}, change)
    np.testing.assert_array_equal(changed, losses({}, {}))


def test_bad_values_are_errors_in_training_too():
    with pytest.raises(ValueError, match="lambda2=-1 must be"):
        losses({}, {"lambda2": -1})
