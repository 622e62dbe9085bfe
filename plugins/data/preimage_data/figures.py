"""Figures of results: matplotlib, drawn without a window and without global state."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from preimage import ForwardOperator, LinearOperator, dot, per_image

from .atomic import atomic_write
from .measures import psnr, ssim

_TITLE, _NOTE, _MUTED = 10, 8.5, "#555555"


@dataclass(frozen=True)
class View:
    """A measurement as an image: its `name` in words, `image` (B, C, H, W), and whether it can be `compared` with the
    truth, pixel by pixel."""

    name: str
    image: Tensor
    compared: bool

    def rows(self, which: slice) -> "View":
        """The same of some of the images."""
        return replace(self, image=self.image[which])


def view(operator: ForwardOperator, y: Tensor) -> View | None:
    """How to show measurements y (B, *out_shape): as they are if they have the shape of the images.

    Otherwise, for a linear operator, the scaled adjoint c A^T y with c = ||A^T y||^2 / ||A A^T y||^2 for each image,
    which is one step of steepest descent on ||A x - y||^2 from zero. Otherwise the measurement if it is an image of
    another size, and None if it is not.
    """
    if operator.out_shape == operator.in_shape:
        return View("measurement", y, True)
    if isinstance(operator, LinearOperator):
        back = operator.adjoint(y)
        forth = operator(back)
        scale = dot(back, back) / dot(forth, forth).clamp_min(1e-30)
        return View("scaled adjoint", per_image(scale, back) * back, True)
    if len(operator.out_shape) == 3 and operator.out_shape[0] in (1, 3):
        return View("measurement", y, False)
    return None


def comparison(estimate: Tensor, *, truth: Tensor | None = None, seen: View | None = None, title: str = "") -> Figure:
    """One image (C, H, W) beside its truth and its measurement (`seen`, a batch of one), and the map of its errors.

    All images are shown on the window [0, 1], values outside clipped; the errors, estimate minus truth, mean over
    channels, on a symmetric scale of their own given by the colour bar. PSNR and SSIM stand over the images.
    """
    panels: list[tuple[str, str, Tensor]] = []
    if truth is not None:
        panels.append(("truth", "", truth))
    if seen is not None:
        panels.append((seen.name, _quality(seen.image[0], truth) if seen.compared else "", seen.image[0]))
    panels.append(("estimate", _quality(estimate, truth), estimate))

    count = len(panels) + (truth is not None)
    aspect = min(max(estimate.shape[1] / estimate.shape[2], 0.2), 5.0)
    width = 3.0
    figure = Figure(figsize=(width * count + 0.5, width * aspect + 0.75), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, count, squeeze=False)[0]
    for ax, (name, note, image) in zip(axes, panels, strict=False):
        _show(ax, image)
        ax.set_title(f"{name}\n{note}" if truth is not None else name, fontsize=_TITLE)
    if truth is not None:
        error = (estimate.detach() - truth.detach()).double().mean(0).cpu().numpy()
        largest = max(float(np.abs(error).max()), 1e-12)
        drawn = axes[-1].imshow(error, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
        _bare(axes[-1])
        axes[-1].set_title(f"estimate − truth\nscale ±{largest:.2g}", fontsize=_TITLE)
        bar = figure.colorbar(drawn, ax=axes[-1], fraction=0.046, pad=0.03)
        bar.ax.tick_params(labelsize=_NOTE - 1)
    if title:
        figure.suptitle(title, fontsize=_TITLE + 1, fontweight="bold")
    return figure


@dataclass(frozen=True)
class Row:
    """A problem in an overview: for each image its measurement as an image, and its estimate."""

    name: str
    seen: View | None
    estimate: Tensor


def overview(truth: Tensor, labels: Sequence[str], rows: Sequence[Row], title: str = "") -> Figure:
    """Problems down, and across truth, measurement and estimate of each image of the batch `truth` (B, C, H, W).

    All on the window [0, 1]; the PSNR in dB is under every image that has one.
    """
    gaps = [0.2 if column % 3 == 2 else 0.05 for column in range(3 * len(labels) - 1)]
    figure, axes = _grid(len(rows), gaps, 1.35, truth.shape[2] / truth.shape[3], 0.62 if title else 0.4)
    for i, label in enumerate(labels):
        for j, row in enumerate(rows):
            ours = axes[j][3 * i : 3 * i + 3]
            _show(ours[0], truth[i])
            _noted(ours[2], row.estimate[i], truth[i])
            if row.seen is None:
                ours[1].axis("off")
            else:
                _noted(ours[1], row.seen.image[i], truth[i] if row.seen.compared else None)
                if j and rows[0].seen is not None and row.seen.name != rows[0].seen.name:
                    ours[1].set_title(row.seen.name, fontsize=_NOTE - 1.5, color=_MUTED, pad=2)
        heading = rows[0].seen.name if rows[0].seen else "measurement"
        for ax, name in zip(axes[0][3 * i : 3 * i + 3], ("truth", heading, "estimate"), strict=True):
            ax.set_title(name, fontsize=_NOTE, pad=3)
        middle = axes[0][3 * i + 1].get_position()
        height = middle.y1 + 0.21 / figure.get_figheight()
        centre = (middle.x0 + middle.x1) / 2
        figure.text(centre, height, label, fontsize=_TITLE, fontweight="bold", ha="center", va="bottom")
    for ax, row in zip((line[0] for line in axes), rows, strict=True):
        ax.set_ylabel(row.name, fontsize=_NOTE)
    return _titled(figure, title)


def gallery(truth: Tensor, labels: Sequence[str], row: Row, title: str = "") -> Figure:
    """One problem, images across: truth, measurement and estimate below each other, with PSNR."""
    rows = [("truth", truth), *([(row.seen.name, row.seen.image)] if row.seen else []), ("estimate", row.estimate)]
    aspect = truth.shape[2] / truth.shape[3]
    figure, axes = _grid(len(rows), [0.05] * (len(labels) - 1), 1.6, aspect, 0.5 if title else 0.25)
    for j, (name, images) in enumerate(rows):
        for i, label in enumerate(labels):
            compared = name != "truth" and (name == "estimate" or (row.seen is not None and row.seen.compared))
            _noted(axes[j][i], images[i], truth[i] if compared else None)
            if j == 0:
                axes[j][i].set_title(label, fontsize=_NOTE, pad=3)
        axes[j][0].set_ylabel(name, fontsize=_NOTE)
    return _titled(figure, title)


def side_by_side(pairs: Sequence[tuple[Tensor, Tensor]], notes: Sequence[str], title: str = "") -> Figure:
    """Pairs of images (C, H, W), of any sizes, two to a pair and up to three pairs in a row, with a note below each."""
    across = min(3, len(pairs))
    down = math.ceil(len(pairs) / across)
    width, line, top = 1.8, 0.62, 0.4 if title else 0.1
    size = (across * (2 * width + 0.3) + 0.3, top + down * (width + line))
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    for index, (pair, note) in enumerate(zip(pairs, notes, strict=True)):
        row, column = divmod(index, across)
        left, bottom = 0.3 + column * (2 * width + 0.3), size[1] - top - row * (width + line) - width
        for side, image in enumerate(pair):
            x, y = (left + side * width) / size[0], bottom / size[1]
            _show(figure.add_axes((x, y, (width - 0.04) / size[0], width / size[1])), image)
        figure.text(left / size[0], (bottom - 0.06) / size[1], note, fontsize=_NOTE - 1, va="top", color=_MUTED)
    return _titled(figure, title)


def _grid(rows: int, gaps: Sequence[float], width: float, aspect: float, top: float) -> tuple[Figure, list[list[Any]]]:
    """Axes of one size, in inches, with room for a line of text below each; `gaps` are those between the columns."""
    height, left, line, right = width * aspect, 0.28, 0.3, 0.05
    total = (left + sum(gaps) + width * (len(gaps) + 1) + right, top + rows * (height + line))
    figure = Figure(figsize=total)
    FigureCanvasAgg(figure)
    starts = [left + sum(gaps[:column]) + width * column for column in range(len(gaps) + 1)]
    axes = [
        [
            figure.add_axes(
                (
                    start / total[0],
                    1 - (top + (row + 1) * height + row * line) / total[1],
                    width / total[0],
                    height / total[1],
                )
            )
            for start in starts
        ]
        for row in range(rows)
    ]
    return figure, axes


def _titled(figure: Figure, title: str) -> Figure:
    if title:
        from_top = 1 - 0.06 / figure.get_figheight()
        figure.text(0.5, from_top, title, fontsize=_TITLE, fontweight="bold", ha="center", va="top")
    return figure


def figure_bytes(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata: Mapping[str, Any] = {"Software": None}
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def save_figure(path: str | Path, figure: Figure, dpi: int = 150) -> None:
    """Write a figure as PNG, atomically. Raises `BadFile` if that is not possible."""
    atomic_write(path, figure_bytes(figure, dpi))


def decibels(value: float) -> str:
    """A PSNR in words: "28.31 dB", or "exact" if there is no error at all."""
    return "exact" if math.isinf(value) else f"{value:.2f} dB"


def _quality(image: Tensor, truth: Tensor | None) -> str:
    if truth is None:
        return ""
    text = decibels(float(psnr(image[None], truth[None])))
    similarity = f", SSIM {float(ssim(image[None], truth[None])):.3f}" if min(image.shape[1:]) >= 11 else ""
    return f"PSNR {text}{similarity}"


def _noted(ax: Any, image: Tensor, truth: Tensor | None) -> None:
    _show(ax, image)
    if truth is not None:
        note = decibels(float(psnr(image[None], truth[None])))
        ax.set_xlabel(note, fontsize=_NOTE - 0.5, color=_MUTED, labelpad=2)


def _show(ax: Any, image: Tensor) -> None:
    pixels = image.detach().double().clamp(0, 1).cpu().numpy()
    if pixels.shape[0] == 1:
        ax.imshow(pixels[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        ax.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
    _bare(ax)


def _bare(ax: Any) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_linewidth(0.4)
        spine.set_color("#999999")
