r"""Robustness of fitted nets: attack them, and score them under attack.

An attack looks, near each sample x, for an input on which the net does worst:

.. math:: \max_{x'} \ell(f_w(x'), y) \quad\text{subject to}\quad
    \lVert x' - x \rVert \le \varepsilon, \quad x' \in [\mathrm{low}, \mathrm{high}]

:math:`\varepsilon` is in units of X as the net gets it: of images in [0, 1],
``eps=8/255`` is eight of 255 shades of grey. For classifiers the loss is the
cross-entropy of the right class, whatever ``criterion`` the net was trained with; for
regressors it is the squared error. Penalties do not depend on X and play no part. The
net is attacked as it predicts, with dropout off; nothing in it is changed.

Of a ``Pipeline`` whose last step is a net, the steps before it are applied to X first:
the attack, `eps`, `bounds` and the attacked inputs concern what the net gets.

References
----------
Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR
(2015).

Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant to
adversarial attacks", ICLR (2018).
"""

import warnings
from math import isfinite
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from skreg import attacks
from skreg._utils.arrays import is_array_like
from skreg._utils.randomness import draw_seed, epoch_seed, make_generator
from skreg._utils.sparse import is_sparse
from skreg._utils.torch_state import plain_torch
from skreg.estimators import RegularizedNet
from skreg.estimators.adversarial import (
    are_right,
    checked_targets,
    encoded_targets,
    loss_of_inputs,
    validated_inputs,
)
from skreg.estimators.parameters import RULES

__all__ = ["fgsm", "make_robust_scorer", "pgd", "robust_accuracy"]

ATTACKS = ("pgd", "fgsm")


def fgsm(net, X, y, *, eps, norm="linf", bounds=None, batch_size=256):
    r"""Attack with the fast gradient sign method: one step of length `eps`.

    .. math:: x + \varepsilon \, \mathrm{sign}(\nabla_x \ell)
        \quad\text{(linf), or}\quad
        x + \varepsilon \nabla_x \ell / \lVert \nabla_x \ell \rVert_2
        \quad\text{(l2)}

    Parameters
    ----------
    net : RegularizedNetClassifier, RegularizedNetRegressor or Pipeline
        Fitted; of a pipeline, the last step is the net.
    X : array-like of shape (n_samples, ...)
        Inputs, as for ``predict``.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        The right targets, as in ``fit``. The attack leads away from them.
    eps : float
        Largest distance between an input and the attacked one, at least 0.
    norm : {"linf", "l2"}, default="linf"
        What is meant by distance: the largest change of a number of the sample, or the
        Euclidean length of the changes.
    bounds : (low, high), default=None
        Two numbers, or arrays of the shape of one sample; attacked inputs are clipped
        to lie between them. None takes the range of the training data,
        ``net.input_range_``; a number in `X` that lies outside of it is not moved
        further out. Pass ``(-np.inf, np.inf)`` to clip nothing, or
        ``(X_train.min(axis=0), X_train.max(axis=0))`` for features in units of their
        own.
    batch_size : int, default=256
        Samples that are attacked at a time; decides how much memory is needed.

    Returns
    -------
    ndarray of the shape of X
        The attacked inputs, of the dtype of the net; of a pipeline, those of the net.

    Raises
    ------
    NotFittedError
        If `net` is not fitted.
    TypeError
        If `net` is no net of skreg, or `X` no array.
    ValueError
        If a parameter is none of what is said here, `X` is outside of the `bounds` that
        are passed, or the net computes without gradients.

    Warns
    -----
    UserWarning
        If the gradient of the loss is zero for almost all samples, so that the attack
        finds nothing (the module rounds its inputs, say); or if `bounds` is None and
        the net does not know the range of its training data.

    References
    ----------
    Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples",
    ICLR (2015). The form for L2 is called the fast gradient method.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skreg import RegularizedNetClassifier
    >>> from skreg.robustness import fgsm
    >>> X, y = load_digits(return_X_y=True)
    >>> net = RegularizedNetClassifier(max_epochs=10, random_state=0).fit(X / 16, y)
    >>> X_attacked = fgsm(net, X / 16, y, eps=0.1)
    >>> bool(np.abs(X_attacked - X / 16).max() <= 0.1 + 1e-12)
    True
    >>> bool(net.score(X_attacked, y) < 0.7 < net.score(X / 16, y))
    True
    """
    attack = _Attack("fgsm", norm, bounds, batch_size)
    return attack.inputs(net, X, y, _check_eps(eps))


def pgd(
    net,
    X,
    y,
    *,
    eps,
    norm="linf",
    steps=20,
    step_size=None,
    n_restarts=1,
    random_state=0,
    bounds=None,
    batch_size=256,
):
    """Attack with projected gradient descent: several steps within the distance `eps`.

    It climbs from X, and again from random points within the distance: each time it
    takes `steps` steps uphill, going back to the distance after each. What it returns
    is the point of the highest loss that it has seen.

    Parameters
    ----------
    net, X, y, eps, norm, bounds, batch_size
        As for :func:`fgsm`.
    steps : int, default=20
        Gradients per sample and climb, at least 1.
    step_size : float, default=None
        Length of a step, above 0; None is ``2.5 * eps / steps``.
    n_restarts : int, default=1
        Number of climbs from random points, at least 0.
    random_state : int, RandomState instance or None, default=0
        Decides the random points. None takes fresh entropy. Neither the device
        nor `batch_size` play a part.

    Returns
    -------
    ndarray of the shape of X
        As for :func:`fgsm`.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As for :func:`fgsm`.

    References
    ----------
    Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant
    to adversarial attacks", ICLR (2018).
    """
    climbs = steps, step_size, n_restarts, random_state
    attack = _Attack("pgd", norm, bounds, batch_size, *climbs)
    return attack.inputs(net, X, y, _check_eps(eps))


def robust_accuracy(
    net,
    X,
    y,
    *,
    eps,
    attack="pgd",
    norm="linf",
    steps=20,
    step_size=None,
    n_restarts=1,
    random_state=0,
    bounds=None,
    batch_size=256,
    sample_weight=None,
):
    """Return the share of samples that a classifier gets right in spite of an attack.

    A sample counts if the net is right about it and about what the attack makes of it;
    at ``eps=0`` this is ``net.score``. An attack need not find what would mislead the
    net: the result is an upper bound of the accuracy on the worst inputs.

    Parameters
    ----------
    net : RegularizedNetClassifier, or Pipeline that ends in one
        Fitted.
    X : array-like of shape (n_samples, ...)
    y : array-like of shape (n_samples,)
        Class labels.
    eps : float or array-like of shape (n_eps,)
        Of several, a sample that fell to a smaller one has fallen to the larger ones.
    attack : {"pgd", "fgsm"}, default="pgd"
        FGSM takes one gradient, and finds less.
    norm, bounds, batch_size
        As for :func:`fgsm`.
    steps, step_size, n_restarts, random_state
        As for :func:`pgd`; FGSM has none of them.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples, as for ``score``.

    Returns
    -------
    float, or ndarray of shape (n_eps,)

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As for :func:`fgsm`; TypeError also if `net` is no classifier.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skreg import RegularizedNetClassifier
    >>> from skreg.robustness import robust_accuracy
    >>> X, y = load_digits(return_X_y=True)
    >>> net = RegularizedNetClassifier(max_epochs=10, random_state=0).fit(X / 16, y)
    >>> accuracies = robust_accuracy(net, X / 16, y, eps=[0, 0.05, 0.1])
    >>> bool(accuracies[0] == net.score(X / 16, y))
    True
    >>> bool(accuracies[0] > accuracies[1] > accuracies[2])
    True
    """
    climbs = steps, step_size, n_restarts, random_state
    one = _Attack(attack, norm, bounds, batch_size, *climbs)
    if np.ndim(eps) == 0:
        eps = eps.item() if isinstance(eps, np.ndarray) else eps
        right = one.survivors(net, X, y, [_check_eps(eps)])[0]
        return float(np.average(right, weights=sample_weight))
    if np.ndim(eps) != 1 or not len(eps):
        raise ValueError(
            f"eps={eps!r} must be a number or a non-empty one-dimensional array of "
            "numbers, e.g. [0, 0.1]."
        )
    survivors = one.survivors(net, X, y, [_check_eps(value) for value in eps])
    return np.array([np.average(right, weights=sample_weight) for right in survivors])


def make_robust_scorer(eps, **options):
    """Make a scorer of :func:`robust_accuracy`, for ``scoring=`` of a search.

    Parameters
    ----------
    eps : float
        As for :func:`robust_accuracy`.
    **options
        The other parameters of :func:`robust_accuracy`.

    Returns
    -------
    callable
        ``scorer(estimator, X, y, sample_weight=None)``; it can be pickled.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from skreg import RegularizedNetClassifier
    >>> from skreg.robustness import make_robust_scorer
    >>> net = RegularizedNetClassifier(max_epochs=20, random_state=0)
    >>> X, y = load_iris(return_X_y=True)
    >>> scores = cross_val_score(net, X, y, scoring=make_robust_scorer(0.1), cv=3)
    >>> scores.shape
    (3,)
    """
    return _RobustScorer(_check_eps(eps), options)


class _RobustScorer:
    def __init__(self, eps, options):
        defaults = robust_accuracy.__kwdefaults__ or {}
        unknown = sorted(options.keys() - defaults.keys())
        if unknown:
            known = ", ".join(defaults)
            raise TypeError(
                f"make_robust_scorer has no parameter {unknown[0]!r}; it has eps, "
                f"{known}."
            )
        self.eps = eps
        self.options = options
        options = robust_accuracy.__kwdefaults__ | options
        _Attack(**{k: v for k, v in options.items() if k != "sample_weight"})

    def __call__(self, estimator, X, y, sample_weight=None):
        if sample_weight is None:
            return robust_accuracy(estimator, X, y, eps=self.eps, **self.options)
        options = self.options | {"sample_weight": sample_weight}
        return robust_accuracy(estimator, X, y, eps=self.eps, **options)

    def __repr__(self):
        options = "".join(f", {name}={v!r}" for name, v in self.options.items())
        return f"make_robust_scorer({self.eps!r}{options})"


class _Attack:
    """An attack with its options, checked."""

    def __init__(
        self,
        attack,
        norm,
        bounds,
        batch_size,
        steps=1,
        step_size=None,
        n_restarts=0,
        random_state=0,
    ):
        if attack not in ATTACKS:
            raise ValueError(f"attack={attack!r} must be one of {ATTACKS}.")
        if norm not in attacks.NORMS:
            raise ValueError(
                f"norm={norm!r} must be one of {attacks.NORMS}: the largest change of "
                "a number of the sample, or the Euclidean length of the changes."
            )
        _check_integer(batch_size, "batch_size", 1)
        _check_integer(steps, "steps", 1)
        _check_integer(n_restarts, "n_restarts", 0)
        if step_size is not None and not (_is_finite(step_size) and step_size > 0):
            raise ValueError(
                f"step_size={step_size!r} must be None or a finite number > 0; None is "
                "2.5 * eps / steps."
            )
        rule = RULES["random_state"]
        if not rule.accepts(random_state):
            raise ValueError(f"random_state={random_state!r} must be {rule.allowed}.")
        self.name, self.norm, self.bounds = attack, norm, bounds
        self.batch_size, self.steps, self.step_size = batch_size, steps, step_size
        self.n_restarts, self.random_state = n_restarts, random_state

    @plain_torch()
    def inputs(self, net, X, y, eps) -> np.ndarray:
        """Return the attacked inputs."""
        net, X = _net_and_inputs(net, X)
        y = encoded_targets(net, y)
        check_consistent_length(X, y)
        if eps == 0:
            return X.copy()
        bounds = _bounds(self.bounds, net, X)
        watch = attacks.GradientWatch()
        batches = self._run(net, X, y, eps, bounds, watch)
        attacked = np.concatenate([x.cpu().numpy() for x, _ in batches])
        _warn_if_blind(watch, "what it returns is no attack")
        return attacked

    @plain_torch()
    def survivors(self, net, X, y, all_eps) -> np.ndarray:
        """Return for each eps which samples the net gets right, attacked or not."""
        estimator, original = net, X
        net, X = _net_and_inputs(estimator, original)
        if not is_classifier(net):
            raise TypeError(
                f"{type(net).__name__} is no classifier and has no accuracy; score it "
                "on what fgsm or pgd return."
            )
        bounds = _bounds(self.bounds, net, X)
        watch = attacks.GradientWatch()
        y = checked_targets(net, y)
        check_consistent_length(X, y)
        right = estimator.predict(original) == y
        right = right.all(axis=1) if right.ndim == 2 else right
        survivors = np.empty((len(all_eps), len(y)), dtype=bool)
        for i in np.argsort(all_eps, kind="stable"):
            if all_eps[i] > 0 and right.any():
                encoded = encoded_targets(net, y[right])
                batches = self._run(net, X[right], encoded, all_eps[i], bounds, watch)
                still_right = [are_right(net, x, y) for x, y in batches]
                right[right] = torch.cat(still_right).cpu().numpy()
            survivors[i] = right
        _warn_if_blind(watch, "the accuracy under attack says nothing")
        return survivors

    def _run(self, net, X, y, eps, bounds, watch):
        """Yield attacked inputs and encoded targets, batch by batch, on the device."""
        X = torch.as_tensor(X)
        # Drawn for all samples at once, and on the CPU, so that neither the device nor
        # the size of the batches decide.
        seed = draw_seed(self.random_state)
        starts = [
            attacks.random_start(X, eps, self.norm, make_generator(climb))
            for climb in (epoch_seed(seed, k) for k in range(self.n_restarts))
        ]
        common = {"norm": self.norm, "bounds": bounds}
        with attacks.evaluation_mode(net.module_):
            for first in range(0, len(X), self.batch_size):
                batch = slice(first, first + self.batch_size)
                x = X[batch].to(net.device_)
                target = torch.as_tensor(y[batch], device=net.device_)
                loss = loss_of_inputs(net, target)
                with watch.watching(loss, len(x)) as watched:
                    if self.name == "fgsm":
                        attacked = attacks.fgsm(watched, x, eps, **common)
                    else:
                        attacked = attacks.pgd(
                            watched,
                            x,
                            eps,
                            steps=self.steps,
                            step_size=self.step_size,
                            starts=[None, *(s[batch].to(net.device_) for s in starts)],
                            **common,
                        )
                yield attacked, target


def _net_and_inputs(estimator, X) -> tuple[RegularizedNet, np.ndarray]:
    """Return the net at the end of an estimator and X as it reaches the net."""
    if isinstance(estimator, Pipeline):
        check_is_fitted(estimator)
        if len(estimator) > 1:
            X = estimator[:-1].transform(X)
        return _net_and_inputs(estimator[-1], X)
    if not isinstance(estimator, RegularizedNet):
        raise TypeError(
            f"net={type(estimator).__name__} must be a fitted RegularizedNetClassifier "
            "or RegularizedNetRegressor, or a Pipeline that ends in one; of a search "
            "pass search.best_estimator_."
        )
    check_is_fitted(estimator)
    if not is_array_like(X):
        raise TypeError(
            f"X={type(X).__name__} must be an array: an attack changes its numbers. Of "
            "a Dataset pass its inputs as one array."
        )
    if is_sparse(X):
        raise TypeError(
            f"X={type(X).__name__} is sparse, but an attack changes its zeros as well: "
            "pass a part of it as X.toarray()."
        )
    X = validated_inputs(estimator, X)
    if X.dtype.kind != "f":
        raise TypeError(
            f"the module of {type(estimator).__name__} takes integers, between which "
            "there is nothing that an attack could change them to."
        )
    return estimator, X


def _check_eps(eps) -> float:
    if not (_is_finite(eps) and eps >= 0):
        raise ValueError(
            f"eps={eps!r} must be a finite number >= 0: the distance from X, in its "
            "units, within which inputs are attacked."
        )
    return float(eps)


def _check_integer(value, name: str, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be an integer >= {least}.")


def _is_finite(value) -> bool:
    return (
        isinstance(value, Real)
        and not isinstance(value, bool | np.bool_)
        and isfinite(value)
    )


def _warn_if_blind(watch: attacks.GradientWatch, consequence: str) -> None:
    if watch.is_blind:
        warnings.warn(
            f"The attack is blind: {watch.finding}, so that {consequence}. Does the "
            "module round or detach its inputs? Attack one that is smooth in place of "
            "it, or an attack without gradients is needed.",
            stacklevel=4,
        )


def _bounds(bounds, net: RegularizedNet, X: np.ndarray) -> tuple:
    """Return between which numbers attacked inputs stay."""
    if bounds is not None:
        return _check_bounds(bounds, X)
    if hasattr(net, "input_range_"):
        return net.input_range_
    warnings.warn(
        f"This {type(net).__name__} has no input_range_, the range of its training "
        "data: attacked inputs stay in that of the X that is passed, and so depend on "
        "it. Pass bounds=(low, high).",
        stacklevel=4,
    )
    return X.min(), X.max()


def _check_bounds(bounds, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        low, high = (np.asarray(bound, dtype=X.dtype) for bound in bounds)
        for bound in (low, high):
            np.broadcast_to(bound, X.shape[1:])  # raises if it cannot
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"bounds={bounds!r} must be None or a pair (low, high) of numbers, or of "
            f"arrays of the shape of one sample, {X.shape[1:]}."
        ) from error
    if not ((low <= X).all() and (high >= X).all()):
        raise ValueError(
            f"X must lie within bounds={bounds!r}, in units of X as the net gets it; "
            f"its values go from {X.min()} to {X.max()}. Widen bounds, or leave "
            "bounds=None."
        )
    return low, high
