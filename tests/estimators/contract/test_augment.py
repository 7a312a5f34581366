"""Augmentation of training batches by nets."""

import pytest
from contract_nets import equal_weights, small
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from skreg import RegularizedNetClassifier
from skreg.transforms import RandomFlip


class Spied(nn.Module):
    """Counts calls and shifts what it sees."""

    calls = 0

    def forward(self, X):
        Spied.calls += 1
        return X + 100


def test_augmentation_is_for_training_batches_only(images):
    X, y = images
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(36, 2)

        def forward(self, x):
            seen.append((self.training, x.mean().item() > 50))
            return self.fc(x.flatten(1))

    Spied.calls = 0
    net = RegularizedNetClassifier(Net, augment=Spied(), batch_size=10, max_epochs=2)
    net.fit(X, y, X_val=X, y_val=y)
    assert Spied.calls == 8
    assert set(seen) == {(True, True), (False, False)}
    net.predict(X)
    net.score(X, y)
    assert Spied.calls == 8


def test_augmentation_is_decided_by_random_state(images):
    def fit(seed, augment):
        return small(augment=augment, random_state=seed).fit(*images)

    flips = RandomFlip(horizontal=0.5, vertical=0.5)
    assert equal_weights(fit(0, flips), fit(0, flips))
    assert not equal_weights(fit(0, flips), fit(0, None))
    assert equal_weights(fit(0, RandomFlip(0, 0)), fit(0, None))
    by_parameter = small(
        augment=RandomFlip, augment__horizontal=0.5, augment__vertical=0.5
    )
    assert equal_weights(by_parameter.fit(*images), fit(0, flips))


def test_augmentation_is_searchable(images):
    grid = [{"augment": [None, RandomFlip(0.5, 0)]}]
    search = GridSearchCV(small(), grid, cv=2).fit(*images)
    assert len(search.cv_results_["params"]) == 2
    grid = {"augment__horizontal": [0.0, 0.5]}
    GridSearchCV(small(augment=RandomFlip), grid, cv=2, error_score="raise").fit(
        *images
    )


def test_augmentation_modules_are_copied(images):
    augment = nn.Dropout(0.1).eval()
    small(augment=augment).fit(*images)
    assert not augment.training


def test_bad_augmentation(images):
    for augment in ("flip", [RandomFlip()]):
        with pytest.raises(ValueError, match=r"augment=.* must be None, a transform"):
            small(augment=augment).fit(*images)


OTHER_GET_PARAMS = [
    v1.RandomRotation(20),
    v2.AutoAugment(),
    v2.ColorJitter(0.5),
    v2.GaussianBlur(3),
    v2.RandomAffine(20),
    v2.RandomCrop(4),
    v2.RandomErasing(),
    v2.RandomRotation(20),
]


@pytest.mark.parametrize("augment", OTHER_GET_PARAMS, ids=lambda a: type(a).__name__)
def test_transforms_whose_get_params_means_something_else(augment):
    net = small(augment=augment)
    copied = clone(net).augment
    assert copied is not augment
    assert repr(copied) == repr(augment)
    assert net.get_params()["augment"] is augment
    assert type(augment).__name__ in net._repr_html_()
    assert type(augment).__name__ in repr(net)
    search = clone(GridSearchCV(make_pipeline(net), {}))
    assert search.get_params()["estimator"][-1].augment is not augment


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_such_transforms_are_searched(images, n_jobs):
    rotation = v2.RandomRotation(20)
    cross_validate(small(augment=rotation), *images, cv=2, error_score="raise")
    # Values of a grid are cloned by scikit-learn, which takes it for an estimator.
    grid = {"augment": [None, v2.Compose([rotation])]}
    search = GridSearchCV(small(), grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(
        *images
    )
    assert len(search.cv_results_["params"]) == 2
    search.set_params(estimator__augment=rotation).fit(*images)


class Grayish(nn.Module):
    def forward(self, x):
        return x.numpy()


def test_arrays_are_no_augmented_batches(images):
    for augment in (lambda x: x.numpy(), Grayish()):
        with pytest.raises(ValueError, match="into ndarray; an augmentation must"):
            small(augment=augment).fit(*images)
