"""Displays: numbers in, figures out. Only plot imports matplotlib."""

from skreg.displays._curves import LearningCurvesDisplay
from skreg.displays._evolution import PredictionEvolutionDisplay
from skreg.displays._images import ImageGridDisplay
from skreg.displays._norms import NormDisplay
from skreg.displays._robustness import RobustnessDisplay

__all__ = [
    "ImageGridDisplay",
    "LearningCurvesDisplay",
    "NormDisplay",
    "PredictionEvolutionDisplay",
    "RobustnessDisplay",
]
