"""Displays: numbers in, figures out. Only plot imports matplotlib."""

from skreg.displays._curves import LearningCurvesDisplay
from skreg.displays._images import ImageGridDisplay
from skreg.displays._norms import NormDisplay

__all__ = ["ImageGridDisplay", "LearningCurvesDisplay", "NormDisplay"]
