"""What a module returns: checked against the contract, and what criteria mean by it."""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "OF_LABELS",
    "Link",
    "check_labels_known",
    "criterion_for",
    "first_output",
    "is_a",
    "link_of",
    "mean_of",
    "n_rows",
    "target_range",
]

# Criteria of one class per sample, and of any number of labels per sample.
OF_CLASSES = nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss
OF_LABELS = nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss, nn.BCELoss


# Criteria of numbers that are likelihoods of shares, by what makes shares of outputs.
OF_SHARES = {
    (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss): torch.sigmoid,
    nn.CrossEntropyLoss: partial(torch.softmax, dim=-1),
    nn.KLDivLoss: torch.exp,
    nn.BCELoss: None,
}


class Link(NamedTuple):
    """From the outputs of a module to probabilities, and to their logarithms."""

    probabilities: Callable[[Tensor], Tensor]
    log_probabilities: Callable[[Tensor], Tensor]


# The softmax of log-probabilities are the probabilities.
SOFTMAX = Link(partial(torch.softmax, dim=-1), partial(torch.log_softmax, dim=-1))
SIGMOID = Link(torch.sigmoid, nn.functional.logsigmoid)


def is_a(criterion, kinds: type | tuple[type, ...]) -> bool:
    """Tell whether a criterion, a class or an instance, is one of these kinds."""
    if isinstance(criterion, type):
        return issubclass(criterion, kinds)
    # A compiled criterion keeps the original one.
    return isinstance(getattr(criterion, "_orig_mod", criterion), kinds)


def link_of(criterion, multilabel: bool) -> Link | None:
    """Return the link of a criterion that is a known likelihood of its outputs.

    Parameters
    ----------
    criterion : loss class or instance
    multilabel : bool
        Samples may have several labels.

    Returns
    -------
    Link or None
    """
    if multilabel:
        return SIGMOID if is_a(criterion, OF_LABELS[:2]) else None
    return SOFTMAX if is_a(criterion, OF_CLASSES[:2]) else None


def target_range(criterion) -> tuple[float, float]:
    """Return the lowest and the highest number that a criterion of numbers takes as y.

    Parameters
    ----------
    criterion : loss class or instance
    """
    if is_a(criterion, nn.PoissonNLLLoss):
        return 0, inf
    if is_a(criterion, nn.KLDivLoss) and getattr(criterion, "log_target", False):
        return -inf, 0
    shares = any(is_a(criterion, kinds) for kinds in OF_SHARES)
    return (0, 1) if shares else (-inf, inf)


def mean_of(criterion) -> Callable[[Tensor], Tensor] | None:
    """Return from what outputs are to the mean of y, or None if they are that mean.

    Parameters
    ----------
    criterion : instance of a loss class
        Of numbers.
    """
    # A compiled criterion keeps the original one.
    criterion = getattr(criterion, "_orig_mod", criterion)
    if isinstance(criterion, nn.PoissonNLLLoss):
        return torch.exp if criterion.log_input else None
    if isinstance(criterion, nn.KLDivLoss) and criterion.log_target:
        return None
    made = (OF_SHARES[kinds] for kinds in OF_SHARES if isinstance(criterion, kinds))
    return next(made, None)


def criterion_for(criterion, options: dict, multilabel: bool):
    """Return the criterion to train with; the default follows the kind of targets.

    Parameters
    ----------
    criterion : loss class or instance
    options : dict
        What is set as ``criterion__*``.
    multilabel : bool

    Raises
    ------
    ValueError
        If the criterion is known to be for the other kind of targets.
    """
    name = getattr(criterion, "__name__", type(criterion).__name__)
    if multilabel and criterion is nn.CrossEntropyLoss and not options:
        return nn.BCEWithLogitsLoss
    if multilabel and is_a(criterion, OF_CLASSES):
        given = "".join(f", criterion__{key}" for key in sorted(options))
        raise ValueError(
            f"criterion={name}{given} is for one class per sample, but y is a 0/1 "
            "matrix with a column for each label; use criterion=nn.BCEWithLogitsLoss, "
            "which is also what the default becomes."
        )
    if not multilabel and is_a(criterion, OF_LABELS):
        raise ValueError(
            f"criterion={name} is for several labels per sample, but y has one class "
            "per sample; use criterion=nn.CrossEntropyLoss, or pass y as a 0/1 matrix "
            "with a column for each label."
        )
    return criterion


def check_labels_known(criterion, nonlinearity) -> None:
    """Check that it is known how outputs tell which of several labels a sample has.

    Parameters
    ----------
    criterion : loss class or instance
    nonlinearity : "auto", None or callable
        The parameter `predict_nonlinearity`.

    Raises
    ------
    ValueError
    """
    if not isinstance(nonlinearity, str) or is_a(criterion, OF_LABELS):
        return
    name = getattr(criterion, "__name__", type(criterion).__name__)
    raise ValueError(
        f"criterion={name} does not tell what outputs mean for several labels per "
        "sample, so that predict cannot tell which are above a probability of 0.5. "
        "Set predict_nonlinearity=torch.sigmoid if they are logits, or "
        "predict_nonlinearity=None if they are probabilities, or use "
        "criterion=nn.BCEWithLogitsLoss."
    )


def first_output(y_pred) -> Tensor:
    """Return the outputs that losses and predictions are of: the first of a tuple.

    Raises
    ------
    TypeError
        If that is no tensor.
    """
    outputs = y_pred[0] if isinstance(y_pred, tuple) and y_pred else y_pred
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"The module returned {_described(y_pred)}; its forward must return a "
            "tensor of shape (n_samples, n_outputs), or a tuple that begins with one."
        )
    return outputs


def n_rows(y) -> int | None:
    """Return the number of targets in a batch, or None if they do not tell."""
    return len(y) if isinstance(y, Tensor) and y.ndim else None


def _described(y_pred) -> str:
    if y_pred is None:
        return "None"
    if isinstance(y_pred, tuple) and y_pred:
        return f"a tuple that begins with a {type(y_pred[0]).__name__}"
    keys = f" with the keys {list(y_pred)}" if isinstance(y_pred, dict) else ""
    return f"a {type(y_pred).__name__}{keys}"
