"""Network architectures: a general MLP and the five nets of the course.

All are fully connected: ``fc1 -> activation -> fc2 -> ... -> fcN``. Inputs of any
shape ``(n, ...)`` are flattened; outputs are logits (or values), shape
``(n, out_features)``, with no final softmax: the criterion and ``predict_proba``
apply it. Linear layers are created first to last and nothing else draws random
numbers, so a seed gives the weights of the same ``nn.Linear`` layers made by hand.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Real

from torch import Tensor, nn

__all__ = [
    "MLP",
    "AnimalNet",
    "AnimalNetDropout",
    "BigAnimalNet",
    "FullyConnected",
    "ToyNet",
    "ToyNetDropout",
]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "logistic": nn.Sigmoid,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Residual(nn.Module):
    """Skip connection: what goes into some layers is added to what comes out.

    Parameters
    ----------
    layers : sequence of nn.Module
        They keep the shape. They belong to another module, and are not registered.
    """

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        self.layers = tuple(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + layers(x)."""
        y = x
        for layer in self.layers:
            y = layer(y)
        return x + y


class FullyConnected(nn.Module):
    """Linear layers ``fc1`` to ``fcN`` with the same activation in between.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of features, from the inputs to the outputs.
    activation : nn.Module
        It has no weights.
    """

    def __init__(self, sizes: Sequence[int], activation: nn.Module):
        super().__init__()
        self.depth = len(sizes) - 1
        for i, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"fc{i}", nn.Linear(n_in, n_out))
        self.activation = activation

    def after_linear(self, i: int) -> list[nn.Module]:
        """Return the layers between linear layer `i`, counted from 1, and the next."""
        return [self.activation]

    def layers(self) -> list[nn.Module]:
        """Return the layers in the order in which flattened inputs go through them."""
        layers = []
        for i in range(1, self.depth):
            layers += [self.get_submodule(f"fc{i}"), *self.after_linear(i)]
        return [*layers, self.get_submodule(f"fc{self.depth}")]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(start_dim=1)
        for layer in self.layers():
            x = layer(x)
        return x


class _DropoutBeforeActivation(FullyConnected):
    """Dropout acts on the pre-activations, as in the course."""

    def __init__(self, sizes, activation, dropout: Sequence[float]):
        super().__init__(sizes, activation)
        for i, p in enumerate(dropout, start=1):
            self.add_module(f"dropout{i}", nn.Dropout(p))

    def after_linear(self, i):
        return [self.get_submodule(f"dropout{i}"), self.activation]


class MLP(FullyConnected):
    """Multi-layer perceptron with dropout after each hidden activation.

    With batch normalisation (Ioffe and Szegedy, 2015), it comes before the activation.
    Skip connections (He et al., 2016) lead around each hidden layer that is as wide as
    the one before it, dropout included; where no width repeats, there are none.

    Parameters
    ----------
    in_features : int
        Numbers per sample; an image of shape (C, H, W) has ``C * H * W``.
    out_features : int
        Number of classes, or of regression targets.
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Width of each hidden layer; empty for a linear model.
    activation : str or callable returning an nn.Module, default="relu"
        One of "elu", "gelu", "leaky_relu", "logistic", "relu", "selu", "silu",
        "tanh", or e.g. ``nn.Hardswish``.
    dropout : float, default=0.0
        Probability of dropping a hidden unit, in [0, 1].
    batch_norm : bool, default=False
        Normalise the outputs of each hidden linear layer over the batch.
    skip_connections : bool, default=False
        Add the inputs of a hidden layer to its outputs, where the widths are equal.

    Examples
    --------
    >>> import torch
    >>> from skreg.modules import MLP
    >>> MLP(64, 10, hidden_layer_sizes=(32, 16))(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Callable[[], nn.Module] = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        skip_connections: bool = False,
    ):
        hidden = _check_sizes(hidden_layer_sizes)
        super().__init__(
            [in_features, *hidden, out_features], _make_activation(activation)
        )
        self.has_norm = _check_bool("batch_norm", batch_norm)
        skips = _check_bool("skip_connections", skip_connections)
        self.skips = [skips and before == after for before, after in pairwise(hidden)]
        for i, width in enumerate(hidden if self.has_norm else (), start=1):
            self.add_module(f"norm{i}", nn.BatchNorm1d(width))
        # One layer serves all hidden layers: it holds no weights, and each call
        # draws a mask of its own. It is there at p=0 too, so that p can be raised.
        self.dropout = nn.Dropout(_check_probability(dropout))

    def after_linear(self, i):
        norm = [self.get_submodule(f"norm{i}")] if self.has_norm else []
        return [*norm, self.activation, self.dropout]

    def layers(self):
        layers = super().layers()
        if not any(self.skips):
            return layers
        blocks, n = [], len(self.after_linear(1)) + 1
        hidden, last = layers[:-1], layers[-1]
        for i, start in enumerate(range(0, len(hidden), n)):
            block = hidden[start : start + n]
            blocks += [Residual(block)] if i > 0 and self.skips[i - 1] else block
        return [*blocks, last]


class AnimalNet(FullyConnected):
    """The course's net for 32x32 RGB animal faces: 3072-128-32-3, ReLU.

    Parameters
    ----------
    in_features : int, default=3072
    out_features : int, default=3
    """

    def __init__(self, in_features: int = 3 * 32 * 32, out_features: int = 3):
        super().__init__([in_features, 128, 32, out_features], nn.ReLU())


class BigAnimalNet(FullyConnected):
    """The course's net without dropout: 3072-124-64-3, leaky ReLU.

    Parameters
    ----------
    in_features : int, default=3072
    out_features : int, default=3
    """

    def __init__(self, in_features: int = 3 * 32 * 32, out_features: int = 3):
        super().__init__([in_features, 124, 64, out_features], nn.LeakyReLU())


class AnimalNetDropout(_DropoutBeforeActivation):
    """The course's net with dropout: 3072-248-210-3, leaky ReLU.

    Dropout of 0.5 and 0.3 acts on the first and second hidden layer, before the
    activation.

    Parameters
    ----------
    in_features : int, default=3072
    out_features : int, default=3
    """

    def __init__(self, in_features: int = 3 * 32 * 32, out_features: int = 3):
        sizes = [in_features, 248, 210, out_features]
        super().__init__(sizes, nn.LeakyReLU(), dropout=(0.5, 0.3))


class ToyNet(FullyConnected):
    """The course's net for the noisy line: 1-300-500-1, leaky ReLU.

    Parameters
    ----------
    in_features : int, default=1
    out_features : int, default=1
    """

    def __init__(self, in_features: int = 1, out_features: int = 1):
        super().__init__([in_features, 300, 500, out_features], nn.LeakyReLU())


class ToyNetDropout(_DropoutBeforeActivation):
    """`ToyNet` with dropout of 0.4 and 0.2 before the activations.

    Parameters
    ----------
    in_features : int, default=1
    out_features : int, default=1
    """

    def __init__(self, in_features: int = 1, out_features: int = 1):
        sizes = [in_features, 300, 500, out_features]
        super().__init__(sizes, nn.LeakyReLU(), dropout=(0.4, 0.2))


def _check_sizes(hidden_layer_sizes) -> tuple[int, ...]:
    sizes = hidden_layer_sizes
    sizes = tuple(sizes) if hasattr(sizes, "__iter__") else (sizes,)
    try:
        valid = all(int(size) == size and size > 0 for size in sizes)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            f"hidden_layer_sizes={hidden_layer_sizes!r} must be a positive integer or "
            "a sequence of them, one per hidden layer, e.g. (100,) or (64, 64)."
        )
    return tuple(int(size) for size in sizes)


def _check_bool(name: str, value) -> bool:
    if value is True or value is False or type(value).__name__ == "bool_":
        return bool(value)
    raise ValueError(f"{name}={value!r} must be True or False.")


def _check_probability(dropout) -> float:
    if not (isinstance(dropout, Real) and 0 <= float(dropout) <= 1):
        raise ValueError(
            f"dropout={dropout!r} must be a probability, a number in [0, 1]; "
            "use 0 to drop nothing."
        )
    return float(dropout)


def _make_activation(activation: str | Callable[[], nn.Module]) -> nn.Module:
    if callable(activation):
        return activation()
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]()
    raise ValueError(
        f"activation={activation!r} is unknown; use one of {sorted(ACTIVATIONS)} or a "
        "callable that makes a module, such as torch.nn.Hardswish."
    )
