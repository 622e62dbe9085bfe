"""The command `preimage tune`; what it needs is imported when it runs."""

from pathlib import Path

import click

_FILE = click.Path(path_type=Path)


@click.command("tune")
@click.argument("suite", required=False)
@click.option("--out", type=_FILE, help="Folder of studies, presets and pictures.  [default: tuned/SUITE]")
@click.option("--only", multiple=True, metavar="METHOD", help="Tune only this method. May be repeated.")
@click.option("--budget", default=30, show_default=True, help="Trials for every method, operator and noise.")
@click.option("--sampler", default="gp", show_default=True, help="How to search: random, qmc, tpe or gp.")
@click.option("--metric", default="psnr", show_default=True, help="What is maximised, a registered metric.")
@click.option("--key", default=0, show_default=True, help="Seed of the sampler.")
@click.option("--jobs", default=1, show_default=True, help="Processes.")
@click.option("--overwrite", is_flag=True, help="Drop studies in OUT that are of other data, methods or versions.")
@click.option("--merge", type=_FILE, help="A folder of preset files to bring up to date as well.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def tune(
    suite: str | None,
    out: Path | None,
    only: tuple[str, ...],
    budget: int,
    sampler: str,
    metric: str,
    key: int,
    jobs: int,
    overwrite: bool,
    merge: Path | None,
    quiet: bool,
) -> int:
    """Search the parameters of a suite's methods on its images, and keep the best as presets.

    SUITE is a TOML file or the name of a suite that ships (without SUITE: their names). Each method says what is to be
    searched, in parameters of its prior and solver, or of its start's ("start.prior.weight"); one without runs once, as
    it is:

    \b
        [method.search]
        "prior.weight" = { low = 1e-4, high = 0.1, log = true }
        "prior.variant" = { choices = ["isotropic", "anisotropic"] }

    Every method gets the same number of trials on every operator and noise; a trial reconstructs all images at once.
    Studies are kept in OUT/studies.db (Optuna's tables). Killed and run again, the search goes on, and ends with the
    same presets as if it had not been killed. The presets in OUT/presets say what they were tuned on; a best value near
    an end of its range is a warning, there and here.

    Exit code: 0, or 1 if all trials of a method failed.
    """
    from rich.console import Console

    from . import tuning
    from ._progress import Bar
    from .figures import write_figures
    from .outcomes import Settings
    from .suites import find, shipped
    from .table import summary

    if suite is None:
        for name, path in shipped().items():
            click.echo(f"{name:<28} {path}")
        return 0
    path = find(suite)
    out = out or Path("tuned") / path.stem
    messages = Console(stderr=True, quiet=quiet)
    settings = Settings(budget, sampler, metric, key)
    with Bar(messages, budget) as bar:
        tuned = tuning.tune(path, out, settings, only=only, jobs=jobs, overwrite=overwrite, merge=merge, told=bar.told)
    write_figures(out / "figures", tuned, metric)
    if not quiet:
        table, warnings = summary(tuned, metric)
        click.echo(table)
        for warning in warnings:
            messages.print(f"warning: {warning}", style="yellow", soft_wrap=True, highlight=False)
        click.echo(f"presets, studies, pictures: {out}")
    return 1 if any(one.failed for one in tuned) else 0
