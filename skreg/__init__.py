"""skreg: regularised neural networks with scikit-learn's manners."""

from skreg.estimators import RegularizedNetClassifier, RegularizedNetRegressor

__all__ = ["RegularizedNetClassifier", "RegularizedNetRegressor"]
__version__ = "0.1.0"
