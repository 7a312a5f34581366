"""What a module returns: checked against the contract."""

from torch import Tensor

__all__ = ["first_output", "n_rows"]


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
