"""The numbers of the page: what every method scores and costs, over all settings and in each of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .scores import COSTS, OUTCOMES, Metric, Scores, Setting, quantiles
from .statistics import Array, Bootstrap

LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Quantiles that stand for a distribution: ends, whiskers, box and median."""

MOST_POINTS = 4_000
"""With more cells than this the page holds quantiles only; with fewer, every image's number too."""


def page_data(scores: Scores, reference: str, bootstrap: Bootstrap) -> dict[str, Any]:
    """Everything the page's tables and plots draw, as JSON values; None stands for a number that does not exist.

    `scopes[0]` is all settings together, `scopes[i + 1]` is setting i. Rows are in the order of `methods`.
    """
    scopes: list[Setting | None] = [None, *scores.settings] if len(scores.settings) > 1 else [scores.settings[0]]
    with_points = len(scores.cells) <= MOST_POINTS
    return {
        "methods": list(scores.methods),
        "reference": scores.row(reference),
        "level": bootstrap.level,
        "metrics": [_described(metric) for metric in scores.metrics],
        "costs": [_described(metric) for metric in COSTS.values()],
        "levels": list(LEVELS),
        "scopes": [_scope(scores, setting, reference, bootstrap, with_points) for setting in scopes],
    }


def rounded(value: float, digits: int = 5) -> float | None:
    """A number with some significant digits, None if it is not finite: JSON knows neither NaN nor infinity."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _scope(
    scores: Scores, setting: Setting | None, reference: str, bootstrap: Bootstrap, with_points: bool
) -> dict[str, Any]:
    part = scores.part(setting)
    against = scores.row(reference)
    summaries: dict[str, Any] = {}
    spreads: dict[str, Any] = {}
    for metric in scores.metrics:
        summaries[metric.key] = [
            [
                *(rounded(number, 7) for number in (s.mean, s.low, s.high)),
                *(rounded(number) for number in (s.difference, s.difference_low, s.difference_high)),
                *(s.pairs, s.unpaired, s.images, s.wins, s.ties, s.losses, s.finished),
            ]
            for s in scores.summarise(metric.key, reference, part, bootstrap)
        ]
        values = scores.values[metric.key][:, part]
        spreads[metric.key] = {
            "value": [_spread(row, with_points) for row in values],
            "difference": [_spread(row, with_points) for row in values - values[against]],
        }
    # Costs on the measurements that the reference finished too: a method is not slower for doing more than the others.
    ok = scores.outcome[:, part] == OUTCOMES.index("ok")
    paired = ok & ok[against]
    counted = np.where(paired.any(axis=1, keepdims=True), paired, ok)
    costs = {
        key: [
            _numbers(quantiles(row[on], (0.25, 0.5, 0.75)))
            for row, on in zip(scores.values[key][:, part], counted, strict=True)
        ]
        for key in COSTS
    }
    return {
        "label": "All settings" if setting is None else str(setting),
        "setting": setting and list(setting),
        "units": int(part.sum()),
        "images": len(np.unique(scores.image_of[part])),
        "counts": [list(each.values()) for each in scores.counts(part)],
        "summaries": summaries,
        "spreads": spreads,
        "costs": costs,
    }


def _spread(values: Array, with_points: bool) -> dict[str, Any] | None:
    there = values[np.isfinite(values)]
    if not len(there):
        return None
    spread: dict[str, Any] = {"count": len(there), "quantiles": _numbers(quantiles(there, LEVELS))}
    return spread | ({"points": _numbers(there.tolist())} if with_points else {})


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [rounded(value) for value in values]


def _described(metric: Metric) -> dict[str, Any]:
    return {
        "key": metric.key,
        "title": metric.title,
        "unit": metric.unit,
        "better": metric.better,
        "digits": metric.digits,
    }
