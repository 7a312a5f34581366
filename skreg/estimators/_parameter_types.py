"""Types of the constructor parameters, for editors and type checkers (PEP 692).

At run time, ``fit`` checks names and values. A static tool cannot tell a typing error
in a name from a parameter such as ``module__num_units``: those may have any name.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from skreg.regularizers import Regularizer, RegularizerTypes

if TYPE_CHECKING:
    import typing_extensions

__all__ = ["Criterion", "Module", "SharedTypes"]

Module = nn.Module | Callable[..., nn.Module] | None
Criterion = nn.Module | Callable[..., nn.Module]


class SharedTypes(RegularizerTypes, total=False):
    """The parameters that the classifier and the regressor share."""

    hidden_layer_sizes: int | Sequence[int] | np.ndarray | torch.Tensor
    regularizers: Sequence[Regularizer | tuple[str, Regularizer]] | None
    dropout: float | None
    optimizer: Callable[..., torch.optim.Optimizer]
    lr: float
    max_epochs: int
    batch_size: int
    shuffle: bool
    early_stopping: bool
    patience: int
    monitor: str | Callable[..., float]
    validation_fraction: float
    holdout: Literal["random", "last"]
    train_split: Callable[..., Any] | None
    callbacks: Sequence[Any] | None
    random_state: int | np.random.RandomState | None
    warm_start: bool
    device: str | torch.device | int
    dtype: str | type | np.dtype
    amp: Literal["bfloat16", "float16"] | None
    iterator_train: Callable[..., Any] | None
    iterator_valid: Callable[..., Any] | None
    dataset: Callable[..., Any]
    predict_nonlinearity: Literal["auto"] | Callable[..., Any] | None
    compile: bool
    use_caching: Literal["auto"] | bool
    torch_load_kwargs: dict[str, Any] | None
    verbose: int


if TYPE_CHECKING:  # PEP 728, which Python has from 3.15 on

    class NetTypes(SharedTypes, typing_extensions.TypedDict, extra_items=Any):
        """These, and those with a prefix, such as ``module__*``."""
