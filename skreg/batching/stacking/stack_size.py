"""How many nets to stack: what fits into memory, and is faster than one by one."""

from collections.abc import Sequence
from copy import deepcopy
from time import perf_counter

import torch
from torch import Tensor, nn

from skreg._utils.randomness import seeded
from skreg.batching._memory import memory
from skreg.batching.stacking.stackable import StackableFit, first_inputs
from skreg.batching.stacking.vmap import stack_of_copies
from skreg.training.batches import is_sparse_dataset

__all__ = ["operations", "stack_size"]

MIN_STACK = 3  # what stacks cost besides the arithmetic pays off from here on
# On a CPU a step goes through all weights several times; these fit into its caches.
CACHED_BYTES = 6 * 2**20
N_RACED = 8


def stack_size(candidates: Sequence[StackableFit]) -> int | str:
    """Return how many of these nets, of one shape, to train as one; or why not to.

    Parameters
    ----------
    candidates : sequence of StackableFit
    """
    first = candidates[0]
    weights = sum(w.nbytes for w in first.module.parameters())
    # Weights, gradients and two tensors of the optimizer's; what backward needs.
    needed = 4 * weights + _activation_bytes(first)
    if first.net.device_.type == "cuda":
        free, _ = torch.cuda.mem_get_info(first.net.device_)
        size = int(free / 2 // needed)
    else:
        size = int(min(memory() / 8 // needed, CACHED_BYTES // weights))
    if size < MIN_STACK:
        return "nets so large gain nothing from a stack"
    size = min(size, len(candidates))
    if size < MIN_STACK:
        return f"fewer than {MIN_STACK} nets are of this shape"
    if first.layers is None and first.net.device_.type == "cpu":
        batch = first_inputs(first.fit, first.train, first.batches.batch_size)
        with seeded(0, batch.device):
            if not wins_race(first.module, batch, min(size, N_RACED)):
                return "copies of its module lost a race against single runs"
    return size


def _activation_bytes(candidate: StackableFit) -> int:
    """Return the bytes that a batch takes on its way through a net, and back."""
    n_samples = min(candidate.batches.batch_size, len(candidate.train))
    X = first_inputs(candidate.fit, candidate.train, 2)
    if candidate.layers is None:
        with seeded(0, X.device):
            per_sample = _saved_bytes(candidate.module, X) / len(X)
    else:
        linear = [la for la in candidate.layers if isinstance(la, nn.Linear)]
        per_sample = X.itemsize * sum(layer.out_features for layer in linear)
    if is_sparse_dataset(candidate.train):  # a batch becomes dense, and part of a stack
        per_sample += X[0].nbytes
    return int(3 * n_samples * per_sample)


def operations(candidate: StackableFit) -> float:
    """Return about how many multiplications a sample takes on its way through a net."""
    weights = sum(w.numel() for w in candidate.module.parameters())
    if candidate.layers is not None:
        return float(weights)
    counted = [0.0]

    def count(layer, inputs, outputs):
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1 and torch.is_tensor(outputs):
            # Each number of a unit's outputs takes all its weights.
            counted[0] += weight[0].numel() * outputs.numel()

    X = first_inputs(candidate.fit, candidate.train, 2)
    module = deepcopy(candidate.module).train()
    for layer in module.modules():
        layer.register_forward_hook(count)
    with seeded(0, X.device), torch.no_grad():
        module(X.clone())
    return max(weights, counted[0] / len(X))


def _saved_bytes(module: nn.Module, x: Tensor) -> int:
    """Return the size of what autograd keeps of a forward pass."""
    saved = {}

    def note(tensor):
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    own = {w.data_ptr() for w in module.parameters()}
    module = deepcopy(module).train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(x.clone())
    return sum(n_bytes for pointer, n_bytes in saved.items() if pointer not in own)


def wins_race(module: nn.Module, x: Tensor, n_copies: int) -> bool:
    """Tell whether `n_copies` of a module run faster under vmap than one by one.

    Parameters
    ----------
    module : nn.Module
        It is not changed.
    x : Tensor
        A batch.
    n_copies : int
    """
    single = deepcopy(module).train()
    stack = stack_of_copies(single, n_copies, lambda *args: None)

    def run_one():
        single(x.clone()).sum().backward()

    def run_stack():
        outputs = stack.forward(x, training=True, shared=True)
        stack.backward(torch.ones_like(outputs), accumulate=True)

    times = {run_one: [], run_stack: []}
    for _ in range(3):  # the first time of each includes preparations
        for run, seconds in times.items():
            start = perf_counter()
            run()
            seconds.append(perf_counter() - start)
    return min(times[run_stack]) < n_copies * min(times[run_one])
