"""An optimizer's step in one call of its kernel, without what precedes it each time.

``Optimizer.step`` gathers parameters, gradients and state anew, checks them, groups
them by device, and calls hooks; on a small net that takes much longer than the kernel.
"""

from collections.abc import Callable

import torch

__all__ = ["make_step"]


def make_step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Return a function that does what ``optimizer.step`` does.

    Parameters
    ----------
    optimizer : Optimizer
        The function is ``optimizer.step`` itself if this is not a fused SGD, Adam or
        AdamW, or if somebody listens to its steps.
    """
    kernel, groups = KERNELS.get(type(optimizer)), optimizer.param_groups
    listened_to = (
        "step" in vars(optimizer)  # a scheduler's wrapper
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
    )
    if kernel is None or listened_to or len(groups) > 1:
        return optimizer.step
    group = groups[0]
    if not group["fused"] or group.get("amsgrad") or group["differentiable"]:
        return optimizer.step
    return _KernelStep(optimizer, kernel)


class _KernelStep:
    def __init__(self, optimizer, kernel):
        self.optimizer = optimizer
        self.kernel = kernel
        self.params = optimizer.param_groups[0]["params"]
        self.state = None

    def __call__(self):
        state, group = self.optimizer.state, self.optimizer.param_groups[0]
        last = self.state and state.get(self.params[-1])
        if not last or any(a[-1] is not last[key] for key, a in self.state.items()):
            self.optimizer.step()  # makes the state
            self.state = self._gather()
            return
        gradients = [w.grad for w in self.params]
        with torch.no_grad():
            self.kernel(group, self.params, gradients, **self.state)

    def _gather(self) -> dict[str, list[torch.Tensor]]:
        """Return the state's tensors as lists along the parameters."""
        states = [self.optimizer.state[w] for w in self.params]
        names = [name for name, value in states[0].items() if value is not None]
        return {name: [state[name] for state in states] for name in names}


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
