"""Batches of a net: which iterator a dataset gets."""

from functools import partial
from math import prod
from operator import index

import torch
from torch.utils.data import DataLoader, default_collate

from skreg._utils.randomness import seeded
from skreg.backprop import fully_connected_layers
from skreg.estimators._batch_norm import (
    MergingBatchSampler,
    has_batch_norm,
    needs_several_samples,
)
from skreg.estimators._integers import (
    as_integers,
)
from skreg.estimators._overrides import known_to
from skreg.estimators._targets import without_decoding
from skreg.estimators.paths import AUTOGRAD, BACKPROP, STACK
from skreg.training.batches import (
    ArrayDataset,
    GatheredBatches,
    InMemoryBatches,
    WeightedBatches,
    WeightedDataset,
    is_gathered,
    is_in_memory,
    is_weighted,
)

PREDICTED_BATCHES = 4  # of training, in one of predictions
PREDICTED_BYTES = 2**23  # the widest layer's outputs in a batch of predictions


class Batches:
    """Mixin: makes iterators over batches, without a DataLoader if it can."""

    def _merges_last(self, dataset, options: dict) -> bool:
        """Return whether a lone last sample must join the batch before it.

        Raises an error if there are no batches that the module can be trained on.
        """
        size, drop_last = options["batch_size"], options.get("drop_last", False)
        if size is None:  # batches are the loader's affair
            return False
        sampler = options.get("sampler")
        n = len(dataset if sampler is None else sampler)
        if drop_last and n < size:
            raise ValueError(
                f"batch_size={size} with iterator_train__drop_last=True leaves "
                f"no batch of {n} samples to train on; use smaller batches."
            )
        if size > 1 and (drop_last or n % size != 1):
            return False
        if not (has_batch_norm(self.module_) and self._needs_several(dataset, options)):
            return False
        if n == 1 or size == 1:
            raise ValueError(
                f"batch_size={size} makes batches of one sample of {n}, on which batch "
                "normalisation cannot be trained; use larger batches, and at least 2 "
                "samples."
            )
        return True

    def _needs_several(self, dataset, options: dict) -> bool:
        """Return whether the module cannot be trained on one sample at a time."""
        fit_params = self._session.fit_params if self._session else {}

        def forward(module):
            self._forward(self._to_device(X), fit_params, module)

        with seeded(self.seed_, self.device_):  # the Dataset or the module may draw
            if is_in_memory(dataset) or is_gathered(dataset):
                batches = self._gathered(dataset, batch_size=1)
                X, _ = next(iter(batches))
            else:
                collate = options.get("collate_fn") or default_collate
                X, _ = collate([dataset[0]])
            return needs_several_samples(self.module_, forward)

    def _gathered(self, dataset, **options) -> GatheredBatches:
        batches = GatheredBatches(dataset, self.device_, **options)
        if self._wants_integers:
            batches.convert_integers = partial(as_integers, dtype=self._integers_as)
        return batches

    def _default_batch_size(self, training, dataset, layers):
        """Return `batch_size`, or more for predictions.

        Training keeps the outputs of all layers, prediction those of one or two.
        """
        size = self.batch_size
        if training or self._session is not None or size == -1:
            return size
        if not layers:
            return PREDICTED_BATCHES * size
        widths = [la.out_features for la in layers if isinstance(la, torch.nn.Linear)]
        if is_gathered(dataset):  # else its inputs are in memory anyway
            widths.append(prod(dataset.X.shape[1:]))
        return max(size, PREDICTED_BYTES // (max(widths) * self.dtype_.itemsize))

    def _as_trained_on(self, dataset):
        encoded = self._session.targets.encoded(dataset) if self._session else None
        return without_decoding(dataset) if encoded is None else encoded

    @known_to(AUTOGRAD, BACKPROP, STACK)
    def get_iterator(self, dataset, training=False):
        """Return an iterable over batches (X, y), without a DataLoader if it can.

        Batches hold encoded targets, also those of a dataset that callbacks see.
        """
        dataset = self._as_trained_on(dataset)
        prefix = "iterator_train" if training else "iterator_valid"
        iterator, kwargs = getattr(self, prefix), self.get_params_for(prefix)
        in_memory, layers, merge_last = is_in_memory(dataset), None, False
        if in_memory or is_gathered(dataset):
            program = self._session and self._session.program
            if program and self._session.unobserved:
                layers = program.layers
            else:
                layers = fully_connected_layers(self.module_, dataset.X.shape[1:])
        size = self._default_batch_size(training, dataset, layers)
        kwargs.setdefault("batch_size", size)
        if kwargs["batch_size"] == -1:
            kwargs["batch_size"] = len(dataset)
        if kwargs["batch_size"] is not None:  # a DataLoader's word for no batches
            kwargs["batch_size"] = index(kwargs["batch_size"])  # torch wants no NumPy
        if training and iterator in (None, DataLoader):
            kwargs.setdefault("shuffle", self.shuffle)
            merge_last = self._merges_last(dataset, kwargs)
        simple = iterator is None and kwargs.keys() <= {
            "batch_size",
            "shuffle",
            "drop_last",
        }
        if simple and (in_memory or is_gathered(dataset)):
            kwargs["writable"] = not self._may_share_memory(layers)
            kwargs["merge_last"] = merge_last
        if simple and in_memory:
            return InMemoryBatches(dataset, self.device_, **kwargs)
        if simple and is_gathered(dataset):
            return self._gathered(dataset, **kwargs)
        if not training and iterator in (None, DataLoader):
            # A DataLoader draws from torch's global generator unless it has its own.
            kwargs.setdefault("generator", torch.Generator())
        if isinstance(dataset, ArrayDataset) and dataset.weight is not None:
            dataset = WeightedDataset(dataset, dataset.weight)
        if merge_last:
            kwargs.pop("drop_last", None)
            names = kwargs.keys() & {"batch_size", "shuffle", "sampler"}
            options = {name: kwargs.pop(name) for name in names}
            kwargs["batch_sampler"] = MergingBatchSampler(
                dataset, generator=kwargs.get("generator"), **options
            )
        batches = (iterator or DataLoader)(dataset, **kwargs)
        return WeightedBatches(batches) if is_weighted(dataset) else batches
