"""Study: is the learned inverse, with its bound tied to the noise, a convergent regularisation?"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from preimage.errors import BadParameter

from .drawing import COLOURS, MUTED, NOTE, label, levels, panels
from .learned import Cell, LearnedOperatorStudy, measure
from .progress import Progress, Values
from .study import Column, Findings, Statement, Table
from .summary import difference, mean


@dataclass(frozen=True, kw_only=True)
class InversionConvergence(LearnedOperatorStudy):
    """The inversion error along a schedule of noise sigma and bound L(sigma): does it fall as sigma vanishes?

    phi^-1 is a convergent regularisation if L -> 1 and sigma / (1 - L) -> 0 as sigma -> 0, and phi comes close to F
    faster than L to 1 (Arndt & Nickel 2024, their theory of regularisation and figure on L(delta)). Each place of the
    schedule has a network of its own, trained at that noise under that bound. Reported is the mean over images of

        rms(phi^-1(y) - x),  y = F(x) + sigma n,

    in pixels of the image: phi works on copies of it, of which the mean is taken. Beside it: the error without noise,
    rms(phi^-1(F(x)) - x); the effect of noise, rms(phi^-1(y) - phi^-1(F(x))), and its bound rms(y - F(x)) / (1 - L),
    both on the copies; the data, rms(y - x); PSNR.

    - `schedule`: pairs (sigma, L), noise falling. The other parameters are those of every study of learned operators:
    - `prior`, `weights`: the component, and names or files of its weights; without any, all that ship.
    - `operators`, `data`, `count`, `seed`: what is measured, of which images, under which noise.
    - `tolerance`, `device`: of the inverse, and where it is computed.

    Raises `BadParameter` if a number is out of its range or the noise does not fall, and when it runs if there are no
    weights for a place of the schedule.
    """

    schedule: tuple[tuple[float, float], ...] = ((0.05, 0.95), (0.025, 0.99), (0.01, 0.999))

    def __post_init__(self):
        super().__post_init__()
        noise = [sigma for sigma, _ in self.schedule]
        if len(noise) < 2 or any(after >= before for before, after in pairwise(noise)) or noise[-1] <= 0:
            found = f"schedule has the noise levels {noise}"
            raise BadParameter(
                found, "two or more, > 0, each below the one before", "use [[0.05, 0.95], [0.01, 0.999]]"
            )
        if not all(0 < bound < 1 for _, bound in self.schedule):
            raise BadParameter(f"schedule has the bounds {[bound for _, bound in self.schedule]}", "numbers in (0, 1)")

    def run(self, progress: Progress) -> Findings:
        images = self.images()
        shape = tuple(images.x.shape[1:])
        cells = [Cell(table, sigma, bound) for table in self.tables() for sigma, bound in self.schedule]
        learned = self.find(cells, shape)
        progress.begin(len(cells))
        measured: list[Values] = []
        for index, cell in enumerate(cells):
            forward = self.forward_model(cell.operator, cell.sigma, shape)
            measured.append(
                progress.part(
                    str(cell),
                    self.inputs(learned[index], images, forward),
                    lambda index=index, forward=forward: measure(learned[index], forward, images, self.tolerance),
                )
            )
        places = len(self.schedule)
        groups = [slice(start, start + places) for start in range(0, len(cells), places)]
        statements = [s for group in groups for s in _statements(cells[group], measured[group], self.tolerance)]
        return Findings(
            tables={"inversion-convergence": _errors(cells, measured), "stability": _stability(cells, measured)},
            figures={"inversion-convergence": _figure([(cells[group], measured[group]) for group in groups])},
            statements=statements,
            parts=self.parts(),
            facts=self.facts(images, list(learned.values())),
        )


def _errors(cells: list[Cell], measured: list[Values]) -> Table:
    rows: list[list[Any]] = []
    for cell, values in zip(cells, measured, strict=True):
        others = [mean(values[key]).value for key in ("exact_inversion_error", "data_error", "psnr", "data_psnr")]
        rows.append([*_place(cell, values), *mean(values["inversion_error"]), *others])
    columns = [*_PLACE, *(Column(name, digits=4) for name in ("inversion error", "low 95 %", "high 95 %"))]
    columns += [Column(name, digits=4) for name in ("without noise", "of the data")]
    columns += [Column("PSNR", "dB"), Column("PSNR of data", "dB")]
    return Table("Inversion error: root mean square over pixels, mean over images", columns, rows)


def _stability(cells: list[Cell], measured: list[Values]) -> Table:
    rows: list[list[Any]] = []
    for cell, values in zip(cells, measured, strict=True):
        state, effect, bound, count = (
            mean(values[key]).value for key in ("state_error", "noise_effect", "noise_bound", "evaluations")
        )
        ratios = [a / b for a, b in zip(values["noise_effect"], values["noise_bound"], strict=True)]
        rows.append([*_place(cell, values), state, effect, bound, max(ratios), count])
    columns = [*_PLACE, Column("inversion error", digits=4), Column("effect of noise", digits=4)]
    columns += [Column("its bound", digits=4), Column("largest ratio", digits=4), Column("evaluations", digits=1)]
    return Table("Stability: root mean square over the copies, mean over images", columns, rows)


_PLACE = [Column("operator"), Column("noise", digits=3), Column("L", digits=3), Column("images")]


def _place(cell: Cell, values: Values) -> list[Any]:
    return [str(cell.operator["name"]), cell.sigma, cell.bound, len(values["psnr"])]


def _statements(cells: list[Cell], measured: list[Values], tolerance: float) -> list[Statement]:
    name = cells[0].operator["name"]
    means = [mean(values["inversion_error"]).value for values in measured]
    falls = all(after < before for before, after in pairwise(means))
    path = ", ".join(
        f"{value:.4f} (noise {cell.sigma:g}, L {cell.bound:g})" for value, cell in zip(means, cells, strict=True)
    )
    word = "falls" if falls else "does not fall"
    found = [Statement(f"{name}: the mean inversion error {word} along the schedule: {path}.", falls)]
    for (before, after), (first, second) in zip(pairwise(measured), pairwise(cells), strict=True):
        change = difference(after["inversion_error"], before["inversion_error"])
        fell = sum(a < b for a, b in zip(after["inversion_error"], before["inversion_error"], strict=True))
        text = f"{name}: from noise {first.sigma:g} to {second.sigma:g} it changes by {change}, paired"
        found.append(Statement(f"{text}; it falls on {fell} of {len(after['psnr'])} images."))
    pairs = [
        (effect, bound)
        for values in measured
        for effect, bound in zip(values["noise_effect"], values["noise_bound"], strict=True)
    ]
    # Either inverse is off by up to the tolerance, relative to states of rms below 1.
    kept = all(effect <= bound * (1 + 1e-6) + 2 * tolerance for effect, bound in pairs)
    largest = max(effect / bound for effect, bound in pairs)
    text = f"{name}: the effect of noise is {'always' if kept else 'NOT always'} below its bound"
    return [*found, Statement(f"{text}; the largest is {largest:.2g} of it.", kept)]


_LINES: dict[str, dict[str, Any]] = {
    "data_error": {"color": MUTED, "linestyle": ":", "label": "data: $y - x$"},
    "exact_inversion_error": {
        "color": COLOURS[1],
        "linestyle": "--",
        "marker": "s",
        "label": r"without noise: $\varphi^{-1}(F(x)) - x$",
    },
    "inversion_error": {
        "color": COLOURS[0],
        "marker": "o",
        "linewidth": 2,
        "label": r"$\varphi^{-1}(F(x) + \delta n) - x$",
    },
}


def _figure(groups: list[tuple[list[Cell], list[Values]]]) -> Figure:
    figure, axes = panels(len(groups), sharey=True, width=4.4, height=3.7)
    for ax, (cells, measured) in zip(axes[0], groups, strict=True):
        places = range(len(cells))
        for values in zip(*(one["inversion_error"] for one in measured), strict=True):
            ax.plot(places, values, color=COLOURS[0], alpha=0.2, linewidth=0.7)
        for key, style in _LINES.items():
            ax.plot(places, [mean(one[key]).value for one in measured], markersize=5, **style)
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        ax.yaxis.set_major_formatter("{x:.3g}")
        ax.yaxis.set_minor_locator(NullLocator())
        levels(ax, [f"δ = {cell.sigma:g}\nL = {cell.bound:g}" for cell in cells])
        label(ax, cells[0].operator["name"], "noise falls, the bound is loosened →", "root mean square error")
    axes[0][0].plot([], [], color=COLOURS[0], alpha=0.4, linewidth=0.7, label="single images")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=NOTE
    )
    for ax in axes[0][1:]:
        ax.set_ylabel("")
    return figure
