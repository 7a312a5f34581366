"""The regularisers of a net in training, as one; and those of a stack of nets."""

import pickle
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from skreg.regularizers import Regularizer

__all__ = ["Active", "NotStackable", "penalized"]


class NotStackable(Exception):
    """Raised where regularisers of several nets cannot act as one."""


class Active:
    """Regularisers that act on a net, in their order.

    Parameters
    ----------
    members : sequence of Regularizer
    """

    def __init__(self, members: Sequence[Regularizer] = ()):
        self.members = list(members)
        self._at_work = [member for member in members if not member.is_neutral]
        self._batch = self._with("batch")
        self.penalties = self._with("add_gradients")
        self._gradients = self._with("gradients")
        self._project = self._with("project")
        self._average = self._with("average")

    def _with(self, method: str) -> list[Regularizer]:
        return [member for member in self._at_work if member.acts_in(method)]

    @property
    def changes_batches(self) -> bool:
        """Whether any of them replaces batches."""
        return bool(self._batch)

    @property
    def projects(self) -> bool:
        """Whether any of them changes the weights after a step."""
        return bool(self._project)

    @property
    def computes_gradients(self) -> bool:
        """Whether any of them computes the gradients of a step in a way of its own."""
        return bool(self._gradients)

    def begin(self, module: nn.Module) -> None:
        """As ``Regularizer.begin``, of all that are not neutral."""
        for member in self._at_work:
            member.begin(module)

    def batch(self, X, y):
        """As ``Regularizer.batch``, of all."""
        for member in self._batch:
            X, y = member.batch(X, y)
        return X, y

    def add_gradients(self, gradients, weights) -> Tensor | float:
        """As ``Regularizer.add_gradients``, of all."""
        value = 0.0
        for penalty in self.penalties:
            value = value + penalty.add_gradients(gradients, weights)
        return value

    def gradients(self, evaluate: Callable, weights: Mapping[str, Tensor]):
        """As ``Regularizer.gradients``, of all: the first one is the outermost."""
        for member in reversed(self._gradients):
            evaluate = _Evaluation(member, evaluate, weights)
        return evaluate()

    def project(self, weights: Mapping[str, Tensor], step_sizes: Mapping) -> None:
        """As ``Regularizer.project``, of all."""
        for member in self._project:
            member.project(weights, step_sizes)

    @property
    def averages(self) -> bool:
        """Whether any of them replaces the weights at the end of an epoch."""
        return bool(self._average)

    def average(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        """As ``Regularizer.average``; of several, the first one that returns some."""
        found = [member.average(weights) for member in self._average]
        return next((averaged for averaged in found if averaged is not None), None)

    @property
    def kinds(self) -> tuple[type, ...]:
        """The classes, which the nets of a stack have in common."""
        return tuple(map(type, self.members))

    def reason_against_stack(self) -> str | None:
        """Return which of them is known not to act on several nets as one, if any."""
        for member in self._at_work:
            name = type(member).__name__
            if member.acts_in("batch") and member.acts_in("begin"):
                return f"regularizer {name} changes batches and may look at the module"
            if member.acts_in("average"):
                return f"regularizer {name} averages weights, which stacks do not"
            if _acts_on_weights(member) and not member.acts_in("stack"):
                return f"regularizer {name} has no stack"
        return None

    def batch_key(self) -> bytes:
        """Return what nets that share their batches have in common."""
        return pickle.dumps(self._batch)

    @classmethod
    def stack(cls, of_nets: Sequence["Active"]) -> "Active":
        """Return the regularisers of several nets as one.

        Parameters
        ----------
        of_nets : sequence of Active
            One for each net; those at the same place are of the same class.

        Raises
        ------
        NotStackable
        """
        stacked = []
        for members in zip(*(active.members for active in of_nets), strict=True):
            if not any(map(_acts_on_weights, members)):
                continue
            one = type(members[0]).stack(members)
            if one is None:
                raise NotStackable(f"regularizer {type(members[0]).__name__}")
            stacked.append(one)
        return cls(stacked)


def _acts_on_weights(member: Regularizer) -> bool:
    return not member.is_neutral and any(
        member.acts_in(method) for method in ("add_gradients", "gradients", "project")
    )


class _Evaluation:
    def __init__(self, member, evaluate, weights):
        self.member, self.evaluate, self.weights = member, evaluate, weights

    def __call__(self):
        return self.member.gradients(self.evaluate, self.weights)


def penalized(
    loss: Tensor, active: Active, weights: Mapping[str, nn.Parameter]
) -> tuple[Tensor, Tensor | float]:
    """Add the penalties of the weights to a data loss.

    Parameters
    ----------
    loss : Tensor of shape ()
        Usually a mean over samples.
    active : Active
    weights : mapping of str to nn.Parameter

    Returns
    -------
    objective : Tensor of shape ()
        Its gradient holds that of the penalties, from ``add_gradients``. `loss` itself,
        if there are none.
    penalty : Tensor of shape () or float
        The penalty alone, detached.
    """
    if not active.penalties:
        return loss, 0.0
    penalty = _Penalty.apply(active, tuple(weights), *weights.values())
    return loss + penalty, penalty.detach()


class _Penalty(torch.autograd.Function):
    """The value of penalties, and the gradient that they write out themselves."""

    @staticmethod
    def forward(ctx, active, names, *params):
        gradients = {n: torch.zeros_like(w) for n, w in zip(names, params, strict=True)}
        weights = dict(zip(names, params, strict=True))
        value = active.add_gradients(gradients, weights)
        ctx.active, ctx.names = active, names
        ctx.save_for_backward(*params)
        ctx.gradients = gradients
        return value if isinstance(value, Tensor) else params[0].new_tensor(value)

    @staticmethod
    def backward(ctx, grad_output):
        # Handed over rather than kept: autograd adds the gradient of the data loss to
        # a tensor in place if nobody else holds it. A second backward makes it anew.
        gradients, ctx.gradients = ctx.gradients, None
        differentiated = torch.is_grad_enabled()  # the gradient itself is to be, again
        if gradients is None or differentiated:
            weights = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
            gradients = {name: torch.zeros_like(w) for name, w in weights.items()}
            ctx.active.add_gradients(gradients, weights)
        gradients = list(gradients.values())
        if differentiated:
            return None, None, *(grad_output * g for g in gradients)
        # Asking a CUDA tensor for its value would make the host wait for the device.
        if grad_output.device.type != "cpu" or grad_output != 1:
            torch._foreach_mul_(gradients, grad_output)
        return None, None, *gradients
