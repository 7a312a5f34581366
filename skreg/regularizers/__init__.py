"""Ways to regularise a net: the protocol, and one file for each way."""

from skreg.regularizers._base import Parameter, Regularizer
from skreg.regularizers._elastic_net import ElasticNet

__all__ = ["ElasticNet", "Parameter", "Regularizer"]

# Those that the estimators have parameters for, in the order in which they act.
REGULARIZERS: tuple[type[Regularizer], ...] = (ElasticNet,)
