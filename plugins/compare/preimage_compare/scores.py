"""The cells of a result folder as arrays, methods by measurements, and what methods score on any part of them.

A *unit* is one measurement: one (data set, image, operator, noise, seed). Every method of a suite is run on the same
units, so that two methods are compared on the units where both have a result. A unit where one of them has none (it
failed, was skipped, or has not been run) is counted and shown, never dropped in silence.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.errors import BadData, BadParameter

from .statistics import Array, Bootstrap, image_means, mean_of_images

if TYPE_CHECKING:
    from .store import Results

Cell = Mapping[str, Any]
Mask = NDArray[np.bool_]

OPERATOR_CALLS = ("forward", "adjoint", "jvp", "vjp", "linearize", "solve_normal")
PRIOR_CALLS = ("prox", "denoise", "decode", "encode", "energy", "grad")
OUTCOMES = ("ok", "failed", "skipped", "missing")


class Setting(NamedTuple):
    """What is fixed when methods are ranked: data set, operator and noise, by label."""

    data: str
    operator: str
    noise: str

    def __str__(self) -> str:
        return f"{self.operator} · noise {self.noise} · {self.data}"


class Unit(NamedTuple):
    """One measurement, by label."""

    data: str
    image: str
    operator: str
    noise: str
    seed: int

    @property
    def setting(self) -> Setting:
        """The setting it belongs to."""
        return Setting(self.data, self.operator, self.noise)

    def __str__(self) -> str:
        return f"{self.operator} · noise {self.noise} · {self.data}/{self.image} · seed {self.seed}"


@dataclass(frozen=True)
class Metric:
    """How a number is called and read: `better` is "higher", "lower", or "" where neither is better in itself."""

    key: str
    title: str
    unit: str = ""
    better: str = "higher"
    digits: int = 2


KNOWN = {
    metric.key: metric
    for metric in (
        Metric("psnr", "PSNR", "dB"),
        Metric("ssim", "SSIM", "", digits=3),
        Metric("nmse", "NMSE", "", "lower", 4),
        # Over-fitting lowers the misfit below the noise: smaller is not better.
        Metric("misfit", "Data misfit", "", "", 3),
    )
}
COSTS = {
    metric.key: metric
    for metric in (
        Metric("seconds", "Time", "s", "lower", 3),
        Metric("steps", "Steps", "", "", 0),
        Metric("operator", "Operator calls", "", "lower", 0),
        Metric("prior", "Prior calls", "", "lower", 0),
        Metric("memory", "Peak memory", "MB", "lower", 0),
    )
}


@dataclass(frozen=True)
class Summary:
    """What one method scores in one metric on a part of the units; numbers that do not exist are NaN.

    - `mean`, `low`, `high`: mean over images of its own results, each image counting once, and its interval.
    - `difference`, `difference_low`, `difference_high`: the same for its value minus the reference's, over the units
      that both have.
    - `pairs`: how many units both have. `unpaired`: units of the part where one of them has none.
    - `images`: how many images the pairs come from. `finished`: how many units it has a number for itself.
    - `wins`, `ties`, `losses`: of the pairs, in the metric's sense of better; all 0 where it has none.
    """

    method: str
    mean: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    pairs: int
    unpaired: int
    images: int
    wins: int
    ties: int
    losses: int
    finished: int

    @property
    def partial(self) -> bool:
        """Whether its own mean is over some of the measurements only."""
        return self.finished < self.pairs + self.unpaired


class Scores:
    """All cells as arrays of shape (methods, units), NaN where there is no number.

    - `cells`: the finished ones. `missing`: labels (data, image, operator, noise, seed, method) of those that are not.
    - `methods`: labels, in the order given, then others. `units`, `settings`: in order of appearance in the cells.
    - `metrics`: what can be compared, the known ones first. `values[key]`: of these and of `COSTS`; of cells whose
      outcome is ok only, for a number that a failed method left behind is not a result.
    - `outcome`: (methods, units), indices into `OUTCOMES`.
    - `position`: (methods, units), index into the cells given, -1 where there is none.

    Raises `BadData` if there are no cells, or two for one method and unit.
    """

    def __init__(self, cells: Sequence[Cell], missing: Iterable[Sequence[Any]] = (), methods: Iterable[str] = ()):
        if not cells:
            raise BadData("there are no cells", "a folder with results", "run the suite first: preimage compare SUITE")
        self.cells = cells
        absent = list(missing)
        present = dict.fromkeys([*(cell["method"] for cell in cells), *(str(labels[-1]) for labels in absent)])
        self.methods = [label for label in methods if label in present]
        self.methods += [label for label in present if label not in self.methods]
        where: dict[Unit, int] = {}
        units = [where.setdefault(unit_of(cell), len(where)) for cell in cells]
        for labels in absent:
            where.setdefault(Unit(*labels[:-1]), len(where))
        self.units = list(where)
        row = {label: number for number, label in enumerate(self.methods)}
        rows = np.array([row[cell["method"]] for cell in cells])
        columns = np.array(units)
        shape = (len(self.methods), len(self.units))
        self.position = np.full(shape, -1)
        self.position[rows, columns] = np.arange(len(cells))
        if (self.position >= 0).sum() != len(cells):
            twice = next(i for i in range(len(cells)) if self.position[rows[i], columns[i]] != i)
            raise BadData(
                f"two cells for method {cells[twice]['method']!r} on {self.units[columns[twice]]}",
                "one cell for each method and measurement",
                "the folder holds more than one version of the suite: preimage compare clean",
            )
        names = {outcome: number for number, outcome in enumerate(OUTCOMES)}
        self.outcome = np.full(shape, names["missing"])
        self.outcome[rows, columns] = [names[cell["outcome"]] for cell in cells]
        good = [i for i, cell in enumerate(cells) if cell["outcome"] == "ok"]
        found = {key for i in good for key in (cells[i].get("metrics") or {})}
        ordered = [key for key in KNOWN if key in found] + sorted(found - set(KNOWN))
        self.metrics = [KNOWN.get(key, Metric(key, key)) for key in ordered]
        self.values: dict[str, Array] = {}
        for key in (*ordered, *COSTS):
            take = _COST_OF.get(key) or _metric_of(key)
            array = np.full(shape, np.nan)
            array[rows[good], columns[good]] = [take(cells[i]) for i in good]
            self.values[key] = np.where(np.isfinite(array), array, np.nan)
        images = {place: number for number, place in enumerate(dict.fromkeys((u.data, u.image) for u in self.units))}
        self.image_of = np.array([images[unit.data, unit.image] for unit in self.units])
        self.settings = list(dict.fromkeys(unit.setting for unit in self.units))
        number = {setting: index for index, setting in enumerate(self.settings)}
        self.setting_of = np.array([number[unit.setting] for unit in self.units])

    @classmethod
    def of(cls, results: "Results") -> "Scores":
        """The scores of a result folder. Raises `BadData` if no cell of its suite is finished."""
        return cls(results.cells, results.missing, results.suite.get("labels", {}).get("method", ()))

    def reference(self, results: "Results", wanted: str | None = None) -> str:
        """The method to compare with: the one wanted, else the suite's, else the first. Raises `BadParameter`."""
        label = wanted or results.suite.get("reference") or self.methods[0]
        return self.methods[self.row(label)]

    def metric(self, key: str) -> Metric:
        """A metric by its key. Raises `BadParameter` naming those that there are."""
        for metric in self.metrics:
            if metric.key == key:
                return metric
        raise BadParameter(f"there is no metric {key!r}", "one of " + ", ".join(metric.key for metric in self.metrics))

    def row(self, method: str) -> int:
        """The row of a method. Raises `BadParameter` naming those that there are."""
        if method not in self.methods:
            raise BadParameter(f"there is no method {method!r}", "one of " + ", ".join(self.methods))
        return self.methods.index(method)

    def part(self, setting: Setting | None = None) -> Mask:
        """The units of a setting, or all of them."""
        if setting is None:
            return np.ones(len(self.units), dtype=np.bool_)
        return self.setting_of == self.settings.index(setting)

    def counts(self, part: Mask) -> list[dict[str, int]]:
        """For each method, how many units of a part have each outcome."""
        return [
            {name: int((row == number).sum()) for number, name in enumerate(OUTCOMES)} for row in self.outcome[:, part]
        ]

    def summarise(self, key: str, reference: str, part: Mask, bootstrap: Bootstrap) -> list[Summary]:
        """For each method, its mean and its paired difference to the reference on a part of the units."""
        metric, against = self.metric(key), self.row(reference)
        values, image_of = self.values[key][:, part], self.image_of[part]
        paired = values - values[against]
        own, differences = image_means(values, image_of), image_means(paired, image_of)
        # One call for both, so that a mean and a difference over the same images see the same resamples.
        low, high = bootstrap.intervals(np.concatenate([own, differences]))
        mean, difference = mean_of_images(own), mean_of_images(differences)
        pairs = np.isfinite(paired).sum(axis=1)
        sign = {"higher": 1, "lower": -1, "": 0}[metric.better]
        wins, losses = (sign * paired > 0).sum(axis=1), (sign * paired < 0).sum(axis=1)
        count = len(self.methods)
        return [
            Summary(
                method=method,
                mean=float(mean[i]),
                low=float(low[i]),
                high=float(high[i]),
                difference=float(difference[i]),
                difference_low=float(low[count + i]),
                difference_high=float(high[count + i]),
                pairs=int(pairs[i]),
                unpaired=int(part.sum() - pairs[i]),
                images=int(np.isfinite(differences[i]).sum()),
                wins=int(wins[i]),
                ties=int(pairs[i] - wins[i] - losses[i]) if sign else 0,
                losses=int(losses[i]),
                finished=int(np.isfinite(values[i]).sum()),
            )
            for i, method in enumerate(self.methods)
        ]


def unit_of(cell: Cell) -> Unit:
    """The measurement that a cell belongs to."""
    return Unit(cell["data"], cell["image"], cell["operator"], cell["noise"], int(cell["seed"]))


def ranked(summaries: Sequence[Summary], metric: Metric) -> list[Summary]:
    """Best paired difference first, then the methods without one; suite order where the metric has no better."""
    if not metric.better:
        return list(summaries)
    sign = -1 if metric.better == "higher" else 1
    return sorted(summaries, key=lambda s: (math.isnan(s.difference), 0.0 if s.pairs == 0 else sign * s.difference))


def quantiles(values: Array, levels: Sequence[float]) -> list[float]:
    """Quantiles of the numbers that are there; NaN if there are none."""
    there = values[np.isfinite(values)]
    return [float(q) for q in np.quantile(there, levels)] if len(there) else [math.nan] * len(levels)


def _metric_of(key: str):
    return lambda cell: _number(cell["metrics"].get(key))


def _calls(cell: Cell, names: Sequence[str]) -> float:
    counted = cell.get("evaluations") or {}
    return float(sum(int(counted.get(name) or 0) for name in names)) if counted else math.nan


def _memory(cell: Cell) -> float:
    peak = cell.get("peak_memory") or {}
    bytes_used = peak.get("gpu") if peak.get("gpu") is not None else peak.get("cpu")
    return math.nan if bytes_used is None else bytes_used / 1e6


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


_COST_OF = {
    "seconds": lambda cell: _number(cell.get("seconds")),
    "steps": lambda cell: _number(cell.get("steps")),
    "operator": lambda cell: _calls(cell, OPERATOR_CALLS),
    "prior": lambda cell: _calls(cell, PRIOR_CALLS),
    "memory": _memory,
}
