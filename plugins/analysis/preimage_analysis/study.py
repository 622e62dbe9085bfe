"""What a study is, and what it finds: tables, figures, and statements."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from .progress import Progress

Value = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column of a table: its `name`, the `unit` of its numbers ("dB"; "" without), and how many `digits` after the
    point are printed. Files keep all digits."""

    name: str
    unit: str = ""
    digits: int = 2

    @property
    def heading(self) -> str:
        """Name and unit."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name


@dataclass(frozen=True)
class Table:
    """Rows of values under columns; None is an empty cell. `title`: one line that says what the rows are.

    Raises `ValueError` if a row has another number of values than there are columns.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} values in a table of {len(self.columns)} columns")


@dataclass(frozen=True)
class Statement:
    """A sentence about what was found.

    - `holds`: whether it is so, where it says what theory or a paper lets one expect; None if it only reports.
    """

    text: str
    holds: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a study comes back with.

    - `tables`, `figures`: by name, lower-case words joined by hyphens, which files are named by.
    - `statements`: what they show, in words.
    - `parts`: the tables of the pipeline parts that took part (operator, noise, prior, data), for their versions.
    - `facts`: what else is needed to do it again: digests of weights and images, say. Plain values.
    """

    tables: Mapping[str, Table]
    figures: Mapping[str, Figure]
    statements: Sequence[Statement]
    parts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Study(ABC):
    """A question and the computation that answers it, by name: component kind "study".

    Hyper-parameters are arguments of the constructor, which checks them and reads nothing; `preimage analyse` makes it,
    runs it, and writes what it finds.
    """

    @abstractmethod
    def run(self, progress: Progress) -> Findings:
        """Compute everything, part by part through `progress`, which keeps what an interrupted run has finished.

        Deterministic: the same study finds the same. Raises a `PreimageError` if something it needs is missing.
        """
