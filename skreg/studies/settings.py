"""What the report says about how a study was run."""

from collections.abc import Mapping

from skreg.estimators._parameters import resolve_device


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
