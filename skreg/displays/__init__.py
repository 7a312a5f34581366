"""Displays: numbers in, figures out. Only plot imports matplotlib."""

from skreg.displays._attacks import AttackedImagesDisplay
from skreg.displays._curves import LearningCurvesDisplay
from skreg.displays._evolution import PredictionEvolutionDisplay
from skreg.displays._heat_map import HeatMapDisplay
from skreg.displays._images import ImageGridDisplay
from skreg.displays._norms import NormDisplay
from skreg.displays._robustness import RobustnessDisplay
from skreg.displays._validation import ValidationCurveDisplay

__all__ = [
    "AttackedImagesDisplay",
    "HeatMapDisplay",
    "ImageGridDisplay",
    "LearningCurvesDisplay",
    "NormDisplay",
    "PredictionEvolutionDisplay",
    "RobustnessDisplay",
    "ValidationCurveDisplay",
]
