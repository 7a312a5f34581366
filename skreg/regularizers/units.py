"""Units: which weights of a module go into each of its units, or leave each input.

The order of layers is that in which the module holds them, as in ``module.modules()``.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from skreg.penalties import NORMALIZATION_LAYERS, trainable_parameters

__all__ = [
    "Units",
    "first_layer",
    "hidden_layers",
    "hidden_units",
    "incoming",
    "inputs",
    "of_inputs",
    "of_outputs",
]

Layer = nn.Linear | _ConvNd
LAYERS = nn.Linear, nn.Bilinear, _ConvNd, nn.RNNBase, nn.RNNCellBase


class Units(NamedTuple):
    """A parameter that holds weights of some units, or of some inputs.

    Attributes
    ----------
    name : str
    n_axes : int
        Of the parameter; a stack of nets has one more in front.
    shape : tuple of int
        Shape in which the weights of a unit lie along `axes`.
    axes : tuple of int
        Counted from the end.
    """

    name: str
    n_axes: int
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of weights of a unit."""
        return prod(self.shape[axis] for axis in self.axes)

    def view(self, w: Tensor) -> Tensor:
        """Return the parameter, or that of a stack, in `shape`."""
        return w.view(*w.shape[: w.ndim - self.n_axes], *self.shape)

    def rows(self, w: Tensor) -> Tensor:
        """Return the parameter with a row for each unit.

        Parameters
        ----------
        w : Tensor
            The parameter, or that of a stack of B nets.

        Returns
        -------
        Tensor of shape (n_units, size) or (B, n_units, size)
            A copy, or a view.
        """
        return self._sorted(w).reshape(*w.shape[: w.ndim - self.n_axes], -1, self.size)

    def write_rows(self, w: Tensor, rows: Tensor) -> None:
        """Set the parameter, in place, to what ``rows`` returns of it."""
        by_unit = self._sorted(w)
        by_unit.copy_(rows.reshape(by_unit.shape))

    def _sorted(self, w: Tensor) -> Tensor:
        """Return a view in which the axes of units come before those of weights."""
        view = self.view(w)
        of_weights = [view.ndim + axis for axis in self.axes]
        others = [axis for axis in range(view.ndim) if axis not in of_weights]
        return view.permute(*others, *of_weights)


def incoming(module: nn.Module, parameter: str) -> Iterator[Units]:
    """Yield the parameters of a module that hold incoming weights of units.

    Units are the outputs of linear layers, the output channels of convolutions, and the
    gates of recurrent layers (input and state apart).

    Parameters
    ----------
    module : nn.Module
    parameter : str
        What acts on them, as ``"max_norm"``, for errors.

    Raises
    ------
    ValueError
        If weights are computed from others.
    """
    names = _trainable_names(module)
    for layer in module.modules():
        if not isinstance(layer, LAYERS):
            continue
        _check_plain(layer, parameter)
        for w in layer.parameters(recurse=False):
            if w.ndim > 1 and w in names:
                yield of_outputs(names.pop(w), layer, w)


def inputs(
    module: nn.Module, parameter: str, input_shape: Sequence[int] | None = None
) -> Units:
    """Return the weights of the first layer, by the inputs that they come from.

    Inputs are the features of a linear layer, or the input channels of a convolution.

    Parameters
    ----------
    module : nn.Module
    parameter : str
        What acts on them, for errors.
    input_shape : sequence of int, default=None
        Shape of a sample, if it is known.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    name, layer = first_layer(module, parameter, input_shape)
    _check_plain(layer, parameter)
    names = _trainable_names(module)
    if layer.weight not in names:
        raise ValueError(
            f"{parameter}: the weights of {name!r}, the first layer, are frozen or "
            "computed from others; let them be trained, or choose other groups."
        )
    return of_inputs(names[layer.weight], layer)


def hidden_units(
    module: nn.Module, parameter: str, n_outputs: int | None = None
) -> list[tuple[Units, ...]]:
    """Return what goes into the units of each hidden layer: weights, and the bias.

    Parameters
    ----------
    module : nn.Module
    parameter : str
        What acts on them, for errors.
    n_outputs : int, default=None
        Of the module, if this is known.

    Returns
    -------
    list of tuple of Units
        One for each hidden layer that is trained.

    Raises
    ------
    ValueError
        If there are none, or layers of other kinds.
    """
    hidden, (last, output) = hidden_layers(module, parameter)
    if n_outputs is not None and _n_outputs(output) != n_outputs:
        raise ValueError(
            f"{parameter}: the last layer that the module holds, {last!r}, has "
            f"{_n_outputs(output)} outputs, but the module has {n_outputs}, so that it "
            "is not the output layer; let the module hold its layers in the order in "
            "which it calls them."
        )
    names, found = _trainable_names(module), []
    for _, layer in hidden:
        _check_plain(layer, parameter)
        if layer.weight not in names:  # frozen, or that of a layer before
            continue
        units = [of_outputs(names.pop(layer.weight), layer, layer.weight)]
        if layer.bias is not None and layer.bias in names:
            units.append(_of_biases(names.pop(layer.bias), layer))
        found.append(tuple(units))
    if not found:
        raise ValueError(
            f"{parameter}: {type(module).__name__} has no hidden layer with trained "
            "weights; choose other groups, or give it some."
        )
    return found


def first_layer(
    module: nn.Module, parameter: str, input_shape: Sequence[int] | None = None
) -> tuple[str, Layer]:
    """Return the first layer of a module that has weights, and its name.

    Raises
    ------
    ValueError
        If it is neither linear nor a convolution, or not made for such samples.
    """
    name, layer = next(_with_weights(module), ("", None))
    if not isinstance(layer, Layer):
        raise ValueError(_misfit(module, parameter, name, layer))
    n_inputs = (prod(input_shape), input_shape[-1]) if input_shape else ()
    if isinstance(layer, nn.Linear) and n_inputs and layer.in_features not in n_inputs:
        raise ValueError(
            f"{parameter}: the first layer that the module holds, {name!r}, has "
            f"{layer.in_features} inputs, but a sample has {n_inputs[0]}; let the "
            "module hold its layers in the order in which it calls them."
        )
    return name, layer


def hidden_layers(
    module: nn.Module, parameter: str
) -> tuple[list[tuple[str, Layer]], tuple[str, Layer]]:
    """Return the hidden layers of a module by name, and the output layer.

    Raises
    ------
    ValueError
        If it has layers with weights that are neither linear nor convolutions, or none.
    """
    layers = []
    for name, layer in _with_weights(module):
        if not isinstance(layer, Layer):
            raise ValueError(_misfit(module, parameter, name, layer))
        layers.append((name, layer))
    if not layers:
        raise ValueError(_misfit(module, parameter))
    return layers[:-1], layers[-1]


def _with_weights(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers that have weights: more than biases and scales."""
    for name, layer in module.named_modules():
        if "parametrizations" in name.split("."):  # of a layer that is yielded itself
            continue
        own = [] if isinstance(layer, NORMALIZATION_LAYERS) else layer.parameters(False)
        if isinstance(layer, LAYERS) or any(w.ndim > 1 for w in own):
            yield name.removeprefix("_orig_mod."), layer


def _misfit(module, parameter: str, name: str = "", layer=None) -> str:
    found = "none" if layer is None else f"{name!r}, of class {type(layer).__name__}"
    return (
        f"{parameter} is for the weights of linear layers and convolutions; "
        f"{type(module).__name__} has {found}."
    )


def _trainable_names(module: nn.Module) -> dict[Tensor, str]:
    return {w: name for name, w in trainable_parameters(module).items()}


def _check_plain(layer: nn.Module, parameter: str) -> None:
    if is_parametrized(layer):
        raise ValueError(
            f"{parameter} cannot change the weights of a {type(layer).__name__} that "
            "are computed from others (torch.nn.utils.parametrize); remove the "
            "parametrization, or leave this parameter at its default."
        )


def _n_outputs(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def of_outputs(name: str, layer: nn.Module, w: Tensor) -> Units:
    """Return how a parameter of a layer, w, holds the weights of its outputs."""
    if not (isinstance(layer, _ConvNd) and layer.transposed):
        return Units(name, w.ndim, tuple(w.shape), tuple(range(1 - w.ndim, 0)))
    # The outputs of a group of a transposed convolution are its second axis.
    n_inputs, n_outputs, *kernel = w.shape
    shape = layer.groups, n_inputs // layer.groups, n_outputs, *kernel
    n = len(kernel)
    return Units(name, w.ndim, shape, (-2 - n, *range(-n, 0)))


def _of_biases(name: str, layer: Layer) -> Units:
    return Units(name, 1, (_n_outputs(layer), 1), (-1,))


def of_inputs(name: str, layer: Layer) -> Units:
    """Return how the weights of a layer hold those of its inputs."""
    w = layer.weight
    if isinstance(layer, _ConvNd) and layer.transposed:
        return Units(name, w.ndim, tuple(w.shape), tuple(range(1 - w.ndim, 0)))
    # The inputs of a group of a convolution are the second axis.
    n_outputs, n_inputs, *kernel = w.shape
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    shape = groups, n_outputs // groups, n_inputs, *kernel
    n = len(kernel)
    return Units(name, w.ndim, shape, (-2 - n, *range(-n, 0)))
