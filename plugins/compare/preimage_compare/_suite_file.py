"""Reading suites: includes, labels, overrides, and everything that is wrong with them at once."""

import copy
import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from preimage import load, names
from preimage._parameters import problems as parameter_problems, unknown
from preimage.assembly import read_toml, with_overrides
from preimage.errors import BadFile, BadParameter, NotInstalled, PreimageError, raise_all

from .suite import Limits, Method, Override, Part, Suite

SHIPPED = Path(__file__).parent / "suites"

_AXES = ("data", "operator", "noise")
_LISTS = (*_AXES, "method")
_SETTINGS = ("title", "description", "include", "seeds", "device", "dtype", "threads", "reference", "limits")
_SETTABLE = ("prior", "solver", "preset", "start", "observer")
_METHOD = ("label", *_SETTABLE, "limits", "override", "search")
_START = ("prior", "solver", "preset")

Table = dict[str, Any]


def shipped() -> dict[str, Path]:
    """Suites of this package by name; files that start with an underscore are for including."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml")) if not path.name.startswith("_")}


def find(given: str | Path) -> Path:
    """The file that is meant: a path, or the name of a suite that ships."""
    path = Path(given)
    known = shipped()
    if str(given) in known and not path.is_file():
        return known[str(given)]
    if not path.exists() and path.suffix != ".toml" and len(path.parts) == 1:
        close = difflib.get_close_matches(str(given), known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "preimage compare lists the suites that ship"
        raise BadFile(f"there is no suite {str(given)!r}", f"a TOML file, or one of {', '.join(known)}", remedy)
    return path


def read(path: Path) -> Suite:
    """A checked suite. Raises one error, or `SeveralProblems` with all of them."""
    found: list[PreimageError] = []
    tables = _included(path, (), found)
    suite = _Reader(path, tables, found).suite()
    raise_all(f"suite {path}", found)
    return suite


def _included(path: Path, above: tuple[Path, ...], found: list[PreimageError]) -> Table:
    """The tables of a file over those that it includes; every entry of a list remembers where it stood."""
    if path.resolve() in above:
        chain = " -> ".join(p.name for p in (*above, path))
        found.append(BadFile(f"{path} includes itself: {chain}", "includes without a cycle", "remove one of them"))
        return {}
    try:
        own = read_toml(path)
    except BadFile as error:
        if not above:
            raise
        found.append(error.within(f"{above[-1]}: include", "paths count from the file that includes"))
        return {}
    include: Any = own.pop("include", [])
    include = [include] if isinstance(include, str) else include
    if not isinstance(include, list) or not all(isinstance(name, str) for name in cast("list[Any]", include)):
        found.append(BadParameter(f"{path}: include is {include!r:.60}", "a list of files", 'include = ["base.toml"]'))
        include = []
    tables: Table = {}
    for name in cast("list[str]", include):
        tables = _over(tables, _included(path.parent / name, (*above, path.resolve()), found))
    for key in _LISTS:
        entries: Any = own.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in cast("list[Any]", entries)):
            found.append(BadParameter(f"{path}: {key} is {entries!r:.60}", f"tables [[{key}]]", f"write [[{key}]]"))
            own[key] = entries = []
        seen: dict[Any, int] = {}
        for number, entry in enumerate(cast("list[Table]", entries), 1):
            label = entry.get("label", entry.get("name"))
            where = f"{path}: [[{key}]] {label!r}" if isinstance(label, str) else f"{path}: [[{key}]] number {number}"
            entry["\0where"] = where
            if isinstance(label, str):
                entry["label"] = label
                if label in seen:
                    twice = f"{where} stands twice (entries {seen[label]} and {number})"
                    found.append(BadParameter(twice, "labels that differ", "give one of them another label"))
                seen[label] = number
    return _over(tables, own)


def _over(base: Table, own: Table) -> Table:
    """`own` over `base`: lists of tables joined by label, tables merged, anything else replaced."""
    merged = copy.deepcopy(base)
    for key, value in own.items():
        if key in _LISTS and key in merged:
            known = {entry.get("label"): position for position, entry in enumerate(merged[key])}
            for entry in value:
                if (position := known.get(entry.get("label"))) is None or entry.get("label") is None:
                    merged[key].append(entry)
                else:
                    merged[key][position] = _merge(merged[key][position], entry)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _merge(base: Any, own: Any) -> Any:
    """Tables merged key by key, unless they name different components."""
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    old, new = cast(Table, base), cast(Table, own)
    if "name" in new and new["name"] != old.get("name"):
        return new
    return old | {key: _merge(old.get(key), value) for key, value in new.items()}


class _Reader:
    """From tables to a suite; problems go to `found`."""

    def __init__(self, path: Path, tables: Table, found: list[PreimageError]):
        self.path, self.tables, self.found = path, tables, found

    def suite(self) -> Suite:
        known = (*_SETTINGS, *_LISTS)
        self.found += [unknown(key, known, f"{self.path}: there is no key") for key in self.tables if key not in known]
        parts = {axis: self.parts(axis) for axis in _AXES}
        labels = {axis: [part.label for part in found] for axis, found in parts.items()}
        methods = [self.method(entry, labels) for entry in self.entries("method")]
        reference = self.value("reference", _text, "the label of a method", methods[0].label if methods else "")
        if methods and reference not in (known := [method.label for method in methods]):
            self.found.append(unknown(reference, known, f"{self.path}: reference: there is no method"))
        return Suite(
            title=self.value("title", _text, "text", self.path.stem),
            description=self.value("description", _text, "text", ""),
            data=parts["data"],
            operators=parts["operator"],
            noises=parts["noise"],
            methods=tuple(methods),
            seeds=tuple(self.value("seeds", _seeds, "different integers, such as [0, 1]", [0])),
            device=self.value("device", _text, 'the name of a device, such as "cpu" or "cuda"', "cpu"),
            dtype=self.value("dtype", lambda v: v in ("float32", "float64"), "'float32' or 'float64'", "float32"),
            threads=self.value("threads", lambda v: _integer(v) and v >= 1, "a positive integer", 1),
            reference=reference,
            limits=self.limits(self.tables.get("limits", {}), f"{self.path}: [limits]"),
            path=self.path,
        )

    def value(self, key: str, accepts: Callable[[Any], bool], expected: str, default: Any) -> Any:
        value = self.tables.get(key, default)
        if accepts(value):
            return value
        self.found.append(BadParameter(f"{self.path}: {key} is {value!r:.60}", expected, f"write {key} = {default!r}"))
        return default

    def entries(self, key: str) -> list[Table]:
        """The labelled entries of a list."""
        listed: list[Table] = self.tables.get(key, [])
        if not listed:
            expected = f"at least one [[{key}]]"
            self.found.append(
                BadParameter(f"{self.path}: there is no [[{key}]]", expected, f"add [[{key}]] with a label")
            )
        labelled: list[Table] = []
        for entry in listed:
            if isinstance(entry.get("label"), str) and entry["label"]:
                labelled.append(entry)
            else:
                expected = "a label: text that is unique, and stands in the report"
                remedy = f'write label = "my {key}"'
                self.found.append(BadParameter(f"{entry.get(_WHERE, self.path)} has no label", expected, remedy))
        return labelled

    def parts(self, axis: str) -> tuple[Part, ...]:
        kind = "dataset" if axis == "data" else axis
        made: list[Part] = []
        for entry in self.entries(axis):
            where = entry[_WHERE]
            table = {key: value for key, value in entry.items() if key not in ("label", _WHERE)}
            tables: Any = [table]
            if axis == "operator" and "parts" in table:
                tables = table.pop("parts")
                self.found += [unknown(key, ["parts"], f"{where}: beside parts there is no") for key in table]
            if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
                remedy = 'write parts = [{name = "gaussian-blur"}, {name = "inpainting"}]'
                self.found.append(BadParameter(f"{where}: parts is {tables!r:.60}", "a list of tables", remedy))
                continue
            for each in cast("list[Table]", tables):
                self.component(kind, each, where)
            made.append(Part(entry["label"], tuple(cast("list[Table]", tables)), where))
        return tuple(made)

    def component(self, kind: str, table: Table, where: str) -> None:
        """Check name and parameters; what is known but not installed is left to the assembly, which skips its cells."""
        values = {key: value for key, value in table.items() if key != "name"}
        name = table.get("name")
        if not isinstance(name, str):
            text = "has no name" if name is None else f"has the name {name!r}"
            expected = f"the name of a {kind}: {', '.join(names(kind))}"
            self.found.append(
                BadParameter(f"{where} {text}", expected, f'write name = "{next(iter(names(kind)), "")}"')
            )
            return
        if kind == "prior":
            values.pop("weight", None)  # the pipeline's, not the constructor's; checked at assembly
        try:
            self.found += parameter_problems(load(kind, name), values, f"{where}: {kind} {name!r}")
        except NotInstalled:
            return
        except PreimageError as error:
            self.found.append(error.within(where))

    def method(self, entry: Table, labels: Mapping[str, list[str]]) -> Method:
        where = entry[_WHERE]
        self.found += [
            unknown(key, _METHOD, f"{where}: there is no key") for key in entry if key not in (*_METHOD, _WHERE)
        ]
        tables = {key: entry[key] for key in _SETTABLE if key in entry}
        if "preset" in tables and not _text(tables["preset"]):
            self.found.append(BadParameter(f"{where}: preset is {tables['preset']!r}", "the name of a preset"))
        if "preset" not in tables and "solver" not in tables:
            remedy = 'write solver = {name = "admm"}, or preset = "tv"'
            self.found.append(BadParameter(f"{where} has neither solver nor preset", "a solver", remedy))
        before = len(self.found)
        self.components(tables, where)
        sound = len(self.found) == before
        overrides = [self.override(given, where, number, labels) for number, given in self.listed(entry, where)]
        for number, override in enumerate(overrides, 1) if sound else ():
            place = f"{where}: override {number}"
            try:
                self.components(with_overrides(tables, override.values, place), place)
            except BadParameter as error:
                self.found.append(error)
        search: Any = entry.get("search", {})
        if not isinstance(search, dict):
            self.found.append(BadParameter(f"{where}: search is {search!r:.60}", "a table", "see preimage tune --help"))
            search = {}
        limits = self.limits(entry.get("limits", {}), f"{where}: limits")
        return Method(entry["label"], tables, tuple(overrides), limits, cast(Table, search), where)

    def components(self, tables: Table, where: str) -> None:
        start: Any = tables.get("start", {})
        if not isinstance(start, dict):
            expected, remedy = "a table with a solver", 'write start = {solver = {name = "..."}}'
            self.found.append(BadParameter(f"{where}: start is {start!r:.60}", expected, remedy))
        elif start:
            own = {**cast(Table, start), **({"preset": tables["preset"]} if "preset" in tables else {})}
            self.found += [unknown(key, _START, f"{where}: start has no") for key in own if key not in _START]
            self.components({key: own[key] for key in _START if key in own}, f"{where}: start")
        for kind in ("prior", "solver", "observer"):
            given: Any = tables.get(kind, [])
            listed: list[Any] = [given] if isinstance(given, dict) else given
            if not isinstance(listed, list) or not all(isinstance(table, dict) for table in listed):
                remedy = f'write {kind} = {{name = "..."}}'
                self.found.append(BadParameter(f"{where}: {kind} is {given!r:.60}", "a table", remedy))
                continue
            for table in cast("list[Table]", listed):
                if "name" in table or "preset" not in tables:  # over a preset, a few values may do
                    self.component(kind, table, where)

    def listed(self, entry: Table, where: str) -> Iterable[tuple[int, Table]]:
        given: Any = entry.get("override", [])
        if not isinstance(given, list) or not all(isinstance(item, dict) for item in cast("list[Any]", given)):
            expected = "tables [[method.override]]"
            self.found.append(
                BadParameter(f"{where}: override is {given!r:.60}", expected, "write [[method.override]]")
            )
            return ()
        return enumerate(cast("list[Table]", given), 1)

    def override(self, given: Table, where: str, number: int, labels: Mapping[str, list[str]]) -> Override:
        place = f"{where}: override {number}"
        self.found += [
            unknown(k, (*_AXES, "set"), f"{place}: there is no key") for k in given if k not in (*_AXES, "set")
        ]
        matched: dict[str, frozenset[str]] = {}
        for axis in _AXES:
            wanted: Any = given.get(axis, [])
            wanted = [wanted] if isinstance(wanted, str) else wanted
            if not isinstance(wanted, list):
                self.found.append(BadParameter(f"{place}: {axis} is {wanted!r:.60}", f"labels of [[{axis}]]"))
                continue
            strange = [label for label in wanted if label not in labels[axis]]
            self.found += [unknown(str(label), labels[axis], f"{place}: there is no {axis}") for label in strange]
            matched[axis] = frozenset(label for label in wanted if label not in strange)
        values: Any = given.get("set", {})
        if not isinstance(values, dict) or not values:
            remedy = 'write set = {"prior.weight" = 0.01}'
            self.found.append(BadParameter(f"{place}: set is {values!r:.60}", "a table of values", remedy))
            return Override({}, **matched)
        for key in (key for key in values if key.partition(".")[0] not in _SETTABLE):
            self.found.append(
                BadParameter(
                    f"{place} sets {key}",
                    "keys of the prior, the solver or the preset: all methods see the same images and measurements",
                    "add another [[operator]], [[noise]] or [[data]] instead",
                )
            )
        return Override({k: v for k, v in values.items() if k.partition(".")[0] in _SETTABLE}, **matched)

    def limits(self, given: Any, where: str) -> Limits:
        if not isinstance(given, dict):
            self.found.append(BadParameter(f"{where} is {given!r:.60}", "a table", "write [limits] seconds = 60"))
            return Limits()
        known = tuple(Limits().as_dict())
        values: Table = {}
        for key, value in cast(Table, given).items():
            whole = key == "evaluations"
            if key not in known:
                self.found.append(unknown(key, known, f"{where}: there is no key"))
            elif isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value > 0:
                expected = "a positive integer" if whole else "a positive number"
                self.found.append(BadParameter(f"{where}: {key} is {value!r}", expected, f"write {key} = 60"))
            else:
                values[key] = value
        return Limits(**values)


_WHERE = "\0where"


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _seeds(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_integer, value)) and len(set(value)) == len(value)
