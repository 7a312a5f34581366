"""The regularisers of a net in training, as one; and those of a stack of nets."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from numbers import Real

import cloudpickle
import torch
from torch import Tensor, nn

from skreg._utils.flat import NamedTensors
from skreg.regularizers import ElasticNet, Regularizer

__all__ = ["Active", "NotStackable", "penalized"]


class NotStackable(Exception):
    """Raised where regularisers of several nets cannot act as one."""


class Active:
    """Regularisers that act on a net, in their order.

    Parameters
    ----------
    members : sequence of Regularizer

    Attributes
    ----------
    penalties : list of Regularizer
        Those that add gradients.
    changes_batches, perturbs, computes_gradients, projects, averages, schedules : bool
        Whether any of them acts in the method of this name.
    """

    def __init__(self, members: Sequence[Regularizer] = ()):
        self.members = list(members)
        self._at_work = [member for member in members if not member.is_neutral]
        self._batch = self._with("batch", "weighted_batch")
        self._perturb = self._with("perturb")
        self.penalties = self._with("add_gradients")
        self._gradients = self._with("gradients")
        self._project = self._with("project")
        self._average = self._with("average")
        self._schedule = self._with("schedule")
        self._criterion = self._with("criterion")
        self._epochs = self._with("begin_epoch")
        self.changes_batches = bool(self._batch)
        self.perturbs = bool(self._perturb)
        self.computes_gradients = bool(self._gradients)
        self.projects = bool(self._project)
        self.averages = bool(self._average)
        self.schedules = bool(self._schedule)
        self.changes_criterion = bool(self._criterion)
        self.places = list(range(len(self.members)))  # of a stack: among those of a net
        self._n_taken, self._n_steps = 0, 1

    def _with(self, *methods: str) -> list[Regularizer]:
        return [m for m in self._at_work if any(map(m.acts_in, methods))]

    def begin(self, module: nn.Module) -> None:
        """As ``Regularizer.begin``, of all that are not neutral."""
        for member in self._at_work:
            member.begin(module)

    def begin_epoch(self, epoch: int, n_epochs: int, n_batches: int) -> None:
        """As ``Regularizer.begin_epoch``, of all."""
        self._n_taken, self._n_steps = epoch * n_batches, n_epochs * n_batches
        for member in self._epochs:
            member.begin_epoch(epoch, n_epochs, n_batches)

    def set_options(self, groups: Sequence[dict], at_first: Sequence[dict]) -> None:
        """Set the options of an optimizer for the next step, as ``schedule`` says.

        Parameters
        ----------
        groups : sequence of dict
            Those of the parameters, changed in place.
        at_first : sequence of dict
            Their options before the first step.
        """
        step, n_steps = self._n_taken, max(self._n_steps, self._n_taken + 1)
        self._n_taken += 1
        for group, options in zip(groups, at_first, strict=True):
            for member in self._schedule:
                group.update(member.schedule(options, step, n_steps))

    def criterion(self, criterion: nn.Module) -> nn.Module:
        """As ``Regularizer.criterion``, of all."""
        for member in self._criterion:
            criterion = member.criterion(criterion)
        return criterion

    def batch(self, X, y, weight=None):
        """As ``Regularizer.weighted_batch``, of all."""
        for member in self._batch:
            X, y, weight = member.weighted_batch(X, y, weight)
        return X, y, weight

    @property
    def writes_into_batches(self) -> bool:
        """Whether any may change the batches in place, or keep them."""
        return any(member.writes_into_batches for member in self._batch)

    def draw(self, X) -> list:
        """As ``Regularizer.draw``, of all, also of those that do nothing: None."""
        return [m.draw(X) if m in self._perturb else None for m in self.members]

    def perturb(self, X, y, losses, drawn: list):
        """As ``Regularizer.perturb``, of all, with what `draw` has returned."""
        for place, member in zip(self.places, self.members, strict=True):
            if member in self._perturb:
                X = member.perturb(X, y, losses, drawn[place])
        return X

    @property
    def looks_at_input_range(self) -> bool:
        """Whether any wants to know the range of the training data."""
        return any(member.looks_at_input_range for member in self._at_work)

    def add_gradients(self, gradients, weights) -> Tensor | float:
        """As ``Regularizer.add_gradients``, of all."""
        return self._add(self.penalties, 0.0, gradients, weights)

    def write_gradients(self, gradients, weights) -> Tensor | float:
        """Write the gradients of all penalties, whatever `gradients` hold."""
        first, *others = self.penalties
        # It spares a pass over the gradients; a subclass may add others.
        if isinstance(first, ElasticNet) and _is_ours(first):
            value = first.write_gradients(gradients, weights)
            return self._add(others, value, gradients, weights)
        gradients.zero_()
        return self.add_gradients(gradients, weights)

    @staticmethod
    def _add(penalties, value, gradients, weights):
        for penalty in penalties:
            more = penalty.add_gradients(gradients, weights)
            if not isinstance(more, Tensor | Real) or getattr(more, "ndim", 0) > 1:
                name = type(penalty).__name__
                raise TypeError(
                    f"add_gradients of regularizer {name} must return the penalty, a "
                    "number or a tensor of one number for each net; got "
                    f"{_described(more)}."
                )
            value = value + more
        return value

    def gradients(
        self,
        evaluate: Callable,
        weights: Mapping[str, Tensor],
        slopes: Mapping[str, Tensor],
    ):
        """As ``Regularizer.gradients``, of all: the first one is the outermost."""
        for member in reversed(self._gradients):
            evaluate = _Evaluation(member, evaluate, weights, slopes)
        return evaluate()

    def project(self, weights: Mapping[str, Tensor], step_sizes: Mapping) -> None:
        """As ``Regularizer.project``, of all."""
        for member in self._project:
            member.project(weights, step_sizes)

    @property
    def proximal_names(self) -> tuple[str, ...]:
        """Names of the weights that any takes proximal steps on."""
        names = (name for member in self._project for name in member.proximal_names)
        return tuple(dict.fromkeys(names))

    def average(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        """As ``Regularizer.average``; of several, the first one that returns some."""
        found = [member.average(weights) for member in self._average]
        return next((averaged for averaged in found if averaged is not None), None)

    def unstack(self, of_nets: Sequence["Active"]) -> None:
        """Give states back to the regularisers of the nets that `stack` was given."""
        for place, member in zip(self.places, self.members, strict=True):
            member.unstack([active.members[place] for active in of_nets])

    @property
    def counts_epochs(self) -> bool:
        """Whether any follows the epochs, and so must know `max_epochs`."""
        return bool(self._epochs or self._schedule)

    @property
    def stack_key(self) -> tuple:
        """What the nets of a stack have in common."""
        return tuple((type(m), m.stack_key) for m in self.members)

    def reason_against_stack(self) -> str | None:
        """Return which of them is known not to act on several nets as one, if any."""
        for member in self._at_work:
            reason = member.reason_against_stack()
            if reason is None and not _is_ours(member):
                reason = _reason_against_stack(member)
            if reason is not None:
                name = type(member).__name__
                return reason if _is_ours(member) else f"regularizer {name} {reason}"
        return None

    def batch_key(self) -> tuple:
        """Return what nets that share their batches have in common."""
        draws = [(type(m).__name__, m.stack_key) for m in self._perturb]
        return cloudpickle.dumps(self._batch) if self._batch else b"", *draws

    def state(self) -> bytes:
        """Return what regularisers of the user's hold, to see whether it changes."""
        own = [member for member in self.members if not _is_ours(member)]
        return cloudpickle.dumps(own) if own else b""  # some are of a notebook's

    @classmethod
    def stack(cls, of_nets: Sequence["Active"], weights: Mapping[str, Tensor]):
        """Return the regularisers of several nets as one.

        Parameters
        ----------
        of_nets : sequence of Active
            One for each net; those at the same place are of the same class. They are
            not changed.
        weights : mapping of str to Tensor of shape (B, ...)
            Those of the nets; not changed.

        Returns
        -------
        Active

        Raises
        ------
        NotStackable
        """
        stacked = {}
        all_members = zip(*(active.members for active in of_nets), strict=True)
        for place, members in enumerate(all_members):
            if not any(map(_acts_on_weights, members)):
                continue
            kind = type(members[0])
            if _is_ours(members[0]):
                stacked[place] = kind.stack(members)
                continue
            one = kind.stack(deepcopy(members))
            if one is None:
                raise NotStackable(f"regularizer {kind.__name__}")
            _compare(one, members, weights)
            stacked[place] = one
        active = cls(list(stacked.values()))
        active.places = list(stacked)
        return active


def _is_ours(member: Regularizer) -> bool:
    return type(member).__module__.startswith("skreg.")


def _acts_on_weights(member: Regularizer) -> bool:
    return not member.is_neutral and any(map(member.acts_in, ON_WEIGHTS))


ON_WEIGHTS = (
    *("add_gradients", "gradients", "project", "average", "schedule", "perturb"),
)


def _reason_against_stack(member: Regularizer) -> str | None:
    if member.acts_in("perturb"):
        return "looks at the net to change its inputs"
    if member.acts_in("batch") and member.acts_in("begin"):
        return "changes batches and may look at the module"
    if member.acts_in("average"):
        return "averages weights"
    if member.acts_in("schedule") or member.acts_in("criterion"):
        return "schedules the optimizer, or changes the criterion"
    try:
        pickle.dumps(member)
    except Exception as error:  # whatever a class of the user's may raise
        return f"cannot be pickled: {type(error).__name__}"
    if not _acts_on_weights(member):
        return None
    if not member.acts_in("stack"):
        return "has no stack"
    of_stack = _definer(member, "stack")
    own = ["__init__", *(m for m in ON_WEIGHTS if member.acts_in(m))]
    newer = [m for m in own if not issubclass(of_stack, _definer(member, m))]
    if newer:
        return f"has a {newer[0]} of its own, but the stack of {of_stack.__name__}"
    return None


def _definer(member: Regularizer, method: str) -> type:
    return next(cls for cls in type(member).__mro__ if method in vars(cls))


def _compare(one: Regularizer, members: Sequence[Regularizer], weights) -> None:
    """Raise NotStackable unless one regulariser does what each of the members does."""
    one, members, name = deepcopy(one), deepcopy(members), type(one).__name__
    generator = torch.Generator().manual_seed(0)

    def drawn(w: Tensor) -> Tensor:
        return torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w)

    points = NamedTensors({n: drawn(w) for n, w in weights.items()})
    sizes = {n: drawn(w).abs_() for n, w in weights.items()}
    zeros = NamedTensors({n: torch.zeros_like(w) for n, w in weights.items()})
    with torch.no_grad():
        expected = []
        for i, member in enumerate(members):
            of_net = [
                NamedTensors({n: t[i].clone() for n, t in tensors.items()})
                for tensors in (points, zeros, sizes)
            ]
            value = 0.0 if member.is_neutral else _act(member, *of_net)
            expected.append((value, *of_net))
        value = _act(one, points, zeros, sizes)
    if isinstance(value, Tensor) and value.shape != (len(members),):
        raise NotStackable(
            f"regularizer {name} returns a penalty of shape {tuple(value.shape)} in a "
            f"stack of {len(members)} nets"
        )
    for i, (theirs, *of_net) in enumerate(expected):
        mine = value[i] if isinstance(value, Tensor) else value
        pairs = [(torch.as_tensor(mine).double(), torch.as_tensor(theirs).double())]
        for together, alone in zip((points, zeros), of_net[:2], strict=True):
            pairs += [(together[n][i], alone[n]) for n in weights]
        if not all(_agree(a, b) for a, b in pairs):
            raise NotStackable(
                f"regularizer {name} does not do in a stack what it does alone"
            )


def _act(member: Regularizer, weights, gradients, sizes):
    value = 0.0
    if member.acts_in("add_gradients"):
        value = member.add_gradients(gradients, weights)
    if member.acts_in("project"):
        member.project(weights, sizes)
    return value


def _agree(a: Tensor, b: Tensor) -> bool:
    a, b = a.to(b.device), b
    tolerance = torch.finfo(a.dtype).eps ** 0.5
    scale = float(b.abs().max()) if b.numel() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=tolerance * max(scale, 1.0))


def _described(value) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return f"a {type(value).__name__}{shape}"


class _Evaluation:
    """The evaluation of a step that a regulariser sees to."""

    def __init__(self, member, evaluate, weights, slopes):
        self.member, self.evaluate = member, evaluate
        self.weights, self.slopes = weights, slopes

    def __call__(self):
        calls = []

        def evaluate():
            calls.append(self.evaluate())
            return calls[-1]

        found = self.member.gradients(evaluate, self.weights, self.slopes)
        is_pair = isinstance(found, tuple) and len(found) == 2
        if not (calls and is_pair):
            raise TypeError(
                f"gradients of regularizer {type(self.member).__name__} must call "
                "evaluate() and return what it returned for the present weights, a "
                f"pair; it has called it {len(calls)} times and returned "
                f"{_described(found)}."
            )
        return found


def penalized(
    loss: Tensor, active: Active, weights: Mapping[str, nn.Parameter]
) -> tuple[Tensor, Tensor | float]:
    """Add the penalties of the weights to a data loss.

    Parameters
    ----------
    loss : Tensor of shape ()
        Usually a mean over samples.
    active : Active
    weights : mapping of str to nn.Parameter

    Returns
    -------
    objective : Tensor of shape ()
        Its gradient holds that of the penalties, from ``add_gradients``. `loss` itself,
        if there are none.
    penalty : Tensor of shape () or float
        The penalty alone, detached.
    """
    if not active.penalties:
        return loss, 0.0
    penalty = _Penalty.apply(active, tuple(weights), *weights.values())
    return loss + penalty, penalty.detach()


class _Penalty(torch.autograd.Function):
    """The value of penalties, and the gradient that they write out themselves."""

    @staticmethod
    def forward(ctx, active, names, *params):
        pairs = dict(zip(names, params, strict=True))
        gradients = NamedTensors({n: torch.empty_like(w) for n, w in pairs.items()})
        weights = NamedTensors(pairs)
        value = active.write_gradients(gradients, weights)
        ctx.active, ctx.names = active, names
        ctx.save_for_backward(*params)
        ctx.gradients = gradients
        return value if isinstance(value, Tensor) else params[0].new_tensor(value)

    @staticmethod
    def backward(ctx, grad_output):
        # Handed over rather than kept: autograd adds the gradient of the data loss to
        # a tensor in place if nobody else holds it. A second backward makes it anew.
        gradients, ctx.gradients = ctx.gradients, None
        differentiated = torch.is_grad_enabled()  # the gradient itself is to be, again
        if gradients is None or differentiated:
            weights = NamedTensors(zip(ctx.names, ctx.saved_tensors, strict=True))
            gradients = NamedTensors(
                {name: torch.zeros_like(w) for name, w in weights.items()}
            )
            ctx.active.add_gradients(gradients, weights)
        gradients = list(gradients.values())
        if differentiated:
            return None, None, *(grad_output * g for g in gradients)
        # Asking a CUDA tensor for its value would make the host wait for the device.
        if grad_output.device.type != "cpu" or grad_output != 1:
            torch._foreach_mul_(gradients, grad_output)
        return None, None, *gradients
