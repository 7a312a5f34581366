"""An optimizer's step in one call of its kernel, without what precedes it each time.

``Optimizer.step`` gathers parameters, gradients and state anew, checks them, groups
them by device, and calls hooks; on a small net that takes much longer than the kernel.
"""

from collections.abc import Callable

import torch
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

__all__ = ["make_step", "options_of"]


def make_step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Return a function that does what ``optimizer.step`` does.

    Parameters
    ----------
    optimizer : Optimizer
        The function is ``optimizer.step`` itself if this is not a fused SGD, Adam or
        AdamW, or if somebody listens to its steps.
    """
    kernel = KERNELS.get(type(optimizer))
    listened_to = (
        "step" in vars(optimizer)  # a scheduler's wrapper
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )
    if kernel is None or listened_to or not all(map(_is_plain, optimizer.param_groups)):
        return optimizer.step
    return _KernelStep(optimizer, kernel)


def options_of(group: dict) -> dict:
    """Return the options of a group of parameters, such as ``lr``."""
    return {name: value for name, value in group.items() if name != "params"}


def _is_plain(group) -> bool:
    return group["fused"] and not group.get("amsgrad") and not group["differentiable"]


class _KernelStep:
    def __init__(self, optimizer, kernel):
        self.optimizer = optimizer
        self.kernel = kernel
        self.states: list[dict[str, list[torch.Tensor]]] = []

    def __call__(self):
        if not self.states or not self._is_current():
            self.optimizer.step()  # makes the state
            self.states = [self._gather(group) for group in self.optimizer.param_groups]
            return
        with torch.no_grad():
            for group, state in zip(
                self.optimizer.param_groups, self.states, strict=True
            ):
                gradients = [w.grad for w in group["params"]]
                self.kernel(group, group["params"], gradients, **state)

    def _gather(self, group) -> dict[str, list[torch.Tensor]]:
        """Return the state's tensors as lists along the parameters."""
        states = [self.optimizer.state[w] for w in group["params"]]
        names = [name for name, value in states[0].items() if value is not None]
        return {name: [state[name] for state in states] for name in names}

    def _is_current(self) -> bool:
        """Tell whether the state is the same as before, and not one that was loaded."""
        group, state = self.optimizer.param_groups[0], self.states[0]
        now = self.optimizer.state.get(group["params"][0], {})
        return all(now.get(name) is values[0] for name, values in state.items())


def _adam(group, params, gradients, step, exp_avg, exp_avg_sq, decoupled=False):
    for count in step:
        count += 1
    decoupled = group.get("decoupled_weight_decay", decoupled)
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
    beta1, beta2 = group["betas"]
    kernel(
        params,
        gradients,
        exp_avg,
        exp_avg_sq,
        [],
        step,
        amsgrad=False,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
    )


def _adamw(*args, **state):
    _adam(*args, **state, decoupled=True)


def _sgd(group, params, gradients, momentum_buffer=()):
    torch._fused_sgd_(
        params,
        gradients,
        list(momentum_buffer),
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
        is_first_step=False,
    )


KERNELS = {torch.optim.Adam: _adam, torch.optim.AdamW: _adamw, torch.optim.SGD: _sgd}
