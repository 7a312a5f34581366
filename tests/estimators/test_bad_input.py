"""Bad parameters and bad data are explained."""

import numpy as np
import pytest
import torch
from plain_nets import equal_weights, small, weights
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset
from torchvision.datasets import FakeData

from skreg import RegularizedNetClassifier, RegularizedNetRegressor
from skreg.modules import ToyNet

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
