"""Step sizes: how far an optimizer has gone along a gradient, for each weight.

A proximal step after the optimizer's must use the optimizer's own metric, or else its
fixed point is not the minimum of the objective (Yun, Lozano and Yang, "Adaptive
proximal gradient methods for structured neural networks", NeurIPS 2021).
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["StepSizes"]


class StepSizes(Mapping):
    """Step size of each weight in the last step of an optimizer, by parameter name.

    That of plain SGD is ``lr``; of Adam and AdamW it is ``lr / (sqrt(v) + eps)``, with
    v the running mean of squared gradients, corrected for its start.

    Parameters
    ----------
    optimizer : Optimizer
    names : sequence of str
        Of the parameters, in the order of each group of the optimizer.
    nets : sequence of slice, default=None
        In a stack, the nets of each group; they are joined along the first axis.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        names: Sequence[str],
        nets: Sequence[slice] | None = None,
    ):
        self.optimizer, self.names, self.nets = optimizer, list(names), nets

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> float | Tensor:
        """Return the step size of a parameter, a number or a tensor of its shape.

        Raises
        ------
        ValueError
            If the optimizer does not tell.
        """
        place = self.names.index(name)
        sizes = [self._of(group, place) for group in self.optimizer.param_groups]
        if self.nets is None:
            return sizes[0]
        weights = [group["params"][place] for group in self.optimizer.param_groups]
        return torch.cat(
            [torch.ones_like(w) * s for w, s in zip(weights, sizes, strict=True)]
        ).detach()

    def _of(self, group: dict, place: int) -> float | Tensor:
        kind = type(self.optimizer)
        if kind is torch.optim.SGD and not group["momentum"]:
            return group["lr"]
        if kind in (torch.optim.Adam, torch.optim.AdamW) and not group["amsgrad"]:
            state = self.optimizer.state[group["params"][place]]
            correction = 1 - group["betas"][1] ** float(state["step"])
            root = (state["exp_avg_sq"] / correction).sqrt_()
            return group["lr"] / root.add_(group["eps"])
        momentum = " with momentum" if group.get("momentum") else ""
        raise ValueError(
            f"optimizer={kind.__name__}{momentum} does not tell the step sizes that a "
            "regularizer asks for; use SGD without momentum, Adam or AdamW."
        )
