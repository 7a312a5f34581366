"""Bags, folds and weights that leave out classes."""

import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import KFold, cross_val_predict

from skreg import RegularizedNetClassifier

rng = np.random.default_rng(0)
X = rng.normal(size=(30, 3))
y = np.where(np.arange(30) < 2, "rare", "usual")


def net(**params):
    params = {"hidden_layer_sizes": 4, "max_epochs": 60, "random_state": 0} | params
    return RegularizedNetClassifier(lr=0.05, **params)


def test_weights_that_leave_one_class_make_a_net_that_predicts_it():
    fitted = net().fit(X, y, (y == "usual").astype(float))
    assert list(fitted.classes_) == ["rare", "usual"]
    assert (fitted.predict(X) == "usual").all()
    assert fitted.predict_proba(X).shape == (30, 2)


@pytest.mark.parametrize("options", [{}, {"max_samples": 5}, {"bootstrap": False}])
def test_bags_of_one_class_end_no_ensemble(options):
    bags = BaggingClassifier(net(), n_estimators=8, random_state=0, **options)
    assert bags.fit(X, y).predict_proba(X).shape == (30, 2)


def test_folds_that_lack_a_class_need_to_be_told():
    cv = KFold(3)
    # scikit-learn numbers the classes before it asks for probabilities.
    told, numbers = net(classes=[0, 1]), np.unique(y, return_inverse=True)[1]
    found = cross_val_predict(told, X, numbers, cv=cv, method="predict_proba")
    assert found.shape == (30, 2)
    with pytest.raises(ValueError, match="y holds only 1 class"):
        cross_val_predict(net(), X, y, cv=cv)


def test_class_weights_must_leave_something():
    with pytest.raises(ValueError, match="gives weight zero to all samples"):
        net(class_weight={"rare": 1, "usual": 0}).fit(X, y, (y == "usual") * 1.0)
