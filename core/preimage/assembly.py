"""From TOML tables to parts: everything that is wrong is found, and reported together.

`Pipeline.from_file` and `Pipeline.from_dict` are what one uses; plugins with commands of their own read, change and
construct parts of a pipeline with the functions here.
"""

import copy
import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from ._dataset import Dataset
from ._fits import capabilities, fitting, solvers_for
from ._key import Key
from ._operator import ForwardOperator
from ._parameters import construct, problems, unknown, weights_parameters
from ._pipeline import Start
from ._prior import Prior
from ._prior_sum import sum_class, sum_of_priors
from ._provenance import versions
from ._registry import load, names
from ._solver import Solver
from ._tensors import Shape
from .errors import BadFile, BadParameter, Incompatible, PreimageError, raise_all
from .presets import applied, with_defaults

__all__ = ["assemble", "construct", "forward_model", "read_toml", "versions", "with_overrides"]

Tables = Mapping[str, Any]

_METHOD = ("preset", "prior", "solver")
_TOP_LEVEL = (*_METHOD, "start", "seed", "device", "dtype", "shape", "data", "operator", "noise", "observer")
_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_SIZES = "a list of positive sizes: channels, height, width"


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `BadFile` with the place of a syntax error."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadFile(
            f"there is no file {path}", "a pipeline in TOML", "check the path; the docs show an example"
        ) from None
    except IsADirectoryError:
        raise BadFile(f"{path} is a directory", "a pipeline in TOML", f"name a file in it: {path}/NAME.toml") from None
    except UnicodeDecodeError as error:
        found = f"{path} is not text in UTF-8 ({error.reason} at byte {error.start})"
        raise BadFile(found, "a pipeline in TOML", "name the pipeline first; images go after --input") from None
    except tomllib.TOMLDecodeError as error:
        expected = "TOML: [table] headings and key = value lines"
        raise BadFile(f"{path} is not valid TOML: {error}", expected, "mend that line") from None
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}", "a readable file", "check its permissions") from None


def with_overrides(tables: Tables, overrides: Tables, where: str) -> dict[str, Any]:
    """The tables with some values replaced: `{"solver.max_steps": 50, "operator.0.sigma": 2.0}`."""
    changed = copy.deepcopy(dict(tables))
    for path, value in overrides.items():
        *parents, last = path.split(".")
        node: Any = changed
        for name in parents:
            if isinstance(node, list) and name.isdigit() and int(name) < len(cast("list[Any]", node)):
                node = cast("list[Any]", node)[int(name)]
            else:
                node = cast("dict[str, Any]", node).setdefault(name, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            expected = "TABLE.KEY, or TABLE.INDEX.KEY for a list of tables"
            raise BadParameter(f"{where}: cannot set {path}", expected, "name a key of a table, as in solver.max_steps")
        node[last] = value
    return changed


def assemble(tables: Tables, where: str, data: Dataset | None) -> dict[str, Any]:
    """The arguments of `Pipeline` for these tables. Names, types and fits are checked before anything is made."""
    channels = _channels(tables, data)
    tables = applied(tables, where, channels)
    found: list[PreimageError] = [
        unknown(key, _TOP_LEVEL, f"{where}: there is no top-level key") for key in tables if key not in _TOP_LEVEL
    ]
    # Given images replace [data], which then has no part in the result and is not recorded.
    parts = _Parts(tables, where, found, wants_data=data is None)
    first = _start(tables, parts, channels)
    methods = [parts] if first is None else [parts, first]
    settings = _settings(tables, where, found)
    raise_all(where, found)
    for method in methods:
        _check_fit(method, where, found)
    raise_all(where, found)
    for method in methods:
        method.choose_weights()
    raise_all(where, found)

    key = Key(settings["seed"])
    if data is None and parts.data:
        data = parts.make("dataset", parts.data[0], key=key.child("data"))
    declared: Shape | None = settings["shape"]
    shape = declared if data is None else data.shape
    if shape is None and not found:
        expected = "a [data] table, or shape = [1, 96, 96]"
        found.append(BadParameter(f"{where}: the shape of the images is not known", expected, "add either"))
    if data is not None and declared not in (None, data.shape):
        expected = f"{list(data.shape)}, the shape of the images"
        found.append(BadParameter(f"{where}: shape is {list(declared)}", expected, "leave shape out"))
    raise_all(where, found)
    shape = cast(Shape, shape)
    device, dtype = settings["device"], _DTYPES[settings["dtype"]]
    operator = _operator(_OperatorOfImage(parts, shape, key, device, dtype))
    noise = parts.make("noise", parts.noise[0], key=key.child("noise"))
    own = _method(parts, shape, key, device, dtype)
    start = None if first is None else _method(first, shape, key.child("start"), device, dtype)
    observers = tuple(parts.make("observer", table) for table in parts.observer)
    raise_all(where, found)
    given = {} if first is None else {"start": {k: v for k, v in first.resolved().items() if k in _METHOD}}
    return {
        "operator": operator,
        "noise": noise.to(device, dtype),
        **own,
        "start": None if start is None else Start(**start),
        "data": data,
        "key": key,
        "observers": observers,
        "config": parts.resolved() | given | settings | _preset(tables) | {"shape": list(shape)},
    }


def forward_model(tables: Tables, shape: Shape, where: str) -> dict[str, Any]:
    """The arguments of `ForwardModel` for these tables: operator, noise, and perhaps seed, device and dtype."""
    known = ("seed", "device", "dtype", "operator", "noise")
    found: list[PreimageError] = [
        unknown(key, known, f"{where}: there is no top-level key") for key in tables if key not in known
    ]
    parts = _Parts(tables, where, found, wants_data=False, solves=False)
    settings = _settings(tables, where, found)
    raise_all(where, found)
    key, device, dtype = Key(settings["seed"]), settings["device"], _DTYPES[settings["dtype"]]
    operator = _operator(_OperatorOfImage(parts, shape, key, device, dtype))
    noise = parts.make("noise", parts.noise[0], key=key.child("noise"))
    raise_all(where, found)
    config = parts.resolved() | {name: settings[name] for name in ("seed", "device", "dtype")}
    return {"operator": operator, "noise": noise.to(device, dtype), "key": key, "config": config}


def _preset(tables: Tables) -> dict[str, Any]:
    return {"preset": tables["preset"]} if "preset" in tables else {}


def _channels(tables: Tables, data: Dataset | None) -> int | None:
    """Of the images, which a preset may depend on; None where they are not known. What is wrong is said elsewhere."""
    shape = cast(Any, tables.get("shape") if data is None else data.shape)
    with suppress(PreimageError, KeyError, TypeError, ValueError, IndexError):
        if not shape and "preset" in [*tables, *tables.get("start", ())]:
            values = dict(tables["data"])
            shape = construct("dataset", values.pop("name"), values, "", key=Key(0)).shape
        return shape[0] if isinstance(shape[0], int) else None


def _start(tables: Tables, parts: "_Parts", channels: int | None) -> "_Parts | None":
    """Prior and solver of [start], with the operator and noise of all; None if there is none, or it is malformed."""
    if "start" not in tables:
        return None
    given, found = tables["start"], parts.found
    if not isinstance(given, Mapping):
        expected = "a table with a solver, and a prior if it takes one"
        remedy = 'write [start.solver] on a line of its own, and below it name = "..."'
        found.append(BadParameter(f"{parts.where}: start is {given!r:.60}", expected, remedy))
        return None
    shared = {key: tables[key] for key in ("operator", "noise") if key in tables}
    own = cast(Tables, given)
    strange = [key for key in own if key not in _METHOD]
    found += [unknown(key, _METHOD, f"{parts.where}: [start] does not take") for key in strange]
    try:
        filled = applied({**shared, **own}, f"{parts.where}: start", channels)
    except PreimageError as error:
        found.append(error)
        return None
    if "start" in filled and not strange:  # in its preset
        found.append(unknown("start", _METHOD, f"{parts.where}: [start] does not take"))
    return _Parts({key: filled[key] for key in filled if key in _METHOD}, parts.where, found, starts=parts)


def _method(parts: "_Parts", shape: Shape, key: Key, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Solver, prior and weight, made."""
    prior = _prior(parts, shape, key)
    solver = parts.make("solver", parts.solver[0])
    return {"solver": solver, "prior": None if prior is None else prior.to(device, dtype), "weight": parts.weight}


def _prior(parts: "_Parts", shape: Shape, key: Key) -> Prior | None:
    """The prior, or the weighted sum of several; None if there is none, or it cannot be made."""
    made = [
        parts.make("prior", table, in_shape=shape, key=key.child("prior", *([i] if i else [])))
        for i, table in enumerate(parts.prior)
    ]
    if len(made) < 2 or any(prior is None for prior in made):
        return made[0] if made else None
    try:
        return sum_of_priors(made, parts.weights)
    except PreimageError as error:
        parts.found.append(error.within(parts.where))
        return None


class _Parts:
    """The tables of each kind as lists, checked one by one; problems go to `found`.

    `starts`: of the pipeline whose [start] these are; operator and noise are its.
    """

    def __init__(
        self,
        tables: Tables,
        where: str,
        found: list[PreimageError],
        *,
        wants_data: bool = False,
        solves: bool = True,
        starts: "_Parts | None" = None,
    ):
        self.where, self.found = where, found
        self.within, self.place = ("", where) if starts is None else ("start.", f"{where}: start")
        self.weights: list[float] = []
        self.automatic = False
        self.data = self._tables(tables, "data", "dataset", required=False, many=False) if wants_data else []
        if starts is None:
            self.operator = self._tables(tables, "operator", "operator", required=True, many=True)
            self.noise = self._tables(tables, "noise", "noise", required=True, many=False)
        else:
            self.operator, self.noise = starts.operator, starts.noise
        self.prior = self._tables(tables, "prior", "prior", required=False, many=True)
        self.solver = self._tables(tables, "solver", "solver", required=solves, many=False)
        self.observer = self._tables(tables, "observer", "observer", required=False, many=True)

    def _tables(self, tables: Tables, key: str, kind: str, *, required: bool, many: bool) -> list[dict[str, Any]]:
        if key not in tables:
            if required:
                example = f'add [{self.within}{key}] with name = "{next(iter(names(kind)), "...")}"'
                missing = f"{self.where}: there is no [{self.within}{key}]"
                self.found.append(BadParameter(missing, f"a table that names the {kind}", example))
            return []
        given, key = tables[key], self.within + key
        listed = cast("list[Any]", given if isinstance(given, list) else [given])
        if (len(listed) > 1 and not many) or not listed or not all(isinstance(table, dict) for table in listed):
            expected = f"a table [{key}]" + (f", or several [[{key}]]" if many else "")
            remedy = f'write [{key}] on a line of its own, and below it name = "..."'
            self.found.append(BadParameter(f"{self.where}: {key} is {given!r:.60}", expected, remedy))
            return []
        return [dict(table) for table in cast("list[dict[str, Any]]", listed) if self._check(key, kind, dict(table))]

    def _check(self, key: str, kind: str, table: dict[str, Any]) -> bool:
        before = len(self.found)
        name = table.pop("name", None)
        if not isinstance(name, str):
            text = "has no name" if name is None else f"has the name {name!r}"
            known = names(kind)
            remedy = f'write name = "{next(iter(known), "...")}", say'
            expected = f"the name of one: {', '.join(known)}"
            self.found.append(BadParameter(f"{self.where}: [{key}] {text}", expected, remedy))
            return False
        if kind == "prior":
            self._weigh(table.pop("weight", 1.0))
        try:
            self.found += problems(load(kind, name), table, f"{self.where}: {self.within}{kind} {name!r}")
        except PreimageError as error:
            self.found.append(error.within(self.place))
        return len(self.found) == before

    def _weigh(self, weight: object) -> None:
        """Note the weight of a prior; 1 for "auto", of which there may be one: other weights are relative to it."""
        if weight == "auto" and not self.automatic:
            self.automatic, weight = True, 1.0
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            expected = 'a finite number >= 0, or "auto" for one of the priors'
            found = f"{self.where}: [{self.within}prior] weight is {weight!r}"
            self.found.append(BadParameter(found, expected, "write weight = 0.01, say"))
            weight = 1.0
        self.weights.append(float(weight))

    def choose_weights(self) -> None:
        """Replace `weights = "auto"` of a trained network by the weights that ship for this operator and noise."""
        from .trained import choose

        for kind, tables in (("solver", self.solver), ("prior", self.prior)):
            for table in tables:
                for parameter in weights_parameters(load(kind, table["name"])):
                    if with_defaults(kind, table)[parameter] != "auto":
                        continue
                    try:
                        table[parameter] = choose(kind, table["name"], self.operator, self.noise[0], self.place)
                    except PreimageError as error:
                        self.found.append(error)

    @property
    def weight(self) -> "float | Literal['auto']":
        """What multiplies the prior as a whole: a sum has its weights inside."""
        return "auto" if self.automatic else self.weights[0] if len(self.weights) == 1 else 1.0

    def make(self, kind: str, table: dict[str, Any], **context: Any) -> Any:
        """An instance, or None with the reason in `found`."""
        what = f"{self.where}: {self.within}{kind} {table['name']!r}"
        values = {
            name: value for name, value in table.items() if name != "name" and (kind, name) != ("prior", "weight")
        }
        try:
            return construct(kind, table["name"], values, what, **context)
        except PreimageError as error:
            remedy = f"preimage show {kind}/{table['name']} explains its parameters"
            self.found.append(error if error.found.startswith(self.where) else error.within(what, remedy))
        except ValueError as error:  # what a constructor without errors of ours would raise
            self.found.append(BadParameter(f"{what} could not be made: {error}"))
        return None

    def resolved(self) -> dict[str, Any]:
        """The tables with every default filled in, as JSON values."""

        def full(kind: str, table: Mapping[str, Any]) -> dict[str, Any]:
            weight = {"weight": table.get("weight", 1.0)} if kind == "prior" else {}
            return json.loads(json.dumps({"name": table["name"], **with_defaults(kind, table), **weight}, default=str))

        single = {"dataset": self.data, "noise": self.noise, "solver": self.solver}
        tables: dict[str, Any] = {("data" if k == "dataset" else k): full(k, t[0]) for k, t in single.items() if t}
        tables["operator"] = [full("operator", table) for table in self.operator]
        if self.prior:
            priors = [full("prior", table) for table in self.prior]
            tables["prior"] = priors[0] if len(priors) == 1 else priors
        return tables | ({"observer": [full("observer", t) for t in self.observer]} if self.observer else {})


def _settings(tables: Tables, where: str, found: list[PreimageError]) -> dict[str, Any]:
    settings: dict[str, Any] = {"seed": 0, "device": "cpu", "dtype": "float32", "shape": None}
    settings |= {name: tables[name] for name in settings if name in tables}
    if isinstance(settings["seed"], bool) or not isinstance(settings["seed"], int):
        found.append(BadParameter(f"{where}: seed is {settings['seed']!r}", "an integer", "write seed = 0"))
    if settings["dtype"] not in _DTYPES:
        expected = " or ".join(map(repr, _DTYPES))
        found.append(BadParameter(f"{where}: dtype is {settings['dtype']!r}", expected, 'write dtype = "float32"'))
    try:
        torch.empty(0, device=settings["device"])
    except Exception as error:
        reason = str(error).splitlines()[0]
        found.append(
            BadParameter(
                f"{where}: device is {settings['device']!r}: {reason}", "a device of this machine", 'use device = "cpu"'
            )
        )
    shape: Any = settings["shape"]
    if shape is not None:
        sizes = cast("list[Any]", shape) if isinstance(shape, list) else []
        if not sizes or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
            found.append(BadParameter(f"{where}: shape is {shape!r}", _SIZES, "write shape = [1, 96, 96]"))
        settings["shape"] = tuple(sizes)
    return settings


@dataclass(frozen=True)
class _OperatorOfImage:
    """Draws the operator of an image from the image's key; the parts that all images share are the same each time."""

    parts: _Parts
    shape: Shape
    key: Key
    device: str
    dtype: torch.dtype

    def __call__(self, image: Key) -> ForwardOperator:
        whole: ForwardOperator | None = None
        for index, table in enumerate(self.parts.operator):
            seed = image.child(index) if _per_image(table) else self.key.child("operator", index)
            in_shape = self.shape if whole is None else whole.out_shape
            made: ForwardOperator | None = self.parts.make("operator", table, in_shape=in_shape, key=seed)
            raise_all(self.parts.where, self.parts.found)
            made = cast(ForwardOperator, made)
            whole = made if whole is None else made @ whole
        return cast(ForwardOperator, whole).to(device=self.device, dtype=self.dtype)


def _per_image(table: Tables) -> bool:
    return cast("type[ForwardOperator]", load("operator", table["name"])).per_image


def _operator(draw: _OperatorOfImage) -> ForwardOperator | _OperatorOfImage | None:
    """The operator of all images, or what draws one for each; None if it cannot be made, the reason in `found`."""
    found = draw.parts.found
    before = len(found)
    try:
        example = draw(draw.key.child("operator", "example"))
    except PreimageError as error:
        if len(found) == before:
            found.append(error.within(draw.parts.where))
        return None
    return draw if any(_per_image(table) for table in draw.parts.operator) else example


def _check_fit(parts: _Parts, where: str, found: list[PreimageError]) -> None:
    """Compare what the solver needs with what the named classes are; report every misfit, and what would fit."""
    solver = cast("type[Solver[Any]]", load("solver", parts.solver[0]["name"]))
    named = f"{parts.within}solver {parts.solver[0]['name']!r}"
    chosen: list[tuple[str, dict[str, Any] | None, type]] = []
    chosen += [("operator", table, solver.operator_type) for table in parts.operator]
    chosen += [("noise", table, solver.noise_type) for table in parts.noise]
    several = len(parts.prior) > 1
    if solver.prior_type is not None:
        absent = [] if solver.prior_optional else [None]
        chosen += [("prior", table, solver.prior_type) for table in parts.prior or absent if not several]
    elif parts.prior:
        fits = ", ".join(solvers_for("prior", [load("prior", parts.prior[0]["name"])])) or "none installed"
        remedy = f"remove it, or choose a solver that uses it: {fits}"
        prior = f"[{parts.within}prior]"
        found.append(Incompatible(f"{where}: {prior} would have no effect", f"no {prior}: {named} takes none", remedy))
    if several and solver.prior_type is not None:
        try:
            whole = sum_class([load("prior", table["name"]) for table in parts.prior])
        except PreimageError as error:
            found.append(error.within(where))
        else:
            if not issubclass(whole, solver.prior_type):
                text = (
                    f"{where}: the sum of {' and '.join(repr(t['name']) for t in parts.prior)} is {capabilities(whole)}"
                )
                remedy = f"solvers that take it: {', '.join(solvers_for('prior', [whole])) or 'none installed'}"
                found.append(Incompatible(text, f"{solver.prior_type.__name__}, which {named} needs", remedy))
    for kind, table, needed in chosen:
        have: Any = None if table is None else load(kind, table["name"])
        if table is not None and issubclass(have, needed):
            continue
        own = parts.within + kind if kind == "prior" else kind
        text = f"there is no [{own}]" if table is None else f"{own} {table['name']!r} is {capabilities(have)}"
        remedy = f"{kind}s that fit: {', '.join(fitting(kind, needed)) or 'none installed'}"
        if kind == "operator":
            solvers = solvers_for("operator", [load("operator", t["name"]) for t in parts.operator])
            remedy += f"; solvers that take these operators: {', '.join(solvers) or 'none installed'}"
        found.append(Incompatible(f"{where}: {text}", f"{needed.__name__}, which {named} needs", remedy))
