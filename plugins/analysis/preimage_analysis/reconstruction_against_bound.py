"""Study: what the bound on the inverse costs in reconstruction quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .drawing import COLOURS, MARKERS, MUTED, NOTE, label, levels, panels
from .grid import GridStudy, Measured
from .progress import Progress
from .study import Column, Findings, Statement, Table
from .summary import difference, mean


@dataclass(frozen=True, kw_only=True)
class ReconstructionAgainstBound(GridStudy):
    """PSNR of phi^-1(F(x) + sigma n) for every noise level and bound L, each with a network trained for both.

    Lip(phi^-1) <= 1 / (1 - L): the closer L is to 1, the more an inverse may amplify, details as well as noise (Arndt &
    Nickel 2024, their figure 8). Differences to the loosest bound are taken image by image, with 95 % intervals.

    - `bounds`: L. `noise`: sigma. The other parameters are those of every study of learned operators:
    - `prior`, `weights`: the component, and names or files of its weights; without any, all that ship.
    - `operators`, `data`, `count`, `seed`: what is measured, of which images, under which noise.
    - `tolerance`, `device`: of the inverse, and where it is computed.

    Raises `BadParameter` if a number is out of its range, and when it runs if there are no weights for a combination.
    """

    def run(self, progress: Progress) -> Findings:
        measured = self.measured(progress)
        figures = {
            f"reconstruction-against-bound-{table['name']}": _figure(table["name"], self.noise, self.bounds, measured)
            for table in self.tables()
        }
        rows = [
            row for table in self.tables() for sigma in self.noise for row in self._rows(table["name"], sigma, measured)
        ]
        columns = [
            Column("operator"), Column("noise", digits=3), Column("L", digits=3), Column("images"),
            Column("PSNR", "dB"), Column("SD over images", "dB"), Column("gain over data", "dB"),
            Column(f"against L = {max(self.bounds):g}", "dB", 3), Column("low 95 %", "dB", 3),
            Column("high 95 %", "dB", 3), Column("evaluations", digits=1),
        ]  # fmt: skip
        statements = [
            self._statement(table["name"], sigma, measured) for table in self.tables() for sigma in self.noise
        ]
        return Findings(
            tables={
                "reconstruction-against-bound": Table("PSNR of the learned inverse, means over images", columns, rows)
            },
            figures=figures,
            statements=statements if len(self.bounds) > 1 else [],
            parts=self.parts(),
            facts=self.facts(measured.images, measured.learned),
        )

    def _rows(self, name: str, sigma: float, measured: Measured) -> list[list[Any]]:
        rows: list[list[Any]] = []
        reference = measured.of(name, sigma, max(self.bounds))["psnr"]
        for bound in self.bounds:
            values = measured.of(name, sigma, bound)
            own = difference(values["psnr"], reference) if bound != max(self.bounds) else (None, None, None)
            psnr, gain = mean(values["psnr"]).value, mean(values["gain"]).value
            spread = float(np.std(values["psnr"], ddof=1)) if len(reference) > 1 else None
            evaluations = mean(values["evaluations"]).value
            rows.append([name, sigma, bound, len(reference), psnr, spread, gain, *own, evaluations])
        return rows

    def _statement(self, name: str, sigma: float, measured: Measured) -> Statement:
        means = [mean(measured.of(name, sigma, bound)["psnr"]).value for bound in sorted(self.bounds)]
        rises = all(before < after for before, after in pairwise(means))
        path = ", ".join(f"{value:.2f} (L {bound:g})" for value, bound in zip(means, sorted(self.bounds), strict=True))
        return Statement(
            f"{name}, noise {sigma:g}: PSNR {'rises' if rises else 'does not rise'} with L: {path} dB.", rises
        )


def _figure(name: str, noise: Sequence[float], bounds: Sequence[float], measured: Measured) -> Figure:
    figure, axes = panels(2)
    ordered = sorted(bounds)
    places = np.arange(len(ordered))
    for index, sigma in enumerate(noise):
        style: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 5,
        }
        scores = [measured.of(name, sigma, bound)["psnr"] for bound in ordered]
        axes[0][0].plot(places, [mean(one).value for one in scores], label=f"δ = {sigma:g}", **style)
        data = mean(measured.of(name, sigma, ordered[-1])["data_psnr"]).value
        axes[0][0].axhline(data, color=style["color"], linestyle=":", linewidth=1)
        differences = [difference(one, scores[-1]) for one in scores[:-1]]
        shift = 0.12 * (index - (len(noise) - 1) / 2)
        ends = [[d.value - (d.value if d.low is None else d.low) for d in differences],
                [(d.value if d.high is None else d.high) - d.value for d in differences]]  # fmt: skip
        style["linestyle"] = ""
        axes[0][1].errorbar(places[:-1] + shift, [d.value for d in differences], yerr=ends, capsize=3, **style)
    names = [f"L = {bound:g}\nLip ≤ {1 / (1 - bound):.4g}" for bound in ordered]
    levels(axes[0][0], names)
    levels(axes[0][1], names[:-1] or names)
    axes[0][0].plot([], [], color=MUTED, linestyle=":", label="data")
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(noise) + 1, frameon=False, fontsize=NOTE)
    axes[0][1].axhline(0, color=MUTED, linewidth=1)
    label(axes[0][0], f"{name}: PSNR", "bound on the inverse", "PSNR in dB")
    label(
        axes[0][1],
        f"against L = {ordered[-1]:g}, paired by image",
        "bound on the inverse",
        "difference in dB, 95 % interval",
    )
    return figure
