"""Study: pictures of what learned operators do, and of their inverses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from preimage_data import psnr
from torch import Tensor

from preimage import ForwardModel
from preimage.errors import BadParameter

from .drawing import NOTE, TITLE, show, signed_scale
from .grid import GridStudy
from .learned import Cell, Images, Learned, measure, rms
from .progress import Progress
from .study import Column, Findings, Table
from .summary import mean


@dataclass(frozen=True, kw_only=True)
class LearnedOperators(GridStudy):
    """For some images x: F(x) beside phi(x) and what either changes in x; y, phi^-1(y) and its errors.

    Two figures for each network (after figures 2, 3 and 10 of Arndt & Nickel 2024): `operator` has x, F(x), phi(x),
    the changes F(x) - x and phi(x) - x and their difference phi(x) - F(x), all three on one signed scale;
    `reconstruction` has x, y, phi^-1(y), phi(x) and the error map phi^-1(y) - x. The table has the
    means over all images: inversion error rms(phi^-1(y) - x), operator error rms(phi(x) - F(x)), identity error
    rms(x - F(x)), and how far the copies of an image come apart.

    - `show`: labels of the images in the figures; without any, the first three.
    - `bounds`, `noise`: which networks, every combination. The other parameters are those of every study of learned
      operators:
    - `prior`, `weights`: the component, and names or files of its weights; without any, all that ship.
    - `operators`, `data`, `count`, `seed`: what is measured, of which images, under which noise.
    - `tolerance`, `device`: of the inverse, and where it is computed.

    Raises `BadParameter` if a number is out of its range, and when it runs for a label that there is none of, or a
    combination without weights.
    """

    operators: tuple[str | dict[str, Any], ...] = ("perona-malik", "gaussian-blur")
    noise: tuple[float, ...] = (0.025,)
    bounds: tuple[float, ...] = (0.999,)
    count: int = 8
    show: tuple[str, ...] = ()

    def run(self, progress: Progress) -> Findings:
        images = self.images()
        chosen = self._chosen(images)
        shape = tuple(images.x.shape[1:])
        cells = [Cell(table, sigma, bound) for table in self.tables() for sigma in self.noise for bound in self.bounds]
        learned = self.find(cells, shape)
        progress.begin(len(cells))
        figures: dict[str, Figure] = {}
        rows: list[list[Any]] = []
        for index, cell in enumerate(cells):
            forward = self.forward_model(cell.operator, cell.sigma, shape)
            values = progress.part(
                str(cell),
                self.inputs(learned[index], images, forward),
                lambda index=index, forward=forward: measure(learned[index], forward, images, self.tolerance),
            )
            names = ("psnr", "data_psnr", "inversion_error", "operator_error", "identity_error", "channel_spread")
            means = [mean(values[key]).value for key in names]
            rows.append(
                [
                    cell.operator["name"],
                    cell.sigma,
                    cell.bound,
                    Path(learned[index].name).stem,
                    len(images.labels),
                    *means,
                ]
            )
            pictures = _pictures(learned[index], forward, chosen, self.tolerance)
            stem = f"{cell.operator['name']}-{cell.sigma:g}-L{cell.bound:g}"
            figures[f"{stem}-operator"] = _operator_figure(pictures, chosen.labels, str(cell))
            figures[f"{stem}-reconstruction"] = _reconstruction_figure(pictures, chosen.labels, str(cell))
        columns = [
            Column("operator"),
            Column("noise", digits=3),
            Column("L", digits=3),
            Column("weights"),
            Column("images"),
        ]
        columns += [Column("PSNR", "dB"), Column("PSNR of data", "dB")]
        errors = ("inversion error", "operator error", "identity error", "channel spread")
        columns += [Column(name, digits=4) for name in errors]
        return Findings(
            tables={
                "learned-operators": Table("Learned operators and their inverses, means over images", columns, rows)
            },
            figures=figures,
            statements=[],
            parts=self.parts(),
            facts=self.facts(images, list(learned.values())),
        )

    def _chosen(self, images: Images) -> Images:
        """The images of the figures."""
        if absent := [label for label in self.show if label not in images.labels]:
            listed = ", ".join(images.labels)
            raise BadParameter(f"show has {', '.join(absent)}", f"labels of the images: {listed}", "or raise count")
        labels = list(self.show or images.labels[:3])
        return Images(images.x[[images.labels.index(label) for label in labels]], labels, images.digest)


class _Pictures(NamedTuple):
    x: Tensor
    clean: Tensor
    phi: Tensor
    y: Tensor
    restored: Tensor


@torch.no_grad()
def _pictures(learned: Learned, forward: ForwardModel, images: Images, tolerance: float) -> _Pictures:
    prior, x = learned.prior, images.x
    y = forward.simulate(x, images.labels)
    restored = prior.project(prior.invert(prior.lift(y), tolerance, certified=False).x)
    return _Pictures(x, forward.operator_for(images.labels)(x), prior.project(prior.encode(prior.lift(x))), y, restored)


def _operator_figure(p: _Pictures, labels: Sequence[str], title: str) -> Figure:
    changes = [p.clean - p.x, p.phi - p.x, p.phi - p.clean]
    scale = signed_scale(torch.stack(changes))
    columns: list[_Panel] = [
        _Panel("$x$", p.x),
        _Panel("operator $F(x)$", p.clean),
        _Panel(r"learned $\varphi(x)$", p.phi),
        _Panel("$F(x) - x$", changes[0], scale, _rms_notes(changes[0])),
        _Panel(r"$\varphi(x) - x$", changes[1], scale, _rms_notes(changes[1])),
        _Panel(r"$\varphi(x) - F(x)$", changes[2], scale, _rms_notes(changes[2])),
    ]
    return _drawn(columns, labels, f"What the learned operator does: {title}")


def _reconstruction_figure(p: _Pictures, labels: Sequence[str], title: str) -> Figure:
    error = p.restored - p.x
    columns: list[_Panel] = [
        _Panel("$x$", p.x),
        _Panel("$y = F(x) + δ n$", p.y, None, _decibels(p.y, p.x)),
        _Panel(r"reconstruction $\varphi^{-1}(y)$", p.restored, None, _decibels(p.restored, p.x)),
        _Panel(r"learned operator $\varphi(x)$", p.phi),
        _Panel(r"error $\varphi^{-1}(y) - x$", error, signed_scale(error), _rms_notes(error)),
    ]
    return _drawn(columns, labels, f"Reconstruction by the learned inverse: {title}")


class _Panel(NamedTuple):
    title: str
    images: Tensor
    scale: float | None = None
    notes: Sequence[str] = ()


def _drawn(columns: Sequence[_Panel], labels: Sequence[str], title: str) -> Figure:
    side = 1.75
    aspect = columns[0].images.shape[2] / columns[0].images.shape[3]
    size = (side * len(columns) + 1.0, (side * aspect + 0.14) * len(labels) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots(len(labels), len(columns), squeeze=False)
    drawn: dict[float, Any] = {}
    for column, panel in enumerate(columns):
        for row, image in enumerate(panel.images):
            ax = axes[row][column]
            shown = show(ax, image, scale=panel.scale)
            if panel.scale is not None:
                drawn[panel.scale] = shown
            if panel.notes:
                ax.set_xlabel(panel.notes[row], fontsize=NOTE - 0.5, labelpad=2)
            if row == 0:
                ax.set_title(panel.title, fontsize=NOTE + 0.5, pad=4)
            if column == 0:
                ax.set_ylabel(labels[row], fontsize=NOTE)
    for scale, shown in drawn.items():
        ours = [c for c, panel in enumerate(columns) if panel.scale == scale]
        bar = figure.colorbar(shown, ax=axes[:, ours[-1]], fraction=0.06, pad=0.03, extend="both", aspect=60)
        bar.ax.tick_params(labelsize=NOTE - 1.5)
    figure.suptitle(title, fontsize=TITLE, fontweight="bold")
    return figure


def _decibels(images: Tensor, truth: Tensor) -> list[str]:
    return [f"{value:.2f} dB" for value in psnr(images, truth).tolist()]


def _rms_notes(images: Tensor) -> list[str]:
    return [f"rms {value:.4f}" for value in rms(images).tolist()]
