"""Who runs the epochs of a fit: the net itself, unless somebody else is set to."""

from contextvars import ContextVar

__all__ = ["train", "trainer"]

# A function of (fit, X, y) that does what ``fit.net.fit_loop`` would do. It is set for
# the threads whose fits are trained together.
trainer = ContextVar("trainer", default=None)


def train(fit, X, y) -> None:
    """Run the epochs of a fit.

    Parameters
    ----------
    fit : FitState
        Its net is initialised, and ``on_train_begin`` notified.
    X, y : the data of the fit, validated and encoded

    Raises
    ------
    StopTraining
        If a callback ended training.
    """
    train_together = trainer.get()
    if train_together is None:
        fit.net.fit_loop(X, y, **fit.fit_params)
    else:
        train_together(fit, X, y)
