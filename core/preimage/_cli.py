"""The command line. Subcommands load what they need when they run; `preimage list` imports no torch.

Exit codes: 0 done; 1 it ran to the end, and the outcome is bad (a law is broken, an image diverged); 2 it could not run
to the end (bad input, bad environment, interrupted), with one message of what was found, expected, and what to do.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from . import __version__
from ._plugins import KINDS, discover
from ._registry import absent, catalogue
from .errors import BrokenPlugin, NameCollision, PreimageError

_OWN = {
    "list": ("preimage._cli:list_components", "Components by name: installed, and not installed."),
    "plugins": ("preimage._cli:list_plugins", "Distributions, what they offer, and what is wrong with broken ones."),
    "show": ("preimage._inspect:show", "Parameters, defaults and documentation of a component, and what it fits with."),
    "check": ("preimage._inspect:check", "Hold components to the laws of their kind, or check a pipeline file."),
    "presets": ("preimage._inspect:presets", "Tuned priors and solvers by name, for which operator and noise."),
    "new": ("preimage._scaffold:new", "Write a plugin that installs and passes its own contract tests."),
}


class _Commands(click.Group):
    """Subcommands by name; a command's module is imported when it is run, not to print the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_OWN, *sorted(name for name in discover().commands if name not in _OWN)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _OWN:
            return _import(_OWN[cmd_name][0])
        owners = discover().commands.get(cmd_name, [])
        if len(owners) > 1:
            both = " and ".join(plugin.requirement for _, plugin in owners)
            raise NameCollision(
                f"command {cmd_name!r} is offered by {both}", "one distribution", "pip uninstall one of them"
            )
        if owners:
            command, plugin = owners[0]
            try:
                return _import(command.target)
            except Exception as error:
                reason = f"could not be imported: {type(error).__name__}: {error}"
                remedy = f"pip install --upgrade {plugin.distribution}"
                raise BrokenPlugin(f"command {cmd_name!r} of {plugin.requirement} {reason}", remedy=remedy) from error
        raise absent("command", cmd_name, self.list_commands(ctx))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, summary) for name, (_, summary) in _OWN.items()]
        rows += [(name, owners[0][0].summary) for name, owners in sorted(discover().commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _import(target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="preimage")
def cli() -> None:
    """Inverse problems in imaging: find x from y = F(x) + noise; any operator, prior and solver, by name."""


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def list_components(kind: str | None, as_json: bool) -> int:
    """Components by name: installed, and (dimmed) known but not installed."""
    kinds = (kind,) if kind else KINDS
    rows: list[dict[str, Any]] = []
    for (found, name), owners in sorted(discover().components.items(), key=lambda item: item[0]):
        distributions = [plugin.requirement for _, plugin in owners]
        summary = (
            owners[0][0].summary if len(owners) == 1 else f"offered by {' and '.join(distributions)}; cannot be used"
        )
        rows.append(
            {"kind": found, "name": name, "distribution": distributions[0], "installed": True, "summary": summary}
        )
    present = set(discover().components)
    for (found, name), entry in sorted(catalogue().items()):
        if (found, name) not in present and found in KINDS:
            summary = f"{entry['summary']} (pip install {entry['distribution']})"
            rows.append(
                {
                    "kind": found,
                    "name": name,
                    "distribution": entry["distribution"],
                    "installed": False,
                    "summary": summary,
                }
            )
    rows = [row for row in rows if row["kind"] in kinds]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    for heading in kinds:
        if group := [row for row in rows if row["kind"] == heading]:
            click.secho(heading, bold=True)
        for row in group:
            click.echo(click.style(f"  {row['name']:<{width}}  {row['summary']}", dim=not row["installed"]))
    broken = [plugin.distribution for plugin in discover().plugins if plugin.faults]
    if broken:
        click.secho(f"broken: {', '.join(broken)} (preimage plugins says why)", fg="red", err=True)
    return 0


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option("--traceback", "with_traceback", is_flag=True, help="Print the traceback of each broken plugin.")
def list_plugins(as_json: bool, with_traceback: bool) -> int:
    """Every plugin, its version, what it offers, and what is wrong with a broken one. Exit code 1 if one is broken."""
    plugins = discover().plugins
    if as_json:
        rows = [
            {
                "plugin": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "components": [f"{c.kind}/{c.name}" for c in plugin.components],
                "commands": [command.name for command in plugin.commands],
                "faults": [{"problem": f.problem, "remedy": f.remedy, "traceback": f.traceback} for f in plugin.faults],
            }
            for plugin in plugins
        ]
        click.echo(json.dumps(rows, indent=1))
    for plugin in () if as_json else plugins:
        offers = [f"{c.kind}/{c.name}" for c in plugin.components] + [f"command {c.name}" for c in plugin.commands]
        offers += [f"weights {w.name} of {w.component}" for w in plugin.weights]
        offers += [f"presets {target.rpartition('/')[2]}" for target in plugin.presets]
        mark = click.style("broken", fg="red", bold=True) if plugin.faults else click.style("ok", fg="green")
        click.echo(f"{click.style(plugin.requirement, bold=True)}  {mark}")
        if offers:
            click.echo(f"  offers:  {', '.join(offers)}")
        for fault in plugin.faults:
            click.echo(f"  problem: {fault.problem}\n  remedy:  {fault.remedy}")
            if with_traceback and fault.traceback:
                click.echo("".join(f"    {line}\n" for line in fault.traceback.splitlines()))
    return 1 if any(plugin.faults for plugin in plugins) else 0


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `preimage` command."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run a command line and give its exit code; every expected error becomes one message on stderr."""
    try:
        outcome = cli.main(arguments, prog_name="preimage", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "preimage"
        return _fail(PreimageError(error.format_message(), f"the options of {command}", f"see {command} --help"))
    except click.ClickException as error:
        return _fail(PreimageError(error.format_message()))
    except PreimageError as error:
        return _fail(error)
    except (KeyboardInterrupt, click.Abort):
        remedy = "run the same command again: what is finished is kept, nothing is half written"
        return _fail(PreimageError("interrupted before the end", "to run to the end", remedy))
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _fail(error: PreimageError) -> int:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
    return 2


def is_file_argument(text: str) -> bool:
    """Whether an argument that may be a name or a file means a file."""
    return text.endswith(".toml") or Path(text).exists()
