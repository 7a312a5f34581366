"""Augmentation: the inputs of each training batch are changed at random."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypedDict

from torch import Tensor, nn

from skreg._utils.rules import Rule
from skreg.regularizers._base import Parameter, Regularizer
from skreg.transforms import GaussianNoise, as_augmentation, is_sample_augmentation

__all__ = ["Augmentation", "AugmentationTypes"]


class AugmentationTypes(TypedDict, total=False):
    augment: Callable[..., Any] | None


class Augmentation(Regularizer):
    """Augmentation: each batch is replaced by what a random transform makes of it.

    Parameters
    ----------
    augment : transform, nn.Module or callable, default=None
        See :func:`skreg.transforms.as_augmentation`; None changes nothing.
    """

    parameters = {
        "augment": Parameter(
            None,
            "transform, nn.Module or callable",
            Rule(
                lambda augment: augment is None or callable(augment),
                "None, a transform of torchvision, an nn.Module or another callable",
                "pass e.g. skreg.transforms.RandomFlip(), or nn.Sequential(*several)",
                GaussianNoise(0.1),
            ),
            "Changes the inputs of each training batch, on the device; never those "
            "that are validated, scored or predicted. Transforms of torchvision are "
            "applied to each sample on its own; a module or callable is called with "
            "the batch. See :mod:`skreg.transforms`. A class is called with "
            "``augment__*``.",
        )
    }
    options = {"augment": None}  # arguments of the class

    def __init__(self, augment=None):
        self.augment = augment

    @classmethod
    def of(cls, parameters, options):
        augment, given = parameters["augment"], options["augment"]
        if isinstance(augment, type) or given:
            # As skorch makes components: of a module and arguments, a new one.
            kind = type(augment) if isinstance(augment, nn.Module) else augment
            augment = kind(**given)
        return cls(as_augmentation(augment))

    @property
    def is_neutral(self) -> bool:
        return self.augment is None

    @property
    def writes_into_batches(self) -> bool:
        return not is_sample_augmentation(self.augment)

    def begin(self, module: nn.Module) -> None:
        if hasattr(self, "transform_"):
            return
        self.transform_: Any = self.augment
        if isinstance(self.augment, nn.Module):
            device = next(module.parameters()).device
            self.transform_ = deepcopy(self.augment).to(device).train()

    def batch(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform_(X), y

    def reason_against_stack(self) -> str | None:
        if is_sample_augmentation(self.augment):
            return None
        return f"augment={type(self.augment).__name__} is none of skreg.transforms"
