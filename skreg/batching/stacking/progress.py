"""Fit progress: all that epochs change in a fit, as one object that can be pickled."""

from copy import deepcopy

import torch

from skreg.training.optimizer_step import options_of

__all__ = ["FitProgress"]


class FitProgress:
    """A fit between two epochs: weights, optimizer, history, callbacks, regularisers.

    What is random in a fit depends on its seed and epoch alone, so that a fit that
    goes on from here ends like one that was never interrupted, bit for bit.

    Parameters
    ----------
    candidate : StackableFit
        In no stack, see ``Stack.release``.
    """

    def __init__(self, candidate):
        net, fit = candidate.net, candidate.fit
        self.tensors = {
            name: tensor.detach().clone() for name, tensor in candidate.tensors.items()
        }
        self.kept = fit.kept
        regularizers = fit.regularizers  # some keep a state
        self.regularizers = deepcopy(regularizers) if regularizers.averages else None
        state = net.optimizer_.state
        self.optimizer = deepcopy(net.optimizer_.state_dict()) if state else None
        self.options = options_of(net.optimizer_.param_groups[0])
        self.history = list(net.history)
        self.callbacks = [_learned(callback) for _, callback in net.callbacks_]

    def restore(self, candidate) -> None:
        """Put a fit, the same one or its equal in another process, where it was."""
        net, fit = candidate.net, candidate.fit
        fit.kept, fit.averaged = self.kept, None
        if self.regularizers is not None:
            fit.regularizers = deepcopy(self.regularizers)
        with torch.no_grad():
            for name, tensor in candidate.tensors.items():
                tensor.copy_(self.tensors[name])
        net.optimizer_.state.clear()
        if self.optimizer is not None:
            net.optimizer_.load_state_dict(deepcopy(self.optimizer))
        net.optimizer_.param_groups[0].update(self.options)
        net.history[:] = self.history
        for (_, callback), learned in zip(net.callbacks_, self.callbacks, strict=True):
            _restore(callback, *learned)


def _learned(callback) -> tuple[dict, dict | None]:
    """Return what a callback has learnt, and the place where its schedule is."""
    own = {name: vars(callback)[name] for name in _learned_names(callback)}
    schedule = getattr(callback, "lr_scheduler_", None)
    return own, None if schedule is None else deepcopy(schedule.state_dict())


def _learned_names(callback) -> list[str]:
    # As skorch tells parameters from what is learnt. A schedule holds the optimizer.
    names = [n for n in vars(callback) if n.startswith("_") or n.endswith("_")]
    return [name for name in names if name != "lr_scheduler_"]


def _restore(callback, own: dict, place: dict | None) -> None:
    for name in _learned_names(callback):
        delattr(callback, name)
    vars(callback).update(own)
    if place is not None:
        callback.lr_scheduler_.load_state_dict(place)
