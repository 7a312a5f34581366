"""What the report says about how a study was run."""

from collections.abc import Mapping, Sequence

from skreg._utils.devices import resolve_device


def describe(data, name: str, device: str, own: Mapping[str, object]) -> dict:
    """Return the settings of a study as plain data.

    Parameters
    ----------
    data : Bunch
    name : str
        What the report calls the data.
    device : str
    own : mapping of str to plain data
        What the study adds.

    Returns
    -------
    dict
    """
    return {
        "data": name,
        "images": len(data.target),
        "shape of an image": list(data.data.shape[1:]),
        "classes": [str(name) for name in data.target_names],
        **own,
        "device": str(resolve_device(device)),
    }


def counts(
    seeds: Sequence[int],
    epochs: int,
    n_train: int | Sequence[int],
    n_valid: int | None = None,
    n_test: int | None = None,
) -> dict:
    """Return the part of `own` that all studies of images have; None is left out."""
    images = {"training": n_train, "validation": n_valid, "test": n_test}
    sizes = {f"{part} images": n for part, n in images.items() if n is not None}
    return {**sizes, "seeds": list(seeds), "epochs": epochs}


def optimizer_text(lr: float, momentum: float | None, batch_size: int = -1) -> str:
    """Return what a report says about how the nets of a study are trained."""
    kind = "Adam" if momentum is None else f"SGD with momentum {momentum:g}"
    batch = "all images at once" if batch_size == -1 else f"batches of {batch_size}"
    return f"{kind}, {lr=:g}, on {batch}"
