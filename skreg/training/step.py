"""Training step: the gradients of a batch, the optimizer's step, a projection.

A *program* knows how to compute the gradients: by autograd (one net, any module), by
backpropagation written out (fully connected nets, one or a stack of them), or by
``vmap`` (a stack of nets of any module).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from skreg.training.regularizing import Active

__all__ = ["Program", "take_step", "written_gradients"]


class Program(Protocol):
    """What can take steps: one net, or a stack of B nets with an axis in front."""

    @property
    def regularizers(self) -> Active:
        """What acts on the net, or on all of the stack as one."""
        ...

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The trainable parameters by name, without gradients."""
        ...

    @property
    def slopes(self) -> Mapping[str, Tensor]:
        """The gradients that ``evaluate`` has written, by name."""
        ...

    def evaluate(self, batch: Any) -> tuple[Tensor, Tensor | float]:
        """Write the gradients of a batch; return objective and penalty."""
        ...

    @property
    def step_sizes(self) -> Mapping[str, float | Tensor]:
        """How far the last step has gone along the gradients."""
        ...

    def set_options(self) -> None:
        """Set the options of the optimizer as regularisers schedule them."""
        ...

    def step_optimizer(self) -> None:
        """Take the optimizer's step along the gradients."""
        ...

    def keep_average(self, averaged: Mapping[str, Tensor] | None) -> None:
        """Keep what is to be evaluated after the epoch instead of the weights."""
        ...


def take_step(program: Program, batch: Any) -> tuple[Tensor, Tensor | float]:
    """Train on a batch.

    Parameters
    ----------
    program : Program
    batch : object
        Whatever the program evaluates.

    Returns
    -------
    objective, penalty : Tensor of shape () or (B,)
        Before the step; the penalty is 0.0 if there is none.
    """
    regularizers = program.regularizers
    with torch.no_grad():
        if regularizers.schedules:
            program.set_options()
        if regularizers.computes_gradients:
            evaluate = partial(program.evaluate, batch)
            found = regularizers.gradients(evaluate, program.weights, program.slopes)
        else:
            found = program.evaluate(batch)
        program.step_optimizer()
        if regularizers.projects:
            regularizers.project(program.weights, program.step_sizes)
        if regularizers.averages:
            program.keep_average(regularizers.average(program.weights))
    return found


def written_gradients(
    model, loss: Tensor, gradient: Tensor, regularizers: Active, gradients, weights
) -> tuple[Tensor, Tensor | float]:
    """Write the gradients of loss and penalties by a backward pass that is written out.

    Parameters
    ----------
    model : object
        Its ``backward(gradient, accumulate)`` follows its last ``forward``.
    loss : Tensor of shape () or (B,)
    gradient : Tensor
        Of the loss in the outputs.
    regularizers : Active
    gradients : FlatTensors or NamedTensors
        Overwritten.
    weights : mapping of str to Tensor

    Returns
    -------
    objective, penalty : Tensor of shape () or (B,)
    """
    if not regularizers.penalties:
        model.backward(gradient, accumulate=False)
        return loss, 0.0
    penalty = regularizers.write_gradients(gradients, weights)
    model.backward(gradient, accumulate=True)
    return loss + penalty, penalty
