"""Epochs of a stack, and what each net and its callbacks learn of them."""

from time import time

import numpy as np
import torch

from skreg.batching.stacking.streams import DataPool, Evaluation
from skreg.batching.stacking.writers import WRITERS
from skreg.callbacks import (
    AccuracyTracker,
    StopTraining,
    right_of_probabilities,
)
from skreg.estimators.schedules import explained
from skreg.penalties import total_norm

__all__ = ["StackEpochs"]


class StackEpochs:
    """Runs the epochs of a stack.

    Parameters
    ----------
    stack : Stack
    pool : DataPool
    """

    def __init__(self, stack, pool: DataPool):
        self.stack = stack
        candidates = stack.candidates
        self.validation = self.training = None
        first = candidates[0]
        if first.valid is not None:
            valid = [candidate.valid for candidate in candidates]
            self.validation = Evaluation(
                candidates, valid, first.valid_batch_size, pool
            )
        if any(_tracks_training(candidate.net) for candidate in candidates):
            train = [candidate.train for candidate in candidates]
            self.training = Evaluation(candidates, train, first.valid_batch_size, pool)

    def run_one(self) -> list[int]:
        """Run an epoch; return the rows of the nets whose training has ended."""
        start = time()
        for candidate in self.stack.candidates:
            _begin(candidate)
        numbers = EpochRecord()
        self._train(numbers)
        self._validate(numbers)
        if self.training is not None:
            numbers.train_hits = self._count_hits()
        numbers.norms = {k: v.tolist() for k, v in self.stack.norms().items()}
        numbers.sparsities = self.stack.sparsities()
        numbers.by_net()
        numbers.seconds = (time() - start) / len(self.stack)
        for candidate in self.stack.candidates:
            candidate.job.seconds += numbers.seconds
        return [
            row
            for row, candidate in enumerate(self.stack.candidates)
            if _end(candidate, numbers.of(row))
        ]

    def _train(self, numbers) -> None:
        self.stack.begin_epoch()
        objectives, penalties = [], []
        for _ in range(len(self.stack.candidates[0].batches)):
            objective, penalty, sizes = self.stack.step()
            objectives.append(objective)
            penalties.append(torch.zeros_like(objective) + penalty)
            numbers.train_sizes.append(sizes)
        self.stack.end_epoch()
        numbers.train_losses = torch.stack(objectives).cpu().double().numpy()
        numbers.penalties = torch.stack(penalties).cpu().double().numpy()

    @torch.no_grad()
    def _validate(self, numbers) -> None:
        if self.validation is None:
            return
        losses, hits = [], 0
        classifies = self._classifies()
        for samples in self.validation:
            outputs = self.stack.outputs(samples)
            losses.append(
                self.stack.validation_loss(outputs, samples.y, samples.scale)[0]
            )
            hits = hits + _hits(outputs, samples) if classifies else 0
            numbers.valid_sizes.append(samples.sizes)
        numbers.valid_losses = torch.stack(losses).cpu().double().numpy()
        numbers.valid_hits = hits.tolist() if classifies else None

    @torch.no_grad()
    def _count_hits(self) -> list[int]:
        hits = sum(
            _hits(self.stack.outputs(samples), samples) for samples in self.training
        )
        return hits.tolist()

    def _classifies(self) -> bool:
        return any(
            type(callback) is AccuracyTracker
            for candidate in self.stack.candidates
            for _, callback in candidate.net.callbacks_
        )


def _hits(outputs, samples) -> torch.Tensor:
    """Return the number of correct predictions of each net."""
    y = samples.y
    # Candidates have the default link, see `stackable`.
    found = torch.sigmoid(outputs) if y.is_floating_point() else outputs
    hits = right_of_probabilities(found, y)
    n = hits.shape[-1]
    if min(samples.sizes) < n:  # some rows fill up smaller batches
        sizes = torch.tensor(samples.sizes, device=hits.device)
        hits &= torch.arange(n, device=hits.device) < sizes.unsqueeze(1)
    return hits.sum(-1)


def _tracks_training(net) -> bool:
    return any(
        type(callback) is AccuracyTracker and callback.on_train
        for _, callback in net.callbacks_
    )


class EpochRecord:
    """What an epoch has shown of all nets: batch by batch, later net by net."""

    def __init__(self):
        self.train_sizes, self.valid_sizes = [], []
        self.valid_losses = self.valid_hits = self.train_hits = None

    def by_net(self) -> None:
        """Take the means of the batches' losses; turn batches of nets into nets'."""
        sizes = np.array(self.train_sizes)
        self.averages = {
            "train_loss": _average(self.train_losses, sizes),
            "train_penalty": _average(self.penalties, sizes),
        }
        self.train_sizes = sizes.T.tolist()
        self.train_losses = self.train_losses.T.tolist()
        self.penalties = self.penalties.T.tolist()
        if self.valid_losses is not None:
            sizes = np.array(self.valid_sizes)
            # Where a smaller data set has no batch left, its loss is that of nothing.
            losses = np.where(sizes > 0, self.valid_losses, 0)
            self.averages["valid_loss"] = _average(losses, sizes)
            self.valid_sizes, self.valid_losses = sizes.T.tolist(), losses.T.tolist()
        self.averages = {name: mean.tolist() for name, mean in self.averages.items()}

    def of(self, row: int) -> dict:
        """Return what it has shown of one net."""
        norms = {name: norms[row] for name, norms in self.norms.items()}
        batches = [
            {"train_loss": loss, "train_penalty": penalty, "train_batch_size": size}
            for loss, penalty, size in zip(
                *(self.train_losses[row], self.penalties[row], self.train_sizes[row]),
                strict=True,
            )
        ]
        found = {
            "averages": {name: means[row] for name, means in self.averages.items()},
            "batches": batches,
            "counts": {"train_batch_count": len(batches)},
            "norm": total_norm(norms.values()),
            "norms": norms,
            "sparsity": self.sparsities[row],
            "seconds": self.seconds,
        }
        if self.train_hits is not None:
            found["train_hits"] = self.train_hits[row]
        if self.valid_losses is None:
            return found
        valid = [
            {"valid_loss": loss, "valid_batch_size": size}
            for loss, size in zip(
                self.valid_losses[row], self.valid_sizes[row], strict=True
            )
            if size
        ]
        batches += valid
        found["counts"]["valid_batch_count"] = len(valid)
        if self.valid_hits is not None:
            found["valid_hits"] = self.valid_hits[row]
        return found


def _average(losses: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the mean over batches, of each net; infinite for one that diverges."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.average(losses, axis=0, weights=sizes)


def _begin(candidate) -> None:
    net, tasks = candidate.net, candidate.fit.tasks
    net.on_epoch_begin(net)
    if tasks:
        candidate.job.run(tasks.begin_epoch, net)


def _end(candidate, found: dict) -> bool:
    """Write the history of a net; return whether its training has ended."""
    net, tasks, job = candidate.net, candidate.fit.tasks, candidate.job
    epoch = net.history[-1]
    epoch["batches"] += found["batches"]
    epoch.update(found["counts"])
    stops = False
    try:
        for _, callback in net.callbacks_:
            stops |= _record(callback, candidate, found, epoch)
        stops |= bool(tasks) and job.run(tasks.end_epoch, net)
    except Exception as error:  # of this fit, and none of the others' business
        job.error = error
        return True
    if stops:
        job.error = StopTraining()
    return stops or len(net.history) >= candidate.last_epoch


def _record(callback, candidate, found, epoch) -> bool:
    """Write what a callback would write; return whether it ends the training."""
    try:
        WRITERS[type(callback)](callback, candidate, found, epoch)
    except StopTraining:  # when all callbacks have seen the last epoch
        return True
    except Exception as error:
        better = explained(callback, candidate.net, error)
        if better is error:
            raise
        raise better from error
    return False
