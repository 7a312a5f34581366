"""Nets of one shape in a stack: their weights as tensors of shape (B, ...), a step."""

from collections.abc import Sequence
from itertools import groupby
from math import inf

import torch
from torch import Tensor, nn

from skreg._utils.flat import NamedTensors
from skreg.backprop import Backprop, Parts
from skreg.batching.stacking.stackable import StackableFit
from skreg.batching.stacking.streams import DataPool, Samples, Streams
from skreg.batching.stacking.vmap import VmappedModule
from skreg.estimators.paths import loss_with_gradient_of
from skreg.training.optimizer_step import make_step, options_of
from skreg.training.output_checks import last_operation, name_of
from skreg.training.regularizing import Active
from skreg.training.step import take_step, written_gradients
from skreg.training.step_sizes import StepSizes

__all__ = ["Stack"]


class Stack:
    """The nets of some candidates of equal shape, in training.

    Their modules share its memory, so that they can be looked at as they train; see
    ``release``.

    Parameters
    ----------
    candidates : sequence of StackableFit
    pool : DataPool
    """

    def __init__(self, candidates: Sequence[StackableFit], pool: DataPool):
        # Nets that see the same, and whose optimizers have the same options, are
        # neighbours: they share a matrix product, and take their steps in one call.
        self.candidates = sorted(
            candidates, key=lambda c: (pool.place_key(c), _optimizer_key(c))
        )
        tensors = [candidate.tensors for candidate in self.candidates]
        stacked = {
            name: torch.stack([named[name].detach() for named in tensors])
            for name in tensors[0]
        }
        trained = [name for name, tensor in tensors[0].items() if tensor.requires_grad]
        self.weights = NamedTensors({name: stacked[name] for name in trained})
        self.fixed = {name: t for name, t in stacked.items() if name not in trained}
        self.gradients = NamedTensors(
            (name, torch.zeros_like(w)) for name, w in self.weights.items()
        )
        for row, named in enumerate(tensors):
            for name, tensor in named.items():
                tensor.data = stacked[name][row]
        of_nets = [candidate.regularizers for candidate in self.candidates]
        self.regularizers = Active.stack(of_nets, self.weights)
        self.streams = Streams(self.candidates, pool)
        nets = [candidate.net for candidate in self.candidates]
        self.loss_with_gradient = loss_with_gradient_of(*nets)
        self.validation_loss = loss_with_gradient_of(*nets, training=False)
        self.n_outputs = self.candidates[0].net.n_outputs_
        self._looks = True
        self.model = self._make_model(tensors[0])
        self.optimizer, self.groups = self._make_optimizer()
        self._step_optimizer = make_step(self.optimizer)
        self._options_at_first = [options_of(g) for g in self.optimizer.param_groups]
        self._averaged, self._kept = None, self._take_over_kept()

    def __len__(self) -> int:
        return len(self.candidates)

    def flop(self) -> float:
        """Return about how many operations a step takes; infinity if unknown."""
        if not isinstance(self.model, Backprop):
            return inf
        first = self.candidates[0]
        n_samples = min(first.batches.batch_size, len(first.train))
        return 6 * n_samples * sum(weight.numel() for weight in self.weights.values())

    def step(self) -> tuple[Tensor, Tensor | float, list[int]]:
        """Train on the next batch of the epoch.

        Returns
        -------
        objective : Tensor of shape (B,)
        penalty : Tensor of shape (B,), or 0.0
        sizes : list of int
            Number of samples of each net.
        """
        samples = self.streams.next_batch()
        if self.regularizers.perturbs:
            self._perturb(samples)
        objective, penalty = take_step(self, samples)
        return objective, penalty, samples.sizes

    @property
    def step_sizes(self) -> StepSizes:
        return StepSizes(self.optimizer, list(self.weights))

    @property
    def slopes(self):
        return self.gradients

    def state(self) -> tuple:
        """Return what regularisers of the user's hold, to see whether it changes."""
        of_streams = [s.regularizers.state() for s in self.streams.streams]
        return self.regularizers.state(), *of_streams

    def keep_average(self, averaged) -> None:
        self._averaged = averaged

    def set_options(self) -> None:
        """Set the options of the optimizer as regularisers schedule them."""
        groups = self.optimizer.param_groups
        self.regularizers.set_options(groups, self._options_at_first)

    def begin_epoch(self) -> None:
        """Put the weights back that training goes on from; tell of an epoch."""
        if self._kept is not None:
            torch._foreach_copy_(list(self.weights.values()), self._kept)
            self._kept = None
        first = self.candidates[0]
        active = [self.regularizers, *(s.regularizers for s in self.streams.streams)]
        if any(each.counts_epochs for each in active):
            for each in active:
                each.begin_epoch(
                    first.fit.epoch, first.net.max_epochs, len(first.batches)
                )
        self.streams.begin_epoch()

    def end_epoch(self) -> None:
        """Put averaged weights into the modules, if there are some."""
        if self._averaged is None:
            return
        weights = list(self.weights.values())
        self._kept = [w.clone() for w in weights]
        torch._foreach_copy_(weights, [self._averaged[name] for name in self.weights])
        self._averaged = None

    def step_optimizer(self) -> None:
        """Take the optimizer's step, of all nets."""
        self._step_optimizer()

    def evaluate(self, samples: Samples) -> tuple[Tensor, Tensor | float]:
        """Write the gradients of a batch; return objectives and penalties."""
        outputs = self.outputs(samples, training=True)
        self._look_at_outputs(outputs)
        return written_gradients(
            *(self.model, *self.loss_with_gradient(outputs, samples.y, samples.scale)),
            *(self.regularizers, self.gradients, self.weights),
        )

    @torch.no_grad()
    def _perturb(self, samples: Samples) -> None:
        """Let regularisers put inputs of its own in front of each net."""
        X, fit = samples.by_net(), self.candidates[0].fit
        n_nets = len(X)
        y = samples.y
        if len(samples.parts) == 1:  # that of all nets
            y = y.expand(n_nets, *y.shape)
        y = y.flatten(0, 1)

        losses = _InputLosses(self.model, fit, y, X.shape)
        drawn = [d if d is None else d.flatten(0, 1) for d in samples.drawn_by_net()]
        flat = self.regularizers.perturb(X.flatten(0, 1), y, losses, drawn)
        samples.X = flat.view(X.shape)

    def _look_at_outputs(self, outputs: Tensor) -> None:
        """Let a net warn of outputs that its criterion is not meant for, once."""
        if not self._looks:
            return
        self._looks = False
        looking = [c for c in self.candidates if c.fit.looks]
        if looking:
            look = looking[0].fit.look_at_outputs
            looking[0].job.run(look, outputs[0], self._last_operation())
        for candidate in looking:
            candidate.fit.looks = False

    def _last_operation(self) -> str:
        layers = self.candidates[0].layers
        if layers is not None:
            return name_of(layers[-1])
        return last_operation(self.model.attached())

    def outputs(self, samples: Samples, training: bool = False) -> Tensor:
        """Return the outputs of all nets, of shape (B, n, n_outputs)."""
        return self._checked(self._forward(samples, training), max(samples.sizes))

    def _forward(self, samples, training):
        if not isinstance(self.model, Backprop):
            return self.model.forward(samples.stacked(), training, samples.shared)
        few = samples.X is None and 4 * len(samples.parts) <= len(self)
        if samples.shared or few:
            parts = [part.flatten(start_dim=1) for part in samples.parts]
            return self.model.forward(Parts(parts, samples.nets), training)
        return self.model.forward(samples.stacked().flatten(start_dim=2), training)

    def _checked(self, outputs: Tensor, n_samples: int) -> Tensor:
        """Return outputs of the right shape; raise what a net would otherwise."""
        shape = len(self), n_samples, self.n_outputs
        if outputs.shape == shape:
            return outputs
        self.candidates[0].fit.checked_outputs(outputs[0], n_samples)
        return outputs.reshape(shape)

    def norms(self) -> dict[str, Tensor]:
        """Return the norm of each parameter, of shape (B,)."""
        parameters = {name for name, _ in self.candidates[0].module.named_parameters()}
        return {
            name: torch.linalg.vector_norm(tensor.reshape(len(tensor), -1), dim=1)
            for name, tensor in {**self.weights, **self.fixed}.items()
            if name in parameters
        }

    def sparsities(self) -> list[float | None]:
        """Return the share of zeros of each net; None without proximal steps."""
        of_nets = [
            candidate.regularizers.proximal_names for candidate in self.candidates
        ]
        zeros = {
            name: (self.weights[name] == 0).reshape(len(self), -1).sum(1).tolist()
            for name in {name for names in of_nets for name in names}
        }
        sizes = {name: self.weights[name][0].numel() for name in zeros}
        return [
            sum(zeros[n][row] for n in names) / sum(sizes[n] for n in names)
            if names
            else None
            for row, names in enumerate(of_nets)
        ]

    def follow_schedules(self) -> bool:
        """Take over what schedules have made of the options of the nets' optimizers.

        Returns
        -------
        bool
            False if nets that took their steps in one call no longer can.
        """
        if not any(candidate.scheduled for candidate in self.candidates):
            return True
        for group, nets in zip(self.optimizer.param_groups, self.groups, strict=True):
            options, *others = [c.options() for c in self.candidates[nets]]
            if any(other != options for other in others):
                return False
            group.update(options)
        return True

    def release(self, nets: Sequence[int]) -> None:
        """Give nets memory of their own, and their optimizers the state they are in."""
        self.regularizers.unstack([c.regularizers for c in self.candidates])
        for row in nets:
            candidate = self.candidates[row]
            if self._kept is not None:
                candidate.fit.kept = {
                    name: kept[row].clone()
                    for name, kept in zip(self.weights, self._kept, strict=True)
                }
            for tensor in candidate.tensors.values():
                tensor.data = tensor.detach().clone()
            self._hand_over_state(row)

    # -- making ---------------------------------------------------------------------

    def _make_model(self, named):
        first = self.candidates[0]
        if first.layers is None:
            return VmappedModule(
                *(first.module, self.weights, self.gradients, self.fixed),
                self.streams.draw_mask,
            )
        names = {id(layer): name for name, layer in first.module.named_modules()}
        parameters = {named[name]: weight for name, weight in self.weights.items()}
        gradients = {named[name]: grad for name, grad in self.gradients.items()}

        def draw_mask(layer: nn.Module, x: Tensor) -> Tensor | None:
            return self.streams.draw_mask(names[id(layer)], x)

        buffers = {named[name]: buffer for name, buffer in self.fixed.items()}
        return Backprop(first.layers, parameters, gradients, draw_mask, buffers)

    def _make_optimizer(self):
        """Make one optimizer, with a group of views for each set of options."""
        groups, slices, start = [], [], 0
        for _, members in groupby(self.candidates, _optimizer_key):
            members = list(members)
            nets = slice(start, start + len(members))
            views = []
            for name, weight in self.weights.items():
                view = nn.Parameter(weight[nets])
                view.grad = self.gradients[name][nets]
                views.append(view)
            groups.append({**members[0].options(), "params": views})
            slices.append(nets)
            start = nets.stop
        optimizer = type(self.candidates[0].net.optimizer_)(groups)
        for group, nets in zip(optimizer.param_groups, slices, strict=True):
            self._take_over_state(optimizer, group["params"], self.candidates[nets])
        return optimizer, slices

    def _take_over_kept(self) -> list[Tensor] | None:
        """Return the weights to go on from, if the modules hold averages."""
        kept = [candidate.fit.kept for candidate in self.candidates]
        if kept[0] is None:
            return None
        for candidate in self.candidates:
            candidate.fit.kept = None
        return [torch.stack([of[name] for of in kept]) for name in self.weights]

    def _take_over_state(self, optimizer, views, members) -> None:
        states = [_states(member) for member in members]
        for name, view in zip(self.weights, views, strict=True):
            if not states[0][name]:
                continue
            optimizer.state[view] = {
                key: torch.stack([state[name][key] for state in states])
                if _is_per_weight(key, value)
                else _copy(value)
                for key, value in states[0][name].items()
            }

    def _hand_over_state(self, row: int) -> None:
        candidate = self.candidates[row]
        optimizer = candidate.net.optimizer_
        named = candidate.tensors
        for group, nets in zip(self.optimizer.param_groups, self.groups, strict=True):
            if not nets.start <= row < nets.stop:
                continue
            for name, view in zip(self.weights, group["params"], strict=True):
                optimizer.state[named[name]] = {
                    key: value[row - nets.start].clone()
                    if _is_per_weight(key, value)
                    else _copy(value)
                    for key, value in self.optimizer.state[view].items()
                }


class _InputLosses:
    """Losses of the samples of all nets as a function of their inputs.

    Samples are those of one net after the other, of shape (B * n, ...).

    Parameters
    ----------
    model : Backprop or VmappedModule
    fit : FitState
        Of any of the nets.
    y : Tensor of shape (B * n, ...)
    shape : tuple (B, n, ...)
        Of all inputs.
    """

    def __init__(self, model, fit, y: Tensor, shape):
        self.model, self.fit, self.y, self.shape = model, fit, y, shape
        if isinstance(model, Backprop):
            self.with_gradient = self._with_gradient

    def __call__(self, flat: Tensor) -> Tensor:
        X = flat.view(self.shape)
        if isinstance(self.model, Backprop):
            outputs = self.model.attached(X.flatten(start_dim=2))
        else:
            outputs = self.model.attached_to(X)
        return self.fit.sample_losses(outputs.reshape(len(flat), -1), self.y)

    @torch.no_grad()
    def _with_gradient(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.model.forward(flat.view(*self.shape[:2], -1), training=False)
        flat_outputs = outputs.reshape(len(flat), -1)
        losses, gradient = self.fit.sample_losses_with_gradient(flat_outputs, self.y)
        found = self.model.input_gradient(gradient.view(outputs.shape))
        return losses, found.reshape(flat.shape)


def _states(candidate: StackableFit) -> dict[str, dict]:
    state = candidate.net.optimizer_.state
    return {name: state.get(w, {}) for name, w in candidate.tensors.items()}


def _optimizer_key(candidate: StackableFit) -> str:
    """Return what those have in common who take their steps together."""
    steps = {
        float(state["step"]) for state in _states(candidate).values() if "step" in state
    }
    has_state = bool(candidate.net.optimizer_.state)
    return repr((sorted(candidate.options().items()), sorted(steps), has_state))


def _is_per_weight(key: str, value) -> bool:
    """Tell what an optimizer keeps for each weight from what it keeps for all."""
    return isinstance(value, Tensor) and key not in ("step", "mu_product")


def _copy(value):
    return value.clone() if isinstance(value, Tensor) else value
