"""The commands `preimage run` and `preimage demo`; what they need is imported when they run."""

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preimage.errors import BadParameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ._run import Outcome

_FILE = click.Path(path_type=Path)


@click.command("run")
@click.argument("file", type=_FILE)
@click.option("--input", "inputs", multiple=True, type=_FILE, help="A true image, instead of [data]. May be repeated.")
@click.option(
    "--measurement",
    "measurements",
    multiple=True,
    type=_FILE,
    help="An NPY file to reconstruct from, instead of a simulation.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Replace a value: --set solver.max_steps=50."
)
@click.option("--out", type=_FILE, help="Folder for the results.  [default: runs/FILE]")
@click.option("--overwrite", is_flag=True, help="Replace results that are there, instead of taking them up again.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON instead of a table.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def run(
    file: Path,
    inputs: tuple[Path, ...],
    measurements: tuple[Path, ...],
    settings: tuple[str, ...],
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Simulate measurements of images and reconstruct them, as the pipeline FILE (TOML) says.

    The images are those of [data], or the files given by --input: PNG, JPEG, TIFF or NPY, to which size, colour and
    crop of [data] apply. With --measurement nothing is simulated; --input is then the truth, if it is known.

    For every image the folder OUT/IMAGE gets estimate.png, estimate.npy, measurement.npy, comparison.png and run.json,
    all or none of them. Run again, images that are done are not done again. FILE may also be such a run.json: that one
    run is repeated.

    Exit code: 0, or 1 if an estimate stopped being finite.
    """
    from rich.console import Console

    from . import _run

    jobs = _run.plan(file, overridden(settings), inputs, measurements)
    out = out or Path("runs") / (file.stem if file.suffix != ".json" else f"repeat-{file.parent.name}")
    messages = Console(stderr=True, quiet=quiet or as_json)
    outcomes: list[Outcome] = []
    try:
        for job in jobs:
            outcomes.append(_run.perform(job, out, overwrite=overwrite, console=messages))  # noqa: PERF401 (an interrupted run reports what it has done)
    finally:
        if as_json:
            click.echo(json.dumps({"out": str(out), "images": [dict(o.record) for o in outcomes]}, indent=1))
        elif outcomes and not quiet:
            _print_table(outcomes, len(jobs), out)
    return 1 if any(_run.diverged(outcome.record) for outcome in outcomes) else 0


@click.command("demo")
@click.option("--out", type=_FILE, default=Path("demo"), show_default=True, help="Folder for figures and tables.")
@click.option("--count", type=click.IntRange(1, 16), default=8, show_default=True, help="How many photographs.")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def demo(out: Path, count: int, quiet: bool) -> int:
    """Five inverse problems on real photographs: simulated, reconstructed, measured and drawn.

    Needs the plugins of the five problems (pip install "preimage-data[demo]"). Writes overview.png, a figure for each
    problem, table.md, results.json and the pipelines as TOML into OUT.

    Exit code: 0, or 1 if any problem is not better than its measurement.
    """
    from rich.console import Console

    from . import _demo

    stdout, messages = _console(quiet), Console(stderr=True, quiet=quiet)
    results = _demo.perform(out, count, messages)
    stdout.print(_demo.table(results))
    stdout.print(_demo.caption(results), style="dim", soft_wrap=True, highlight=False)
    stdout.print(f"figures and tables: {out}{'' if out == Path('.') else '/'}", soft_wrap=True, highlight=False)
    worse = [f"{result.name}/{label}" for result in results for label in result.worse()]
    if worse:
        messages.print(f"not better than the measurement: {', '.join(worse)}", style="red", soft_wrap=True)
    return 0 if all(result.improved() for result in results) else 1


def overridden(settings: "Sequence[str]") -> dict[str, Any]:
    """`KEY=VALUE` with the value as in TOML; what is not TOML is text, so that quotes are not needed."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise BadParameter(f"--set {setting!r}", "KEY=VALUE", "write --set solver.max_steps=50")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        found[key.strip()] = value
    return found


def _console(quiet: bool) -> "Console":
    from rich.console import Console

    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(quiet=quiet, width=120)


def _print_table(outcomes: "Sequence[Outcome]", wanted: int, out: Path) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (
        "image",
        "status",
        "steps",
        "s",
        "PSNR in",
        "PSNR out",
        "gain",
        "SSIM in",
        "SSIM out",
    ):
        table.add_column(name, justify="left" if name in ("image", "status") else "right", no_wrap=name == "image")
    for outcome in outcomes:
        record, before, after = outcome.record, outcome.record["measured"], outcome.record["estimate"]
        both = before["psnr"] is not None and after["psnr"] is not None
        table.add_row(
            record["label"],
            record["status"].replace("_", " "),
            str(record["steps"]),
            f"{record['seconds']:.2f}",
            _number(before["psnr"], 2),
            _number(after["psnr"], 2),
            _number(after["psnr"] - before["psnr"] if both else None, 2, "+"),
            _number(before["ssim"], 3),
            _number(after["ssim"], 3),
        )
    console = _console(False)
    console.print(table)
    resumed = sum(outcome.resumed for outcome in outcomes)
    if resumed:
        console.print(f"resumed: {resumed} of {wanted} were done", highlight=False)
    console.print(f"results: {out}", soft_wrap=True, highlight=False)


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{digits}f}"
