"""A suite: data x operators x noises x methods x seeds, from one TOML file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from preimage import Dataset, Key
from preimage.assembly import construct, with_overrides
from preimage.errors import PreimageError, raise_all

Tables = Mapping[str, Any]


class Cell(NamedTuple):
    """One row of a comparison, by its labels."""

    data: str
    image: str
    operator: str
    noise: str
    seed: int
    method: str


class Combination(NamedTuple):
    """What the cells of all images and seeds share, by its labels."""

    data: str
    operator: str
    noise: str
    method: str


@dataclass(frozen=True)
class Limits:
    """What one cell may use; None is no limit.

    - `seconds`: in the solver. `evaluations`: of the operator, its adjoint and derivatives. `memory_mb`: 10^6 bytes of
      main memory, on top of what the process held before.
    """

    seconds: float | None = None
    evaluations: int | None = None
    memory_mb: float | None = None

    def or_else(self, other: "Limits") -> "Limits":
        """These limits, and where there is none those of `other`."""
        return Limits(
            **{f.name: getattr(other if getattr(self, f.name) is None else self, f.name) for f in fields(self)}
        )

    def as_dict(self) -> dict[str, float | int | None]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Part:
    """An entry of [[data]], [[operator]] or [[noise]]: its label, the tables of a pipeline, and where it stands."""

    label: str
    tables: tuple[Tables, ...]
    where: str = ""

    @property
    def table(self) -> Tables:
        """The only table; an operator may have several, the first one applied first."""
        return self.tables[0]


@dataclass(frozen=True)
class Override:
    """Values that replace a method's where the labels match; an empty set of labels matches all."""

    values: Mapping[str, Any]
    data: frozenset[str] = frozenset()
    operator: frozenset[str] = frozenset()
    noise: frozenset[str] = frozenset()

    def applies(self, data: str, operator: str, noise: str) -> bool:
        """Whether these labels match."""
        pairs = ((self.data, data), (self.operator, operator), (self.noise, noise))
        return all(not wanted or label in wanted for wanted, label in pairs)


@dataclass(frozen=True)
class Method:
    """An entry of [[method]]: the tables `prior` and `solver` of a pipeline, or a preset that fills them in."""

    label: str
    tables: Tables
    overrides: tuple[Override, ...] = ()
    limits: Limits = Limits()
    search: Mapping[str, Any] = field(default_factory=dict[str, Any])
    where: str = ""

    def tables_for(self, data: str, operator: str, noise: str) -> dict[str, Any]:
        """The tables with the overrides for these labels applied, later ones over earlier ones."""
        tables = dict(self.tables)
        for override in self.overrides:
            if override.applies(data, operator, noise):
                tables = with_overrides(tables, override.values, self.where)
        return tables


@dataclass(frozen=True)
class Suite:
    """A comparison as its file says, checked. `load_suite` makes it.

    - `seeds`: each is an independent draw of everything random: noise, random operators, random solvers.
    - `reference`: label of the method that the others are compared with.
    - `threads`: of each process that computes cells; a part of a cell's key, for rounding may depend on it.
    """

    title: str
    description: str
    data: tuple[Part, ...]
    operators: tuple[Part, ...]
    noises: tuple[Part, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    threads: int = 1
    reference: str = ""
    limits: Limits = Limits()
    path: Path | None = None

    @cached_property
    def datasets(self) -> Mapping[str, Dataset]:
        """The images of each data label; made when first asked for.

        Raises the errors of all data sets that cannot be made, `BadFile` for a missing folder, say.
        """
        made: dict[str, Dataset] = {}
        problems: list[PreimageError] = []
        for part in self.data:
            values = {name: value for name, value in part.table.items() if name != "name"}
            try:
                made[part.label] = construct(
                    "dataset", part.table["name"], values, part.where, key=Key(0).child("data")
                )
            except PreimageError as error:
                problems.append(error if error.found.startswith(part.where) else error.within(part.where))
        raise_all(f"the data of suite {self.title!r}", problems)
        return made

    def method(self, label: str) -> Method:
        """The method of this label."""
        return next(method for method in self.methods if method.label == label)

    def limits_of(self, method: str) -> Limits:
        """The limits of a method's cells: its own, else those of the suite."""
        return self.method(method).limits.or_else(self.limits)

    def images(self, data: str) -> list[str]:
        """Labels of the images of a data set."""
        dataset = self.datasets[data]
        return [dataset.label(index) for index in range(len(dataset))]

    def combinations(self) -> Iterator[Combination]:
        """All of data x operator x noise x method."""
        for data in self.data:
            for operator in self.operators:
                for noise in self.noises:
                    for method in self.methods:
                        yield Combination(data.label, operator.label, noise.label, method.label)

    def cells(self) -> list[Cell]:
        """All cells; those of one measurement stand together."""
        return [
            Cell(data.label, image, operator.label, noise.label, seed, method.label)
            for data in self.data
            for operator in self.operators
            for noise in self.noises
            for seed in self.seeds
            for image in self.images(data.label)
            for method in self.methods
        ]

    def tables(self, cell: Cell | Combination) -> dict[str, Any]:
        """The pipeline of a cell as tables; without a seed for a combination.

        What `preimage run` takes: a cell's measurement and result can be had from this pipeline alone.
        """
        data, operator, noise = (
            next(part for part in parts if part.label == label)
            for parts, label in ((self.data, cell.data), (self.operators, cell.operator), (self.noises, cell.noise))
        )
        tables = {
            "device": self.device,
            "dtype": self.dtype,
            "data": dict(data.table),
            "operator": [dict(table) for table in operator.tables],
            "noise": dict(noise.table),
            **self.method(cell.method).tables_for(cell.data, cell.operator, cell.noise),
        }
        return tables | ({"seed": cell.seed} if isinstance(cell, Cell) else {})

    def labels(self) -> dict[str, list[Any]]:
        """The labels of every axis, in order; images are listed by data set and image."""
        return {
            "data": [part.label for part in self.data],
            "operator": [part.label for part in self.operators],
            "noise": [part.label for part in self.noises],
            "seed": list(self.seeds),
            "method": [method.label for method in self.methods],
        }

    def as_dict(self) -> dict[str, Any]:
        """The whole suite as JSON values, includes resolved."""
        return {
            "title": self.title,
            "description": self.description,
            "seeds": list(self.seeds),
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
            "reference": self.reference,
            "limits": self.limits.as_dict(),
            "data": [{"label": part.label, **part.table} for part in self.data],
            "operator": [
                {"label": p.label, **(p.table if len(p.tables) == 1 else {"parts": [dict(t) for t in p.tables]})}
                for p in self.operators
            ],
            "noise": [{"label": part.label, **part.table} for part in self.noises],
            "method": [
                {
                    "label": method.label,
                    **method.tables,
                    "limits": method.limits.as_dict(),
                    "override": [
                        {"set": dict(o.values)}
                        | {axis: sorted(getattr(o, axis)) for axis in ("data", "operator", "noise") if getattr(o, axis)}
                        for o in method.overrides
                    ],
                    "search": dict(method.search),
                }
                for method in self.methods
            ],
        }


def load_suite(path: str | Path) -> Suite:
    """The suite in a TOML file, or the one that ships under this name (`shipped_suites` lists them).

    Everything that is wrong is reported at once, with file and key: raises an error of `preimage.errors`, or
    `SeveralProblems`. Nothing is assembled, and no image is read.
    """
    from ._suite_file import find, read

    return read(find(path))


def shipped_suites() -> dict[str, Path]:
    """The suites that come with this package, by name."""
    from ._suite_file import shipped

    return shipped()
