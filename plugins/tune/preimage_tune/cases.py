"""What there is to tune in a suite: every method on every operator and noise, with the space it is searched in."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from preimage_compare.suite import Combination, Suite

from preimage import load
from preimage._parameters import Parameter, convert, parameters, unknown
from preimage._provenance import component_tables
from preimage.errors import BadParameter, BrokenPlugin, NotInstalled, PreimageError, raise_all
from preimage.presets import applied

from .space import Space, parse_space

Tables = Mapping[str, Any]
METHOD = ("prior", "solver", "start")
"""The tables of a pipeline that a method is."""
_PARTS = ("operator", "noise", *METHOD)


class Label(NamedTuple):
    """A method on an operator and noise, by its labels."""

    method: str
    operator: str
    noise: str

    def __str__(self) -> str:
        return " / ".join(self)


@dataclass(frozen=True)
class Case:
    """What one search is about.

    - `tables`: for each data label the tables of a pipeline, presets filled in, without a seed.
    - `space`: of the parameters searched, `prior.NAME` (`prior.INDEX.NAME` where priors are added) or `solver.NAME`,
      `start.prior.NAME` or `start.solver.NAME`.
    - `refused`: why it cannot even be looked at (a preset without values for it, a plugin that is not installed).
    """

    label: Label
    tables: Mapping[str, Tables]
    space: Space
    refused: str = ""

    @property
    def parts(self) -> dict[str, Any]:
        """The tables that a preset is made for and of: operator, noise, prior, solver, start."""
        first = next(iter(self.tables.values()))
        return {key: first[key] for key in _PARTS if key in first}


def cases(suite: Suite, only: Sequence[str] = ()) -> list[Case]:
    """The cases of a suite, of all methods or of some, operators in the outer and methods in the inner loop.

    Raises `BadParameter` for a method in `only` that the suite does not have, for a search over a parameter that does
    not exist or cannot take the values, and for a method whose parameters depend on the data set; all together.
    """
    known = [method.label for method in suite.methods]
    found: list[PreimageError] = [
        unknown(name, known, "--only: there is no method") for name in only if name not in known
    ]
    raise_all("--only", found)
    made: list[Case] = []
    for operator in suite.operators:
        for noise in suite.noises:
            for method in suite.methods:
                if not only or method.label in only:
                    try:
                        made.append(_case(suite, Label(method.label, operator.label, noise.label)))
                    except PreimageError as error:
                        found.append(error)
    seen: dict[str, PreimageError] = {str(error): error for error in found}  # once, not for every operator and noise
    raise_all(f"the searches of suite {suite.title!r}", list(seen.values()))
    return made


def _case(suite: Suite, label: Label) -> Case:
    method = suite.method(label.method)
    where = method.where or f"method {label.method!r}"
    space = parse_space(method.search, f"{where}: search")
    tables: dict[str, Tables] = {}
    for data in suite.data:
        own = suite.tables(Combination(data.label, label.operator, label.noise, label.method))
        try:
            channels = suite.datasets[data.label].shape[0] if "preset" in own else None
            whole = applied(own, where, channels)
            for _, kind, table in component_tables({key: whole[key] for key in _PARTS if key in whole}):
                load(kind, table["name"])
        except (NotInstalled, BrokenPlugin) as error:
            return Case(label, {}, {}, refused=str(error))
        except BadParameter as error:
            if "preset" not in own:
                raise
            return Case(label, {}, {}, refused=str(error))
        tables[data.label] = {key: value for key, value in whole.items() if key != "preset"}
    case = Case(label, tables, space)
    for data, own in tables.items():
        if any(own.get(key) != case.parts.get(key) for key in METHOD):
            raise BadParameter(
                f"{where} has other parameters on data {data!r} than on {next(iter(tables))!r}",
                "one choice of parameters for an operator and noise, which is what a preset is",
                "remove the override by data, or tune the data sets in suites of their own",
            )
    fitted: dict[str, BaseDistribution] = {}
    problems: list[PreimageError] = []
    for name, distribution in space.items():
        what = f"{where}: search over {name!r}"
        try:
            fitted[name] = _fitted(distribution, _parameter(name, case.parts, what), what)
        except PreimageError as error:
            problems.append(error)
    raise_all(where, problems)
    return replace(case, space=fitted)


_WEIGHT = Parameter("weight", float, False, 1.0)


def _parameter(name: str, parts: Tables, what: str) -> Parameter:
    """The parameter that a name such as "prior.weight" or "start.prior.weight" means."""
    if name.startswith("start."):
        if "start" not in parts:
            raise BadParameter(f"{what}: the method has no start", "a start", "remove this line")
        return _parameter(name.removeprefix("start."), parts["start"], what)
    kind, *path = name.split(".")
    table: Any = parts.get(kind)
    if kind not in ("prior", "solver") or not path:
        remedy = 'write "prior.weight" or "solver.max_steps", say'
        raise BadParameter(what, "the name of a parameter of the prior or the solver", remedy)
    if table is None:
        raise BadParameter(f"{what}: the method has no {kind}", f"a {kind}", "remove this line")
    if isinstance(table, list):
        listed = cast("list[Any]", table)
        if not path[0].isdigit() or int(path[0]) >= len(listed):
            expected = " or ".join(f"{kind}.{index}.NAME" for index in range(len(listed)))
            raise BadParameter(f"{what}: the method has {len(listed)} {kind}s", expected, "name one of them")
        table, path = listed[int(path[0])], path[1:]
    known = {p.name: p for p in parameters(load(kind, table["name"]))}
    known |= {"weight": _WEIGHT} if kind == "prior" else {}
    if (own := ".".join(path)) not in known:
        raise unknown(own, known, f"{what}: {kind} {table['name']!r} does not take")
    return known[own]


def _fitted(distribution: BaseDistribution, parameter: Parameter, what: str) -> BaseDistribution:
    """The distribution if the parameter takes its values; of real numbers if it takes those between two integers."""
    if isinstance(distribution, CategoricalDistribution):
        tried: list[Any] = list(distribution.choices)
    else:
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = distribution.low, distribution.high
        if parameter is _WEIGHT and low < 0:
            raise BadParameter(f"{what} has low = {low}", "a weight >= 0", "raise low")
        if isinstance(distribution, IntDistribution) and _takes(parameter, low + 0.5):
            return FloatDistribution(low, high, log=distribution.log)
        tried = [low, high] if isinstance(distribution, IntDistribution) else [low, high, low + (high - low) / math.pi]
    for value in tried:
        if parameter is not _WEIGHT and not _takes(parameter, value):
            raise BadParameter(f"{what} includes {value!r}", parameter.type_name, "change the values that are searched")
    return distribution


def _takes(parameter: Parameter, value: Any) -> bool:
    try:
        convert(parameter, value)
    except (ValueError, TypeError):
        return False
    return True
