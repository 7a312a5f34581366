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
    weights : mapping of str to nn.Parameter, or sequence of str
        The parameters by name; in a stack the names, in the order of each group.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        weights: Mapping[str, Tensor] | Sequence[str],
    ):
        self.optimizer, self.weights = optimizer, weights

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __getitem__(self, name: str) -> float | Tensor:
        """Return the step size of a parameter, a number or a tensor of its shape.

        In a stack it is a tensor of shape (B, ...).

        Raises
        ------
        ValueError
            If the optimizer does not tell.
        """
        groups = self.optimizer.param_groups
        if not isinstance(self.weights, Mapping):
            place = self.weights.index(name)
            of_groups = [(group, group["params"][place]) for group in groups]
            sizes = [torch.ones_like(w) * self._of(g, w) for g, w in of_groups]
            return torch.cat(sizes).detach()
        weight = self.weights[name]
        for group in groups:
            if any(w is weight for w in group["params"]):
                return self._of(group, weight)
        raise ValueError(f"The optimizer does not train {name!r}; it has no step size.")

    def _of(self, group: dict, weight: Tensor) -> float | Tensor:
        kind = type(self.optimizer)
        if kind is torch.optim.SGD and not group["momentum"]:
            return group["lr"]
        if kind in (torch.optim.Adam, torch.optim.AdamW) and not group["amsgrad"]:
            state = self.optimizer.state[weight]
            correction = 1 - group["betas"][1] ** float(state["step"])
            root = (state["exp_avg_sq"] / correction).sqrt_()
            return group["lr"] / root.add_(group["eps"])
        option = " with momentum" if group.get("momentum") else ""
        option = " with amsgrad" if group.get("amsgrad") else option
        raise ValueError(
            f"optimizer={kind.__name__}{option} does not tell the step sizes that a "
            "regularizer asks for; use SGD without momentum, or plain Adam or AdamW."
        )
