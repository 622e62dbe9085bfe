"""Discovery of plugins through entry points. Imports no torch, and one broken plugin never takes others down."""

import os
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pluggy

from ._hookspecs import PluginHooks, hookimpl

KINDS = ("operator", "noise", "prior", "solver", "observer", "dataset", "metric", "trainer", "study")

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)?")
_TARGET = re.compile(r"[\w.]+:\w+")


@dataclass(frozen=True)
class Component:
    """One named thing a plugin offers. Plain data, so that listing names imports no torch.

    - `kind`: one of `KINDS`. `name`: lower-case words joined by hyphens, unique within its kind.
    - `target`: where the class is, `"package.module:Class"`.
    - `summary`: one line.
    - `shape`, `examples`: an image shape and parameter sets for which `preimage check` makes an instance of the class
      and holds it to the laws of its kind. Small enough for a test.
    """

    kind: str
    name: str
    target: str
    summary: str
    shape: tuple[int, ...] = (1, 16, 16)
    examples: tuple[Mapping[str, Any], ...] = field(default=({},))

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} of component {self.name!r} is not one of {', '.join(KINDS)}")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"component name {self.name!r} is not lower-case words joined by hyphens")
        if not _TARGET.fullmatch(self.target):
            raise ValueError(f"target {self.target!r} of {self.name!r} is not of the form 'package.module:Class'")


@dataclass(frozen=True)
class Command:
    """A subcommand of `preimage`: its name, a click command at `"package.module:function"`, and one line of help."""

    name: str
    target: str
    summary: str


@dataclass(frozen=True)
class WeightsFile:
    """Weights that a plugin ships: for which component ("prior/flow"), under which name, where ("package:folder/file"),
    and one line saying what they were made from."""

    component: str
    name: str
    target: str
    summary: str


def resource(target: str) -> Path:
    """The file at "package:folder/file" of an installed package, which is not imported."""
    package, _, path = target.partition(":")
    spec = find_spec(package)
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path(package)
    return folder / path


@dataclass(frozen=True)
class Fault:
    """What is wrong with a plugin: a line, the traceback if there was an exception, and what to do."""

    problem: str
    remedy: str
    traceback: str = ""


@dataclass
class Plugin:
    """One entry point, what it offers, and what is wrong with it."""

    name: str
    distribution: str
    version: str
    components: list[Component] = field(default_factory=list[Component])
    commands: list[Command] = field(default_factory=list[Command])
    weights: list[WeightsFile] = field(default_factory=list[WeightsFile])
    presets: list[str] = field(default_factory=list[str])
    faults: list[Fault] = field(default_factory=list[Fault])

    @property
    def requirement(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Discovery:
    """Everything found at start-up.

    `components` and `commands` map (kind, name) and name to the plugins that offer them: more than one is a clash,
    reported when the name is used.
    """

    manager: pluggy.PluginManager
    plugins: tuple[Plugin, ...]
    components: Mapping[tuple[str, str], list[tuple[Component, Plugin]]]
    commands: Mapping[str, list[tuple[Command, Plugin]]]
    weights: tuple[WeightsFile, ...] = ()
    presets: tuple[str, ...] = ()


@cache
def discover() -> Discovery:
    """Import the entry module of every plugin, once, and ask each what it offers.

    `PREIMAGE_PLUGINS="a,b"` loads only these distributions or entry points; the empty string loads none.
    """
    manager = pluggy.PluginManager("preimage")
    manager.add_hookspecs(PluginHooks)
    found: list[Plugin] = []
    for name, distribution, version, load in _entry_points():
        plugin = Plugin(name, distribution, version)
        found.append(plugin)
        _register(manager, plugin, load)
    components: dict[tuple[str, str], list[tuple[Component, Plugin]]] = {}
    commands: dict[str, list[tuple[Command, Plugin]]] = {}
    for plugin in found:
        for component in plugin.components:
            components.setdefault((component.kind, component.name), []).append((component, plugin))
        for command in plugin.commands:
            commands.setdefault(command.name, []).append((command, plugin))
    clashes = [(f"{kind} {name!r}", owners) for (kind, name), owners in components.items()]
    clashes += [(f"command {name!r}", owners) for name, owners in commands.items()]
    for what, owners in clashes:
        for _, plugin in owners if len(owners) > 1 else ():
            others = " and ".join(other.requirement for _, other in owners if other is not plugin) or "itself, twice"
            remedy = f"pip uninstall one of them, or choose with PREIMAGE_PLUGINS={plugin.distribution}"
            plugin.faults.append(Fault(f"{what} is also offered by {others}; neither can be used", remedy))
    weights = tuple(file for plugin in found for file in plugin.weights)
    presets = tuple(target for plugin in found for target in plugin.presets)
    return Discovery(manager, tuple(found), components, commands, weights, presets)


def _entry_points() -> "list[tuple[str, str, str, Callable[[], Any]]]":
    only = os.environ.get("PREIMAGE_PLUGINS")
    wanted = None if only is None else {name.strip() for name in only.split(",")}
    found: list[tuple[str, str, str, Callable[[], Any]]] = [
        ("core", "preimage", _version(), lambda: import_module("preimage._builtin"))
    ]
    seen: set[tuple[str, str, str]] = set()
    for entry in sorted(entry_points(group="preimage"), key=lambda e: (e.name, e.value)):
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown distribution", "?")
        identity = (distribution, entry.name, entry.value)
        if identity in seen or (wanted is not None and not wanted & {entry.name, distribution}):
            continue  # an editable install can be listed twice on sys.path
        seen.add(identity)
        found.append((entry.name, distribution, version, _loader(entry)))
    return found


def _loader(entry: EntryPoint) -> Callable[[], Any]:
    return lambda: entry.load()


def _version() -> str:
    from . import __version__

    return __version__


def _register(manager: pluggy.PluginManager, plugin: Plugin, load: Callable[[], Any]) -> None:
    name = f"{plugin.distribution}:{plugin.name}"
    registered: ModuleType | None = None
    try:
        registered = load()
        manager.register(registered, name)
        for hook in (n for n in dir(registered) if n.startswith("preimage_") and callable(getattr(registered, n))):
            if hook in _hooks() and not _is_hook(registered, hook):
                raise TypeError(f"{hook} is not marked with @hookimpl")
            if hook not in _hooks() and _is_hook(registered, hook):
                raise TypeError(f"there is no plugin hook {hook!r}; there are {', '.join(_hooks())}")
        plugin.components = _answers(registered, "preimage_components", Component)
        plugin.commands = _answers(registered, "preimage_commands", Command)
        plugin.weights = _answers(registered, "preimage_weights", WeightsFile)
        plugin.presets = _answers(registered, "preimage_presets", str)
    except (Exception, SystemExit) as error:  # a plugin must not end the program either
        plugin.components, plugin.commands, plugin.weights, plugin.presets = [], [], [], []
        plugin.faults.append(Fault(_describe(error), _remedy(error, plugin), traceback.format_exc()))
        if manager.get_plugin(name) is not None:
            manager.unregister(name=name)


def _hooks() -> list[str]:
    return [name for name in vars(PluginHooks) if name.startswith("preimage_")]


def _is_hook(module: Any, name: str) -> bool:
    return hasattr(getattr(module, name), "preimage_impl")


def _answers(module: Any, hook: str, wanted: type) -> list[Any]:
    if not hasattr(module, hook):
        return []
    answer = getattr(module, hook)()
    if not isinstance(answer, list) or not all(isinstance(item, wanted) for item in cast("list[object]", answer)):
        raise TypeError(f"{hook}() returned {answer!r:.200}, not a list of {wanted.__name__}")
    return cast("list[Any]", answer)


def _describe(error: BaseException) -> str:
    if isinstance(error, pluggy.PluginValidationError):
        return f"wrong hook signature: {str(error).splitlines()[-1].strip() or error}"
    return f"{type(error).__name__}: {error}"


def _remedy(error: BaseException, plugin: Plugin) -> str:
    package = plugin.distribution
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.partition(".")[0]
        own = package.replace("-", "_")
        if missing != own:
            return f"install the missing module: pip install {missing}"
        return (
            f"its entry point names a module that does not exist; reinstall it: pip install --force-reinstall {package}"
        )
    if isinstance(error, pluggy.PluginValidationError | TypeError):
        return f"mend the hook in {package} (signatures: preimage/_hookspecs.py), or pip uninstall {package}"
    either = f"pip install --upgrade {package}, or pip uninstall {package}"
    return f"{either}; preimage plugins --traceback shows where it fails"


__all__ = [
    "KINDS",
    "Command",
    "Component",
    "Discovery",
    "Fault",
    "Plugin",
    "WeightsFile",
    "discover",
    "hookimpl",
    "resource",
]
