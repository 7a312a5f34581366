r"""Step sizes: how far an optimizer goes along a gradient, for each weight.

A proximal step after the optimizer's must use the optimizer's own metric, or else its
fixed point is not the minimum of the objective (Yun, Lozano and Yang, "Adaptive
proximal gradient methods for structured neural networks", NeurIPS 2021).

At a fixed point the weights rest and the gradient g is constant, but it need not be 0:
the proximal step takes back what the optimizer does. The step size is therefore what
the optimizer multiplies a constant gradient with. With heavy-ball momentum :math:`\mu`
and dampening d, the buffer of a constant gradient is :math:`g (1 - d) / (1 - \mu)`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["StepSizes", "reason_against_step_sizes"]


class StepSizes(Mapping):
    r"""Step size of each weight in the last step of an optimizer, by parameter name.

    With v for the running mean of squared gradients, corrected for its start:

    ================  ================================================================
    SGD               :math:`\eta`; with momentum :math:`\eta (1 - d) / (1 - \mu)`
    Adam, AdamW       :math:`\eta / (\sqrt v + \epsilon)`
    Adamax            :math:`\eta / u`, with u the largest gradient of late
    NAdam, RAdam      as Adam, times the factor of this step
    RMSprop           :math:`\eta / (\sqrt v + \epsilon)`, with momentum
                      divided by :math:`1 - \mu`
    Adagrad           :math:`\eta_t / (\sqrt s + \epsilon)`, with s the sum of squares
    ================  ================================================================

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

        In a stack it is a tensor of shape (B, ...). It is 0 for a parameter that the
        optimizer has not stepped along any gradient.

        Raises
        ------
        ValueError
            If the optimizer does not tell.
        """
        if self._reason is not None:
            raise ValueError(f"A regularizer asks for step sizes, but {self._reason}.")
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
        return 0.0

    @cached_property
    def _reason(self) -> str | None:
        return reason_against_step_sizes(self.optimizer)

    def _of(self, group: dict, weight: Tensor) -> float | Tensor:
        kind = type(self.optimizer)
        if kind is torch.optim.SGD:  # its state is no part of the metric
            return _sgd(group)
        state = self.optimizer.state.get(weight)
        return METRICS[kind](group, state) if state else 0.0


def reason_against_step_sizes(optimizer: torch.optim.Optimizer) -> str | None:
    """Return why an optimizer does not tell its step sizes; None if it does.

    Parameters
    ----------
    optimizer : Optimizer
    """
    kind, option = type(optimizer), ""
    if kind in KNOWN:
        unclear = [
            option for group in optimizer.param_groups for option in _unclear(group)
        ]
        if not unclear:
            return None
        option = f" with {unclear[0]}"
    *names, last = (known.__name__ for known in KNOWN)
    return (
        f"optimizer={kind.__name__}{option} does not tell the step sizes that a "
        f"proximal step needs; use {', '.join(names)} or {last}, with momentum below 1 "
        "and without maximize"
    )


def _unclear(group: dict) -> Iterator[str]:
    """Yield the options with which there is no fixed point, or none at a minimum."""
    momentum = group.get("momentum", 0)
    if not momentum < 1:
        yield f"momentum={momentum!r}"
    if group.get("maximize"):
        yield "maximize=True"


def _sgd(group: dict) -> float | Tensor:
    momentum = group["momentum"]
    if not momentum:
        return group["lr"]
    return group["lr"] * (1 - group["dampening"]) / (1 - momentum)


def _adam(group: dict, state: dict) -> Tensor:
    largest = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
    return group["lr"] / _root(group, state, state[largest])


def _adamax(group: dict, state: dict) -> Tensor:
    return group["lr"] / state["exp_inf"]


def _nadam(group: dict, state: dict) -> Tensor:
    beta1, decay, step = group["betas"][0], group["momentum_decay"], _count(state)
    mu = beta1 * (1 - 0.5 * 0.96 ** (step * decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * decay))
    product = _number(state["mu_product"])
    of_gradient = (1 - mu) / (1 - product)
    of_mean = mu_next * (1 - beta1**step) / (1 - product * mu_next)
    size = group["lr"] * (of_gradient + of_mean)
    return size / _root(group, state, state["exp_avg_sq"])


def _radam(group: dict, state: dict) -> float | Tensor:
    beta2, step = group["betas"][1], float(state["step"])
    limit = 2 / (1 - beta2) - 1
    length = limit - 2 * step * beta2**step / (1 - beta2**step)
    if length <= 5:
        return group["lr"]
    numerator = (length - 4) * (length - 2) * limit
    rectified = (numerator / ((limit - 4) * (limit - 2) * length)) ** 0.5
    root = state["exp_avg_sq"].sqrt().add_(group["eps"])
    return group["lr"] * rectified * (1 - beta2**step) ** 0.5 / root


def _rmsprop(group: dict, state: dict) -> Tensor:
    v = state["square_avg"]
    if group["centered"]:
        v = v.addcmul(state["grad_avg"], state["grad_avg"], value=-1)
    root = v.sqrt().add_(group["eps"])
    return group["lr"] / (1 - group["momentum"]) / root


def _adagrad(group: dict, state: dict) -> Tensor:
    lr = group["lr"] / (1 + (_count(state) - 1) * group["lr_decay"])
    return lr / state["sum"].sqrt().add_(group["eps"])


def _root(group: dict, state: dict, v: Tensor) -> Tensor:
    """Return sqrt(v) + eps, with v corrected for its start."""
    correction = 1 - group["betas"][1] ** _count(state)
    return (v / correction).sqrt_().add_(group["eps"])


def _count(state: dict) -> float | Tensor:
    """Return the number of steps, without waiting for a device."""
    return _number(state["step"])


def _number(value: float | Tensor) -> float | Tensor:
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return value.double()
    return float(value)


# What a constant gradient is multiplied with, from the options of a group of parameters
# and the state of one of them after the step.
METRICS: dict[type, Callable[[dict, dict], float | Tensor]] = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.Adamax: _adamax,
    torch.optim.NAdam: _nadam,
    torch.optim.RAdam: _radam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
}
KNOWN = (torch.optim.SGD, *METRICS)
