"""What attacks ask of a net: losses of inputs, encoded targets, right predictions."""

from collections.abc import Callable, Mapping
from math import inf

import numpy as np
import torch
from torch import Tensor

from skreg._utils.randomness import seeded
from skreg.callbacks import right_of_probabilities
from skreg.estimators._input_range import SeenRange
from skreg.estimators._outputs import n_rows


def loss_of_inputs(net, y: Tensor, fit_params: dict | None = None) -> Callable:
    """Return the function of inputs, of targets `y`, that an attack maximises.

    Parameters
    ----------
    net : RegularizedNet
        Initialised.
    y : Tensor of shape (n_samples,) or (n_samples, n_outputs)
        Encoded targets.
    fit_params : dict, default=None
        Passed to the module's ``forward``.

    Returns
    -------
    callable
        Maps a Tensor of shape (n_samples, ...) to one of shape (n_samples,).
    """

    def loss(X: Tensor) -> Tensor:
        # Not net.infer, which in training may go without autograd.
        # A copy, because the module may work in place.
        y_pred = net.module_(X.clone(), **(fit_params or {}))
        outputs = net._checked_outputs(y_pred, n_rows(y))
        losses = net._sample_losses(outputs, y)
        if X.requires_grad and not losses.requires_grad:
            raise ValueError(
                f"The outputs of {type(net.module_).__name__} have no gradients, which "
                "an attack needs: its forward runs under torch.no_grad() or "
                "inference_mode(), or detaches them. Let it compute with gradients."
            )
        return losses

    return loss


def range_of_dataset(net, X) -> tuple[float, float]:
    """Return the range of the inputs of a Dataset, read once from end to end."""
    if isinstance(X, Mapping):
        raise ValueError(
            f"adversarial_eps={net.adversarial_eps!r} needs inputs in one array; got a "
            f"dict with the keys {list(X)}. Pass one array, or adversarial_eps=0."
        )
    seen = SeenRange()
    with seeded(net.seed_, torch.device("cpu")):  # the Dataset may draw
        for inputs, _ in net.get_iterator(X):
            seen.add(inputs)
    return seen.value() or (-inf, inf)  # the attack says what is wrong with the inputs


def validated_inputs(net, X) -> np.ndarray:
    """Return X checked against what the net was fitted on, as an array of its dtype."""
    return net._validate_X(X)


def checked_targets(net, y):
    """Return y as an array, if the net takes such targets."""
    return net._check_targets(y)


def encoded_targets(net, y):
    """Return y as the module is trained on it: class indices, standardised numbers."""
    return net._encode_targets(checked_targets(net, y))


def are_right(net, X: Tensor, y: Tensor) -> Tensor:
    """Return of each sample whether ``net.predict`` would find the encoded target."""
    with torch.no_grad():
        y_pred = net.infer(X.clone())  # the module may work in place
        outputs = net._checked_outputs(y_pred, len(X))
        return right_of_probabilities(net._get_predict_nonlinearity()(outputs), y)
