"""scikit-learn's callbacks (from 1.9): a fit is a task, its epochs are subtasks."""

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:
        """Stands in for the mixin that older versions lack."""

    def with_callbacks(method):
        """Return `method`: there are no callbacks to manage."""
        return method


__all__ = ["CallbackSupportMixin", "FitTasks", "with_callbacks"]


class FitTasks:
    """Tells the callbacks of a net when its fit, and each epoch, begins and ends.

    Parameters
    ----------
    net : estimator
    X, y : the data of the fit, as validated
    """

    def __init__(self, net, X, y):
        self.data = {"X": X, "y": y}
        self.fit = net._init_callback_context(max_subtasks=net.max_epochs)
        self.fit.call_on_fit_task_begin(estimator=net, **self.data)

    def begin_epoch(self, net) -> None:
        self.epoch = self.fit.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(estimator=net, **self.data)

    def end_epoch(self, net) -> bool:
        """Return whether a callback asks for the end of training."""
        return self._end(self.epoch, net)

    def end(self, net) -> None:
        self._end(self.fit, net)

    def _end(self, task, net) -> bool:
        # A copy of the net as it is now can predict: it needs no further attribute.
        return task.call_on_fit_task_end(
            estimator=net, reconstruction_attributes=dict, **self.data
        )
