"""Mixed precision: the module computes in half the bits; weights and losses do not.

Gradients in float16 are lost below 6e-8. The loss is therefore scaled up before
``backward``, and the gradients down again before anybody sees them; a step whose
gradients overflow is left out, and the scale halved (Micikevicius et al., "Mixed
precision training", ICLR 2018). bfloat16 has the range of float32 and needs none of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["AMP_DTYPES", "MixedPrecision"]

AMP_DTYPES = ("bfloat16", "float16")


class MixedPrecision:
    """What a net needs of it; it keeps the scale of the losses between fits.

    Parameters
    ----------
    name : {"bfloat16", "float16"}
    device : torch.device

    Attributes
    ----------
    scaler : LossScaler or None
        None for bfloat16.
    """

    def __init__(self, name: str, device: torch.device):
        self.name = name
        self.device_type = device.type
        self.scaler = LossScaler(device) if name == "float16" else None

    def autocast(self):
        """Return the context in which the module computes."""
        return torch.autocast(self.device_type, dtype=getattr(torch, self.name))


class LossScaler:
    """Scales losses up, and gradients down."""

    def __init__(self, device: torch.device):
        self._scaler = torch.amp.GradScaler(device.type)
        self._one = torch.ones((), device=device)
        self._scales = self._one, self._one  # before the last step, and after
        self._has_gradients = False

    def backward(self, loss: Tensor, optimizers: Sequence[Optimizer]) -> None:
        """Differentiate `loss`; the gradients are its own, or not finite."""
        self._check(
            not self._has_gradients, "gradients of several batches are added up"
        )
        self._has_gradients = True
        self._scaler.scale(loss).backward()
        for optimizer in optimizers:
            self._scaler.unscale_(optimizer)

    def step(self, optimizers: Sequence[Optimizer]) -> None:
        """Let those optimizers take a step whose gradients are finite."""
        self._check(self._has_gradients, "train_step_single is overridden")
        self._has_gradients = False
        before = self._scaler.scale(self._one)
        for optimizer in optimizers:
            self._scaler.step(optimizer)
        self._scaler.update()
        self._scales = before, self._scaler.scale(self._one)

    @property
    def left_out(self) -> bool:
        """Whether the last step was left out, as its gradients overflowed."""
        before, after = self._scales
        return bool(after < before)

    @staticmethod
    def _check(fine: bool, problem: str) -> None:
        if not fine:
            raise ValueError(
                f"amp='float16' scales each batch's loss, but {problem}; use "
                "amp='bfloat16', which needs no scaling."
            )
