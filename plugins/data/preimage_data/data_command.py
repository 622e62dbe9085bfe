"""The command `preimage data check`; what it needs is imported when it runs."""

import json
from pathlib import Path

import click


@click.group("data")
def data() -> None:
    """Look after data sets."""


@data.command("check")
@click.argument("sets", nargs=-1, required=True)
@click.option("--figure", type=click.Path(path_type=Path), help="Draw the copies side by side into this PNG file.")
@click.option("--between", is_flag=True, help="Only between different sets, not inside each of them.")
@click.option("--threshold", type=float, help="Correlation from which on two images count as copies.  [default: 0.78]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def check(sets: tuple[str, ...], figure: Path | None, between: bool, threshold: float | None, as_json: bool) -> int:
    """Find copies of images between SETS and inside each of them, whatever their names are.

    A set is a folder of images (relative to here, or to PREIMAGE_DATA), a data set by name, of one split if it has
    several (photographs, bsds500:train, stl10:iresnet-test), or a TOML file with a table [data], and possibly
    [validation] and [test].

    Found are copies that were re-encoded, resized, made grey, brighter or darker, cut to their centre square, or
    mirrored; not those that were otherwise cropped by more than a hundredth, or turned.

    Exit code: 0; 1 if there are copies, or images that cannot be read.
    """
    from rich.console import Console

    from . import _check
    from .copies import THRESHOLD

    terminal, messages = Console(), Console(stderr=True)
    chosen = _check.named_sets(sets)
    report = _check.check(
        chosen, inside=not between, threshold=THRESHOLD if threshold is None else threshold, console=messages
    )
    if as_json:
        click.echo(json.dumps(report.record(), indent=1))
    else:
        report.show(terminal if terminal.is_terminal else Console(width=120))
    if figure is not None and report.copies:
        report.draw(figure)
        messages.print(f"figure: {figure}", soft_wrap=True, highlight=False)
    return 1 if report.copies or report.problems else 0
