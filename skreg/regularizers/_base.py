"""Regularizer: the protocol of one way to regularise a net."""

from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from sklearn.base import BaseEstimator
from torch import Tensor, nn

from skreg._utils.rules import Rule

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = ["Parameter", "Regularizer", "TrainingData"]


class Parameter(NamedTuple):
    """A constructor parameter of the estimators that a regulariser brings along.

    Attributes
    ----------
    default : object
        The value that turns the regulariser off.
    type : str
        As numpydoc writes it, such as ``"float"``.
    rule : Rule
        What is allowed.
    doc : str
        The text below the name, in the docstring of the estimators.
    """

    default: Any
    type: str
    rule: Rule
    doc: str


class TrainingData(NamedTuple):
    """What a regulariser may know of the data of a fit.

    Attributes
    ----------
    targets : {"classes", "labels", "numbers"}
        Class indices, a 0/1 matrix, or numbers.
    n_outputs : int
        Number of classes, labels or targets.
    input_range : (low, high) or None
        Smallest and largest input; None if they are not known.
    input_shape : tuple of int or None
        Of one sample; None if it is not known.
    """

    targets: str
    n_outputs: int
    input_range: tuple[float, float] | None
    input_shape: tuple[int, ...] | None = None


class Regularizer(BaseEstimator):
    """Base class of all ways to regularise a net; override only what you need.

    Pass your own as ``regularizers=[MyRegularizer(strength=0.1)]``. As in any estimator
    of scikit-learn, ``__init__`` stores its arguments and does nothing else; a search
    sets them as ``regularizers__MyRegularizer__strength``. ``fit`` works with a copy.

    In what follows, `weights` maps the names of the trainable parameters of the module
    to tensors, which require no gradient. In a stack of B nets (see ``stack``), each
    tensor has an axis of nets in front.

    Attributes
    ----------
    data_ : TrainingData
        What is known of the data, from ``begin`` on.
    """

    data_: TrainingData
    # Of the estimators, by name: only those that come with this package.
    parameters: ClassVar[Mapping[str, Parameter]] = MappingProxyType({})
    # Their options, by prefix and name, such as ``average__decay``; None are those of
    # whatever the parameter holds.
    options: ClassVar[Mapping[str, Mapping[str, Parameter] | None]] = MappingProxyType(
        {}
    )
    # Whether it must know the range of the inputs, for which a Dataset is read once.
    looks_at_input_range: ClassVar[bool] = False

    @classmethod
    def of(cls, parameters: Mapping[str, Any], options: Mapping[str, dict]) -> "Self":
        """Make one of the parameters of an estimator.

        Parameters
        ----------
        parameters : mapping of str to object
            Values of those that ``parameters`` names.
        options : mapping of str to dict
            What is set of ``options``, by prefix.
        """
        given = {n: value for of in options.values() for n, value in of.items()}
        return cls(**parameters, **given)

    @property
    def is_neutral(self) -> bool:
        """Whether it changes nothing: it is then left out, bit for bit."""
        return False

    def begin(self, module: nn.Module) -> None:
        """Look at the module, before the first epoch.

        It is called again before others if a callback may have changed the module. What
        ``fit`` works with is one object from the first step to the last.

        Parameters
        ----------
        module : nn.Module
            One net. In a stack, it is called for each member, before ``stack``, but
            for members that are neutral.
        """

    def begin_epoch(self, epoch: int, n_epochs: int, n_batches: int) -> None:
        """Take note of an epoch that begins.

        Parameters
        ----------
        epoch : int
            Counted from 0 in this fit.
        n_epochs : int
            The parameter `max_epochs`.
        n_batches : int
            Steps of this epoch.
        """

    def schedule(
        self, options: dict[str, Any], step: int, n_steps: int
    ) -> dict[str, Any]:
        """Return options of the optimizer for the next step, such as its ``lr``.

        Parameters
        ----------
        options : dict
            Those of a group of parameters, as they were before the first step.
        step : int
            Number of steps that have been taken in this fit.
        n_steps : int
            Number of steps in `max_epochs` epochs.

        Returns
        -------
        dict
            Those that are others now. In a stack, its nets are scheduled alike.
        """
        return {}

    def criterion(self, criterion: nn.Module) -> nn.Module:
        """Return the criterion to train with; what is validated keeps the plain one.

        Parameters
        ----------
        criterion : nn.Module
            Not to be changed: return a copy.

        Returns
        -------
        nn.Module
        """
        return criterion

    def batch(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to train on instead of a batch.

        Random numbers come from torch's default generator, which is seeded by the
        ``random_state`` of the net. In a stack, nets that see the same data share what
        is returned. It needs no ``stack``, unless there is a ``begin`` as well: then it
        may depend on the module.

        Parameters
        ----------
        X : Tensor of shape (n_samples, ...)
            On the device of the net.
        y : Tensor of shape (n_samples,) or (n_samples, n_outputs)
            Encoded targets.

        Returns
        -------
        X, y : Tensor
        """
        return X, y

    def weighted_batch(
        self, X: Tensor, y: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As ``batch``, for whoever mixes samples, which may have weights.

        Parameters
        ----------
        X, y : as in ``batch``
        weight : Tensor of shape (n_samples,), or None
            What the losses of the samples are multiplied with before their mean.

        Returns
        -------
        X, y, weight : Tensor
        """
        return *self.batch(X, y), weight

    @property
    def writes_into_batches(self) -> bool:
        """Whether ``batch`` may change X or y in place, or keep them."""
        return True

    def draw(self, X: Tensor) -> Tensor | None:
        """Draw what ``perturb`` needs at random, from torch's default generator.

        Parameters
        ----------
        X : Tensor of shape (n_samples, ...)

        Returns
        -------
        Tensor of the shape of X, or None
        """
        return None

    def perturb(
        self,
        X: Tensor,
        y: Tensor,
        losses: Callable[[Tensor], Tensor],
        drawn: Tensor | None,
    ) -> Tensor:
        """Return the inputs to train on instead of X, found by looking at the net.

        It is asked after the ``batch`` of all regularisers; an attack is an example.
        Nets of a user's class that does something here train one by one. In a stack of
        B nets, samples are those of one net after the other, n_samples = B * n.

        Parameters
        ----------
        X : Tensor of shape (n_samples, ...)
        y : Tensor of shape (n_samples,) or (n_samples, n_outputs)
        losses : callable
            Maps inputs like X to losses of shape (n_samples,), with gradients, each of
            its own sample only. Dropout is off, and batch normalisation takes the
            statistics that it has.
        drawn : Tensor of the shape of X, or None
            What ``draw`` has returned.

        Returns
        -------
        Tensor of the shape of X
        """
        return X

    def add_gradients(
        self, gradients: MutableMapping[str, Tensor], weights: Mapping[str, Tensor]
    ) -> Tensor | float:
        """Add the gradient of a penalty to `gradients`, in place; return the penalty.

        Parameters
        ----------
        gradients : mapping of str to Tensor
            Of the names and shapes of `weights`. They hold penalties alone: the
            gradient of the loss comes later.
        weights : mapping of str to Tensor

        Returns
        -------
        Tensor of shape () or float
            Of shape (B,) in a stack: one for each net.
        """
        return 0.0

    def gradients(
        self,
        evaluate: Callable[[], tuple[Tensor, Tensor | float]],
        weights: Mapping[str, Tensor],
        slopes: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor | float]:
        """Compute the gradients of a step, such as at other weights than the present.

        Parameters
        ----------
        evaluate : callable
            Computes loss and gradients of the batch at the present weights, penalties
            included, and writes the gradients where the optimizer finds them. It may be
            called several times; the last call counts.
        weights : mapping of str to Tensor
            May be changed in place, and must be as before in the end.
        slopes : mapping of str to Tensor
            The gradients that the last call of `evaluate` has written; what they are
            in the end is what the optimizer follows. They may be changed in place.

        Returns
        -------
        objective, penalty : Tensor
            What `evaluate` has returned for the present weights.
        """
        return evaluate()

    def project(
        self,
        weights: Mapping[str, Tensor],
        step_sizes: Mapping[str, float | Tensor],
    ) -> None:
        """Change the weights in place after each step of the optimizer.

        Parameters
        ----------
        weights : mapping of str to Tensor
        step_sizes : mapping of str to (float or Tensor)
            What the optimizer multiplies a constant gradient with, computed when it is
            looked up: what a proximal step needs. SGD, Adam, AdamW, Adamax, NAdam,
            RAdam, RMSprop and Adagrad tell; for other optimizers a look is a
            ValueError.
        """

    @property
    def proximal_names(self) -> tuple[str, ...]:
        """Names of the weights that ``project`` takes proximal steps on.

        If there are some, ``fit`` raises a ValueError before training if the optimizer
        does not tell its step sizes. Known after ``begin``.
        """
        return ()

    def average(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        """Return what to evaluate and to keep instead of the weights, such as a mean.

        It is called after each step. What the last call of an epoch returns is in the
        module when it is validated, when callbacks look at the end of the epoch, and
        when training ends; the next epoch goes on from `weights`.

        Parameters
        ----------
        weights : mapping of str to Tensor
            They change with the next step: keep copies.

        Returns
        -------
        mapping of str to Tensor, or None
            All of the names and shapes of `weights`; None leaves these as they are. Of
            several regularisers, the first that returns some is followed.
        """
        return None

    @classmethod
    def stack(cls, members: "Sequence[Self]") -> "Self | None":
        """Return one regulariser that does for B nets what each of `members` does.

        It is asked for penalties, gradients and projections, and draws no random
        numbers. Before training, its penalties and projections are compared with those
        of the members; if they differ, the nets train one by one. A class that
        overrides a method of its base needs a ``stack`` of its own, too. If nets of a
        stack end at different times, one that keeps a state trains one by one.

        Parameters
        ----------
        members : sequence of Regularizer
            One for each net, of this class, in the order of the axis of nets.

        Returns
        -------
        Regularizer or None
            None if there is no such thing: then the nets train one by one.
        """
        return None

    def reason_against_stack(self) -> str | None:
        """Return why nets with it must train one by one, if they must."""
        return None

    def unstack(self, members: "Sequence[Self]") -> None:
        """Give a state that was reached in a stack back to the nets' own regularisers.

        Parameters
        ----------
        members : sequence of Regularizer
            Those that ``stack`` was given, in their order.
        """

    @property
    def stack_key(self) -> Hashable:
        """What nets of a stack must have in common."""
        # Who evaluates a batch twice draws dropout twice.
        return self.acts_in("gradients") and self.is_neutral

    def acts_in(self, method: str) -> bool:
        """Return whether it does something of its own in a method of this class."""
        own, plain = getattr(self, method), getattr(Regularizer, method)
        return getattr(own, "__func__", own) is not getattr(plain, "__func__", plain)
