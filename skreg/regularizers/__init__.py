"""Ways to regularise a net: the protocol, and one file for each way."""

from skreg.regularizers._adversarial import AdversarialTraining, AdversarialTypes
from skreg.regularizers._augmentation import Augmentation, AugmentationTypes
from skreg.regularizers._base import Parameter, Regularizer
from skreg.regularizers._elastic_net import ElasticNet, ElasticNetTypes
from skreg.regularizers._max_norm import MaxNorm, MaxNormTypes

__all__ = [
    "AdversarialTraining",
    "Augmentation",
    "ElasticNet",
    "MaxNorm",
    "Parameter",
    "Regularizer",
]

# Those that the estimators have parameters for, in the order in which they act.
REGULARIZERS: tuple[type[Regularizer], ...] = (
    ElasticNet,
    MaxNorm,
    Augmentation,
    AdversarialTraining,
)


class RegularizerTypes(
    ElasticNetTypes, MaxNormTypes, AugmentationTypes, AdversarialTypes
):
    """Types of their parameters, for editors and type checkers."""
