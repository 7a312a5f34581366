"""Made data: the noisy line of the toy regression, and label noise."""

from numbers import Real

import numpy as np
from sklearn.utils import check_random_state

from skreg.datasets._base import is_positive_int

__all__ = ["make_noisy_line", "randomize_labels"]


def make_noisy_line(n_samples=10, *, noise=2.0, random_state=None):
    """Make the toy regression ``y = 2 x + noise * e``, with e standard normal.

    Parameters
    ----------
    n_samples : int, default=10
        Number of samples.
    noise : float, default=2.0
        Standard deviation of the noise, at least 0.
    random_state : int, RandomState instance or None, default=None
        Decides the noise. Pass an int for the same data in every call.

    Returns
    -------
    X : ndarray of shape (n_samples, 1), dtype float32
        Evenly spaced in [-1, 1], ascending.
    y : ndarray of shape (n_samples,), dtype float32

    Raises
    ------
    ValueError
        If `n_samples` is no positive int, or `noise` no finite number >= 0.

    Examples
    --------
    >>> from skreg.datasets import make_noisy_line
    >>> X, y = make_noisy_line(3, noise=0.0)
    >>> X.ravel().tolist(), y.tolist()
    ([-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0])
    """
    if not is_positive_int(n_samples):
        raise ValueError(
            f"n_samples={n_samples!r} is not a positive int; pass e.g. n_samples=10."
        )
    if not _is_number(noise) or not 0 <= noise < np.inf:
        raise ValueError(
            f"noise={noise!r} is not a finite number >= 0; pass e.g. noise=2.0, or "
            "noise=0.0 for a line without noise."
        )
    rng = check_random_state(random_state)
    x = np.linspace(-1, 1, n_samples)
    y = 2 * x + noise * rng.standard_normal(n_samples)
    return x[:, np.newaxis].astype(np.float32), y.astype(np.float32)


def randomize_labels(y, fraction=1.0, *, random_state=None):
    """Replace the labels of some samples by labels drawn at random.

    Exactly ``round(fraction * n_samples)`` samples, chosen at random without
    replacement, get a label drawn uniformly from the classes present in `y`. The draw
    may hit the true label: of k classes, about one draw in k does, so that fewer labels
    change than are drawn. A net that fits the outcome has memorised it [1]_.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels of any one dtype: int, str, bool, object, ...
    fraction : float, default=1.0
        Share of the samples whose label is drawn, in [0, 1].
    random_state : int, RandomState instance or None, default=None
        Decides the samples and their labels. Pass an int for the same outcome in every
        call.

    Returns
    -------
    y_random : ndarray of shape (n_samples,)
        A copy, of the dtype of `y`.

    Raises
    ------
    ValueError
        If `y` is empty or not 1-d, or `fraction` is not a number in [0, 1].

    References
    ----------
    .. [1] Zhang, Bengio, Hardt, Recht and Vinyals, "Understanding deep learning
       requires rethinking generalization", ICLR 2017.

    Examples
    --------
    >>> from skreg.datasets import randomize_labels
    >>> y = ["cat"] * 3 + ["dog"] * 3
    >>> randomize_labels(y, fraction=0.5, random_state=2).tolist()
    ['cat', 'dog', 'cat', 'cat', 'cat', 'dog']
    """
    y = np.array(y)  # a copy, whatever came in
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(
            f"y has shape {y.shape}; expected (n_samples,), with at least one sample: "
            "pass one label per sample, e.g. y.ravel()."
        )
    if not _is_number(fraction) or not 0 <= fraction <= 1:
        raise ValueError(
            f"fraction={fraction!r} is not a number in [0, 1]; pass e.g. fraction=0.1 "
            "to draw one label in ten."
        )
    rng = check_random_state(random_state)
    classes = np.unique(y)
    chosen = rng.choice(len(y), size=round(fraction * len(y)), replace=False)
    y[chosen] = classes[rng.randint(len(classes), size=len(chosen))]
    return y


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
