"""Study: with a linear generator, how does the error of compressive sensing fall with the number of measurements?"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from preimage import Generative, Key, LinearOperator
from preimage.assembly import construct
from preimage.errors import BadParameter, Incompatible

from .drawing import COLOURS, NOTE, label, panels
from .generator_bounds import FEWEST, MARGIN, Bounds, bounds, expected_error, least_norm
from .progress import Progress, Values
from .study import Column, Findings, Statement, Study, Table

PRIOR, OPERATOR = "linear-gaussian", "compressive-sensing"

RESOLVED = 1e-7
"""s_m / s_1 below which the null space of A S is lost in rounding."""

ERRORS = 3.0
"""Standard errors that a mean may be on the wrong side of a bound."""

AGREEMENT = 4.0
"""Standard errors that simulated images may be from the exact mean, the largest of all m."""


class Generator(NamedTuple):
    """x = S z: `matrix`, S (n, n); `singular_values`, falling; `power`, E ||x||^2 = sum s_i^2."""

    name: str
    values: dict[str, Any]
    matrix: Tensor
    singular_values: Tensor
    power: float


class Mean(NamedTuple):
    """A mean over draws of A, and its standard error."""

    value: float
    error: float


class Place(NamedTuple):
    """What was found for a generator and a number of measurements, in units of E ||x0||^2.

    - `expected`: the error, exact for each draw. `simulated`: the same from random images; `apart`: how many standard
      errors of the difference it is from `expected`. `least`: that of all draws.
    """

    measurements: int
    bounds: Bounds
    expected: Mean
    simulated: Mean
    apart: float
    least: float


@dataclass(frozen=True, kw_only=True)
class LinearGenerator(Study):
    """The mean squared error of x = S (A S)^+ A x0, S a linear generator, A Gaussian, against the bounds of theory.

    x0 = S z, z ~ N(0, I) in R^n, is measured without noise by A (m, n), independent N(0, 1/m) entries, and recovered
    from the shortest z that explains A x0. Asim et al. 2020, theorem 1, bound E ||x0 - x||^2 by the singular values of
    S (see `generator_bounds`, which has the formulas): from below by what the best projection of rank m leaves, and
    from above within a factor that hardly grows with m where they fall steadily. So a generator without representation
    error goes on gaining from measurements, as far as its spectrum falls.

    For every draw of A the mean over x0 is computed exactly; beside it `images` random x0 are recovered.

    - `spectra`: names of spectra of prior/linear-gaussian, or tables of its parameters (mean and scale play no part).
    - `measurements`: m, each from 4 to n - 4. `size`: n. `draws`: of A, at least 10. `images`: for each draw.
    - `seed`: of A and x0.

    Raises `BadParameter` if a number is out of its range, and when it runs as the prior, or if s_m / s_1 < 1e-7, where
    rounding would be seen.
    """

    spectra: tuple[str | dict[str, Any], ...] = ("flat", "inverse", "inverse-square", "step")
    measurements: tuple[int, ...] = (4, 10, 20, 22, 30, 50, 75, 100, 150)
    size: int = 200
    draws: int = 60
    images: int = 20
    seed: int = 0

    def __post_init__(self):
        if self.size < FEWEST + MARGIN:
            raise BadParameter(f"size is {self.size}", f"an integer >= {FEWEST + MARGIN}", "use 200")
        last = self.size - MARGIN
        if (
            not self.measurements
            or not all(FEWEST <= m <= last for m in self.measurements)
            or len(set(self.measurements)) < len(self.measurements)
        ):
            found = f"measurements is {list(self.measurements)} for size {self.size}"
            raise BadParameter(found, f"different numbers from {FEWEST} to {last}", "use [20, 50, 100] and size 200")
        if self.draws < 10:
            raise BadParameter(f"draws is {self.draws}", "an integer >= 10, for a standard error that means something")
        if self.images < 1:
            raise BadParameter(f"images is {self.images}", "an integer >= 1")
        named = [_name(spectrum) for spectrum in self.spectra]
        if not named or len(set(named)) < len(named):
            raise BadParameter(f"spectra has {', '.join(named) or 'nothing'}", "one or more, different from each other")

    def run(self, progress: Progress) -> Findings:
        generators = [self._generator(spectrum) for spectrum in self.spectra]
        progress.begin(len(generators) * len(self.measurements))
        found: dict[str, list[Place]] = {generator.name: [] for generator in generators}
        for m in sorted(self.measurements):
            drawn = cache(lambda m=m: self._matrices(m))
            for generator in generators:
                found[generator.name].append(self._place(generator, m, drawn, progress))
        return Findings(
            tables={"linear-generator": _table(found)},
            figures={"linear-generator": _figure(generators, found, self.size)},
            statements=[
                s for generator in generators for s in _statements(generator.name, found[generator.name], self)
            ],
            parts={"prior": {"name": PRIOR}, "operator": {"name": OPERATOR}},
        )

    def _generator(self, spectrum: str | dict[str, Any]) -> Generator:
        values = {"spectrum": spectrum} if isinstance(spectrum, str) else spectrum
        prior = construct("prior", PRIOR, values, "spectra", in_shape=(1, 1, self.size))
        if not isinstance(prior, Generative):
            raise Incompatible(f"prior {PRIOR!r} is {type(prior).__name__}", "a Generative prior")
        eye = torch.eye(self.size, dtype=torch.float64)
        matrix = (prior.decode(eye) - prior.decode(0 * eye[:1])).flatten(1).mT.contiguous()
        s = cast(Tensor, torch.linalg.svdvals(matrix))
        last = max(self.measurements)
        if float(s[last - 1] / s[0]) < RESOLVED:
            found = f"spectra: the {last}th singular value of {_name(spectrum)} is {float(s[last - 1] / s[0]):.1e} s_1"
            raise BadParameter(found, f"at least {RESOLVED:g} s_1, for double precision", "take fewer measurements")
        return Generator(_name(spectrum), values, matrix, s, float(s.square().sum()))

    def _place(self, generator: Generator, m: int, drawn: Callable[[], Tensor], progress: Progress) -> Place:
        inputs = {"generator": generator.values, "measurements": m, "size": self.size}
        inputs |= {"draws": self.draws, "images": self.images, "seed": self.seed}
        values = progress.part(f"{generator.name}, m = {m}", inputs, lambda: self._errors(generator, drawn()))
        exact, simulated = (np.array(values[key]) / generator.power for key in ("expected", "simulated"))
        own = bounds(generator.singular_values, m)
        scaled = Bounds(
            own.lower / generator.power, own.best / generator.power, own.best_k, own.simple / generator.power
        )
        change = _mean(simulated - exact)
        apart = abs(change.value) / change.error if change.error else 0.0
        return Place(m, scaled, _mean(exact), _mean(simulated), apart, float(exact.min()))

    def _matrices(self, m: int) -> Tensor:
        """The draws of A, (draws, m, n): the same for every generator."""
        shape, found = (1, 1, self.size), list[Tensor]()
        eye = torch.eye(self.size, dtype=torch.float64).reshape(-1, *shape)
        for draw in range(self.draws):
            key, table = Key(self.seed).child("operator", m, draw), {"measurements": m, "ensemble": "gaussian"}
            operator: LinearOperator = construct("operator", OPERATOR, table, "operator", in_shape=shape, key=key)
            found.append(operator(eye).mT)
        return torch.stack(found)

    def _errors(self, generator: Generator, matrices: Tensor) -> Values:
        """Of every draw of A: the exact mean over x0, and the mean over some."""
        keys = Key(self.seed).child("images", matrices.shape[1]).rows(self.draws)
        z = torch.stack([key.normal((self.images, self.size), matrices) for key in keys])
        x = z @ generator.matrix.mT
        wrong = x - least_norm(matrices, generator.matrix, x)
        exact = expected_error(matrices, generator.matrix)
        return {"expected": exact.tolist(), "simulated": wrong.square().sum(2).mean(1).tolist()}


def _name(spectrum: str | dict[str, Any]) -> str:
    if isinstance(spectrum, str):
        return spectrum
    rest = ", ".join(f"{key} {value}" for key, value in spectrum.items() if key != "spectrum")
    return ", ".join(part for part in (str(spectrum.get("spectrum", "")), rest) if part)


def _mean(values: Any) -> Mean:
    return Mean(float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values)))


def _table(found: dict[str, list[Place]]) -> Table:
    rows: list[list[Any]] = []
    for name, places in found.items():
        for place in places:
            b, error = place.bounds, place.expected.value
            decibels = [10 * math.log10(value) for value in (b.lower, error, place.simulated.value, b.best, b.simple)]
            ratios = [error / b.lower, b.best / error, b.simple / error]
            percent = 100 * place.expected.error / error
            rows.append(
                [name, place.measurements, *decibels[:2], percent, *decibels[2:4], b.best_k, decibels[4], *ratios]
            )
    columns = [
        Column("spectrum"), Column("m"), Column("lower bound", "dB"), Column("error", "dB"),
        Column("its standard error", "%"), Column("simulated", "dB"), Column("bound", "dB"), Column("k"),
        Column("m-bound", "dB"), Column("error / lower"), Column("bound / error"), Column("m-bound / error"),
    ]  # fmt: skip
    return Table("Squared error in units of the mean squared norm of an image, mean over draws of A", columns, rows)


def _statements(name: str, places: list[Place], study: LinearGenerator) -> list[Statement]:
    within = all(
        p.bounds.lower <= p.expected.value + ERRORS * p.expected.error
        and p.expected.value - ERRORS * p.expected.error <= p.bounds.best <= p.bounds.simple
        for p in places
    )
    above = [p.expected.value / p.bounds.lower for p in places]
    below = [p.bounds.best / p.expected.value for p in places]
    word = "lies" if within else "does NOT always lie"
    spread = f"{_range(above)} times the lower one, and the upper one {_range(below)} times it"
    single = all(p.least >= p.bounds.lower * (1 - 1e-9) for p in places)
    count = f"{study.draws * len(places)} draws of A"
    apart = max(p.apart for p in places)
    agree = "agree" if apart <= AGREEMENT else "do NOT agree"
    return [
        Statement(f"{name}: the mean error {word} between the bounds: {spread}.", within),
        Statement(f"{name}: the lower bound holds for {'each' if single else 'NOT each'} of {count}.", single),
        Statement(
            f"{name}: recovered random images {agree} with the closed form: at most {apart:.1f} standard errors apart.",
            apart <= AGREEMENT,
        ),
    ]


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _figure(generators: list[Generator], found: dict[str, list[Place]], size: int) -> Figure:
    across = min(2, len(generators))
    figure, axes = panels(across, math.ceil(len(generators) / across), height=3.1)
    theory = range(FEWEST, size - MARGIN + 1)
    for ax in axes.flat[len(generators) :]:
        ax.remove()
    for index, (ax, generator) in enumerate(zip(axes.flat, generators, strict=False)):
        curves = [bounds(generator.singular_values, m) for m in theory]
        lower, best, simple = (
            [getattr(b, key) / generator.power for b in curves] for key in ("lower", "best", "simple")
        )
        ax.fill_between(theory, lower, best, color=COLOURS[0], alpha=0.10, linewidth=0)
        ax.plot(
            theory,
            simple,
            color=COLOURS[1],
            linestyle="--",
            linewidth=1.3,
            label=r"upper bound, $k = m - 2$ (times $m$)",
        )
        ax.plot(theory, best, color=COLOURS[0], linewidth=1.5, label="upper bound, best $k$")
        ax.plot(theory, lower, color=COLOURS[2], linewidth=1.5, label="lower bound, rank $m$")
        places = found[generator.name]
        m = [p.measurements for p in places]
        ax.plot(
            m,
            [p.expected.value for p in places],
            "o",
            color="black",
            markersize=4.5,
            label="mean error, exact in $x_0$",
        )
        simulated = [p.simulated.value for p in places]
        ax.plot(m, simulated, "o", mfc="none", mec=COLOURS[4], markersize=9, mew=1.3, label="mean error, random $x_0$")
        ax.set_yscale("log")
        ax.set_xlim(0, size)
        ax.set_ylim(min(lower) / 2, max(simple) * 2)
        left, bottom = index % across == 0, index + across >= len(generators)
        y = r"$E\,\|x_0 - \hat x\|^2 \;/\; E\,\|x_0\|^2$" if left else ""
        label(ax, generator.name, f"measurements $m$, of $n = {size}$" if bottom else "", y)
    handles = axes.flat[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3 if across > 1 else 1, frameon=False, fontsize=NOTE)
    return figure
