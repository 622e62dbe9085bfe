"""The command `preimage analyse`; what it needs is imported when it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table as Printed

    from .study import Table, Value


@click.command("analyse")
@click.argument("name", required=False)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter: --set count=8.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of tables and figures.  [default: analysis/NAME]")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def analyse(name: str | None, settings: tuple[str, ...], out: Path | None, quiet: bool) -> int:
    """Run the study NAME; without NAME, list the studies. `preimage show NAME` lists the parameters of one.

    The folder OUT gets a CSV file for each table, PNG and SVG for each figure, and study.json with the parameters,
    versions and digests that repeat it. Interrupted and run again, it goes on with the part it was at.

    Exit code: 0; 1 if what theory or a paper lets one expect was not found; 2 if something is wrong.
    """
    from preimage_data.commands import overridden
    from rich.console import Console

    from preimage import load, names
    from preimage._parameters import parameters
    from preimage._registry import find
    from preimage.assembly import construct, with_overrides
    from preimage.errors import BrokenPlugin

    from .files import write_findings
    from .progress import KeptProgress
    from .study import Study

    console = Console(quiet=quiet)
    console = console if console.is_terminal else Console(quiet=quiet, width=160)
    if name is None:
        if settings or out is not None:
            raise click.UsageError("there is no NAME: name the study to run")
        for study in names("study"):
            console.print(f"{study:30} {find('study', study)[0].summary}", highlight=False, soft_wrap=True)
        return 0
    values = with_overrides({}, overridden(settings), f"study {name!r}")
    study: Any = construct("study", name, values, f"study {name!r}")
    if not isinstance(study, Study):
        raise BrokenPlugin(f"study {name!r} is {type(study).__name__}", "a subclass of preimage_analysis.Study")
    folder = out or Path("analysis") / name
    with KeptProgress(folder / "unfinished", Console(stderr=True, quiet=quiet), name) as progress:
        findings = study.run(progress)
        whole = {p.name: values.get(p.name, p.default) for p in parameters(load("study", name))}
        write_findings(folder, name, whole, findings)
    for table in findings.tables.values():
        console.print(printed(table))
        console.print()
    marks = {True: "[green]✓[/] ", False: "[red]✗[/] ", None: "  "}
    for statement in findings.statements:
        console.print(f"{marks[statement.holds]}{statement.text}", soft_wrap=True, highlight=False)
    console.print(f"tables, figures: {folder}", soft_wrap=True, highlight=False)
    return int(any(statement.holds is False for statement in findings.statements))


def printed(table: "Table") -> "Printed":
    """The table for a terminal."""
    from rich.table import Table as Printed

    drawn = Printed(box=None, header_style="bold", pad_edge=False, title=table.title, title_justify="left")
    for index, column in enumerate(table.columns):
        words = any(isinstance(row[index], str) for row in table.rows)
        drawn.add_column(column.heading.replace("[", r"\["), justify="left" if words else "right")
    for row in table.rows:
        drawn.add_row(*(_text(value, column.digits) for value, column in zip(row, table.columns, strict=True)))
    return drawn


def _text(value: "Value", digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
