"""Modules whose outputs are not what their criterion expects: they cannot learn much.

A softmax in front of cross-entropy, for one, leaves probabilities that hardly differ.
The losses fall all the same; so the outputs of a fit's first batch are looked at.
"""

import numpy as np
from torch import Tensor, nn

from skreg import modules

__all__ = ["doubt", "has_logits", "last_operation", "name_of", "why_no_probabilities"]

SUM_TOLERANCE = 1e-4  # of single precision, over thousands of classes
ROW_TOLERANCE = 1e-3  # of what predict_proba returns, whatever made it
HALF_TOLERANCE = 2e-2  # of bfloat16
LOG_TOLERANCE = 0.1  # some add a little to probabilities before they take the logarithm
# These compute the sigmoid themselves.
SIGMOID_CRITERIA = {nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss}
MOVES = {  # operations that hand on numbers as they are
    *("CloneBackward0", "ExpandBackward0", "ReshapeAliasBackward0"),
    *("SqueezeBackward0", "SqueezeBackward1", "ToCopyBackward0", "UnsafeViewBackward0"),
    *("UnsqueezeBackward0", "ViewBackward0"),
}
# The activations that leave few negative numbers, or none, by the operation in a graph.
NOT_NEGATIVE = {
    "ReluBackward0": "a ReLU",
    "SoftplusBackward0": "a softplus",
    "ExpBackward0": "an exponential",
    "AbsBackward0": "an absolute value",
    "GeluBackward0": "a GELU",
    "SiluBackward0": "a SiLU",
    "MishBackward0": "a Mish",
}
OPERATIONS = {  # of layers
    nn.Sigmoid: "SigmoidBackward0",
    nn.ReLU: "ReluBackward0",
    nn.Softplus: "SoftplusBackward0",
    nn.GELU: "GeluBackward0",
    nn.SiLU: "SiluBackward0",
    nn.Mish: "MishBackward0",
}
OWN_MODULES = {getattr(modules, name) for name in modules.__all__}


def has_logits(module) -> bool:
    """Tell whether the parameter `module` is one of `skreg.modules`, or None."""
    kind = module if isinstance(module, type) else type(module)
    return module is None or kind in OWN_MODULES


def last_operation(outputs: Tensor) -> str:
    """Return the name of the operation that made a tensor, or "" if nothing tells.

    "SigmoidBackward0" is that of a sigmoid.
    """
    node = outputs.grad_fn
    while node is not None and node.name() in MOVES:
        node = node.next_functions[0][0]
    return "" if node is None else node.name()


def name_of(layer: nn.Module) -> str:
    """Return what `last_operation` finds after a layer, where there is no graph."""
    return OPERATIONS.get(type(layer), "")


def doubt(
    criterion,
    outputs: Tensor,
    operation: str,
    *,
    standardized: bool = False,
    half: bool = False,
) -> str | None:
    """Return what is wrong with a module's outputs for a criterion, if anything is.

    Parameters
    ----------
    criterion : nn.Module
    outputs : Tensor of shape (n_samples, n_outputs)
        For a batch of training data.
    operation : str
        From `last_operation`.
    standardized : bool, default=False
        Whether the targets are numbers of mean 0 and deviation 1.
    half : bool, default=False
        Whether the outputs were computed in half precision.

    Returns
    -------
    str or None
    """
    if outputs.ndim != 2:
        return None
    criterion = getattr(criterion, "_orig_mod", criterion)
    kind, name = type(criterion), type(criterion).__name__
    tolerance = HALF_TOLERANCE if half else SUM_TOLERANCE
    is_sigmoid = operation == "SigmoidBackward0"
    if kind is nn.CrossEntropyLoss and _are_probabilities(outputs, tolerance):
        return (
            "The module returns probabilities, but criterion=CrossEntropyLoss takes "
            "logits and computes the softmax itself: two of them leave probabilities "
            "that hardly differ. Remove the softmax at the end of the module."
        )
    if kind is nn.NLLLoss and not _are_log_probabilities(outputs):
        found = "probabilities" if _are_probabilities(outputs, tolerance) else "numbers"
        return (
            f"The module returns {found} whose exponentials do not sum to 1, but "
            "criterion=NLLLoss takes log-probabilities. Let the module end in "
            "log_softmax, or in a linear layer with criterion=CrossEntropyLoss."
        )
    if is_sigmoid and kind in (nn.CrossEntropyLoss, *SIGMOID_CRITERIA):
        return (
            f"The module ends in a sigmoid, but criterion={name} takes logits, which "
            "may be any numbers: between 0 and 1 they leave probabilities that hardly "
            "differ. Remove the sigmoid at the end of the module."
        )
    if standardized and (is_sigmoid or _are_probabilities(outputs, tolerance)):
        return (
            "The module returns numbers between 0 and 1, but scale_target=True trains "
            "on y standardised to mean 0, half of which is negative. Remove what "
            "bounds the outputs at the end of the module, or set scale_target=False "
            "for a y between 0 and 1."
        )
    if standardized and operation in NOT_NEGATIVE:
        return (
            f"The module ends in {NOT_NEGATIVE[operation]}, but scale_target=True "
            "trains on y standardised to mean 0, half of which is negative: the module "
            "cannot reach it. Remove this activation, or set scale_target=False."
        )
    return None


def why_no_probabilities(
    outputs: np.ndarray, *, multilabel: bool, half: bool = False
) -> str | None:
    """Return what shows that an array holds no probabilities, or None.

    Parameters
    ----------
    outputs : ndarray of shape (n_samples, n_outputs)
    multilabel : bool
        Each output is the probability of a label, so that rows need not sum to 1.
    half : bool, default=False
        Whether they were computed in half precision.
    """
    tolerance = HALF_TOLERANCE if half else ROW_TOLERANCE
    low, high = outputs.min(), outputs.max()
    if low < 0:
        return f"the lowest is {low:.3g}"
    if multilabel:
        return f"the highest is {high:.3g}" if high > 1 + tolerance else None
    sums = outputs.sum(axis=1)
    worst = sums[np.abs(sums - 1).argmax()]
    return f"a row sums to {worst:.3g}" if abs(worst - 1) > tolerance else None


def _are_probabilities(outputs: Tensor, tolerance: float) -> bool:
    if len(outputs) == 1 and outputs.shape[1] == 1:  # any number may be about 1
        return False
    if not outputs.min() >= 0:
        return False
    return bool((outputs.sum(dim=1) - 1).abs().max() <= tolerance)


def _are_log_probabilities(outputs: Tensor) -> bool:
    # What is not a number is for others to tell of.
    return not bool((outputs.logsumexp(dim=1).abs() > LOG_TOLERANCE).any())
