"""Results in the formats of other tools: CSV, Parquet, LaTeX, and a Benchopt benchmark."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from preimage_data.atomic import atomic_write

from preimage.errors import BadFile, BadParameter, NotInstalled

from .export_benchopt import benchopt_files
from .scores import Metric, Scores, Setting, Summary
from .statistics import Bootstrap
from .store import AXES, Results

KINDS = ("csv", "parquet", "latex", "benchopt")


def export(results: Results, kind: str, out: str | Path, *, metric: str | None = None) -> Path:
    """Write the results in a format of `KINDS`; gives the path.

    - csv, parquet: one row for each cell, failed, skipped and missing ones included, and each number in a column.
    - latex: the paired differences as a table in the style of booktabs, a row for each method, a column for each
      setting; `metric` chooses what, the first that there is if None.
    - benchopt: a folder with a Benchopt benchmark of the suite (see `export_benchopt`).

    Raises `BadParameter` for another kind or metric, `NotInstalled` if Parquet needs pyarrow, and `BadFile` if
    the file cannot be written, or something else is in its place.
    """
    out = Path(out)
    if kind == "benchopt":
        return _write_folder(out, benchopt_files(results))
    writers: dict[str, Callable[[], bytes]] = {
        "csv": lambda: _csv(rows(results)),
        "parquet": lambda: _parquet(rows(results)),
        "latex": lambda: latex(results, metric=metric).encode(),
    }
    if kind not in writers:
        raise BadParameter(f"there is no export {kind!r}", "one of " + ", ".join(KINDS))
    atomic_write(out, writers[kind]())
    return out


def _write_folder(out: Path, pages: Mapping[str, bytes]) -> Path:
    strange = [] if not out.exists() else [p.name for p in out.iterdir()] if out.is_dir() else [out.name]
    if strange and not (out / "objective.py").exists():
        raise BadFile(f"{out} is in the way: it holds {strange[0]}", "a new folder", "choose another folder")
    for name, content in pages.items():
        atomic_write(out / name, content)
    return out


def rows(results: Results) -> list[dict[str, Any]]:
    """One flat row for each cell that the suite asks for; None where a cell has no such number."""
    metrics = sorted({key for cell in results.cells for key in cell.get("metrics") or {}})
    starts = sorted({key for cell in results.cells for key in cell.get("start_metrics") or {}})
    calls = list(dict.fromkeys(key for cell in results.cells for key in cell.get("evaluations") or {}))
    flat: list[dict[str, Any]] = []
    for cell in results.cells:
        found, start = cell.get("metrics") or {}, cell.get("start_metrics") or {}
        counted, peak = cell.get("evaluations") or {}, cell.get("peak_memory") or {}
        error, preset, machine = (cell.get(name) or {} for name in ("error", "preset", "machine"))
        flat.append(
            {axis: cell[axis] for axis in AXES}
            | {name: cell.get(name) for name in ("outcome", "status", "reason")}
            | {key: found.get(key) for key in metrics}
            | {f"start_{key}": start.get(key) for key in starts}
            | {name: cell.get(name) for name in ("steps", "seconds", "certificate")}
            | {f"calls_{key}": counted.get(key) for key in calls}
            | {"memory_cpu": peak.get("cpu"), "memory_gpu": peak.get("gpu")}
            | {"error": error.get("type"), "preset": preset.get("name"), "tuned": bool(preset.get("tuned"))}
            | {"device": machine.get("device"), "threads": machine.get("threads")}
            | {"measurement": cell.get("measurement"), "key": cell["key"]}
        )
    blank = dict.fromkeys(flat[0]) if flat else dict.fromkeys((*AXES, "outcome"))
    flat += [blank | dict(zip(AXES, labels, strict=True)) | {"outcome": "missing"} for labels in results.missing]
    return flat


def latex(results: Results, *, metric: str | None = None, bootstrap: Bootstrap = Bootstrap()) -> str:
    """A booktabs table: for each method and setting the mean, and below it the paired difference with its interval.

    Needs `\\usepackage{booktabs}`. The best mean of a column is bold, among methods that finished all its measurements.
    """
    scores = Scores.of(results)
    chosen = scores.metric(metric) if metric else scores.metrics[0]
    reference = scores.reference(results)
    columns = {
        place: scores.summarise(chosen.key, reference, scores.part(place), bootstrap) for place in scores.settings
    }
    unit = f" ({chosen.unit})" if chosen.unit else ""
    caption = (
        f"{chosen.title}{unit}: means over images, and paired differences to {reference} with "
        f"{bootstrap.level * 100:g}% bootstrap-t intervals. "
        "A dagger marks means over fewer measurements than the suite has."
    )
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_escaped(caption)}}}",
        f"  \\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "    \\toprule",
        "    " + " & ".join(["Method", *(_escaped(_heading(place, scores.settings)) for place in columns)]) + r" \\",
        "    \\midrule",
    ]
    for row, method in enumerate(scores.methods):
        cells = [summaries[row] for summaries in columns.values()]
        best = [_is_best(s, summaries, chosen) for s, summaries in zip(cells, columns.values(), strict=True)]
        means = (_mean(s, chosen, bold) for s, bold in zip(cells, best, strict=True))
        lines.append("    " + " & ".join([_escaped(method), *means]) + r" \\")
        if method != reference:
            lines.append("    " + " & ".join(["", *(_difference(s, chosen) for s in cells)]) + r" \\")
    lines += ["    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""]
    return "\n".join(lines)


def _csv(table: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(table[0]) if table else [*AXES, "outcome"])
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode()


def _parquet(table: Sequence[dict[str, Any]]) -> bytes:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise NotInstalled(
            "Parquet needs pyarrow, which is not installed", "pyarrow", 'pip install "preimage-compare[parquet]"'
        ) from error
    columns = {name: [row[name] for row in table] for name in (table[0] if table else ())}
    sink = io.BytesIO()
    parquet.write_table(
        pa.table({name: _column(pa, name, values) for name, values in columns.items()}), sink, compression="zstd"
    )
    return sink.getvalue()


def _column(pa: Any, name: str, values: list[Any]) -> Any:
    # Labels recur in every row: a dictionary keeps 50,000 rows small. A column of None alone still needs a type.
    if name in AXES and name != "seed":
        return pa.array([str(value) for value in values]).dictionary_encode()
    if all(value is None for value in values):
        return pa.array(values, pa.float64())
    return pa.array([json.dumps(v) if isinstance(v, list | dict) else v for v in values])


def _heading(place: Setting, settings: Sequence[Setting]) -> str:
    parts = [(place.operator, "operator"), (place.noise, "noise"), (place.data, "data")]
    told = [label for label, axis in parts if len({getattr(other, axis) for other in settings}) > 1]
    return ", ".join(told) or place.operator


def _is_best(summary: Summary, among: Sequence[Summary], metric: Metric) -> bool:
    if not metric.better or summary.partial or not math.isfinite(summary.mean):
        return False
    means = [other.mean for other in among if not other.partial and math.isfinite(other.mean)]
    return summary.mean == (max(means) if metric.better == "higher" else min(means))


def _mean(summary: Summary, metric: Metric, bold: bool) -> str:
    if not math.isfinite(summary.mean):
        return "--"
    number = f"{summary.mean:.{metric.digits}f}"
    return (f"\\textbf{{{number}}}" if bold else number) + (r"$^\dagger$" if summary.partial else "")


def _difference(summary: Summary, metric: Metric) -> str:
    if not math.isfinite(summary.difference):
        return "--"
    text = f"${summary.difference:+.{metric.digits}f}$"
    if math.isfinite(summary.difference_low):
        text += f" $[{summary.difference_low:+.{metric.digits}f}, {summary.difference_high:+.{metric.digits}f}]$"
    return f"{{\\footnotesize {text}}}"


def _escaped(text: str) -> str:
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    return "".join(special.get(character, character) for character in text)
