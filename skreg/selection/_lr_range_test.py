"""The learning-rate range test: the loss while the learning rate grows."""

from math import isfinite
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from sklearn.base import clone
from skorch.callbacks import Callback

from skreg.callbacks import StopTraining

if TYPE_CHECKING:
    from skreg.estimators import RegularizedNet

SMOOTHING = 0.1  # weight of the newest loss in the moving average
BLOWN_UP = 3.0  # times the smallest loss: nothing is to be learnt beyond
FALL = 0.01  # of the first loss: less is noise


class RangeTest(NamedTuple):
    """What a range test has recorded.

    ``rates`` and ``losses``, smoothed, hold one number a step; ``suggestion`` is the
    learning rate that it recommends, None if the loss never fell.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float | None


def lr_range_test(net, X, y, *, low=1e-5, high=1.0, n_steps=100) -> RangeTest:
    """Train for a while with a learning rate that grows from step to step.

    Where it is too small the loss hardly moves, where it is right it falls, where it is
    too large it rises [1]_. Where the smoothed loss is smallest the rate is about to be
    too large; the suggestion is a tenth of that, as is usual.

    Parameters
    ----------
    net : RegularizedNetClassifier
        Not changed: a clone is trained.
    X, y : ndarray
        Training images and labels.
    low, high : float, default=1e-5 and 1.0
        The first and the last learning rate.
    n_steps : int, default=100
        Steps from one to the other, or until the loss has blown up.

    Returns
    -------
    RangeTest

    References
    ----------
    .. [1] Smith, "Cyclical learning rates for training neural networks", WACV (2017).
    """
    recorder = _Recorder(np.geomspace(low, high, n_steps))
    # More epochs than it takes: the recorder ends training.
    trained = cast("RegularizedNet", clone(net)).set_params(
        lr=low, max_epochs=n_steps, callbacks=[recorder], train_split=None
    )
    trained.fit(X, y)
    rates = [float(rate) for rate in recorder.rates[: len(recorder.losses)]]
    return RangeTest(rates, recorder.losses, suggest(rates, recorder.losses))


def suggest(rates, losses) -> float | None:
    """Return a tenth of the rate of the smallest loss; None if it does not fall."""
    smallest = int(np.nanargmin(losses))
    if losses[smallest] > (1 - FALL) * losses[0]:
        return None
    return float(rates[smallest]) / 10


class _Recorder(Callback):
    """Set the rate of every step, and keep a moving average of the losses."""

    def __init__(self, rates):
        self.rates = rates

    def on_train_begin(self, net, **kwargs):
        self.losses, self.average = [], 0.0

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and len(self.losses) < len(self.rates):
            for group in net.optimizer_.param_groups:
                group["lr"] = float(self.rates[len(self.losses)])

    def on_batch_end(self, net, training=False, **kwargs):
        loss = net.history[-1, "batches", -1, "train_loss"]
        if not isfinite(loss):
            raise StopTraining
        self.average = (1 - SMOOTHING) * self.average + SMOOTHING * loss
        # The average begins at zero; this takes out what that does to it.
        correction = 1 - (1 - SMOOTHING) ** (len(self.losses) + 1)
        self.losses.append(self.average / correction)
        over = self.losses[-1] > BLOWN_UP * min(self.losses)
        if over or len(self.losses) == len(self.rates):
            raise StopTraining
