"""The outcome of a tuning as text."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .outcomes import Tuned


def summary(tuned: Sequence[Tuned], metric: str, width: int = 160) -> tuple[str, list[str]]:
    """A table of the searches, and what to warn of: edges, scores below the start, failed trials, methods that do
    not fit."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("operator", "noise", "method"):
        table.add_column(name, no_wrap=True)
    for name in ("trials", "failed", "evaluations", f"start {metric}", f"best {metric}"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("parameters")
    warnings: list[str] = []
    for one in tuned:
        label, best = one.case.label, one.best
        failures = [trial for trial in one.trials if trial.score is None]
        row = [label.operator, label.noise, label.method]
        if one.skipped:
            table.add_row(*row, "-", "-", "-", "-", "-", "does not fit")
            warnings.append(f"{label} was left out: {one.skipped}")
            continue
        parameters = (
            ", ".join(f"{name} = {value}" for name, value in best.parameters.items()) if best else "none worked"
        )
        scores = [f"{one.start:.2f}", f"{best.score:.2f}" if best and best.score is not None else "-"]
        counts = [str(len(one.trials)), str(len(failures) or "-"), f"{one.evaluations:,}"]
        table.add_row(*row, *counts, *scores, parameters or "as given")
        warnings += [f"{label}: {edge}" for edge in one.edges]
        if best is not None and best.score is not None and one.case.space and best.score < one.start:
            warnings.append(f"{label}: the best score, {best.score:.2f}, is below that of the start, {one.start:.2f}")
        if failures:
            which = "all" if best is None else str(len(failures))
            warnings.append(f"{label}: {which} of {len(one.trials)} trials failed, the last one: {failures[-1].reason}")
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    text = console.file
    assert isinstance(text, io.StringIO)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()), warnings
