"""Which fits can be trained together, with whom, and why others cannot."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from skorch.callbacks import LRScheduler
from torch import nn

from skreg._utils.hooks import has_hooks
from skreg.backprop import flat, fully_connected_layers, normalizes
from skreg.batching._jobs import Job
from skreg.batching.stacking.progress import FitProgress
from skreg.batching.stacking.signature import signature
from skreg.batching.stacking.vmap import FEATURE_NDIM, named_tensors
from skreg.batching.stacking.vmap_check import reason_against_vmap
from skreg.batching.stacking.writers import WRITERS
from skreg.callbacks import EarlyStopping
from skreg.estimators.paths import (
    STACK,
    is_known,
    loss_with_gradient_of,
    reason_against,
)
from skreg.losses import OPTIONS
from skreg.regularizers.dropout import dropout_layers, is_dropout
from skreg.training.batches import (
    ArrayDataset,
    GatheredBatches,
    InMemoryBatches,
    is_sparse_dataset,
)
from skreg.training.optimizer_step import options_of

__all__ = ["StackableFit", "examine", "first_inputs"]

# Each treats every weight on its own, so that stacked weights train as single ones do.
OPTIMIZERS = {
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
}
TRIED = 256  # samples of a batch are enough to try a module with


@dataclass(eq=False)
class StackableFit:
    """A fit that can be trained in a stack, and what training it takes.

    Attributes
    ----------
    job : Job
    train, valid : ArrayDataset; `valid` may be None
    batches : InMemoryBatches
        How the training data are cut into batches.
    valid_batch_size : int
    layers : list of nn.Module or None
        For written-out backpropagation; None for autograd under ``vmap``.
    shape : tuple
        Equal for those that can be in one stack.
    last_epoch : int
        Length of the history when training ends.
    beginning : FitProgress or None
        What the fit was like before its first epoch; None before it.
    has_ended : bool
        Whether there is no epoch more to run.
    company : tuple of (str, int) or None
        The stack it is kept in on disk, which stays together, and its place in it.
    identity : tuple or None
        What tells it from other fits, where it is kept on disk.
    work : float
        Of a sample, as ``stack_size.operations`` counts it.
    """

    job: Job
    train: ArrayDataset
    valid: ArrayDataset | None
    batches: InMemoryBatches
    valid_batch_size: int
    layers: list[nn.Module] | None
    shape: tuple
    last_epoch: int
    beginning: FitProgress | None = None
    has_ended: bool = False
    company: tuple[str, int] | None = None
    identity: tuple | None = None
    work: float = 0.0

    @property
    def fit(self):
        return self.job.fit

    @property
    def net(self):
        return self.job.net

    @property
    def module(self) -> nn.Module:
        return self.job.net.module_

    @property
    def seed(self) -> int:
        return self.job.net.seed_

    def options(self) -> dict:
        """Return the options of the optimizer, such as ``lr``."""
        return options_of(self.net.optimizer_.param_groups[0])

    @property
    def scheduled(self) -> bool:
        """Whether the options of the optimizer change between epochs."""
        return any(type(cb) is LRScheduler for _, cb in self.net.callbacks_)

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The parameters and buffers of the module by their names."""
        return named_tensors(self.module)

    @cached_property
    def dropout(self) -> dict[str, float]:
        """The probabilities of the dropout layers, by their names."""
        return {
            name: layer.p
            for name, layer in self.module.named_modules()
            if is_dropout(layer)
        }

    @property
    def regularizers(self):
        return self.fit.regularizers


def examine(job: Job, reasons: dict) -> StackableFit | str:
    """Return a fit as a candidate for a stack, or the reason why it is none.

    Parameters
    ----------
    job : Job
    reasons : dict
        What was found out about modules of any kind; it is added to.

    Returns
    -------
    StackableFit or str

    Raises
    ------
    Exception
        What the fit itself would raise, as it splits off its validation data.
    """
    net, fit = job.net, job.fit
    reason = _reason_against(fit)
    if reason is not None:
        return reason
    net.check_training_readiness()
    train, valid = net.get_split_datasets(job.X, job.y)
    batches = net.get_iterator(train, training=True)
    valid_batches = batches if valid is None else net.get_iterator(valid)
    if not all(map(_is_in_memory, (batches, valid_batches))):
        return "its data are not arrays in memory, in batches of the default kind"
    if valid is not None and (valid_batches.shuffle or valid_batches.drop_last):
        return "its validation data are shuffled, or not all of them used"
    layers = fully_connected_layers(net.module_, net.input_shape_)
    module = (
        *(net.device_, net.dtype_, fit.integers_as, net.input_shape_),
        signature(net.module_),
    )
    shape = (
        *module,
        *(batches.batch_size, len(batches), batches.merge_last),
        *(valid is None, valid_batches.batch_size),
        signature(net.criterion_, ignored=OPTIONS),
        *(type(net), type(net.optimizer_), net.n_outputs_),
        fit.regularizers.stack_key,
        net.max_epochs if fit.regularizers.counts_epochs else None,
    )
    if layers is None:
        sizes = _batch_sizes(batches)
        key = *module, sizes
        if key not in reasons:
            inputs = [first_inputs(fit, train, n) for n in sizes]
            reasons[key] = reason_against_vmap(net.module_, inputs)
        if reasons[key] is not None:
            return reasons[key]
    if layers is None or any(map(normalizes, flat(layers))):
        # The rows that fill up a smaller batch must not be seen by the others, as
        # they are in batch normalisation.
        shape = (*shape, len(train), 0 if valid is None else len(valid))
    last_epoch = len(net.history) + net.max_epochs
    return StackableFit(
        *(job, train, valid, batches, valid_batches.batch_size, layers),
        shape,
        last_epoch,
    )


def first_inputs(fit, dataset: ArrayDataset, n: int) -> torch.Tensor:
    """Return the first `n` samples of a dataset as the module of a fit gets them."""
    return fit.to_device(dataset.part(slice(n), fit.net.device_)[0])


def _is_in_memory(batches) -> bool:
    """Tell whether a stack can take batches: of an array, or of a sparse matrix."""
    if type(batches) is GatheredBatches:
        return is_sparse_dataset(batches.dataset)
    return type(batches) is InMemoryBatches


def _batch_sizes(batches: InMemoryBatches) -> tuple[int, ...]:
    """Return the sizes of the batches of an epoch, none larger than needs be tried."""
    sizes = (min(end - start, TRIED) for start, end in pairwise(batches.edges))
    return tuple(dict.fromkeys(sizes))


def _reason_against(fit) -> str | None:
    net, fit_params = fit.net, fit.fit_params
    optimizer = net.optimizer_
    unknown = [
        type(callback).__name__
        for _, callback in net.callbacks_
        if not _is_known(callback)
    ]
    scorers = [cb.monitor for _, cb in net.callbacks_ if _scores(cb)]
    group = optimizer.param_groups[0]
    trained = [w for w in net.module_.parameters() if w.requires_grad]
    dropout = dropout_layers(net.module_)
    if fit_params:
        return f"fit was given {', '.join(fit_params)}"
    against = reason_against(net, STACK)
    if against is not None:
        return against
    if scorers:
        return f"early stopping evaluates a scorer, monitor={scorers[0]!r}"
    if unknown:
        return f"callback {unknown[0]} may look at, or change, the net"
    if type(optimizer) not in OPTIMIZERS:
        return f"optimizer {type(optimizer).__name__} cannot be stacked"
    if optimizer.state or len(optimizer.param_groups) > 1:
        return "its optimizer has a state, or groups of parameters, already"
    if any(map(_holds_tensor, group.values())) or group.get("differentiable"):
        return "options of its optimizer are tensors, or make it differentiable"
    if list(map(id, group["params"])) != list(map(id, net.module_.parameters())):
        return "its optimizer trains something else than the parameters of the module"
    if not trained or any(w.dtype != net.dtype_ for w in trained):
        return "its module has no trainable parameters, or some of another dtype"
    if getattr(net, "_multilabel", False) and net.predict_nonlinearity != "auto":
        return "its predict_nonlinearity decides on 0/1 targets"
    if loss_with_gradient_of(net) is None:
        name = type(net.criterion_).__name__
        return f"criterion {name} cannot be stacked, or not with its options"
    if not hasattr(net, "input_shape_"):
        return "its data are not arrays in memory"
    if any(map(has_hooks, [*net.module_.modules(), *trained])):
        return "its module has hooks"
    if any(getattr(m, "padding_idx", None) is not None for m in net.module_.modules()):
        return "its module has an embedding with padding, which vmap does not know"
    if any("forward" in vars(m) for m in net.module_.modules()):
        return "the forward of its module is compiled, or replaced"
    if not {type(layer) for layer in dropout} <= FEATURE_NDIM.keys():
        return "its module has dropout layers of a rare kind"
    return None


def _holds_tensor(option) -> bool:
    """Tell of an option of an optimizer; its parameters are a list."""
    values = option if isinstance(option, tuple) else (option,)
    return any(isinstance(value, torch.Tensor) for value in values)


def _is_known(callback) -> bool:
    scheduled = type(callback) is LRScheduler and callback.step_every != "epoch"
    return not scheduled and type(callback) in WRITERS and is_known(callback)


def _scores(callback) -> bool:
    return type(callback) is EarlyStopping and callback.scorer_ is not None
