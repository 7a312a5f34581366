"""Training steps of a fully connected net with backpropagation written out.

Stands in for forward pass, loss, ``backward`` and penalty of a batch where nobody has
put something of their own in their place; the optimizer is the net's. The weights are
those of the standard way within rounding.
"""

from threading import get_ident

import torch
from torch import Tensor

from skreg._utils.flat import FlatTensors
from skreg._utils.torch_state import plain_torch
from skreg.backprop import Backprop, flat, fully_connected_layers, normalizes
from skreg.estimators._programs import ProgramOfNet
from skreg.estimators.paths import drops, loss_with_gradient_of
from skreg.training.optimizer_step import make_step
from skreg.training.output_checks import name_of
from skreg.training.step import written_gradients


def make_backprop_program(net) -> "BackpropProgram":
    """Return the `BackpropProgram` of a fit that is about to begin.

    Parameters
    ----------
    net : RegularizedNet
        Initialised, in a session; `skreg.estimators.paths` has chosen this path.
    """
    return BackpropProgram(net, net._session.layers, loss_with_gradient_of(net))


def _shares_memory(parameter, view) -> bool:
    return parameter.data_ptr() == view.data_ptr() and parameter.shape == view.shape


class BackpropProgram(ProgramOfNet):
    """Such a training, from its first epoch to `release`.

    The weights of the module are views of one tensor meanwhile, and so are their
    gradients, so that the penalty is a handful of operations however many there are.

    Parameters
    ----------
    net : RegularizedNet
    layers : list of nn.Module
        From `skreg.backprop.fully_connected_layers`.
    loss_with_gradient : callable
        The loss, from `skreg.losses.loss_with_gradient`.
    """

    def __init__(self, net, layers, loss_with_gradient):
        super().__init__(net)
        self.loss_with_gradient = loss_with_gradient
        self.generator = None  # of dropout; None is torch's default one
        self.weights, self.gradients = _flattened(net)
        self.parameters = [net._session.weights[name] for name in self.weights]
        for parameter, view in zip(self.parameters, self.weights.values(), strict=True):
            parameter.data = view
        self.backprop = Backprop(
            layers,
            dict(zip(self.parameters, self.weights.values(), strict=True)),
            dict(zip(self.parameters, self.gradients.values(), strict=True)),
            self._draw_mask,
        )
        self.layers = layers
        inner = list(flat(layers))
        self._differs_in_training = any(map(drops, inner)) or any(
            map(normalizes, inner)
        )
        # A product forward, and two back.
        self.flop_per_sample = 6 * self.weights.flat.numel()
        # Others may change the net at any time, and `is_current` sees it only before an
        # epoch: then the module itself is evaluated.
        self.evaluates = net._session.unobserved
        self._thread = get_ident()
        self._evaluated = None

    def is_current(self) -> bool:
        """Tell whether the net is still the one that this training was made for.

        Callbacks of the user's may have given it other weights, layers, hooks, or
        another loss since the last epoch.
        """
        if self.evaluates:
            return True
        net = self.net
        self.loss_with_gradient = loss_with_gradient_of(net)
        layers = fully_connected_layers(net.module_, net.input_shape_) or []
        return (
            self.loss_with_gradient is not None
            and list(map(id, layers)) == list(map(id, self.layers))
            and _ids(self.parameters) == _ids(net.module_.parameters())
            and _ids(self.parameters) == _ids(_optimized(net.optimizer_))
            and all(map(_shares_memory, self.parameters, self.weights.values()))
        )

    def stands_in(self) -> bool:
        """Tell whether ``outputs`` may be taken for those of the module.

        Not by another thread, whose batch would take the place of the one in training.
        """
        return self.evaluates and self._thread == get_ident()

    def begin_epoch(self) -> None:
        """Put the gradients in their places, where an optimizer looks for them."""
        for parameter, gradient in zip(
            self.parameters, self.gradients.values(), strict=True
        ):
            parameter.grad = gradient
        self._step_optimizer = make_step(self.net.optimizer_)

    @property
    def slopes(self) -> FlatTensors:
        return self.gradients

    def step_optimizer(self) -> None:
        """Take the optimizer's step."""
        self._step_optimizer()
        self._evaluated = None

    def evaluate(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | float]:
        """Write the gradients of a batch; return objective and penalty."""
        (X, y), fit = batch, self.net._session
        X = self.net._to_device(X)
        weight, n = fit.weight, len(X)
        outputs = self._forward_in_training(X)
        y = y.to(outputs.device)
        self.net._checked_outputs(outputs, n)
        if fit.looks:
            fit.look_at_outputs(outputs, name_of(self.layers[-1]))
        scale = 1 / n if weight is None else weight.to(outputs) / n
        return written_gradients(
            *(self.backprop, *self.loss_with_gradient(outputs, y, scale)),
            *(fit.regularizers, self.gradients, self.weights),
        )

    def losses_of_inputs(self, y: Tensor):
        """Return the function of inputs that attacks maximise, with gradients."""
        return InputLosses(self.net._session, self.backprop, y)

    def outputs(self, X: Tensor) -> Tensor:
        """Return the module's outputs, with dropout off."""
        with torch.no_grad():
            outputs = self.backprop.forward(X.flatten(start_dim=1), training=False)
        # With X itself: its address must not become another batch's.
        self._evaluated = self._fingerprint(X), outputs, X
        return outputs

    def _forward_in_training(self, X):
        # What was computed from the same batch with the same weights, to evaluate
        # them at the end of the last epoch, need not be computed again.
        if self._evaluated is not None and not self._differs_in_training:
            fingerprint, outputs, _ = self._evaluated
            if fingerprint == self._fingerprint(X):
                return outputs
        return self.backprop.forward(X.flatten(start_dim=1), training=True)

    def _fingerprint(self, X) -> tuple:
        return X.data_ptr(), X.shape, X._version, *(w._version for w in self.parameters)

    def _draw_mask(self, layer, x):
        p = layer.p
        if p == 0:
            return None
        if p == 1:
            return torch.zeros_like(x)
        mask = torch.empty_like(x)
        return mask.bernoulli_(1 - p, generator=self.generator).div_(1 - p)

    @plain_torch()
    def release(self) -> None:
        """Give each parameter memory of its own again."""
        for parameter in self.parameters:
            parameter.data = parameter.detach().clone()
            parameter.grad = None


class InputLosses:
    """Losses of samples as a function of their inputs, with the gradient written out.

    Parameters
    ----------
    fit : FitState
    backprop : Backprop
        Of one net.
    y : Tensor of shape (n_samples, ...)
    """

    def __init__(self, fit, backprop: Backprop, y: Tensor):
        self.fit, self.backprop, self.y = fit, backprop, y

    def __call__(self, X: Tensor) -> Tensor:
        """Return the losses, of shape (n_samples,), with their graph."""
        outputs = self.backprop.attached(X.flatten(start_dim=1))
        outputs = self.fit.checked_outputs(outputs, len(X))
        return self.fit.sample_losses(outputs, self.y)

    @torch.no_grad()
    def with_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, and the gradient of their sum in X."""
        outputs = self.backprop.forward(X.flatten(start_dim=1), training=False)
        checked = self.fit.checked_outputs(outputs, len(X))
        losses, gradient = self.fit.sample_losses_with_gradient(checked, self.y)
        found = self.backprop.input_gradient(gradient.view_as(outputs))
        return losses, found.view(X.shape)


def _flattened(net) -> tuple[FlatTensors, FlatTensors]:
    """Return copies of the weights of a net, and gradients of zero, side by side.

    What is penalised comes first, so that it is one tensor.
    """
    penalized = {
        name
        for penalty in net._session.regularizers.penalties
        for name in getattr(penalty, "names_", ())
    }
    weights = net._session.weights
    ordered = {n: weights[n] for n in sorted(weights, key=lambda n: n not in penalized)}
    flat = torch.cat([w.detach().reshape(-1) for w in ordered.values()])
    return FlatTensors(flat, ordered), FlatTensors(torch.zeros_like(flat), ordered)


def _ids(things) -> set[int]:
    return set(map(id, things))


def _optimized(optimizer) -> list[torch.nn.Parameter]:
    return [w for group in optimizer.param_groups for w in group["params"]]
