"""The command `preimage compare`; what it needs is imported when it runs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from .run import Summary
    from .store import Results
    from .suite import Suite

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path)


class _RunByDefault(click.Group):
    """`compare SUITE` is `compare run SUITE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("compare", cls=_RunByDefault, context_settings={"help_option_names": ["-h", "--help"]})
def compare() -> None:
    """Compare methods on the same measurements: `preimage compare SUITE` runs, `preimage compare` lists the suites."""


@compare.command("run")
@click.argument("suite", required=False)
@click.option("--out", type=_FOLDER, help="Folder of the results.  [default: results/SUITE]")
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="Methods, or AXIS=LABEL: --only 'tv-*' --only noise=0.1."
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Worker processes.")
@click.option("--scheduler", metavar="ADDRESS", help="Use the workers of this Dask scheduler ('local': start one).")
@click.option("--retry-failed", is_flag=True, help="Compute failed and skipped cells again.")
@click.option("--dry-run", is_flag=True, help="Check the suite and say what would be computed.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def run(
    suite: str | None,
    out: Path | None,
    only: tuple[str, ...],
    jobs: int,
    scheduler: str | None,
    retry_failed: bool,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Compute what is missing of SUITE: a TOML file, or the name of one that ships. Without it, list those.

    What is finished is kept: interrupted or killed at any moment, the same command goes on. Exit code: 0, or 1 if cells
    failed; skipped cells, which cannot be assembled, are no failure.
    """
    from rich.console import Console

    from .suite import load_suite

    stdout, messages = _console(quiet), Console(stderr=True, quiet=quiet)
    if suite is None:
        stdout.print(_shipped())
        stdout.print("preimage compare NAME runs one; your own is a TOML file: preimage compare FILE", style="dim")
        return 0
    loaded = load_suite(suite)
    folder = out or Path("results") / (loaded.path or Path(suite)).stem
    if dry_run:
        return _dry_run(loaded, folder, only, retry_failed, stdout)
    from . import store
    from ._progress import Bars
    from .run import run_suite
    from .tables import summary_table

    bars = Bars(messages, loaded.title)
    summary = run_suite(
        loaded, folder, only=only, jobs=jobs, scheduler=scheduler, retry_failed=retry_failed, progress=bars
    )
    if not quiet:
        stdout.print(summary_table(store.read(folder)))
        _print_summary(summary, stdout)
    return summary.exit_code


@compare.command("status")
@click.argument("folder", type=_FOLDER)
@click.option("--deep", is_flag=True, help="Check every byte of the images too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def status(folder: Path, deep: bool, as_json: bool) -> int:
    """What is finished, failed, skipped, missing and corrupt in FOLDER, also while a run is at work.

    Exit code: 0; 1 if a cell failed, or a file is corrupt.
    """
    from . import store

    results = store.read(folder, deep=deep)
    corrupt = [{"file": str(each.path), "reason": each.reason} for each in results.corrupt]
    bad = bool(corrupt) or any(cell["outcome"] == "failed" for cell in results.cells)
    if as_json:
        methods: dict[str, dict[str, int]] = {}
        for method, outcome in _outcomes(results):
            row = methods.setdefault(method, {"ok": 0, "failed": 0, "skipped": 0, "missing": 0})
            row[outcome] += 1
        whole = {"folder": str(folder), "methods": methods, "corrupt": corrupt, "not_in_suite": len(results.others)}
        click.echo(json.dumps(whole, indent=1))
        return int(bad)
    from .tables import failures_table, status_table

    console = _console(False)
    console.print(status_table(results))
    if (failures := failures_table(results)) is not None:
        console.print(failures)
    for each in corrupt:
        console.print(f"corrupt: {each['file']} {each['reason']}", soft_wrap=True, highlight=False)
    if corrupt:
        console.print("preimage compare clean removes corrupt files; the next run computes their cells anew")
    if results.others:
        text = f"{len(results.others)} cells that the suite does not ask for now (preimage compare clean removes them)"
        console.print(text, soft_wrap=True, highlight=False)
    return int(bad)


@compare.command("collect")
@click.argument("folder", type=_FOLDER)
@click.option("--metric", help="What to rank by: psnr, ssim, nmse.")
@click.option("--reference", help="The method that differences are taken against.  [default: the suite's]")
def collect(folder: Path, metric: str | None, reference: str | None) -> int:
    """Rank the methods by what is finished now, also while a run is at work. The report says more."""
    from . import store
    from .tables import summary_table

    _console(False).print(summary_table(store.read(folder), metric=metric, reference=reference))
    return 0


@compare.command("report")
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FILE, help="The page.  [default: FOLDER/report.html]")
@click.option("--reference", help="The method that differences are taken against.  [default: the suite's]")
def report(folder: Path, out: Path | None, reference: str | None) -> int:
    """Write one HTML page with everything in FOLDER; it needs no network to be read."""
    from .report import write_report

    path = write_report(folder, out or folder / "report.html", reference=reference)
    _console(False).print(f"report: {path}", soft_wrap=True, highlight=False)
    return 0


@compare.command("export")
@click.argument("folder", type=_FOLDER)
@click.argument("kind", type=click.Choice(["csv", "parquet", "latex", "benchopt"]))
@click.option("--out", type=_FILE, help="File, or folder for benchopt.  [default: FOLDER/cells.csv, ...]")
@click.option("--metric", help="Of the LaTeX table.")
def export(folder: Path, kind: str, out: Path | None, metric: str | None) -> int:
    """Write the results as CSV, Parquet, a LaTeX table (booktabs), or a Benchopt benchmark."""
    from . import store
    from .export import export as write

    default = {"csv": "cells.csv", "parquet": "cells.parquet", "latex": "table.tex", "benchopt": "benchopt"}[kind]
    path = write(store.read(folder), kind, out or folder / default, metric=metric)
    _console(False).print(f"{kind}: {path}", soft_wrap=True, highlight=False)
    return 0


@compare.command("clean")
@click.argument("folder", type=_FOLDER)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def clean(folder: Path, dry_run: bool) -> int:
    """Remove what FOLDER's suite does not ask for now, corrupt files, and what killed runs have left."""
    from . import store

    gone = store.clean(folder, dry_run=dry_run)
    for path in gone if dry_run else ():
        click.echo(str(path))
    click.echo(f"{len(gone)} files {'would be removed' if dry_run else 'removed'}")
    return 0


@compare.command("merge")
@click.argument("into", type=_FOLDER)
@click.argument("sources", nargs=-1, required=True, type=_FOLDER)
def merge(into: Path, sources: tuple[Path, ...]) -> int:
    """Add the cells of SOURCES to the folder INTO, which is made if need be. Exit code 1 if files are corrupt."""
    from . import store

    corrupt = 0
    for source in sources:
        done = store.merge(into, source)
        corrupt += len(done.corrupt)
        click.echo(
            f"{source}: {done.copied} cells copied, {done.replaced} replaced failed ones, {done.kept} were there"
        )
        for each in done.corrupt:
            click.echo(f"left out: {each.path} {each.reason}", err=True)
    return 1 if corrupt else 0


@compare.command("diff")
@click.argument("old", type=_FOLDER)
@click.argument("new", type=_FOLDER)
@click.option("--metric", help="What to compare, beside time and operator calls: psnr, ssim, nmse.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def diff(old: Path, new: Path, metric: str | None, as_json: bool) -> int:
    """Paired differences NEW minus OLD of the cells that both folders have, with bootstrap intervals over images."""
    from .diff import diff as compare_folders

    found = compare_folders(old, new)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1))
    else:
        _console(False).print(found.table(metric))
    return 0


def _dry_run(suite: "Suite", folder: Path, only: tuple[str, ...], retry_failed: bool, console: "Console") -> int:
    from rich.table import Table

    from .run import preview

    rows = preview(suite, folder, only=only, retry_failed=retry_failed)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method")
    for name in ("cells", "finished", "to compute", "to skip"):
        table.add_column(name, justify="right")
    for method, row in rows.items():
        table.add_row(method, str(sum(row.values())), str(row["finished"]), str(row["compute"]), str(row["skip"]))
    console.print(table)
    console.print(f"nothing was computed; results would go to {folder}", soft_wrap=True, highlight=False)
    return 0


def _shipped() -> "Table":
    from rich.table import Table

    from .suite import load_suite, shipped_suites

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("suite", no_wrap=True)
    for name in ("what", "needs"):
        table.add_column(name)
    for name in shipped_suites():
        suite = load_suite(name)
        local = any(part.table.get("name") == "folder" for part in suite.data)
        table.add_row(name, suite.description or suite.title, "PREIMAGE_DATA" if local else "")
    return table


def _print_summary(summary: "Summary", console: "Console") -> None:
    for each in summary.corrupt:
        console.print(f"was corrupt, and computed anew: {each.path} {each.reason}", soft_wrap=True, highlight=False)
    if summary.kept:
        console.print(f"resumed: {summary.kept} of {summary.cells} cells were finished", highlight=False)
    ended = ", ".join(f"{summary.count(outcome)} {outcome}" for outcome in ("ok", "failed", "skipped"))
    console.print(f"cells: {ended}; results: {summary.folder}", soft_wrap=True, highlight=False)


def _outcomes(results: "Results") -> "Iterator[tuple[str, str]]":
    from .store import AXES

    yield from ((cell["method"], cell["outcome"]) for cell in results.cells)
    yield from ((labels[AXES.index("method")], "missing") for labels in results.missing)


def _console(quiet: bool) -> "Console":
    from rich.console import Console

    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(quiet=quiet, width=120)
