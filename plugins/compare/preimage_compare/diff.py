"""Did my change help? The paired differences between two result folders, method by method."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from preimage.errors import BadData

from .report_data import rounded
from .scores import KNOWN, OUTCOMES, Cell, Metric, Scores, unit_of
from .statistics import Array, Bootstrap, image_means, mean_of_images
from .store import Results, read
from .tables import shown


@dataclass(frozen=True)
class Change:
    """How one number of one method changed; NaN where it cannot be said.

    - `metric`: a metric's key, or "log2 seconds" and "log2 operator": the logarithm, base 2, of the ratio, so that -1
      is twice as fast. Ratios of single measurements are averaged, which a difference of averages would not do fairly.
    - `old`, `new`: means over images, on the pairs (of costs, geometric means).
    - `difference`, `low`, `high`: the mean of new minus old over images, and its interval.
    - `pairs`: measurements finished in both folders, of `images` images; `better`, `worse`: how many became so.
    - `same_measurement`: of the pairs, how many had the same measured bytes in both.
    """

    method: str
    metric: str
    old: float
    new: float
    difference: float
    low: float
    high: float
    pairs: int
    images: int
    better: int
    worse: int
    same_measurement: int


@dataclass(frozen=True)
class Diff:
    """What changed from one folder to the other.

    - `changes`: for each method in both, each metric and cost. `level`: of the intervals.
    - `broken`, `mended`: cells (by label) finished in the old folder only, and in the new one only, with the reason
      why they are not in the other.
    - `only_old`, `only_new`: methods without a counterpart.
    """

    old: str
    new: str
    level: float
    changes: list[Change]
    broken: list[tuple[str, str]]
    mended: list[tuple[str, str]]
    only_old: list[str]
    only_new: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values, None for a number that does not exist."""
        numbers = asdict(self)
        numbers["changes"] = [
            {name: rounded(value, 7) if isinstance(value, float) else value for name, value in change.items()}
            for change in numbers["changes"]
        ]
        return numbers

    def table(self, metric: str | None = None) -> RenderableType:
        """For the terminal: the change of a metric (the first, if None), of time and of operator calls."""
        keys = list(dict.fromkeys(change.metric for change in self.changes if not change.metric.startswith("log2")))
        wanted = _described(metric or (keys[0] if keys else "psnr"))
        table = Table(title=f"{self.old} → {self.new}", title_justify="left", box=None, pad_edge=False)
        table.add_column("method", no_wrap=True)
        unit = f" ({wanted.unit})" if wanted.unit else ""
        for heading in (
            f"{wanted.title}{unit}",
            "difference",
            f"{self.level:.0%} interval",
            "better",
            "worse",
            "pairs",
        ):
            table.add_column(heading, justify="right")
        table.add_column("time", justify="right")
        table.add_column("operator calls", justify="right")
        for method in dict.fromkeys(change.method for change in self.changes):
            of = {change.metric: change for change in self.changes if change.method == method}
            if (change := of.get(wanted.key)) is None:
                continue
            digits = wanted.digits
            ends = f"{shown(change.low, digits, '+')} to {shown(change.high, digits, '+')}"
            table.add_row(
                method,
                f"{shown(change.old, digits)} → {shown(change.new, digits)}",
                _judged(change, wanted),
                ends if np.isfinite(change.low) else "too few images",
                *(str(number) for number in (change.better, change.worse, change.pairs)),
                *(_ratio(of.get(f"log2 {cost}")) for cost in ("seconds", "operator")),
            )
        lines: list[RenderableType] = [table]
        unequal = sum(c.pairs - c.same_measurement for c in self.changes if c.metric == wanted.key)
        if unequal:
            lines.append(
                Text(f"{unequal} pairs were not measured alike (other noise, data or operator)", style="yellow")
            )
        for heading, cells, style in (
            ("finished before, not now", self.broken, "red"),
            ("finished now, not before", self.mended, "green"),
        ):
            if cells:
                lines.append(Text(f"{len(cells)} {heading}", style=style))
                lines += [Text(f"  {cell}: {reason}") for cell, reason in cells[:10]]
        for heading, methods in (("only in the old folder", self.only_old), ("only in the new folder", self.only_new)):
            if methods:
                lines.append(Text(f"{heading}: {', '.join(methods)}", style="dim"))
        return Group(*lines)


def diff(old: str | Path | Results, new: str | Path | Results, *, bootstrap: Bootstrap = Bootstrap()) -> Diff:
    """The paired differences, new minus old, over the cells with equal labels that are finished in both.

    Intervals resample images, as everywhere. Raises `BadFile` or `BadData` if a folder has no results, and `BadData` if
    the two have no labels in common.
    """
    before, after = (x if isinstance(x, Results) else read(x) for x in (old, new))
    first, second = Scores.of(before), Scores.of(after)
    methods = [method for method in first.methods if method in second.methods]
    place = {unit: column for column, unit in enumerate(second.units)}
    shared = [(column, place[unit]) for column, unit in enumerate(first.units) if unit in place]
    if not methods or not shared:
        raise BadData(
            f"{before.folder} and {after.folder} have no {'measurement' if methods else 'method'} in common",
            "two folders made from one suite",
            "labels of data, images, operators, noise, seeds and methods must agree",
        )
    left, right = (np.array(columns) for columns in zip(*shared, strict=True))
    rows = [(first.row(method), second.row(method)) for method in methods]
    keys = [metric.key for metric in first.metrics if metric.key in second.values]
    image_of = first.image_of[left]
    equal = np.array([[_same(first, second, a, b, u, v) for u, v in shared] for a, b in rows])
    changes: list[Change] = []
    for key in (*keys, "seconds", "operator"):
        was = np.stack([first.values[key][a, left] for a, _ in rows])
        now = np.stack([second.values[key][b, right] for _, b in rows])
        log = key in ("seconds", "operator")
        changes += _changes(methods, key, was, now, image_of, equal, bootstrap, log)
    changes.sort(key=lambda change: methods.index(change.method))
    broken, mended = _outcomes(first, second, rows, shared)
    return Diff(
        str(before.folder),
        str(after.folder),
        bootstrap.level,
        changes,
        broken,
        mended,
        [method for method in first.methods if method not in second.methods],
        [method for method in second.methods if method not in first.methods],
    )


def _changes(
    methods: list[str],
    key: str,
    was: Array,
    now: Array,
    image_of: Any,
    equal: Any,
    bootstrap: Bootstrap,
    log: bool,
) -> list[Change]:
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            was, now = np.log2(was), np.log2(now)
        was, now = (np.where(np.isfinite(x), x, np.nan) for x in (was, now))
    paired = now - was
    means = image_means(paired, image_of)
    low, high = bootstrap.intervals(means)
    both = np.isfinite(paired)
    old, new, difference = (
        mean_of_images(image_means(np.where(both, x, np.nan), image_of)) for x in (was, now, paired)
    )
    if log:
        old, new = np.exp2(old), np.exp2(new)
    sign = -1 if log else {"higher": 1, "lower": -1, "": 0}[_described(key).better]
    return [
        Change(
            method=method,
            metric=f"log2 {key}" if log else key,
            old=float(old[i]),
            new=float(new[i]),
            difference=float(difference[i]),
            low=float(low[i]),
            high=float(high[i]),
            pairs=int(both[i].sum()),
            images=int(np.isfinite(means[i]).sum()),
            better=int((sign * paired[i] > 0).sum()),
            worse=int((sign * paired[i] < 0).sum()),
            same_measurement=int((both[i] & equal[i]).sum()),
        )
        for i, method in enumerate(methods)
    ]


def _same(first: Scores, second: Scores, a: int, b: int, u: int, v: int) -> bool:
    i, j = first.position[a, u], second.position[b, v]
    return bool(i >= 0 and j >= 0 and first.cells[i].get("measurement") == second.cells[j].get("measurement"))


def _outcomes(
    first: Scores, second: Scores, rows: list[tuple[int, int]], shared: list[tuple[int, int]]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    broken: list[tuple[str, str]] = []
    mended: list[tuple[str, str]] = []
    for a, b in rows:
        for u, v in shared:
            was, now = OUTCOMES[first.outcome[a, u]], OUTCOMES[second.outcome[b, v]]
            if (was == "ok") == (now == "ok"):
                continue
            scores, row, column, listed = (second, b, v, broken) if was == "ok" else (first, a, u, mended)
            position = scores.position[row, column]
            cell: Cell = scores.cells[position] if position >= 0 else {}
            place = unit_of(cell) if cell else scores.units[column]
            listed.append((f"{scores.methods[row]} on {place}", str(cell.get("reason") or OUTCOMES[-1])))
    return broken, mended


def _described(key: str) -> Metric:
    return KNOWN.get(key, Metric(key, key))


def _judged(change: Change, metric: Metric) -> Text:
    text = Text(shown(change.difference, metric.digits, "+"))
    if metric.better and change.low * change.high > 0:
        text.stylize("green" if (change.low > 0) == (metric.better == "higher") else "red")
    return text


def _ratio(change: Change | None) -> str:
    return "–" if change is None or not np.isfinite(change.difference) else f"× {2**change.difference:.2f}"
