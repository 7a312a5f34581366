"""What users pass as an augmentation, brought to one form."""

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from skreg.transforms._augmentation import SampleAugmentation, check_batch

__all__ = ["as_augmentation", "is_sample_augmentation"]


def as_augmentation(augment: Any) -> Callable[[Tensor], Tensor] | None:
    """Return a function of a batch that augments it, with the same shape and dtype.

    Parameters
    ----------
    augment : None, transform of torchvision, nn.Module or callable
        - None: no augmentation.
        - The augmentations of this module, alone or in ``nn.Sequential``: as they are.
        - Transforms of torchvision, version 1 or 2, their containers, and modules that
          hold some: called with one image after the other, as a batch of one. With
          all images at once they would draw one random number for the whole batch.
        - Any other module or callable: called with the batch, a tensor of shape
          (n, ...). That each sample gets its own random numbers is then its task, and
          so it is for a function that calls torchvision's transforms itself.

    Returns
    -------
    callable or None
        Maps a tensor of shape (n, ...) to one of the same shape, dtype and device.
        Called, it raises a ValueError if the augmentation changes the shape.

    Raises
    ------
    TypeError
        If `augment` is none of these.

    Examples
    --------
    >>> import torch
    >>> from torchvision.transforms import v2
    >>> from skreg.transforms import as_augmentation
    >>> _ = torch.manual_seed(0)
    >>> flip = as_augmentation(v2.RandomHorizontalFlip())
    >>> x = torch.tensor([0.0, 1.0]).expand(4, 1, 1, 2)  # four images of two pixels
    >>> flip(x)[:, 0, 0]
    tensor([[1., 0.],
            [0., 1.],
            [1., 0.],
            [1., 0.]])
    """
    if augment is None:
        return None
    if isinstance(augment, type) or not callable(augment):
        raise TypeError(
            f"augment={augment!r} is not None, an nn.Module, a transform of "
            f"torchvision or another callable; {_remedy(augment)}."
        )
    if is_sample_augmentation(augment):
        return augment
    parts = list(augment.modules()) if isinstance(augment, nn.Module) else [augment]
    return _Adapter(augment, each_sample=any(map(_is_from_torchvision, parts)))


def is_sample_augmentation(augment) -> TypeGuard[nn.Module]:
    """Tell whether something is an augmentation of this package, or made of them."""
    return isinstance(augment, nn.Module) and all(
        isinstance(part, SampleAugmentation | nn.Sequential)
        for part in augment.modules()
    )


class _Adapter(nn.Module):
    """Call a foreign transform, with each sample or the batch, and check its answer."""

    def __init__(self, transform: Callable[[Tensor], Any], each_sample: bool):
        super().__init__()
        self.transform = transform
        self.each_sample = each_sample

    def forward(self, x: Tensor) -> Tensor:
        # Some transforms work in place, and a batch may be a view of the whole data.
        x = x.clone()
        if not self.each_sample:
            return self._call(x)
        check_batch(self.transform, x)
        # Batches of one, not single images: augmentations of this package that are
        # inside a container of torchvision would take channels for samples.
        return torch.cat([self._call(sample) for sample in x.split(1)])

    def _call(self, x: Tensor) -> Tensor:
        augmented = self.transform(x)
        is_tensor = isinstance(augmented, Tensor)
        if not is_tensor or augmented.shape != x.shape:
            got = tuple(augmented.shape) if is_tensor else type(augmented).__name__
            remedy = (
                "resize images before the net, e.g. with skreg.transforms.ImageResizer"
                if is_tensor
                else "use the operations of torch"
            )
            raise ValueError(
                f"augment={self.transform!r} turned a batch of shape {tuple(x.shape)} "
                f"into {got}; an augmentation must return a tensor of the same shape: "
                f"{remedy}."
            )
        return augmented.to(x)


def _is_from_torchvision(transform) -> bool:
    # By name: whoever has such an object has imported torchvision, others need not.
    modules = (cls.__module__ for cls in type(transform).__mro__)
    return any(name.startswith("torchvision.transforms") for name in modules)


def _remedy(augment) -> str:
    if isinstance(augment, type):
        return f"pass an instance, {augment.__name__}(...)"
    if isinstance(augment, list | tuple):
        return "pass nn.Sequential(*augment)"
    return "pass e.g. skreg.transforms.RandomFlip()"
