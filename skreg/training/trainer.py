"""Who runs the epochs of a fit: the net itself, unless somebody else is set to."""

from contextvars import ContextVar

__all__ = ["train", "trainer"]

# A function of (net, X, y, fit_params) that does what ``net.fit_loop(X, y,
# **fit_params)`` would do. It is set for the threads whose fits are trained together.
trainer = ContextVar("trainer", default=None)


def train(net, X, y, fit_params: dict) -> None:
    """Run the epochs of a fit.

    Parameters
    ----------
    net : RegularizedNet
        Initialised, with its session open and ``on_train_begin`` notified.
    X, y : the data of the fit, validated and encoded
    fit_params : dict

    Raises
    ------
    StopTraining
        If a callback ended training.
    """
    train_together = trainer.get()
    if train_together is None:
        net.fit_loop(X, y, **fit_params)
    else:
        train_together(net, X, y, fit_params)
