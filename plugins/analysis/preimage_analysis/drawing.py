"""One look for the figures of all studies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

COLOURS = ("#1f5a94", "#c8641e", "#3c8c50", "#7a4a9c", "#8c2d3c", "#5a5a5a")
MARKERS = ("o", "s", "^", "D", "v", "P")
MUTED = "#777777"
TITLE, NOTE = 10, 8.5


def panels(columns: int, rows: int = 1, *, width: float = 4.2, height: float = 3.4, sharey: bool = False) -> Any:
    """A figure and its axes, (rows, columns), with a light grid and no frame on top and right."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if sharey else False)
    for ax in axes.flat:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=NOTE)
    return figure, axes


def label(ax: Axes, title: str, x: str, y: str) -> None:
    """Title and axes of a panel."""
    ax.set_title(title, fontsize=TITLE, fontweight="bold", loc="left")
    ax.set_xlabel(x, fontsize=NOTE)
    ax.set_ylabel(y, fontsize=NOTE)


def levels(ax: Axes, names: Sequence[str]) -> None:
    """A horizontal axis of named places 0, 1, ..."""
    ax.set_xticks(range(len(names)), names)
    ax.set_xlim(-0.35, len(names) - 0.65)


def show(ax: Axes, image: Tensor, *, scale: float | None = None) -> Any:
    """An image (C, H, W) on the window [0, 1]; with `scale`, a signed one, mean over channels, on [-scale, scale]."""
    pixels = image.detach().double().cpu()
    if scale is not None:
        drawn = ax.imshow(pixels.mean(0).numpy(), cmap="RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest")
    elif len(pixels) == 1:
        drawn = ax.imshow(pixels[0].clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        drawn = ax.imshow(pixels.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_linewidth(0.4)
        spine.set_color("#999999")
    return drawn


def signed_scale(images: Tensor) -> float:
    """The 99.5 % quantile of absolute values: a few extreme pixels do not fade out all others."""
    return max(float(np.quantile(images.detach().double().abs().cpu().numpy(), 0.995)), 1e-9)
