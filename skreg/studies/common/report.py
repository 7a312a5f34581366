"""Write what studies found: report.html, figures, tables of curves, results."""

import base64
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple

import jinja2
import pandas as pd

import skreg
from skreg.studies.common.files import write_atomically
from skreg.studies.common.tables import Quantity

LIBRARIES = ("torch", "skorch", "scikit-learn", "numpy")


class Section(NamedTuple):
    """One study's part of the report."""

    title: str
    question: str
    settings: Mapping[str, object] = MappingProxyType({})
    findings: Sequence[str] = ()
    table: str = ""
    figures: Sequence["FigureOnPage"] = ()
    csv: str = ""
    why_not: str = ""  # the study was not run


class FigureOnPage(NamedTuple):
    """A picture inside the page."""

    type: str
    base64: str
    caption: str


class Report:
    """The report on several studies, written anew after each.

    Every file is written under another name and then renamed, the page last: there is
    never half a file, nor a page without its figures.

    Parameters
    ----------
    output : Path
        The folder to write into; made if it does not exist.

    Attributes
    ----------
    path : Path
        The page, which needs no other file and no network.
    """

    def __init__(self, output: Path):
        self.output, self.path = output, output / "report.html"
        self._sections: list[Section] = []

    def add(self, study: ModuleType, result: dict) -> None:
        """Draw a study's figures and write them, its curves and the page."""
        self.output.mkdir(parents=True, exist_ok=True)
        self._write(_make_section(study, result, self.output))

    def leave_out(self, study: ModuleType, why: str) -> None:
        """Say on the page why a study was not run."""
        self._write(Section(study.TITLE, study.QUESTION, why_not=why))

    def _write(self, section: Section) -> None:
        self._sections.append(section)
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("skreg.studies.common", ""),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
        page = environment.get_template("report.html.jinja").render(
            sections=self._sections,
            made_with=f"skreg {skreg.__version__} with {versions}",
        )
        write_atomically(self.path, page.encode())


def _make_section(study: ModuleType, result: dict, output: Path) -> Section:
    import matplotlib.pyplot as plt

    name, captions, on_page = result["study"], study.captions(result), []
    figures = study.plot(result)
    for key, caption in captions.items():
        suffix, content = _rendered(figures[key])
        write_atomically(output / f"{name}-{key}.{suffix}", content)
        encoded = base64.b64encode(content).decode()
        on_page.append(FigureOnPage(f"image/{suffix}", encoded, caption))
    for number in plt.get_fignums():
        plt.close(number)
    csv = write_atomically(
        output / f"{name}-curves.csv", study.curves(result).to_csv(index=False).encode()
    )
    return Section(
        title=f"{study.TITLE}: {result['settings']['data']}",
        question=study.QUESTION,
        settings={key: _readable(value) for key, value in result["settings"].items()},
        findings=study.findings(result),
        table=readable_table(study.table(result)).to_html(border=0, escape=True),
        figures=on_page,
        csv=csv.name,
    )


def _rendered(figure) -> tuple[str, bytes]:
    """Return the kind and the content of a picture's file."""
    if isinstance(figure, bytes):  # an animation that a study has rendered
        return "gif", figure
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return "png", buffer.getvalue()


def readable_table(table: pd.DataFrame) -> pd.DataFrame:
    """Merge columns of mean and standard error into text, with units in the header."""
    merged = {}
    for name in table.columns.get_level_values(0).unique():
        quantity = Quantity.of(name)
        header = f"{name} ({quantity.unit.strip()})" if quantity.unit else name
        merged[header] = [
            _mean_and_error(row["mean"], row["sem"], quantity)
            for _, row in table[name].iterrows()
        ]
    return pd.DataFrame(merged, index=table.index)


def _mean_and_error(mean: float, error: float, quantity: Quantity) -> str:
    if pd.isna(mean):
        return "-"
    text = quantity.number(mean)
    return text if pd.isna(error) else f"{text} ± {quantity.number(error)}"


def _readable(value) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_readable, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
