"""From the fits of a study to tables and sentences that claim no more than they show.

Nets are compared seed by seed, on the same images and initial weights. A difference
counts if a t test of the paired differences says so at the 5 % level, after Holm's
correction for the number of comparisons in the sentence.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from skreg.displays.common import mean_and_error

ALPHA = 0.05


class Quantity:
    """How a column of a table is written: unit, scale and digits.

    Examples
    --------
    >>> from skreg.studies.common.tables import Quantity
    >>> Quantity.of("final validation accuracy").text(0.1234)
    '12.3 %'
    """

    def __init__(self, unit="", difference="", scale=1.0, digits=2):
        self.unit, self.difference = unit, difference
        self.scale, self.digits = scale, digits

    @classmethod
    def of(cls, column: str) -> "Quantity":
        """Return the quantity of a column, by the words in its name."""
        if any(word in column for word in ("accuracy", "optimism", "share")):
            return cls(" %", " points", 100.0, 1)
        if "epoch" in column or "inputs" in column:
            return cls("", "", 1.0, 1)
        if "weights" in column:
            return cls("", "", 1.0, 0)
        return cls()

    def number(self, value: float, sign: str = "") -> str:
        """Return a number, without its unit; never -0.0."""
        rounded = round(self.scale * value, self.digits) + 0.0
        return f"{rounded:{sign}.{self.digits}f}"

    def text(self, value: float) -> str:
        """Return a number with its unit."""
        return self.number(value) + self.unit


percent = Quantity.of("accuracy")


def summarize(
    runs: Sequence[dict], columns: Mapping[str, Callable[[dict], float | None]]
) -> pd.DataFrame:
    """Return a row a fit.

    Parameters
    ----------
    runs : list of dict
        As from `skreg.studies.common.fitting.fit_all`; in truth any with ``labels`` and
        ``seed``.
    columns : mapping of str to callable
        Name of a column to what makes its value of a run.

    Returns
    -------
    DataFrame
        Columns: those of ``labels``, ``seed``, and `columns` as floats.
    """
    rows = [
        run["labels"]
        | {"seed": run["seed"]}
        | {name: _as_float(column(run)) for name, column in columns.items()}
        for run in runs
    ]
    return pd.DataFrame(rows)


def summarize_ends(result: dict) -> pd.DataFrame:
    """Return a row a fit: accuracies and norm, of test images if there are any."""
    columns = {
        "final training accuracy": final("train_acc"),
        "best validation accuracy": best("valid_acc"),
        "final validation accuracy": final("valid_acc"),
        "test accuracy": lambda run: run["test_acc"],
        "final norm": final("param_norm"),
    }
    if "test_acc" not in result["runs"][0]:
        del columns["test accuracy"]
    return summarize(result["runs"], columns)


def mean_table(summaries: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return mean and standard error over seeds, a row a case."""
    groups = summaries.drop(columns="seed").groupby([*by], sort=False)
    return groups.agg(["mean", "sem"])


def compare(
    summaries: pd.DataFrame,
    column: str,
    factor: str,
    reference: str,
    quantity: Quantity | None = None,
) -> str:
    """Say how `column` of each case differs from that of the reference.

    Parameters
    ----------
    summaries : DataFrame
        As from `summarize`, of one row a seed and value of `factor`.
    column : str
    factor : str
        The column that names the cases.
    reference : str
        The case that the others are compared to.
    quantity : Quantity, default=None
        None is that of the column's name.

    Returns
    -------
    str
        For example "L1 +2.0 ± 0.5 points (higher); L2 +0.1 ± 0.4 points (no clear
        effect)".
    """
    differences = differences_to(summaries, column, factor, reference)
    return describe_differences(differences, quantity or Quantity.of(column))


def describe_differences(
    differences: Mapping[str, Sequence[float]], quantity: Quantity
) -> str:
    """Write paired differences, each with its standard error and verdict."""
    kept = {
        name: np.array([d for d in values if np.isfinite(d)])
        for name, values in differences.items()
    }
    verdicts = judge(kept)
    return "; ".join(
        _describe(name, values, verdicts[name], quantity)
        for name, values in kept.items()
    )


def describe_by_verdict(
    differences: Mapping[str, Sequence[float]], quantity: Quantity
) -> str:
    """Write many paired differences with standard errors, sorted by their verdicts.

    For example "higher: L1 +2.0 ± 0.5; no clear effect: L2 +0.1 ± 0.4, max-norm -0.3 ±
    0.6 (points)".
    """
    kept = {
        name: np.array([d for d in values if np.isfinite(d)])
        for name, values in differences.items()
    }
    groups = {"higher": [], "lower": [], "no clear effect": []}
    groups |= {"one seed, no error bar": [], "no fit came to an end": []}
    verdicts = judge(kept)
    for name, values in kept.items():
        if not len(values):
            groups["no fit came to an end"].append(name)
            continue
        text = f"{name} {quantity.number(values.mean(), '+')}"
        if len(values) < 2:
            groups["one seed, no error bar"].append(text)
        else:
            groups[verdicts[name]].append(f"{text} ± {quantity.number(_sem(values))}")
    texts = [f"{name}: {', '.join(group)}" for name, group in groups.items() if group]
    unit = quantity.difference.strip()
    return "; ".join(texts) + (f" ({unit})" if unit else "")


def differences_to(
    summaries: pd.DataFrame, column: str, factor: str, reference: str
) -> dict[str, np.ndarray]:
    """Return `column` of each other case minus that of the reference, seed by seed."""
    wide = summaries.pivot(index="seed", columns=factor, values=column)
    order = summaries[factor].drop_duplicates()
    names = [name for name in order if name != reference]
    return {name: (wide[name] - wide[reference]).to_numpy() for name in names}


def judge(differences: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return for each array of differences "higher", "lower" or "no clear effect".

    Two-sided t tests against zero; Holm's step-down correction (1979).
    """
    p_values = {name: _p_value(values) for name, values in differences.items()}
    verdicts = dict.fromkeys(differences, "no clear effect")
    ordered = sorted(p_values, key=p_values.get)
    for rank, name in enumerate(ordered):
        if not p_values[name] < ALPHA / (len(ordered) - rank):
            break
        verdicts[name] = "higher" if differences[name].mean() > 0 else "lower"
    return verdicts


def interval(values: Sequence[float], n_comparisons: int = 1) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by Student's t.

    Parameters
    ----------
    values : sequence of float
        NaN is left out.
    n_comparisons : int, default=1
        Of so many intervals, all hold their means at once, with 95 % (Bonferroni).

    Returns
    -------
    low, high : float
        NaN if there are fewer than two values.
    """
    kept = np.array([v for v in values if np.isfinite(v)])
    if len(kept) < 2:
        return np.nan, np.nan
    reach = student.ppf(1 - ALPHA / n_comparisons / 2, len(kept) - 1) * _sem(kept)
    return float(kept.mean() - reach), float(kept.mean() + reach)


def answer(differences: Sequence[float], margin: float, n_comparisons: int = 1) -> str:
    """Return "higher", "lower", "alike" or "unclear".

    It is "alike" only if the whole interval is nearer to zero than `margin`: that
    nothing was found is not that there is nothing. Of two seeds or more that are all
    the same, the interval is a point.
    """
    low, high = interval(differences, n_comparisons)
    if low > 0:
        return "higher"
    if high < 0:
        return "lower"
    return "alike" if -margin < low and high < margin else "unclear"


def with_interval(values: Sequence[float], quantity: Quantity) -> str:
    """Write the mean of differences with its 95 % interval."""
    kept = np.array([v for v in values if np.isfinite(v)])
    if not len(kept):
        return "no fit came to an end"
    text = f"{quantity.number(kept.mean(), '+')}{quantity.difference}"
    if len(kept) < 2:
        return f"{text} (one seed, no interval)"
    low, high = (quantity.number(end, "+") for end in interval(kept))
    return f"{text} (95 % interval {low} to {high})"


def within_one_error(scores: np.ndarray) -> int:
    """Return the last column whose mean is within one standard error of the best.

    The rule of Breiman et al. (1984): of models that are about as good as the best, the
    simplest, if strengths grow from left to right.

    Parameters
    ----------
    scores : ndarray of shape (n_seeds, n_strengths)
        NaN is left out.
    """
    mean, error = mean_and_error(scores)
    top = int(np.nanargmax(mean))
    return int(np.flatnonzero(mean >= mean[top] - np.nan_to_num(error[top]))[-1])


def curves_frame(result: dict) -> pd.DataFrame:
    """Return every curve of every fit, a row per epoch."""
    frames = []
    for run in result["runs"]:
        frame = pd.DataFrame(run["curves"], dtype=float)
        frame.insert(0, "epoch", range(1, len(frame) + 1))
        frame.insert(0, "seed", run["seed"])
        for place, (label, value) in enumerate(run["labels"].items()):
            frame.insert(place, label, value)
        # What is missing in all of them comes after the end of the fit.
        frames.append(frame.dropna(how="all", subset=[*run["curves"]]))
    return pd.concat(frames, ignore_index=True)


def stack(runs: Sequence[dict], key: str, factor: str) -> dict[str, np.ndarray]:
    """Return a curve of shape (n_seeds, n_epochs) for each value of `factor`."""
    return {
        name: np.array([run["curves"][key] for run in group], dtype=float)
        for name, group in by_factor(runs, factor).items()
    }


def by_factor(runs: Sequence[dict], factor: str) -> dict[str, list[dict]]:
    """Return the runs of each value of `factor`."""
    groups = {}
    for run in runs:
        groups.setdefault(run["labels"][factor], []).append(run)
    return groups


def final(key: str) -> Callable[[dict], float | None]:
    """Return what gives the last value of a curve; None for a fit that diverged."""

    def last(run):
        values = [value for value in run["curves"][key] if value is not None]
        return None if run["diverged"] or not values else values[-1]

    return last


def best(key: str, extreme: Callable = max) -> Callable[[dict], float | None]:
    """Return what gives the largest value of a curve, or with ``min`` the smallest."""
    return lambda run: extreme(
        (value for value in run["curves"][key] if value is not None), default=None
    )


def divergences(runs: Sequence[dict]) -> list[str]:
    """Say how many fits ended in numbers that are not finite, if any did."""
    diverged = [run for run in runs if run["diverged"]]
    if not diverged:
        return []
    labels = [", ".join(map(str, run["labels"].values())) for run in diverged]
    return [
        f"{len(diverged)} of {len(runs)} fits diverged and are left out of final "
        f"values: {'; '.join(dict.fromkeys(labels))}."
    ]


def chosen(runs: Sequence[dict], **labels) -> list[dict]:
    """Return the runs with these labels; an underscore stands for a space."""
    wanted = {name.replace("_", " "): value for name, value in labels.items()}
    return [run for run in runs if wanted.items() <= run["labels"].items()]


def _describe(name, values: np.ndarray, verdict: str, quantity: Quantity) -> str:
    if not len(values):
        return f"{name}: no fit came to an end"
    text = f"{name} {quantity.number(values.mean(), '+')}"
    if len(values) < 2:
        return f"{text}{quantity.difference} (one seed, no error bar)"
    error = quantity.number(_sem(values))
    return f"{text} ± {error}{quantity.difference} ({verdict})"


def _p_value(values: np.ndarray) -> float:
    # Equal differences have no deviation to test against; zero is no effect.
    if len(values) < 2 or not _sem(values) > 1e-12 * np.abs(values).max():
        return 1.0
    return float(ttest_1samp(values, 0).pvalue)


def _sem(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _as_float(value: float | None) -> float:
    return np.nan if value is None else float(value)
