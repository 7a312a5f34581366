"""One fit that waits to be trained, and the surroundings it was started in."""

from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from sklearn import config_context, get_config

from skreg.batching._warnings import WarningState
from skreg.training.trainer import trainer

__all__ = ["Job"]


@dataclass(eq=False)
class Job:
    """A net whose epochs are to be run, by whoever takes the job.

    Parameters
    ----------
    fit : FitState
        Its net is initialised, and ``on_train_begin`` notified.
    X, y : the data of the fit, validated and encoded
    error : BaseException, default=None
        Set by whoever trains the net, if its training fails or is stopped by a callback
        (``StopTraining``); raised in the thread of the fit.
    """

    fit: Any
    X: Any
    y: Any
    error: BaseException | None = None
    # Told once the net is trained; set by the broker.
    on_finish: Callable[[], None] | None = field(default=None, repr=False)
    # Memory of its data by address, see `buffers_of`; set by the broker.
    buffers: dict[int, int] = field(default_factory=dict, repr=False)
    # Its share of the time that training has taken.
    seconds: float = 0.0
    # Where it is kept on disk while it runs; None without a checkpoint.
    place: Any = field(default=None, repr=False)
    _context: Context = field(default_factory=copy_context, repr=False)
    _config: dict = field(default_factory=get_config, repr=False)
    _warnings: WarningState = field(default_factory=WarningState.current, repr=False)

    @property
    def net(self):
        return self.fit.net

    def run(self, function: Callable, *args, **kwargs):
        """Call a function as it would run in the thread in which the fit was started.

        It sees the context variables, the filters of warnings and the configuration of
        scikit-learn as they are there; fits that it starts train on their own.
        """
        return self._context.copy().run(self._call, function, args, kwargs)

    def _call(self, function, args, kwargs):
        trainer.set(None)
        outside = WarningState.current()
        self._warnings.install()
        try:
            with config_context(**self._config):
                return function(*args, **kwargs)
        finally:
            outside.install()

    def train_alone(self, reason: str) -> None:
        """Train the net as it trains outside of a batch; keep an exception as `error`.

        ``KeyboardInterrupt`` is let through: it is not about this fit.

        Parameters
        ----------
        reason : str
            Why the net is not in a stack, for ``training_path_reasons_``.
        """
        self.fit.against_stack = reason
        start = perf_counter()
        try:
            self.run(self.net.fit_loop, self.X, self.y, **self.fit.fit_params)
        except Exception as error:
            self.error = error
        self.seconds = perf_counter() - start
        self.finish()

    def finish(self) -> None:
        """Let the fit go on in its thread, before the rest of the batch is trained.

        Its net can then be scored, kept on disk and forgotten. To call it is a choice:
        the jobs that are left go on when the training of the batch returns.
        """
        if self.on_finish is not None:
            self.on_finish()
