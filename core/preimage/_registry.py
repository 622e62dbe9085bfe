"""From a name to a class: installed components, the static catalogue, and the errors in between."""

import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from ._plugins import KINDS, Component, Plugin, discover
from .errors import BrokenPlugin, NameCollision, NotInstalled, PreimageError, UnknownComponent

_BASES = {
    "operator": "preimage._operator:ForwardOperator",
    "noise": "preimage._noise:Noise",
    "prior": "preimage._prior:Prior",
    "solver": "preimage._solver:Solver",
    "dataset": "preimage._dataset:Dataset",
}


@cache
def catalogue() -> Mapping[tuple[str, str], Mapping[str, str]]:
    """registry.toml: (kind, name) -> distribution and summary of what exists, installed or not."""
    here = Path(__file__).parent
    path = next(p for p in (here / "registry.toml", here.parents[1] / "registry.toml") if p.is_file())
    tables = tomllib.loads(path.read_text("utf-8"))
    entries: dict[tuple[str, str], Mapping[str, str]] = {}
    for table in (tables.get("community", {}), tables):
        for kind in (*KINDS, "command"):
            entries |= {(kind, name): entry for name, entry in table.get(kind, {}).items()}
    return entries


def names(kind: str) -> list[str]:
    """Names of the installed components of a kind, sorted."""
    return sorted(name for k, name in discover().components if k == kind)


def find(kind: str, name: str) -> tuple[Component, Plugin]:
    """The component registered under a name, and the plugin that offers it; nothing is imported.

    Raises `UnknownComponent`, `NotInstalled`, `BrokenPlugin` or `NameCollision`, each saying what to do.
    """
    owners = discover().components.get((kind, name), [])
    if not owners:
        raise absent(kind, name, names(kind))
    if len(owners) > 1:
        both = " and ".join(plugin.requirement for _, plugin in owners)
        raise NameCollision(
            f"{kind} {name!r} is registered by {both}",
            "one distribution for each name",
            f"pip uninstall one of them, or choose: PREIMAGE_PLUGINS={owners[0][1].distribution}",
        )
    return owners[0]


def load(kind: str, name: str) -> type:
    """The class registered under a name; imports its module. Raises as `find`, and `BrokenPlugin` if that fails."""
    component, plugin = find(kind, name)
    module, _, attribute = component.target.partition(":")
    try:
        cls: Any = getattr(import_module(module), attribute)
    except Exception as error:
        raise BrokenPlugin(
            f"{kind} {name!r} of {plugin.requirement} could not be imported from {component.target}: "
            f"{type(error).__name__}: {error}",
            "a module that imports",
            f"pip install --upgrade {plugin.distribution}",
        ) from error
    if kind in _BASES:
        base_module, _, base_name = _BASES[kind].partition(":")
        base = getattr(import_module(base_module), base_name)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise BrokenPlugin(f"{kind} {name!r} of {plugin.requirement} is {cls!r}", f"a subclass of {base_name}")
    return cast(type, cls)


def absent(kind: str, name: str, available: list[str]) -> PreimageError:
    """The error for a name that is not available: in the catalogue, in a broken plugin, or unknown."""
    broken = {plugin.distribution: plugin for plugin in discover().plugins if plugin.faults}
    if entry := catalogue().get((kind, name)):
        distribution = entry["distribution"]
        if distribution in broken:
            fault = broken[distribution].faults[0]
            return BrokenPlugin(
                f"{kind} {name!r} is offered by {distribution}, which is broken: {fault.problem}", remedy=fault.remedy
            )
        return NotInstalled(
            f"{kind} {name!r} is not installed",
            f"distribution {distribution}, which offers it",
            f"pip install {distribution}",
        )
    others = sorted({n for k, n in catalogue() if k == kind} - set(available))
    close = difflib.get_close_matches(name, [*available, *others], n=3, cutoff=0.5)
    expected = f"one of those installed: {', '.join(available) or 'none'}"
    if others:
        expected += f"; not installed: {', '.join(others)}"
    remedy = f"did you mean {' or '.join(repr(c) for c in close)}?" if close else f"preimage list {kind} shows them all"
    if not close and broken:
        remedy += f"; broken plugins, which may offer it: {', '.join(broken)} (preimage plugins)"
    return UnknownComponent(f"no {kind} is named {name!r}", expected, remedy)
