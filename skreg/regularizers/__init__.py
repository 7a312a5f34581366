"""Ways to regularise a net: the protocol, and one file for each way."""

from skreg.regularizers._adversarial import AdversarialTraining, AdversarialTypes
from skreg.regularizers._augmentation import Augmentation, AugmentationTypes
from skreg.regularizers._average import Average, AverageTypes
from skreg.regularizers._base import Parameter, Regularizer, TrainingData
from skreg.regularizers._clipping import GradientClipping, GradientClippingTypes
from skreg.regularizers._elastic_net import ElasticNet, ElasticNetTypes
from skreg.regularizers._group_lasso import GroupLasso, GroupLassoTypes
from skreg.regularizers._input_dropout import InputDropout, InputDropoutTypes
from skreg.regularizers._label_smoothing import LabelSmoothing, LabelSmoothingTypes
from skreg.regularizers._lr_schedule import (
    LearningRateSchedule,
    LearningRateScheduleTypes,
)
from skreg.regularizers._max_norm import MaxNorm, MaxNormTypes
from skreg.regularizers._mixing import Mixing, MixingTypes
from skreg.regularizers._sharpness_aware import SharpnessAware, SharpnessAwareTypes

__all__ = [
    "AdversarialTraining",
    "Augmentation",
    "Average",
    "ElasticNet",
    "GradientClipping",
    "GroupLasso",
    "InputDropout",
    "LabelSmoothing",
    "LearningRateSchedule",
    "MaxNorm",
    "Mixing",
    "Parameter",
    "Regularizer",
    "SharpnessAware",
    "TrainingData",
]

# Those that the estimators have parameters for, in the order in which they act.
REGULARIZERS: tuple[type[Regularizer], ...] = (
    ElasticNet,
    GroupLasso,
    MaxNorm,
    Augmentation,
    LabelSmoothing,
    Mixing,
    InputDropout,
    AdversarialTraining,
    GradientClipping,
    SharpnessAware,
    Average,
    LearningRateSchedule,
)


class RegularizerTypes(
    ElasticNetTypes,
    GroupLassoTypes,
    MaxNormTypes,
    AugmentationTypes,
    LabelSmoothingTypes,
    MixingTypes,
    InputDropoutTypes,
    AdversarialTypes,
    GradientClippingTypes,
    SharpnessAwareTypes,
    AverageTypes,
    LearningRateScheduleTypes,
):
    """Types of their parameters, for editors and type checkers."""
