"""Ways to regularise a net: the protocol, and one file for each way."""

from skreg.regularizers._active import Active, NotStackable, penalized
from skreg.regularizers._base import Parameter, Regularizer, overridden
from skreg.regularizers._elastic_net import ElasticNet
from skreg.regularizers._weights import FlatTensors, joined

# What the estimators have parameters for, in the order in which they act.
REGULARIZERS: tuple[type[Regularizer], ...] = (ElasticNet,)

__all__ = [
    "REGULARIZERS",
    "Active",
    "ElasticNet",
    "FlatTensors",
    "NotStackable",
    "Parameter",
    "Regularizer",
    "joined",
    "overridden",
    "penalized",
]
