"""`preimage show`, `preimage presets` and `preimage check`."""

import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from ._cli import is_file_argument
from ._fits import fits_with
from ._parameters import CONTEXT, parameters, unknown
from ._plugins import KINDS, discover
from ._registry import absent, catalogue, find, load
from .errors import BadParameter, LawBroken, NotInstalled, PreimageError, raise_all


def _resolve(name: str) -> tuple[str, str]:
    """The kind and name meant by NAME or KIND/NAME."""
    kind, slash, rest = name.partition("/")
    if slash and kind in KINDS:
        find(kind, rest)
        return kind, rest
    kinds = [k for k, n in discover().components if n == name]
    if len(kinds) > 1:
        choices = " or ".join(f"{k}/{name}" for k in kinds)
        raise BadParameter(f"{name!r} names several components", f"one of {choices}", "say which")
    if not kinds:
        known = [k for k, n in catalogue() if n == name and k in KINDS]
        raise absent(known[0] if known else "component", name, sorted({n for _, n in discover().components}))
    return kinds[0], name


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def show(name: str, as_json: bool) -> int:
    """Parameters, defaults and documentation of a component, and what it fits with.

    NAME is a component's name, with its kind in front where several share it: noise/gaussian.
    """
    kind, name = _resolve(name)
    component, plugin = find(kind, name)
    cls = load(kind, name)
    documentation = inspect.cleandoc(cls.__doc__ or "No documentation.")
    listed = [(p.name, p.type_name, "required" if p.required else repr(p.default)) for p in parameters(cls)]
    if kind == "prior":
        listed.append(("weight", "float or 'auto'", "1.0 (of the pipeline: misfit(x) + weight R(x))"))
    fits = fits_with(kind, name)
    shipped = [(w.name, w.summary) for w in discover().weights if w.component == f"{kind}/{name}"]
    if as_json:
        rows = [{"name": n, "type": t, "default": d} for n, t, d in listed]
        about = {"kind": kind, "name": name, "summary": component.summary, "distribution": plugin.requirement}
        click.echo(
            json.dumps(
                about
                | {"class": component.target, "parameters": rows, "fits": fits, "documentation": documentation}
                | ({"weights": dict(shipped)} if shipped else {}),
                indent=1,
            )
        )
        return 0
    click.secho(f"{kind}/{name}: {component.summary}", bold=True)
    click.echo(f"{component.target} of {plugin.requirement}\n\n{documentation}\n")
    supplied = [n for n in inspect.signature(cls).parameters if n in CONTEXT]
    if listed:
        click.secho("parameters", bold=True)
        widths = [max(len(row[column]) for row in listed) for column in range(2)]
        for parameter, type_name, default in listed:
            click.echo(f"  {parameter:<{widths[0]}}  {type_name:<{widths[1]}}  {default}")
    if supplied:
        click.echo(f"  supplied by the pipeline: {', '.join(supplied)}")
    if shipped:
        click.secho("weights that ship", bold=True)
    for weights, summary in shipped:
        click.echo(f"  {weights}  {summary}")
    for other, fitting in fits.items():
        click.secho(f"{other}s that fit", bold=True)
        click.echo(f"  {', '.join(fitting) or 'none installed, or none needed'}")
    return 0


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def presets(name: str | None, as_json: bool) -> int:
    """Presets by name: tuned priors and solvers, for which operator and noise, and how well they did.

    NAME is the name of a preset or a preset file. Used in a pipeline as preset = "NAME".
    """
    from .presets import read_presets, shipped

    found, wrong = (read_presets(Path(name)), ()) if name and is_file_argument(name) else shipped()
    raise_all("preset files that cannot be used", wrong)
    chosen = [p for p in found if name is None or p.name == name or is_file_argument(name)]
    if name and not chosen:
        raise unknown(name, sorted({p.name for p in found}), "there is no preset")
    if as_json:
        click.echo(json.dumps([asdict(p) for p in chosen], indent=1))
        return 0
    if not chosen:
        click.echo("No presets are installed.")
    for family in dict.fromkeys(p.name for p in chosen):
        click.secho(family, bold=True)
        for preset in (p for p in chosen if p.name == family):
            score = preset.tuned.get("score")
            data = preset.tuned.get("data", "its data")
            if isinstance(data, dict):
                named = cast("dict[str, Any]", data)
                data = f"{preset.tuned.get('images', 'the')} images of {named.get('path', named.get('name'))}"
            reached = f"  {score:.2f} dB on {data}" if isinstance(score, float) else ""
            click.echo(f"  {preset.described()}{reached}")
    return 0


@click.command()
@click.argument("names_or_files", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Check every installed component.")
def check(names_or_files: tuple[str, ...], everything: bool) -> int:
    """Hold components to the laws of their kind (NAME, KIND/NAME), or check pipelines (FILE.toml) without running them.

    Exit code 1 if a law is broken.
    """
    if not names_or_files and not everything:
        raise BadParameter(
            "nothing to check", "names of components, pipeline files, or --all", "preimage check identity"
        )
    from ._pipeline import Pipeline
    from .testing import check_component

    failed = 0
    chosen = [f"{kind}/{name}" for kind, name in sorted(discover().components)] if everything else []
    for item in (*names_or_files, *chosen):
        if is_file_argument(item):
            pipeline = Pipeline.from_file(item)
            parts = cast("dict[str, Any]", pipeline.config)
            images = "images" if pipeline.data is None else f"{len(pipeline.data)} images"
            about = f"solver {parts['solver']['name']} fits; {images} of shape {tuple(parts['shape'])}"
            click.echo(f"{click.style('ok', fg='green')}      {item}: {about}")
            continue
        kind, name = _resolve(item)
        try:
            count = check_component(kind, name)
            click.echo(
                f"{click.style('ok', fg='green')}      {kind}/{name} keeps the laws of its kind ({count} examples)"
            )
        except PreimageError as error:
            if not everything and not isinstance(error, LawBroken):
                raise
            if isinstance(error, NotInstalled):
                click.echo(f"{click.style('absent', fg='yellow')}  {kind}/{name}: {error}")
                continue
            failed += 1
            click.echo(f"{click.style('broken', fg='red', bold=True)}  {kind}/{name}: {error}")
    return 1 if failed else 0
