"""Write what studies found: report.html, figures, tables of curves, results."""

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jinja2
import pandas as pd

import skreg

LIBRARIES = ("torch", "skorch", "scikit-learn", "numpy")


class Section(NamedTuple):
    """One study's part of the report."""

    title: str
    question: str
    settings: Mapping[str, object]
    findings: list[str]
    table: str
    figures: list["FigureOnPage"]
    csv: str


class FigureOnPage(NamedTuple):
    """A picture inside the page."""

    name: str
    base64: str
    caption: str


def write_report(studies: Mapping[ModuleType, dict], output: Path) -> Path:
    """Write the results of `studies` into the folder `output`.

    Every file is written under another name and then renamed, the report last: there
    is never half a file, nor a report without its figures.

    Parameters
    ----------
    studies : mapping of study module to its result
    output : Path
        Made if it does not exist.

    Returns
    -------
    Path
        The report, a single page that needs no other file and no network.
    """
    output.mkdir(parents=True, exist_ok=True)
    sections = [
        _write_study(study, result, output) for study, result in studies.items()
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("skreg.studies", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    page = environment.get_template("report.html.jinja").render(
        sections=sections, made_with=f"skreg {skreg.__version__} with {versions}"
    )
    return write_atomically(output / "report.html", page.encode())


def _write_study(study: ModuleType, result: dict, output: Path) -> Section:
    import matplotlib.pyplot as plt

    name, captions, on_page = result["study"], study.captions(result), []
    figures = study.plot(result)
    for key, caption in captions.items():
        buffer = BytesIO()
        figures[key].savefig(buffer, format="png", dpi=144)
        plt.close(figures[key])
        write_atomically(output / f"{name}-{key}.png", buffer.getvalue())
        encoded = base64.b64encode(buffer.getvalue()).decode()
        on_page.append(FigureOnPage(key, encoded, caption))
    csv = write_atomically(
        output / f"{name}-curves.csv", study.curves(result).to_csv(index=False).encode()
    )
    write_atomically(output / f"{name}.json", json.dumps(result).encode())
    return Section(
        title=f"{study.TITLE}: {result['settings']['data']}",
        question=study.QUESTION,
        settings={key: _readable(value) for key, value in result["settings"].items()},
        findings=study.findings(result),
        table=readable_table(study.table(result)).to_html(border=0, escape=True),
        figures=on_page,
        csv=csv.name,
    )


def readable_table(table: pd.DataFrame) -> pd.DataFrame:
    """Merge columns of mean and standard error into text, accuracies as per cent."""
    columns = table.columns.get_level_values(0).unique()
    return pd.DataFrame(
        {
            f"{name} (%)" if "accuracy" in name else name: [
                _mean_and_error(row["mean"], row["sem"], "accuracy" in name)
                for _, row in table[name].iterrows()
            ]
            for name in columns
        },
        index=table.index,
    )


def _mean_and_error(mean: float, error: float, percent: bool) -> str:
    scale, digits = (100, 1) if percent else (1, 2)
    text = f"{scale * mean:.{digits}f}"
    return text if pd.isna(error) else f"{text} ± {scale * error:.{digits}f}"


def _readable(value) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file so that it is there whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp lets only the owner read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
