"""Recipes: everything that determines a trained network, in one TOML file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import nn

from preimage import Dataset, ForwardModel, Key, load, names
from preimage._parameters import convert, parameters, problems, unknown
from preimage.assembly import construct, with_overrides
from preimage.errors import BadFile, BadParameter, Incompatible, PreimageError, raise_all
from preimage.trained import Trained
from preimage.weights import find as find_weights

from .include import with_included
from .objective import Objective
from .recovery import Recovery, prior_class
from .settings import Batches, Budget, Export, Optimiser, Precision, Schedule, Validation

SHIPPED = Path(__file__).parent / "recipes"

Tables = Mapping[str, Any]
Settings = Batches | Optimiser | Schedule | Budget | Validation | Export

SETTINGS: dict[str, type[Settings]] = {
    "batches": Batches,
    "optimiser": Optimiser,
    "schedule": Schedule,
    "budget": Budget,
    "validation": Validation,
    "export": Export,
}
_OWN = (("validation", "data"), ("validation", "recovery"))
_TOP_LEVEL = (
    "title", "seed", "precision", "model", "start", "data", "operator", "noise", "objective", *SETTINGS, "search",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe. `tables` is what it says, `digest` their SHA-256: it tells runs of different recipes apart.

    - `component`: "solver/unet". `config`: the arguments of its network. `start`: weights to start from, or "".
    - `data`, `validation_data`: tables of data sets. `forward`: the tables operator and noise.
    - `recovery`: the inverse problem of [validation.recovery], if there is one.
    """

    where: str
    tables: dict[str, Any]
    seed: int
    precision: Precision
    component: str
    config: dict[str, Any]
    start: str
    data: list[dict[str, Any]]
    validation_data: list[dict[str, Any]]
    forward: dict[str, Any]
    objective: Objective
    batches: Batches
    optimiser: Optimiser
    schedule: Schedule
    budget: Budget
    validation: Validation
    export: Export
    recovery: Recovery | None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.tables, sort_keys=True).encode()).hexdigest()

    @property
    def key(self) -> Key:
        return Key(self.seed)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the network, defaults filled in: what the header of the weights keeps."""
        defaults = {p.name: p.default for p in parameters(network_class(self.component)) if not p.required}
        return defaults | self.config

    def network(self) -> nn.Module:
        """The network, untrained: its constructor draws weights by torch's generator, seeded here from the key."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.key.child("weights").generator().integers(2**62)))
            return network_class(self.component)(**self.config)

    def forward_model(self, shape: tuple[int, ...], device: torch.device | str = "cpu") -> ForwardModel | None:
        """What simulates measurements of images of this shape; None if the recipe has no operator."""
        if not self.forward:
            return None
        return ForwardModel.from_tables(self.forward | {"seed": self.seed, "device": str(device)}, shape, self.where)

    def datasets(self, tables: list[dict[str, Any]], what: str) -> list[Dataset]:
        """The data sets of [data] or [validation]."""
        key = self.key.child(what)
        return [
            construct(
                "dataset", t["name"], {k: v for k, v in t.items() if k != "name"}, f"{self.where}: {what}", key=key
            )
            for t in tables
        ]


def network_class(component: str) -> type[nn.Module]:
    """The network of a component ("solver/unet"). Raises `Incompatible` if it has none, or as the registry."""
    kind, _, name = component.partition("/")
    cls = load(kind, name) if name and kind in ("solver", "prior") else None
    if cls is None or not issubclass(cls, Trained):
        found = f"{component!r} has no network to train"
        raise Incompatible(found, "a solver or prior made of trained weights, such as solver/unet", "preimage list")
    return cls.network


def find(given: str) -> Path:
    """The file that is meant: a path, or the name of a recipe that ships."""
    path = Path(given)
    if path.is_file() or path.suffix == ".toml" or len(path.parts) > 1:
        return path
    known = _shipped()
    if given in known:
        return known[given]
    error = unknown(given, known, "there is no recipe")
    raise BadFile(error.found, f"a TOML file, or one of {error.expected}", error.remedy)


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def read(path: Path, overrides: Tables | None = None) -> Recipe:
    """A checked recipe, some values replaced. Raises one error, or `SeveralProblems` with all of them."""
    return parse(with_overrides(read_tables(path), overrides or {}, str(path)), str(path))


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a recipe file, with those that it includes (`with_included`), unchecked."""
    return with_included(path, find)


def parse(tables: Tables, where: str = "recipe") -> Recipe:
    """A recipe from tables as they stand in a TOML file; errors as `read`."""
    found: list[PreimageError] = [
        unknown(key, _TOP_LEVEL, f"{where}: there is no top-level key") for key in tables if key not in _TOP_LEVEL
    ]
    seed, precision, start = tables.get("seed", 0), tables.get("precision", "32-true"), tables.get("start", "")
    if isinstance(seed, bool) or not isinstance(seed, int):
        found.append(BadParameter(f"{where}: seed is {seed!r}", "an integer", "write seed = 0"))
    if precision not in get_args(Precision):
        found.append(BadParameter(f"{where}: precision is {precision!r}", " or ".join(get_args(Precision))))
    if not isinstance(start, str):
        found.append(BadParameter(f"{where}: start is {start!r}", "the name of weights, or a file"))
    settings = {name: _settings(tables, name, cls, where, found) for name, cls in SETTINGS.items()}
    component, config = _model(tables, where, found)
    data = _data(tables.get("data"), "data", where, found)
    validation: Any = tables.get("validation", {})
    asked = isinstance(validation, dict) and "data" in validation
    judged = _data(validation["data"], "validation.data", where, found) if asked else []
    recovery = _recovery(tables, component, where, found)
    objective = _objective(tables, where, found)
    forward = {name: tables[name] for name in ("operator", "noise") if name in tables}
    if objective is not None:
        if objective.needs_forward_model and len(forward) < 2:
            absent = " and ".join(f"[{name}]" for name in ("operator", "noise") if name not in forward)
            found.append(BadParameter(f"{where}: there is no {absent}", "what the network is trained for"))
        if not objective.needs_forward_model and forward:
            expected = "only tables that matter"
            found.append(BadParameter(f"{where}: [operator] and [noise] have no effect", expected, "remove them"))
    found += _forward(forward, where)
    if component and isinstance(start, str) and start:
        try:
            find_weights(component, start)
        except PreimageError as error:
            if (first := Path(start).parent.name) in _shipped():
                error.remedy = f"it is what another recipe trains: preimage train {first}"
            found.append(error.within(f"{where}: start"))
    raise_all(f"recipe {where}", found)
    return Recipe(
        where=where, tables=json.loads(json.dumps(tables, default=str)), seed=seed, precision=precision,
        component=component, config=config, start=start, data=data, validation_data=judged, forward=forward,
        objective=cast(Objective, objective), recovery=recovery, **cast("dict[str, Any]", settings),
    )  # fmt: skip


def _settings(tables: Tables, name: str, cls: type[Settings], where: str, found: list[PreimageError]) -> Any:
    values = tables.get(name, {})
    what = f"{where}: [{name}]"
    if not isinstance(values, dict):
        found.append(BadParameter(f"{where}: {name} is {values!r:.60}", f"a table [{name}]"))
        return None
    values = {key: value for key, value in values.items() if (name, key) not in _OWN}
    wrong = problems(cls, values, what)
    if wrong:
        found += wrong
        return None
    known = {p.name: p for p in parameters(cls)}
    try:
        return cls(**{key: convert(known[key], value) for key, value in values.items()})
    except PreimageError as error:
        found.append(error.within(where))
        return None


def _named(value: Any, what: str, where: str, found: list[PreimageError]) -> dict[str, Any] | None:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return dict(cast("dict[str, Any]", value))
    text = f"there is no [{what}]" if value is None else f"[{what}] is {value!r:.60}"
    found.append(BadParameter(f"{where}: {text}", "a table with a name", f'write [{what}] and name = "..."'))
    return None


def _model(tables: Tables, where: str, found: list[PreimageError]) -> tuple[str, dict[str, Any]]:
    table = _named(tables.get("model"), "model", where, found)
    if table is None:
        return "", {}
    component = table.pop("name")
    try:
        wrong = problems(network_class(component), table, f"{where}: model {component!r}")
    except PreimageError as error:
        wrong = [error.within(where)]
    found += wrong
    if not wrong:
        try:
            with torch.random.fork_rng(devices=[]):
                network_class(component)(**table)
        except PreimageError as error:
            found.append(error.within(f"{where}: model {component!r}"))
    return component, table


def _data(value: Any, what: str, where: str, found: list[PreimageError]) -> list[dict[str, Any]]:
    listed = value if isinstance(value, list) and value else [value]
    made = list[dict[str, Any]]()
    for entry in cast("list[Any]", listed):
        if (table := _named(entry, what, where, found)) is None:
            continue
        values = {key: v for key, v in table.items() if key != "name"}
        try:
            found += problems(load("dataset", table["name"]), values, f"{where}: {what} {table['name']!r}")
        except PreimageError as error:
            found.append(error.within(where))
        made.append(table)
    return made


def _forward(tables: Tables, where: str) -> list[PreimageError]:
    """What is wrong with [operator] and [noise], as far as that can be told without an image."""
    found: list[PreimageError] = []
    for kind, value in tables.items():
        for entry in cast("list[Any]", value if isinstance(value, list) else [value]):
            if (table := _named(entry, kind, where, found)) is None:
                continue
            name = table.pop("name")
            try:
                found += problems(load(kind, name), table, f"{where}: {kind} {name!r}")
            except PreimageError as error:
                found.append(error.within(where))
    return found


def _recovery(tables: Tables, component: str, where: str, found: list[PreimageError]) -> Recovery | None:
    validation = tables.get("validation")
    if not isinstance(validation, dict) or "recovery" not in validation:
        return None
    given, what = cast("dict[str, Any]", validation)["recovery"], f"{where}: [validation.recovery]"
    if not isinstance(given, dict):
        found.append(BadParameter(f"{what} is {given!r:.60}", "a table with operator, noise and solver"))
        return None
    values = cast("dict[str, Any]", given)
    wrong = problems(Recovery, values, what)
    wrong += [] if "data" in validation else [BadParameter(f"{what} without [validation] data", "images", "give them")]
    if not wrong:
        parts = {name: values[name] for name in ("operator", "noise", "solver")}
        wrong += _forward(parts, what)
    try:
        if component:
            prior_class(component)
        found += wrong
        return None if wrong else Recovery(**values)
    except PreimageError as error:
        found.append(error.within(where))
        return None


def _objective(tables: Tables, where: str, found: list[PreimageError]) -> Objective | None:
    table = _named(tables.get("objective"), "objective", where, found)
    if table is None:
        found[-1].remedy = f"objectives are {', '.join(names('trainer'))}"
        return None
    name = table.pop("name")
    try:
        return construct("trainer", name, table, f"{where}: objective {name!r}")
    except PreimageError as error:
        found.append(error.within(where))
        return None


def title(path: Path) -> str:
    """The title of a recipe file."""
    return str(read_tables(path).get("title", ""))
