"""One net with each kind of regularisation, for the studies that compare them all."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from skreg.modules import MLP
from skreg.studies.common.fitting import Case, image_net
from skreg.studies.common.sampling import Sample
from skreg.transforms import RandomRotation


class OnBlack(nn.Sequential):
    """Fill what moves into sight with black, which is -1 here, not with zeros."""

    def forward(self, x):
        return super().forward(x + 1) - 1


FACTOR, NONE = "regulariser", "none"
# Strengths that are usual for images in [-1, 1] and a hundred of them; not tuned.
REGULARISERS = {
    NONE: {},
    "L1": {"lambda1": 1e-3},
    "L2": {"lambda2": 1e-2},
    "dropout": {"dropout": 0.5},
    "augmentation": {"augment": OnBlack(RandomRotation(10))},
    "early stopping": {
        "early_stopping": True,
        "patience": 20,
        "monitor": "valid_acc",
    },
    "adversarial": {"adversarial_eps": 0.1},
}
DESCRIPTION = {
    "net": "MLP with hidden layers of 128 and 32, as AnimalNet",
    "regularisers": "L1 with lambda1 = 1e-3; L2 with lambda2 = 1e-2; dropout with "
    "p = 0.5; augmentation by rotations up to 10 degrees; early stopping with patience "
    "20; adversarial training with FGSM of size 0.1, for images in [-1, 1]",
}


def regularised_cases(
    data, sample: Callable[[int], Sample], *, lr: float, epochs: int, device: str
) -> list[Case]:
    """Return a case for each of `REGULARISERS`; the nets have the same layers.

    Parameters
    ----------
    data : Bunch
    sample : callable
        As in `Case`.
    lr : float
        Of Adam.
    epochs : int
    device : str

    Returns
    -------
    list of Case
    """
    net = partial(image_net, MLP, data, lr=lr, epochs=epochs, device=device)
    return [
        Case({FACTOR: name}, net(hidden_layer_sizes=(128, 32), **parameters), sample)
        for name, parameters in REGULARISERS.items()
    ]


def without_early_stopping(runs: Sequence[dict]) -> list[dict]:
    """Return the runs that go on to the last epoch.

    A mean over those that have not stopped yet would say something about them alone.
    """
    return [run for run in runs if "best_epoch" not in run]
