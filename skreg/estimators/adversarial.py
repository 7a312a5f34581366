"""Adversarial training: each batch is attacked before a step is taken on it.

Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR
(2018): the net is trained on the attacked inputs alone. The attack sees the weights as
they are, with dropout off and with the running statistics of batch normalisation,
which it does not change.
"""

import warnings
from collections.abc import Callable, Mapping
from math import inf

import numpy as np
import torch
from torch import Tensor

from skreg._utils.randomness import seeded
from skreg.attacks import GradientWatch, evaluation_mode, fgsm, pgd, random_start
from skreg.callbacks import right_of_probabilities
from skreg.estimators._input_range import SeenRange
from skreg.estimators._links import n_rows


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


def attacked(
    net, X: Tensor, y, bounds, fit_params: dict, warn_if_blind: bool = False
) -> Tensor:
    """Return what the inputs `X` of a training batch become under attack.

    Parameters
    ----------
    net : RegularizedNet
        Its ``adversarial_*`` say how: one step is FGSM, several are PGD from a random
        start.
    X : Tensor of shape (n_samples, ...)
        On the device of the net.
    y : Tensor or array of shape (n_samples,) or (n_samples, n_outputs)
    bounds : (float, float)
    fit_params : dict
    warn_if_blind : bool, default=False
        Warn if the attack finds no gradient to follow.

    Returns
    -------
    Tensor of the shape of X
    """
    if not (isinstance(X, Tensor) and X.is_floating_point()):
        kind = X.dtype if isinstance(X, Tensor) else type(X).__name__
        raise ValueError(
            f"adversarial_eps={net.adversarial_eps!r} needs inputs in one tensor of "
            f"floating-point numbers; got {kind}. Let the Dataset convert them, or "
            "pass adversarial_eps=0."
        )
    watch = GradientWatch()
    loss = loss_of_inputs(net, torch.as_tensor(y, device=X.device), fit_params)
    with evaluation_mode(net.module_):
        if not warn_if_blind:
            return _attack(net, loss, X, bounds)
        with watch.watching(loss, len(X)) as watched:
            attacked = _attack(net, watched, X, bounds)
    if watch.is_blind:
        warnings.warn(
            f"adversarial_eps={net.adversarial_eps!r}: {watch.finding} of the first "
            "batch, so that the attacks find nothing, and training is not adversarial. "
            "Does the module round or detach its inputs?",
            stacklevel=2,
        )
    return attacked


def _attack(net, loss, X, bounds) -> Tensor:
    eps, norm = net.adversarial_eps, net.adversarial_norm
    if net.adversarial_steps == 1:
        return fgsm(loss, X, eps, norm=norm, bounds=bounds)
    return pgd(
        loss,
        X,
        eps,
        steps=net.adversarial_steps,
        norm=norm,
        bounds=bounds,
        starts=[random_start(X, eps, norm)],
    )


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
