"""Presets: a prior and a solver, tuned for an operator and a noise model, used by name: `preset = "tv"`.

A preset file is TOML, one [[preset]] for each operator and noise:

    [[preset]]
    name = "tv"
    operator = { name = "identity" }                   # only what is named here must agree, defaults counted
    noise = { name = "gaussian", sigma = 0.025 }
    channels = 1                                       # of the images; left out: any number
    prior = { name = "tv", weight = 0.0021 }
    solver = { name = "admm" }
    start = { solver = { name = "adjoint" } }          # if the pipeline is to have one
    tuned = { data = "...", score = 25.1, ... }        # where the values come from

Plugins name their files in the hook `preimage_presets`.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from ._parameters import parameters, problems
from ._plugins import discover, resource
from ._registry import load
from .errors import BadFile, BadParameter, PreimageError, raise_all

Tables = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """One entry of a preset file; `prior` may be absent, a table, or a list of tables, `start` absent or a table.

    - `channels`: of the images that it is for; None: any number.
    """

    name: str
    operator: list[dict[str, Any]]
    noise: dict[str, Any]
    prior: Any
    solver: dict[str, Any]
    tuned: dict[str, Any] = field(default_factory=dict[str, Any])
    source: str = ""
    start: dict[str, Any] | None = None
    channels: int | None = None

    def fits(self, operators: Sequence[Tables], noise: Tables) -> bool:
        """Whether it was made for these tables (resolved, defaults filled in)."""
        return (
            len(self.operator) == len(operators)
            and all(agrees(own, given) for own, given in zip(self.operator, operators, strict=True))
            and agrees(self.noise, noise)
        )

    def described(self) -> str:
        """What it is for, in one line."""
        return spoken(self.operator, self.noise, self.channels)


def read_presets(path: Path) -> list[Preset]:
    """The presets of a file. Raises `BadFile`, or `BadParameter` naming the entry that is wrong."""
    from .assembly import read_toml

    tables = read_toml(path)
    entries = tables.get("preset")
    if not isinstance(entries, list):
        raise BadFile(
            f"{path} has no [[preset]]",
            "a preset file: one [[preset]] for each operator and noise",
            "choose another file",
        )
    return [_preset(entry, index, str(path)) for index, entry in enumerate(cast("list[Any]", entries))]


@cache
def shipped() -> tuple[tuple[Preset, ...], tuple[PreimageError, ...]]:
    """The presets of every installed plugin, and what is wrong with files that cannot be used."""
    found: list[Preset] = []
    wrong: list[PreimageError] = []
    for target in discover().presets:
        try:
            found += read_presets(resource(target))
        except PreimageError as error:
            wrong.append(error)
    return tuple(found), tuple(wrong)


def choose(name: str, operators: Sequence[Tables], noise: Tables, where: str, channels: int | None = None) -> Preset:
    """The preset of this name (or of a file: "my/presets.toml", "my/presets.toml:tv") for these operators and noise.

    - `channels`: of the images, None if not known. Of several entries the one for so many channels is taken; else the
      one for any number; else the one for a single channel, whose values then hold channel by channel.

    Raises `BadParameter` if the name is unknown or has no entry for this operator and noise, with those there are.
    """
    path, _, family = name.partition(".toml")
    known, wrong = shipped() if path == name else (read_presets(Path(f"{path}.toml")), ())
    family = name if path == name else family.removeprefix(":") or next((p.name for p in known), "")
    named = [preset for preset in known if preset.name == family]
    if not named:
        raise_all(where, wrong)
        names = sorted({preset.name for preset in known})
        close = difflib.get_close_matches(family, names, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "preimage presets lists them"
        raise BadParameter(f"{where}: there is no preset {name!r}", ", ".join(names) or "none is installed", remedy)
    resolved = [with_defaults("operator", table) for table in operators], with_defaults("noise", noise)
    fitting = [preset for preset in named if preset.fits(*resolved)]
    for wanted in (channels, None, 1):
        if own := [preset for preset in fitting if channels is None or preset.channels == wanted]:
            return own[0]
    made = "; ".join(preset.described() for preset in named[:8]) + ("; ..." if len(named) > 8 else "")
    remedy = "give [prior] and [solver] yourself, or a preset file of your own"
    raise BadParameter(f"{where}: preset {name!r} has no values for {spoken(operators, noise, channels)}", made, remedy)


def applied(tables: Tables, where: str, channels: int | None = None) -> dict[str, Any]:
    """The tables of a pipeline, those of its `preset` filled in; what stands there itself wins.

    - `channels`: of the images, as for `choose`.

    Raises what is wrong with `preset`, [[operator]] and [noise], which must be right before a preset can be chosen.
    """
    if "preset" not in tables:
        return dict(tables)
    name = tables["preset"]
    if not isinstance(name, str):
        expected = "the name of a preset, or of a preset file"
        raise BadParameter(f"{where}: preset is {name!r}", expected, 'write preset = "tv", say')
    raw = tables.get("operator")
    operators = cast("list[Any]", raw if isinstance(raw, list) else [raw])
    noise = tables.get("noise")
    found: list[PreimageError] = []
    for kind, table in [*(("operator", table) for table in operators), ("noise", noise)]:
        if not isinstance(table, Mapping) or not isinstance(cast(Tables, table).get("name"), str):
            found.append(
                BadParameter(f"{where}: a preset needs [{kind}] with a name", f"a table that names the {kind}")
            )
            continue
        values = dict(cast(Tables, table))
        try:
            found += problems(load(kind, values.pop("name")), values, f"{where}: {kind} {table['name']!r}")
        except PreimageError as error:
            found.append(error.within(where))
    raise_all(where, found)
    preset = choose(name, operators, cast(Tables, noise), where, channels)
    filled = dict(tables)
    filled["solver"] = _over(preset.solver, tables.get("solver"))
    if preset.prior is not None or "prior" in tables:
        filled["prior"] = _over(preset.prior, tables.get("prior"))
    if preset.start is not None and isinstance(given := tables.get("start", {}), Mapping):
        own = {key: _over(table, cast(Tables, given).get(key)) for key, table in preset.start.items()}
        filled["start"] = {**given, **own}
    return filled


def _over(preset: Any, given: Any) -> Any:
    """The preset's table with the given keys over it; the given table alone if it names another component."""
    if given is None:
        return preset
    if not isinstance(preset, dict) or not isinstance(given, Mapping):
        return given
    own, over = cast("dict[str, Any]", preset), dict(cast(Tables, given))
    return own | over if over.get("name", own["name"]) == own["name"] else over


def agrees(wanted: Tables, given: Tables) -> bool:
    """Whether a table has everything that another one names, numbers up to rounding."""

    def same(a: Any, b: Any) -> bool:
        numbers = isinstance(a, int | float) and isinstance(b, int | float)
        return math.isclose(a, b, rel_tol=1e-6) if numbers else a == b

    return all(key in given and same(value, given[key]) for key, value in wanted.items())


def with_defaults(kind: str, table: Tables) -> dict[str, Any]:
    """The table of a component, defaults filled in."""
    return {p.name: p.default for p in parameters(load(kind, table["name"])) if not p.required} | dict(table)


def spoken(operators: Sequence[Tables], noise: Tables, channels: int | None = None) -> str:
    """An operator and a noise model in one line: "identity, noise gaussian (sigma 0.025)", perhaps ", 3 channels"."""
    made_for = f", {channels} channel" + "s" * (channels > 1) if channels else ""
    return " then ".join(_line(table) for table in operators) + f", noise {_line(noise)}" + made_for


def _line(table: Tables) -> str:
    values = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in table.items()
        if key != "name"
    )
    return f"{table['name']} ({values})" if values else str(table["name"])


def _preset(entry: Any, index: int, path: str) -> Preset:
    def fail(what: str, expected: str) -> BadParameter:
        return BadParameter(f"{path}: preset {index}: {what}", expected, "mend that entry")

    if not isinstance(entry, Mapping):
        raise fail(f"is {entry!r:.60}", "a table")
    table = dict(cast(Tables, entry))
    wanted = {"name", "operator", "noise", "channels", "prior", "solver", "start", "tuned"}
    if set(table) - wanted or not {"name", "operator", "noise", "solver"} <= set(table):
        raise fail(f"has the keys {', '.join(table)}", "name, operator, noise, solver; channels, prior, start, tuned")
    if type(channels := table.get("channels", 1)) is not int or channels < 1:
        raise fail(f"has channels {channels!r}", "a number of channels")
    operator = table.pop("operator")
    operators = cast("list[dict[str, Any]]", operator if isinstance(operator, list) else [operator])
    start = cast("dict[str, Any] | None", table.get("start"))
    if "start" in table and not isinstance(start, dict):
        raise fail(f"has the start {start!r:.60}", "a table with a solver, and a prior if it takes one")
    for part in (*operators, table["noise"], table["solver"]):
        if not isinstance(part, dict) or not isinstance(cast(Tables, part).get("name"), str):
            raise fail(f"has the table {part!r:.60}", "a table with a name")
    prior, solver, tuned = table.get("prior"), table["solver"], table.get("tuned", {})
    return Preset(table["name"], operators, table["noise"], prior, solver, tuned, path, start, table.get("channels"))
