"""Regularised classifiers and regressors: skorch nets with scikit-learn's manners."""

from skreg import _register_backend
from skreg.estimators._base import RegularizedNet
from skreg.estimators._classifier import RegularizedNetClassifier
from skreg.estimators._regressor import RegularizedNetRegressor

__all__ = ["RegularizedNet", "RegularizedNetClassifier", "RegularizedNetRegressor"]

_register_backend()
