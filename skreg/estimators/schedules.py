"""Learning-rate schedules: they go on with the net, and say why they cannot."""

from collections.abc import Iterator

from skorch.callbacks import LRScheduler, lr_scheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from skreg.callbacks import missing_key
from skreg.training.optimizer_step import options_of

__all__ = ["begin_schedule", "explained", "is_schedule", "unknown_schedules"]


def is_schedule(callback) -> bool:
    """Return whether a callback is a schedule of skorch's that begins as skorch's do.

    A subclass may begin in another way.
    """
    return (
        isinstance(callback, LRScheduler)
        and type(callback).on_train_begin is LRScheduler.on_train_begin
        and "on_train_begin" not in vars(callback)
    )


def begin_schedule(callback: LRScheduler, net) -> None:
    """Make the schedule of a fit, or go on with that of the net's last call.

    torch's schedules take a step when they are made, even of an optimizer that has
    taken that step already: k calls of ``partial_fit`` would not be one fit.

    Parameters
    ----------
    callback : LRScheduler
        Initialised.
    net : RegularizedNet
    """
    old, optimizer = callback.lr_scheduler_, net.optimizer_
    if old is None or old.optimizer is not optimizer:
        try:
            callback.lr_scheduler_ = _made(callback, net, old)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"callbacks: LRScheduler cannot make a {callback.policy_.__name__}: "
                f"{error}. LRScheduler takes the arguments of the schedule, e.g. "
                "LRScheduler(OneCycleLR, max_lr=0.1, total_steps=100), with "
                "total_steps=max_epochs, or with step_every='batch' max_epochs times "
                "the number of batches in an epoch."
            ) from error
    total = getattr(callback.lr_scheduler_, "total_steps", None)
    if total is None or callback.step_every != "epoch":
        return
    if callback.lr_scheduler_.last_epoch + net.max_epochs > total:
        raise ValueError(_past_its_end(callback, net))


def _made(callback, net, old):
    """Return a schedule for the net's optimizer, at the place where `old` is.

    Without `old`, it is where the history says, if one has been followed before.
    """
    optimizer, kwargs = net.optimizer_, callback.kwargs
    began = old is not None or (bool(net.history) and _is_scheduled(optimizer))
    if not began:
        return callback.policy_(optimizer, **kwargs)
    options = [options_of(group) for group in optimizer.param_groups]
    if old is None:
        callback.batch_idx_ = sum(e["train_batch_count"] for e in net.history)
        if callback.policy_ is not ReduceLROnPlateau:
            by_batch = callback.step_every == "batch"
            n_steps = callback.batch_idx_ if by_batch else len(net.history)
            kwargs.setdefault("last_epoch", n_steps - 1)
    schedule = callback.policy_(optimizer, **kwargs)
    if old is not None:  # of an optimizer that this one is a copy of
        schedule.load_state_dict(old.state_dict())
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]  # it reports
    return schedule


def _is_scheduled(optimizer: Optimizer) -> bool:
    return all("initial_lr" in group for group in optimizer.param_groups)


def explained(callback, net, error: Exception) -> Exception:
    """Return an error that says what to do, if it is one of a schedule; or `error`."""
    if not isinstance(callback, LRScheduler) or callback.lr_scheduler_ is None:
        return error
    schedule = callback.lr_scheduler_
    if isinstance(schedule, ReduceLROnPlateau) and isinstance(
        error.__cause__, KeyError
    ):
        epoch = net.history[-1]
        place = epoch if callback.step_every == "epoch" else epoch["batches"][-1]
        return ValueError(
            missing_key("LRScheduler(ReduceLROnPlateau)", callback.monitor, place)
        )
    total = getattr(schedule, "total_steps", None)
    if total is not None and schedule.last_epoch >= total:
        return ValueError(_past_its_end(callback, net))
    return error


def _past_its_end(callback, net) -> str:
    schedule = callback.lr_scheduler_
    if callback.step_every == "epoch":
        unit, n = "epochs", schedule.last_epoch + net.max_epochs
        remedy = (
            f"set total_steps={n}, the number of epochs of all calls, or train for "
            "fewer epochs"
        )
    else:
        unit, epoch = "batches", net.history[0]
        n = epoch.get("train_batch_count", len(epoch["batches"]))
        remedy = (
            "set total_steps to the number of epochs of all calls "
            f"(max_epochs={net.max_epochs} in this one) times that of batches in an "
            f"epoch ({n} or more)"
        )
    return (
        f"callbacks: {type(schedule).__name__} ends after total_steps="
        f"{schedule.total_steps} {unit}, but training goes on; {remedy}."
    )


def unknown_schedules(net) -> Iterator[str]:
    """Yield a message for each schedule whose name skorch does not know."""
    if net.callbacks == "disable":
        return
    for item in net.callbacks or ():
        callback = item[1] if isinstance(item, list | tuple) else item
        policy = callback.policy if isinstance(callback, LRScheduler) else None
        if isinstance(policy, str) and not hasattr(lr_scheduler, policy):
            yield (
                f"callbacks: LRScheduler(policy={policy!r}) is no schedule that skorch "
                "knows by name; pass the class, e.g. torch.optim.lr_scheduler.StepLR."
            )
