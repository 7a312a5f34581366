"""Programs of one net: what they share, and that of autograd."""

from collections.abc import Iterator, Mapping

import torch

from skreg._utils.flat import NamedTensors
from skreg.training.step_sizes import StepSizes

__all__ = ["AutogradProgram", "ProgramOfNet", "Slopes", "step_sizes_of"]


def step_sizes_of(
    net, weights: Mapping[str, torch.nn.Parameter]
) -> Mapping[str, float | torch.Tensor]:
    """Return how far the last step of a net has gone along the gradients.

    Parameters
    ----------
    net : RegularizedNet
    weights : mapping of str to nn.Parameter
    """
    if net._scaler is not None and net._scaler.left_out:
        return dict.fromkeys(weights, 0.0)
    return StepSizes(net.optimizer_, weights)


class ProgramOfNet:
    """What a step asks of a net that trains alone, however its gradients come about.

    Parameters
    ----------
    net : RegularizedNet
        In a session.
    """

    def __init__(self, net):
        self.net = net

    @property
    def regularizers(self):
        return self.net._session.regularizers

    @property
    def step_sizes(self) -> Mapping[str, float | torch.Tensor]:
        return step_sizes_of(self.net, self.net._session.weights)

    def keep_average(self, averaged) -> None:
        self.net._session.averaged = averaged

    def set_options(self) -> None:
        """Set the options of the optimizer as regularisers schedule them."""
        self.net._session.set_options()


class Slopes(Mapping):
    """The gradients that autograd has written for some parameters, by their names.

    Parameters
    ----------
    weights : mapping of str to nn.Parameter
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter]):
        self.weights = weights

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __getitem__(self, name: str) -> torch.Tensor:
        weight = self.weights[name]
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        return weight.grad


class AutogradProgram(ProgramOfNet):
    """One net, whose gradients autograd computes: by methods that may be overridden.

    Parameters
    ----------
    net : RegularizedNet
        In a session.
    fit_params : dict
    """

    def __init__(self, net, fit_params: dict):
        super().__init__(net)
        self.fit_params = fit_params

    @property
    def weights(self):
        weights = self.net._session.weights
        return NamedTensors({name: w.detach() for name, w in weights.items()})

    @property
    def slopes(self):
        return Slopes(self.net._session.weights)

    @torch.enable_grad()
    def evaluate(self, batch):
        """Write the gradients of a batch; return objective and penalty."""
        net, (X, y) = self.net, batch
        net.optimizer_.zero_grad()
        y_pred = net.infer(X, **self.fit_params)
        loss = net.get_loss(y_pred, y, X=X, training=True)
        if net._scaler is None:
            loss.backward()
        else:
            net._scaler.backward(loss, [net.optimizer_])
        return loss.detach(), net._session.penalty

    def step_optimizer(self) -> None:
        """Take the optimizer's step."""
        if self.net._scaler is None:
            self.net.optimizer_.step()
        else:
            self.net._scaler.step([self.net.optimizer_])
