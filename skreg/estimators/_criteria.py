"""Criteria of classifiers: chosen by the kind of y, and checked against it."""

from torch import nn

from skreg.losses import LOSSES, loss_of

__all__ = ["check_labels_known", "criterion_for", "is_a", "is_of_labels"]


def is_a(criterion, kinds: type | tuple[type, ...]) -> bool:
    """Tell whether a criterion, a class or an instance, is one of these kinds."""
    if isinstance(criterion, type):
        return issubclass(criterion, kinds)
    # A compiled criterion keeps the original one.
    return isinstance(getattr(criterion, "_orig_mod", criterion), kinds)


def is_of_labels(criterion) -> bool:
    """Return whether a criterion is for several labels per sample."""
    loss = loss_of(criterion)
    return loss is not None and loss.targets == "labels"


def criterion_for(criterion, options: dict, multilabel: bool, known: bool):
    """Return the criterion to train with; the default follows the kind of targets.

    Parameters
    ----------
    criterion : loss class or instance
    options : dict
        What is set as ``criterion__*``.
    multilabel : bool
    known : bool
        Whether `multilabel` is of data, or no more than what the criterion suggests.

    Raises
    ------
    ValueError
        If the criterion is known to be for the other kind of targets.
    """
    name = getattr(criterion, "__name__", type(criterion).__name__)
    loss = loss_of(criterion)
    targets = None if loss is None else loss.targets
    if multilabel and criterion is nn.CrossEntropyLoss and not options:
        return nn.BCEWithLogitsLoss
    if multilabel and targets == "classes":
        given = "".join(f", criterion__{key}" for key in sorted(options))
        raise ValueError(
            f"criterion={name}{given} is for one class per sample, but y is a 0/1 "
            "matrix with a column for each label; use criterion=nn.BCEWithLogitsLoss, "
            "which is also what the default becomes."
        )
    if not multilabel and targets == "labels":
        raise ValueError(
            f"criterion={name} is for several labels per sample, but y has one class "
            "per sample; use criterion=nn.CrossEntropyLoss, or pass y as a 0/1 matrix "
            "with a column for each label."
        )
    if known and not multilabel and targets == "numbers" and _is_torch_s_own(criterion):
        raise ValueError(
            f"criterion={name} is for numbers, but y has one class per sample; use "
            "criterion=nn.CrossEntropyLoss, or RegularizedNetRegressor for numbers."
        )
    return criterion


def _is_torch_s_own(criterion) -> bool:
    """Return whether it is a class of the table itself; a subclass may take classes."""
    return (criterion if isinstance(criterion, type) else type(criterion)) in LOSSES


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
    if not isinstance(nonlinearity, str) or is_of_labels(criterion):
        return
    name = getattr(criterion, "__name__", type(criterion).__name__)
    raise ValueError(
        f"criterion={name} does not tell what outputs mean for several labels per "
        "sample, so that predict cannot tell which are above a probability of 0.5. "
        "Set predict_nonlinearity=torch.sigmoid if they are logits, or "
        "predict_nonlinearity=None if they are probabilities, or use "
        "criterion=nn.BCEWithLogitsLoss."
    )
