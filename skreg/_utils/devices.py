"""Devices: what the parameter `device` means on this machine."""

import torch

__all__ = ["resolve_device"]


def resolve_device(device) -> torch.device:
    """Return the device meant by the parameter ``device``, which must be usable.

    Raises
    ------
    ValueError
        If it is not a device, or this machine has none of its kind.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} cannot be used on this machine ({reason}); use 'auto', "
            "'cpu', or 'cuda' where torch.cuda.is_available()."
        ) from error
    return resolved
