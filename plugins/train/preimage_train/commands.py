"""The command `preimage train`; what it needs is imported when it runs."""

import logging
from pathlib import Path

import click

_FILE = click.Path(path_type=Path)


@click.command("train")
@click.argument("recipe", required=False)
@click.option("--out", type=_FILE, help="Folder of the run.  [default: trained/RECIPE]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Replace a value: --set budget.steps=500.")
@click.option("--resume", is_flag=True, help="Go on with the run in OUT, from its last checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace the run in OUT.")
@click.option("--minutes", type=float, help="Train (or search) so long at most, then stop so that it can go on.")
@click.option("--checkpoint-seconds", default=60.0, show_default=True, help="How often a checkpoint is written.")
@click.option("--search", type=int, metavar="N", help="Try N draws from the recipe's [search]; train nothing else.")
@click.option("--accelerator", default="auto", show_default=True, help="Lightning Fabric's: cpu, cuda, ...")
@click.option("--devices", default="auto", show_default=True, help="How many of them, or which.")
@click.option("--nodes", default=1, show_default=True, help="Machines.")
@click.option("--strategy", default="auto", show_default=True, help="Lightning Fabric's: ddp, ...")
@click.option("--threads", type=int, help="Threads that torch computes with on a CPU.  [default: all cores]")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def train(
    recipe: str | None,
    out: Path | None,
    settings: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    minutes: float | None,
    checkpoint_seconds: float,
    search: int | None,
    accelerator: str,
    devices: str,
    nodes: int,
    strategy: str,
    threads: int | None,
    quiet: bool,
) -> int:
    """Train what RECIPE says: a TOML file, or the name of a recipe that ships (without RECIPE: their names).

    The folder OUT gets checkpoints, steps.csv, validation.csv, losses.png, pictures.png, TensorBoard's events, and
    when the budget is used up weights.safetensors and report.json. Killed at any moment, --resume goes on, and ends (on
    a CPU) with the very weights of a run that was not killed.

    Exit code: 0 (also if stopped by --minutes or a signal, to be resumed), 2 if something is wrong.
    """
    from preimage_data.commands import overridden
    from rich.console import Console

    from . import recipe as recipes
    from .devices import Devices
    from .loop import Slice
    from .train import prepare_folder, run

    if recipe is None and (resume or overwrite or search is not None or out is not None):
        raise click.UsageError("there is no RECIPE: name the one to train")
    if search is not None and overwrite:
        raise click.UsageError("a search goes on where it was: to begin another, name another --out")
    if recipe is None:
        for path in sorted(recipes.SHIPPED.glob("*.toml")):
            click.echo(f"{path.stem:28} {recipes.title(path)}")
        return 0
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it announces its precision
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    console = Console(stderr=True, quiet=quiet)
    path = recipes.find(recipe)
    read = recipes.read(path, overridden(settings))
    folder = out or Path("trained") / path.stem
    limits = Slice(None if minutes is None else 60 * minutes, checkpoint_seconds)
    where = Devices(accelerator, devices, nodes, strategy)
    if search is not None:
        from .search import search_recipe

        return search_recipe(read, folder, search, console, limits, where)
    prepare_folder(read, folder, resume=resume, overwrite=overwrite)
    run(read, folder, console=console, resume=resume, limits=limits, devices=where)
    return 0
