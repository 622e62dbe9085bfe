"""Means over images and their confidence intervals, by the bootstrap-t, for many paired quantities at once.

The unit that is resampled is the image: noise draws, operators and noise levels applied to one image share its
content and are not independent, so they are averaged within the image first and the images are drawn with replacement
(a cluster bootstrap with equal weights).

Why not `scipy.stats.bootstrap`: its percentile and BCa intervals of a mean are too short for the image counts of most
suites (coverage 80 % at 4 images and 90 % at 12, where 95 % is asked; the tests measure it), and it has no bootstrap-t.
It also evaluates each quantity by itself, where the mean and the standard error of all quantities under all resamples
are two matrix products. The tests compare the bootstrap distribution with SciPy's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preimage import Key
from preimage.errors import BadParameter

Array = NDArray[np.float64]

FEWEST_IMAGES = 6
"""Fewer images give no interval: its ends are erratic. Of 4, one in a hundred is 80 times as wide as Student's."""

_CHUNK = 2_000_000  # counts drawn at a time: memory stays at some tens of megabytes for any number of images


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are computed: `resamples` >= 100 draws at confidence `level` in (0, 1), from `key`."""

    level: float = 0.95
    resamples: int = 2000
    key: Key = Key(0, ("preimage-compare", "bootstrap"))

    def __post_init__(self):
        if not 0 < self.level < 1:
            raise BadParameter(f"level is {self.level}", "a confidence level between 0 and 1, such as 0.95")
        if self.resamples < 100:
            raise BadParameter(f"resamples is {self.resamples}", "at least 100 resamples")

    def intervals(self, values: Array) -> tuple[Array, Array]:
        """Lower and upper ends of bootstrap-t intervals for the mean of each row of `values`, (k, n): two (k,) arrays.

        With mean m and standard error s of the n images, and m*, s* those of a resample, the interval is
        [m - s q_high, m - s q_low], q the quantiles of t* = (m* - m) / s* (Efron and Tibshirani, "An Introduction to
        the Bootstrap", 1993, section 12.5, equation 12.22). All rows see the same resamples.

        NaN is a missing image: rows with missing images are resampled over the images they have. Rows with fewer than
        `FEWEST_IMAGES`, and rows in which so many images agree that a tail of t* is infinite, give (NaN, NaN).
        """
        values = np.asarray(values, dtype=np.float64)
        low, high = np.full(len(values), np.nan), np.full(len(values), np.nan)
        present = np.isfinite(values)
        for pattern in np.unique(present, axis=0):
            rows = (present == pattern).all(axis=1)
            if pattern.sum() >= FEWEST_IMAGES:
                low[rows], high[rows] = self._studentised(values[np.ix_(rows, pattern)])
        return low, high

    def _studentised(self, values: Array) -> tuple[Array, Array]:
        mean = values.mean(axis=1)
        centred = values - mean[:, None]  # so that no digits cancel in the variances of the resamples
        deviation = np.sqrt((centred**2).mean(axis=1))
        blocks: list[Array] = []
        for weights in self._weights(values.shape[1]):
            shift = weights @ centred.T
            spread = np.sqrt(np.maximum(weights @ (centred**2).T - shift**2, 0.0))
            # A resample of equal values has no spread: its t is infinite, of the sign of its shift, and 0 / 0 is 0.
            flat = spread <= 1e-12 * deviation
            t = np.divide(shift, spread, where=~flat, out=np.zeros_like(shift))
            t[flat & (shift > 0)], t[flat & (shift < 0)] = np.inf, -np.inf
            blocks.append(t)
        t = np.concatenate(blocks)
        tail = (1 - self.level) / 2
        ends = np.stack(
            [np.quantile(t, 1 - tail, axis=0, method="higher"), np.quantile(t, tail, axis=0, method="lower")]
        )
        known = np.isfinite(ends).all(axis=0)
        low, high = mean - deviation * np.where(np.isfinite(ends), ends, np.nan)
        return np.where(known, low, np.nan), np.where(known, high, np.nan)

    def _weights(self, count: int) -> Iterator[Array]:
        """Shares of each of `count` images in the resamples, in blocks (b, count); the same for the same count."""
        generator = self.key.child(count).generator()
        block = max(1, _CHUNK // count)
        for start in range(0, self.resamples, block):
            size = min(block, self.resamples - start)
            drawn = generator.integers(0, count, (size, count))
            drawn += count * np.arange(size)[:, None]
            yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count) / count


def image_means(values: Array, image_of: NDArray[np.intp]) -> Array:
    """The mean over the units of each image: (k, units) to (k, images), images in ascending order of their number.

    - `image_of`: (units,), the number of the image each unit belongs to.

    Missing units (NaN) are left out; an image without any is NaN.
    """
    images, position = np.unique(image_of, return_inverse=True)
    present = np.isfinite(values)
    totals = np.zeros((len(images), len(values)))
    counts = np.zeros((len(images), len(values)))
    np.add.at(totals, position, np.where(present, values, 0.0).T)
    np.add.at(counts, position, present.T)
    with np.errstate(invalid="ignore"):
        return (totals / counts).T


def mean_of_images(means: Array) -> Array:
    """The mean of each row over the images that are there, NaN if there is none: (k, images) to (k,)."""
    present = np.isfinite(means)
    with np.errstate(invalid="ignore"):
        return np.where(present, means, 0.0).sum(axis=1) / present.sum(axis=1)
