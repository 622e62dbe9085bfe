"""The files of a study: a CSV for each table, PNG and SVG for each figure, and a JSON with what repeats it."""

import csv
import io
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from preimage_data.atomic import atomic_write, write_json
from preimage_data.figures import save_figure

from preimage.assembly import versions

from .study import Findings, Table

_OWN = ("preimage-analysis", "matplotlib")


def write_findings(folder: Path, name: str, parameters: Mapping[str, Any], findings: Findings) -> list[Path]:
    """Write findings of the study `name`, made with these parameters; the paths, study.json last.

    Files that an earlier study.json in the folder names, and this one does not, are removed. The same findings give
    the same bytes. Raises `BadFile` if something cannot be written.
    """
    written: dict[str, Path] = {}
    for key, table in findings.tables.items():
        written[f"{key}.csv"] = folder / f"{key}.csv"
        atomic_write(folder / f"{key}.csv", table_csv(table).encode())
    for key, figure in findings.figures.items():
        written[f"{key}.png"], written[f"{key}.svg"] = folder / f"{key}.png", folder / f"{key}.svg"
        save_figure(folder / f"{key}.png", figure)
        atomic_write(folder / f"{key}.svg", figure_svg(figure, f"{name}/{key}"))
    record = folder / "study.json"
    for old in _files_of(record) - set(written):
        (folder / old).unlink(missing_ok=True)
    facts = {
        "study": name,
        "parameters": dict(parameters),
        "statements": [vars(statement) for statement in findings.statements],
        "versions": versions(findings.parts) | {own: metadata.version(own) for own in _OWN},
        **findings.facts,
        "files": sorted(written),
    }
    write_json(record, facts)
    return [*written.values(), record]


def table_csv(table: Table) -> str:
    """Comma-separated values under the headings of the columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.heading for column in table.columns])
    for row in table.rows:
        writer.writerow([f"{value:.7g}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def figure_svg(figure: Figure, salt: str) -> bytes:
    """The figure as SVG; the same figure and salt give the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _files_of(record: Path) -> set[str]:
    """What an earlier run says it has written; names only, so that nothing outside the folder is ever touched."""
    try:
        return {Path(str(name)).name for name in json.loads(record.read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
