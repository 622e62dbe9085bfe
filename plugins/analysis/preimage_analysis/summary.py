"""Means over images, with the intervals that `preimage compare` gives."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from preimage_compare.statistics import Bootstrap


class Mean(NamedTuple):
    """The mean over images and its 95 % bootstrap-t interval, None for fewer than six images (`Bootstrap`)."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.value:.3g}" + ("" if self.low is None else f" ({self.low:.3g} to {self.high:.3g})")


def mean(values: Sequence[float]) -> Mean:
    """The mean of one number for each image."""
    low, high = Bootstrap().intervals(np.array([values], dtype=np.float64))
    known = bool(np.isfinite(low[0]) and np.isfinite(high[0]))
    return Mean(float(np.mean(values)), float(low[0]) if known else None, float(high[0]) if known else None)


def difference(values: Sequence[float], reference: Sequence[float]) -> Mean:
    """The mean of values - reference, image by image."""
    return mean([a - b for a, b in zip(values, reference, strict=True)])
