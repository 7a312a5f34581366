"""Sparsity of a fitted net: which inputs and units it uses, and how many weights."""

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from skreg.estimators._regularizers import make_regularizers
from skreg.penalties import share_of_zeros, trainable_parameters
from skreg.regularizers.units import (
    Layer,
    first_layer,
    hidden_layers,
    of_inputs,
    of_outputs,
)


class Sparsity:
    """Mixin: what a fitted net uses, for feature selection."""

    @property
    def feature_importances_(self) -> np.ndarray:
        """L2 norm of the weights of the first layer that each input goes through.

        Returns
        -------
        ndarray of shape (n_inputs,)
            Inputs are the features, or the input channels of a convolution.
        """
        module = self._fitted_module("feature_importances_")
        try:
            shape = getattr(self, "input_shape_", None)
            _, layer = first_layer(module, "feature_importances_", shape)
        except ValueError as error:
            raise AttributeError(str(error)) from error
        rows = of_inputs("", layer).rows(layer.weight.detach())
        norms = torch.linalg.vector_norm(rows.double(), dim=-1)
        return norms.cpu().numpy()

    @property
    def n_active_inputs_(self) -> int:
        """Number of inputs that some weight of the first layer is not zero for."""
        self._fitted_module("n_active_inputs_")
        return int(np.count_nonzero(self.feature_importances_))

    @property
    def n_active_units_(self) -> list[int]:
        """Numbers of units of the hidden layers that some weight goes into."""
        module = self._fitted_module("n_active_units_")
        try:
            hidden, _ = hidden_layers(module, "n_active_units_")
        except ValueError as error:
            raise AttributeError(str(error)) from error
        return [_n_active_units(layer) for _, layer in hidden]

    @property
    def sparsity_(self) -> float:
        """Share of exact zeros among the weights that proximal steps are taken on."""
        module = self._fitted_module("sparsity_")
        session = self._session
        if session is None:
            names = make_regularizers(self, module).proximal_names
            weights = trainable_parameters(module)
        else:
            names, weights = session.regularizers.proximal_names, session.weights
        if not names:
            raise AttributeError(
                "sparsity_ is there with proximal=True and lambda1 > 0, or with "
                "lambda_group > 0: no weights become exactly zero without."
            )
        return share_of_zeros([weights[name] for name in names])

    def _fitted_module(self, attribute: str) -> nn.Module:
        module = getattr(self, "module_", None)
        if module is None:
            raise NotFittedError(
                f"This {type(self).__name__} has no {attribute} yet. Call fit first."
            )
        return module


def _n_active_units(layer: Layer) -> int:
    rows = of_outputs("", layer, layer.weight).rows(layer.weight.detach())
    return int((rows != 0).any(-1).sum())
