"""A picture of each study: the score against every parameter that was searched."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from preimage_data.figures import save_figure

from .outcomes import Tuned
from .presets import slug

_TITLE, _NOTE = 10, 8.5


def write_figures(folder: Path, tuned: Sequence[Tuned], metric: str) -> list[Path]:
    """One PNG for each study in which something was searched; their paths."""
    written: list[Path] = []
    for one in tuned:
        if one.best is not None and one.case.space:
            path = folder / f"{slug('_'.join(one.case.label))}.png"
            save_figure(path, study_figure(one, metric))
            written.append(path)
    return written


def study_figure(tuned: Tuned, metric: str = "psnr") -> Figure:
    """The score of each trial against each parameter, early trials light and late ones dark.

    The best trial is a star and the start a dashed line if it is in sight; failed trials are crosses at the foot; the
    shaded ends are the edges that would raise a warning. The vertical axis leaves out the worst quarter where it
    would flatten the rest; what is below is drawn as triangles at its foot.
    """
    best = tuned.best
    if best is None or best.score is None:
        raise ValueError("a picture needs a trial with a score")
    names = list(tuned.case.space)
    figure = Figure(figsize=(0.6 + 3.4 * len(names), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    scores = np.array([np.nan if trial.score is None else trial.score for trial in tuned.trials])
    low, high = _window(scores)
    numbers = np.arange(len(scores))
    for ax, name in zip(axes, names, strict=True):
        places, ticks = _places(tuned, name, ax)
        seen, below, failed = scores >= low, scores < low, np.isnan(scores)
        style = {"c": numbers, "cmap": "Blues", "vmin": -0.4 * len(scores), "vmax": len(scores), "linewidths": 0.5}
        for which, height, marker in ((seen, scores, "o"), (below, np.full_like(scores, low), "v")):
            chosen = {**style, "c": numbers[which]}
            ax.scatter(places[which], height[which], marker=marker, s=26, edgecolors="#1f3d5c", **chosen)
        ax.scatter(places[failed], np.full(failed.sum(), low), marker="x", s=26, c="#c03020", label="failed")
        ax.scatter(places[best.number], best.score, marker="*", s=150, c="#e08020", edgecolors="black", linewidths=0.5)
        if low <= tuned.start <= high:
            ax.axhline(tuned.start, ls="--", lw=0.8, color="#777777")
            ax.text(
                0.98, tuned.start, "start", transform=ax.get_yaxis_transform(), fontsize=_NOTE, ha="right", va="bottom"
            )
        ax.set_xlabel(name, fontsize=_NOTE)
        ax.tick_params(labelsize=_NOTE)
        if ticks:
            ax.set_xticks(range(len(ticks)), ticks)
        ax.set_ylim(low - 0.06 * (high - low), high + 0.08 * (high - low))
        ax.grid(alpha=0.25)
    axes[0].set_ylabel("PSNR in dB" if metric == "psnr" else metric, fontsize=_NOTE)
    figure.suptitle(
        f"{tuned.case.label}: {best.score:.2f} (start {tuned.start:.2f})", fontsize=_TITLE, fontweight="bold"
    )
    return figure


def _window(scores: Any) -> tuple[float, float]:
    there = scores[np.isfinite(scores)]
    high, low = float(there.max()), float(there.min())
    quarter = float(np.quantile(there, 0.25))
    if high - low > 3 * (high - quarter):
        low = quarter - 0.5 * (high - quarter)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _places(tuned: Tuned, name: str, ax: Any) -> tuple[Any, list[str]]:
    """Where the trials stand on the axis of a parameter, and the names of its ticks if it is a choice."""
    distribution = tuned.case.space[name]
    values = [trial.parameters[name] for trial in tuned.trials]
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        return np.array([choices.index(value) for value in values], dtype=float), [str(choice) for choice in choices]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    ax.set_xscale("log" if distribution.log else "linear")
    ratio = (high / low) ** 0.05 if distribution.log else 1.0
    step = 0.05 * (high - low)
    near = (low * ratio, high / ratio) if distribution.log else (low + step, high - step)
    ax.axvspan(low, near[0], color="#c03020", alpha=0.08, lw=0)
    ax.axvspan(near[1], high, color="#c03020", alpha=0.08, lw=0)
    ax.set_xlim(low / ratio**0.5, high * ratio**0.5) if distribution.log else ax.set_xlim(
        low - step / 2, high + step / 2
    )
    return np.array([cast(float, value) for value in values], dtype=float), []
