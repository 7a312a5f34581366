"""Every technique to regularise a net, for the studies that compare them all."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from scipy.stats import loguniform, uniform
from torch import nn

from skreg.modules import MLP
from skreg.studies.common.fitting import Case, image_net
from skreg.studies.common.sampling import Sample
from skreg.transforms import RandomRotation


class OnBlack(nn.Sequential):
    """Fill what moves into sight with black, which is -1 here, not with zeros."""

    def forward(self, x):
        return super().forward(x + 1) - 1


class Switched(NamedTuple):
    """What a random search draws from: off, or a strength.

    Parameters
    ----------
    strengths : sequence or distribution of scipy.stats
    off : object
        The value that turns the technique off.
    share_on : float, default=1/3
        Of so many techniques, a third is a cocktail; a half is mostly too strong.
    """

    strengths: Any
    off: Any
    share_on: float = 1 / 3

    def rvs(self, random_state):
        """Draw a value, as `ParameterSampler` asks for it."""
        if random_state.uniform() >= self.share_on:
            return self.off
        if isinstance(self.strengths, Sequence):
            return self.strengths[random_state.randint(len(self.strengths))]
        return self.strengths.rvs(random_state=random_state)


class Technique(NamedTuple):
    """One way to regularise a net.

    Parameters
    ----------
    family : str
        The techniques of a family are drawn in one figure.
    parameters : dict
        Of the estimator: a strength that is usual, not tuned, for images in [-1, 1] and
        a hundred of them.
    drawn : dict
        Name of a parameter to what a search over cocktails draws it from.
    text : str
        For the settings in the report.
    """

    family: str
    parameters: dict[str, Any]
    drawn: dict[str, Any]
    text: str


FACTOR, NONE = "regulariser", "none"
WEIGHTS, DATA, TRAINING = "weights", "data", "training"
TECHNIQUES = {
    "L1": Technique(
        WEIGHTS,
        {"lambda1": 1e-3},
        {"lambda1": Switched(loguniform(1e-5, 3e-3), 0.0)},
        "lambda1 = 1e-3",
    ),
    "proximal L1": Technique(
        WEIGHTS,
        {"lambda1": 1e-3, "proximal": True},
        {"proximal": [False, True]},
        "lambda1 = 1e-3",
    ),
    "L2": Technique(
        WEIGHTS,
        {"lambda2": 1e-2},
        {"lambda2": Switched(loguniform(1e-4, 3e-2), 0.0)},
        "lambda2 = 1e-2",
    ),
    "group lasso": Technique(
        WEIGHTS,
        {"lambda_group": 1e-3},
        {"lambda_group": Switched(loguniform(1e-4, 1e-2), 0.0)},
        "lambda_group = 1e-3 for the inputs",
    ),
    "max-norm": Technique(
        WEIGHTS,
        {"max_norm": 1.0},
        {"max_norm": Switched(uniform(0.6, 1.4), None)},
        "c = 1",
    ),
    "augmentation": Technique(
        DATA,
        {"augment": OnBlack(RandomRotation(10))},
        {"augment": Switched([OnBlack(RandomRotation(d)) for d in (5, 10, 15)], None)},
        "rotations up to 10 degrees",
    ),
    "label smoothing": Technique(
        DATA,
        {"label_smoothing": 0.1},
        {"label_smoothing": Switched(uniform(0.05, 0.15), 0.0)},
        "s = 0.1",
    ),
    "mixup": Technique(
        DATA,
        {"mixup": 0.2},
        {"mixup": Switched(loguniform(0.1, 1), 0.0)},
        "alpha = 0.2",
    ),
    "CutMix": Technique(
        DATA,
        {"cutmix": 1.0},
        {"cutmix": Switched(loguniform(0.1, 1), 0.0)},
        "alpha = 1",
    ),
    "input dropout": Technique(
        DATA,
        {"input_dropout": 0.1},
        {"input_dropout": Switched(uniform(0.05, 0.25), 0.0)},
        "p = 0.1",
    ),
    "adversarial": Technique(
        DATA,
        {"adversarial_eps": 0.1},
        {"adversarial_eps": Switched(uniform(0.02, 0.18), 0.0)},
        "FGSM of size 0.1, for images in [-1, 1]",
    ),
    "dropout": Technique(
        TRAINING,
        {"dropout": 0.5},
        {"dropout": Switched(uniform(0.1, 0.5), 0.0)},
        "p = 0.5",
    ),
    "early stopping": Technique(
        TRAINING,
        {"early_stopping": True, "patience": 20, "monitor": "valid_acc"},
        {"early_stopping": Switched([True], False)},
        "patience 20, by validation accuracy",
    ),
    "SAM": Technique(
        TRAINING,
        {"sam_rho": 0.05},
        {"sam_rho": Switched(loguniform(0.01, 0.2), 0.0)},
        "rho = 0.05",
    ),
    "averaged weights": Technique(
        TRAINING,
        {"average": "swa"},
        {"average": Switched(["swa"], None)},
        "mean over the last quarter of the epochs",
    ),
    "gradient clipping": Technique(
        TRAINING,
        {"max_grad_norm": 0.1},
        {"max_grad_norm": Switched(loguniform(0.03, 1), None)},
        "c = 0.1",
    ),
    "schedule": Technique(
        TRAINING,
        {"lr_schedule": "cosine"},
        {"lr_schedule": Switched(["cosine", "linear", "one_cycle"], None)},
        "cosine",
    ),
}
FAMILIES = (WEIGHTS, DATA, TRAINING)
# Those of the course.
COURSE = ("L1", "L2", "dropout", "augmentation", "early stopping", "adversarial")
LAYERS = (128, 32)


def describe_techniques(names: Collection[str] = tuple(TECHNIQUES)) -> dict[str, str]:
    """Return what the settings of a study say about net and strengths."""
    texts = [f"{name} ({TECHNIQUES[name].text})" for name in names]
    return {
        "net": "MLP with hidden layers of 128 and 32, as AnimalNet",
        "regularisers": ", ".join(texts),
    }


def all_together(share: float = 1.0) -> dict[str, Any]:
    """Return the parameters of a net that all techniques are applied to.

    Parameters
    ----------
    share : float, default=1
        Of the strength that each has alone; bounds are divided by it. What has no
        strength, such as early stopping, is as it is.
    """
    found = {k: v for one in TECHNIQUES.values() for k, v in one.parameters.items()}
    return {name: _scaled(name, value, share) for name, value in found.items()}


def _scaled(name: str, value, share: float):
    if isinstance(value, OnBlack):
        return OnBlack(RandomRotation(share * value[0].degrees))
    if not isinstance(value, float):
        return value
    return value / share if name in ("max_norm", "max_grad_norm") else share * value


def search_space() -> dict[str, Any]:
    """Return what a random search over cocktails draws from."""
    return {k: v for one in TECHNIQUES.values() for k, v in one.drawn.items()}


def ingredients(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the techniques that are on in a drawn cocktail, each with its strength.

    Parameters
    ----------
    parameters : mapping of str to object
        As drawn from `search_space`; what is missing is off.

    Returns
    -------
    dict
        Plain data.
    """
    found = {}
    for name, technique in TECHNIQUES.items():
        for parameter, drawn in technique.drawn.items():
            if not isinstance(drawn, Switched):
                continue
            value = parameters.get(parameter, drawn.off)
            if value != drawn.off:
                found[name] = _plain(value)
    # The proximal step is a way to apply L1, and nothing without.
    if "L1" in found and parameters["proximal"]:
        found["proximal L1"] = found.pop("L1")
    return found


def _plain(value):
    if isinstance(value, OnBlack):
        return f"up to {value[0].degrees:g} degrees"
    return value if isinstance(value, bool | str) else float(value)


def regularised_cases(
    data,
    sample: Callable[[int], Sample],
    *,
    lr: float,
    epochs: int,
    device: str,
    names: Collection[str] = tuple(TECHNIQUES),
) -> list[Case]:
    """Return a case without and one with each technique; the nets have the same layers.

    Parameters
    ----------
    data : Bunch
    sample : callable
        As in `Case`.
    lr : float
        Of Adam.
    epochs : int
    device : str
    names : collection of str
        Of `TECHNIQUES`; all of them by default.

    Returns
    -------
    list of Case
    """
    net = partial(image_net, MLP, data, lr=lr, epochs=epochs, device=device)
    chosen = {NONE: {}} | {name: TECHNIQUES[name].parameters for name in names}
    return [
        Case({FACTOR: name}, net(hidden_layer_sizes=LAYERS, **parameters), sample)
        for name, parameters in chosen.items()
    ]


def without_early_stopping(runs: Sequence[dict]) -> list[dict]:
    """Return the runs that go on to the last epoch.

    A mean over those that have not stopped yet would say something about them alone.
    """
    return [run for run in runs if "best_epoch" not in run]
