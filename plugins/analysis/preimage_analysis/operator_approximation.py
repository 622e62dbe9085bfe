"""Study: how close is what was trained to reconstruct to the operator it was trained for?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure

from .drawing import COLOURS, MARKERS, MUTED, NOTE, label, levels, panels
from .grid import GridStudy, Measured
from .progress import Progress
from .study import Column, Findings, Statement, Table
from .summary import difference, mean


@dataclass(frozen=True, kw_only=True)
class OperatorApproximation(GridStudy):
    """The distance of phi to F on clean images, for every noise level and bound L, each with a network for both.

    A network that is trained to reconstruct need not learn F: its inverse is drawn to a mean of what an image may be,
    the more so the more noise there is. So the operator error rms(phi(x) - F(x)) falls with the noise (Arndt & Nickel
    2024, their figure 9); where it is above the identity error rms(x - F(x)), the identity is closer to F. phi(x) is
    the mean of what becomes of the copies of x; the channel spread is the rms distance of the copies to it, 0 if phi
    acts on all alike.

    - `bounds`: L. `noise`: sigma. The other parameters are those of every study of learned operators:
    - `prior`, `weights`: the component, and names or files of its weights; without any, all that ship.
    - `operators`, `data`, `count`, `seed`: what is measured, of which images, under which noise.
    - `tolerance`, `device`: of the inverse, and where it is computed.

    Raises `BadParameter` if a number is out of its range, and when it runs if there are no weights for a combination.
    """

    def run(self, progress: Progress) -> Findings:
        measured = self.measured(progress)
        named = [table["name"] for table in self.tables()]
        rows = [_row(name, sigma, bound, measured) for name in named for sigma in self.noise for bound in self.bounds]
        columns = [
            Column("operator"), Column("noise", digits=3), Column("L", digits=3), Column("images"),
            Column("operator error", digits=4), Column("low 95 %", digits=4), Column("high 95 %", digits=4),
            Column("identity error", digits=4), Column("ratio", digits=3), Column("channel spread", digits=4),
        ]  # fmt: skip
        statements = [
            self._falls(name, bound, measured) for name in named for bound in self.bounds if len(self.noise) > 1
        ]
        return Findings(
            tables={
                "operator-approximation": Table(
                    "Distance of learned operators to the true one, means over images", columns, rows
                )
            },
            figures={
                f"operator-approximation-{name}": _figure(name, self.noise, self.bounds, measured) for name in named
            },
            statements=[*statements, *(self._closer(name, measured) for name in named)],
            parts=self.parts(),
            facts=self.facts(measured.images, measured.learned),
        )

    def _falls(self, name: str, bound: float, measured: Measured) -> Statement:
        noise = sorted(self.noise, reverse=True)
        means = [mean(measured.of(name, sigma, bound)["operator_error"]).value for sigma in noise]
        falls = all(after < before for before, after in pairwise(means))
        path = ", ".join(f"{value:.4f} (noise {sigma:g})" for value, sigma in zip(means, noise, strict=True))
        word = "falls" if falls else "does not fall"
        return Statement(f"{name}, L = {bound:g}: the distance to F {word} with the noise: {path}.", falls)

    def _closer(self, name: str, measured: Measured) -> Statement:
        sigma, bound = min(self.noise), max(self.bounds)
        values = measured.of(name, sigma, bound)
        own, identity = mean(values["operator_error"]).value, mean(values["identity_error"]).value
        change = difference(values["operator_error"], values["identity_error"])
        word = "closer to F than the identity is" if own < identity else "no closer to F than the identity"
        text = f"{name}, noise {sigma:g}, L = {bound:g}: phi is {word}: {own:.4f} against {identity:.4f}"
        return Statement(f"{text}, difference {change}.", own < identity)


def _row(name: str, sigma: float, bound: float, measured: Measured) -> list[Any]:
    values = measured.of(name, sigma, bound)
    own, identity = mean(values["operator_error"]), mean(values["identity_error"]).value
    ratio = own.value / identity if identity else None
    spread = mean(values["channel_spread"]).value
    return [name, sigma, bound, len(values["psnr"]), *own, identity, ratio, spread]


def _figure(name: str, noise: Sequence[float], bounds: Sequence[float], measured: Measured) -> Figure:
    figure, axes = panels(2)
    ordered = sorted(noise)
    for index, bound in enumerate(sorted(bounds)):
        style: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 5,
        }
        for ax, key in zip(axes[0], ("operator_error", "channel_spread"), strict=True):
            found = [mean(measured.of(name, sigma, bound)[key]).value for sigma in ordered]
            ax.plot(range(len(ordered)), found, label=f"L = {bound:g}", **style)
    identity = mean(measured.of(name, ordered[0], max(bounds))["identity_error"]).value
    axes[0][0].axhline(identity, color=MUTED, linestyle=":", linewidth=1.4, label=r"identity: $x - F(x)$")
    for ax in axes[0]:
        ax.set_ylim(bottom=0)
        levels(ax, [f"δ = {sigma:g}" for sigma in ordered])
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(bounds) + 1, frameon=False, fontsize=NOTE)
    label(axes[0][0], f"{name}: distance to the operator", "noise in training", r"rms of $\varphi(x) - F(x)$")
    label(axes[0][1], "how far the copies come apart", "noise in training", "channel spread, rms")
    return figure
