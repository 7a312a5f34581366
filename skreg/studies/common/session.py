"""Run several studies on one data set; keep each that is finished, and the report."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

import skreg
from skreg._utils.devices import resolve_device
from skreg.studies import load_study
from skreg.studies.common.files import load_result, save_result
from skreg.studies.common.report import Report
from skreg.studies.common.sampling import WORDS, choose_sizes

# The parameters of a study that are sizes of samples.
SIZES = {"n_train": "train", "n_valid": "valid", "n_test": "test"}


class Outcome(NamedTuple):
    """A study that has come to an end.

    ``result`` is None if the study cannot be run on this data, or has failed, and
    ``note`` says why; else ``note`` says whether the result was kept from an earlier
    run, and if not, why. ``error`` is what it has failed with.
    """

    name: str
    study: ModuleType
    result: dict | None
    kept: bool
    note: str
    error: Exception | None = None


def run_studies(
    names: Sequence[str],
    data,
    output: Path,
    *,
    data_name: str = "images",
    device: str = "auto",
    seeds: int | None = None,
    epochs: int | None = None,
    train_sizes: Sequence[int] | None = None,
    n_valid: int | None = None,
    full: bool = False,
    resume: bool = False,
    progress: Callable[[str], Callable[[Sequence], Iterable]] = lambda title: iter,
) -> Iterator[Outcome]:
    """Run studies one after the other, and write result and report after each.

    Parameters
    ----------
    names : sequence of str
        Of `skreg.studies.NAMES`.
    data : Bunch
    output : Path
        The folder to write into.
    data_name : str, default="images"
        What the report calls the data.
    device : str, default="auto"
    seeds, epochs : int, default=None
        None is what each study takes by default.
    train_sizes : sequence of int, default=None
        Numbers of training images, for studies that compare several; the others take
        the largest. None is each study's default, or less if the data set is small.
    n_valid : int, default=None
        Number of validation images.
    full : bool, default=False
        Take sizes and epochs of the course as defaults.
    resume : bool, default=False
        Keep the results in `output` that are sound and answer the same request.
    progress : callable, default=lambda title: iter
        From the title of a study to what wraps the sequence of its seeds.

    Yields
    ------
    Outcome
    """
    device = str(resolve_device(device))
    output.mkdir(parents=True, exist_ok=True)
    report, fingerprint = Report(output), fingerprint_of(data)
    asked = {"seeds": seeds, "epochs": epochs, "n_valid": n_valid}
    asked["train_sizes"] = train_sizes and [*dict.fromkeys(train_sizes)]
    for name in names:
        study = load_study(name)
        try:
            arguments, notes = choose_arguments(study, data, asked, full)
            request = arguments | {
                "study": name,
                "device": device,
                "data": fingerprint,
                "name": data_name,
                "version": skreg.__version__,
            }
            path = output / f"{name}.json"
            result, why = load_result(path, request) if resume else (None, "")
            kept = result is not None
            if not kept:
                result = study.run(
                    data,
                    **arguments,
                    device=device,
                    name=data_name,
                    progress=progress(study.TITLE),
                )
                result["settings"] |= notes
                save_result(path, result, request)
            report.add(study, result)
        except Exception as error:  # the other studies are run all the same
            note = str(error)
            if not isinstance(error, ValueError):
                note = f"it failed with {type(error).__name__}: {note}"
            report.leave_out(study, note)
            yield Outcome(name, study, None, False, note, error)
            continue
        yield Outcome(name, study, result, kept, why)


def choose_arguments(
    study: ModuleType, data, asked: Mapping[str, object], full: bool
) -> tuple[dict, dict[str, str]]:
    """Return what to pass to ``study.run``: plain data, and notes for the reader.

    What was asked for is passed as it is. Default sizes that the data set cannot
    serve are changed, and a note says so.
    """
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(study.run).parameters.items()
        if parameter.default is not parameter.empty
    }
    defaults = defaults | (study.FULL if full else {})
    arguments = {
        name: value
        for name, value in defaults.items()
        if name not in ("data", "device", "name", "progress")
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if "n_train" in arguments and "train_sizes" in given:
        given["n_train"] = max(given["train_sizes"])
    given = {name: value for name, value in given.items() if name in arguments}
    arguments |= given
    notes = _fit_sizes(arguments, given, data)
    seeds = arguments["seeds"]
    arguments["seeds"] = [*(range(seeds) if isinstance(seeds, int) else seeds)]
    return {name: _plain(value) for name, value in arguments.items()}, notes


def _fit_sizes(arguments: dict, given: Mapping, data) -> dict[str, str]:
    """Change the default sizes in `arguments` to what `data` can serve."""
    several = arguments.get("train_sizes", ())
    wanted = {"train": max(several)} if several else {}
    for name, part in SIZES.items():
        if name in arguments:
            wanted[part] = arguments[name]
    if not wanted:
        return {}
    parts = SIZES | {"train_sizes": "train"}
    asked_for = {parts[name] for name in given if name in parts}
    sizes = choose_sizes(data, wanted, fixed=asked_for)
    smallest = len(data.target_names)
    fitting = {name: sizes[part] for name, part in SIZES.items() if name in arguments}
    if several and "train" not in asked_for:
        within = [max(smallest, min(n, sizes["train"])) for n in several]
        fitting["train_sizes"] = [*dict.fromkeys(within)]
    changed = any(_as_list(arguments[k]) != _as_list(v) for k, v in fitting.items())
    arguments |= fitting
    if not changed:
        return {}
    words = ", ".join(f"{n} {WORDS[part]}" for part, n in wanted.items())
    return {
        "note": f"{words} images were wanted; the data set has {len(data.target)} "
        f"images of {len(data.target_names)} classes, and the study takes what it can "
        "serve."
    }


def fingerprint_of(data) -> str:
    """Return a hash of the images, their labels and their split."""
    digest = hashlib.sha256()
    for array in (data.data, data.target, data.get("split"), data.target_names):
        array = np.ascontiguousarray(np.asarray(array if array is not None else ""))
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _as_list(value) -> list:
    return [*value] if isinstance(value, list | tuple | range) else [value]


def _plain(value):
    return [*value] if isinstance(value, tuple | range) else value
