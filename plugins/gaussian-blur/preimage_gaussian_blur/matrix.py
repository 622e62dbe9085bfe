"""The blur along one axis as an n x n banded matrix M: weights, boundaries, eigenvalues and norm, in float64.

The blur of an image X is M_H X M_W^T. Everything here is a pure function of plain values.
"""

from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt

Boundary = Literal["symmetric", "zero", "circular", "mirror", "replicate"]
"""How the image goes on outside, for pixels a b c d:

- symmetric: b a | a b c d | d c (half-sample symmetric, the boundary of the DCT-II)
- zero: 0 0 | a b c d | 0 0
- circular: c d | a b c d | a b (the boundary of the discrete Fourier transform)
- mirror: c b | a b c d | c b (whole-sample symmetric)
- replicate: a a | a b c d | d d
"""

BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)

SELF_ADJOINT: tuple[Boundary, ...] = ("symmetric", "zero", "circular")
"""Boundaries for which M^T = M."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)

_DENSE_UP_TO = 512
"""Length up to which the leading singular vector is computed from the dense matrix."""


class Border(NamedTuple):
    """The rows of M (or M^T) near both ends, as sparse rows; between them, M is the plain convolution.

    Row i is a border row unless first <= i < last. Border row number b (those above `first`, then those from `last`)
    has the entries `weight[start[b]:start[b + 1]]` in the columns `column[start[b]:start[b + 1]]`, no column twice.
    """

    first: int
    last: int
    start: Integers
    column: Integers
    weight: Floats


@lru_cache(maxsize=64)
def weights(size: int, sigma: float) -> Floats:
    """w_0, ..., w_r with r = size // 2: w_k proportional to exp(-k^2 / (2 sigma^2)), w_0 + 2 (w_1 + ... + w_r) = 1."""
    with np.errstate(over="ignore", under="ignore"):  # a tiny sigma gives the unit impulse
        w = np.exp(-0.5 * (np.arange(size // 2 + 1) / sigma) ** 2)
    return _frozen(w / (w[0] + 2 * w[1:].sum()))


def window(size: int, sigma: float) -> Floats:
    """The whole kernel w_(-r), ..., w_r."""
    half = weights(size, sigma)
    return np.concatenate((half[:0:-1], half))


@lru_cache(maxsize=64)
def extension(n: int, radius: int, boundary: Boundary) -> Integers:
    """Which pixel stands at the positions -radius, ..., n - 1 + radius; -1 for a zero. Any n >= 1, any radius."""
    position = np.arange(-radius, n + radius)
    match boundary:
        case "circular":
            found = position % n
        case "symmetric":
            found = position % (2 * n)
            found = np.minimum(found, 2 * n - 1 - found)
        case "mirror":
            period = max(2 * n - 2, 1)
            found = position % period
            found = np.minimum(found, period - found) if n > 1 else found
        case "replicate":
            found = position.clip(0, n - 1)
        case "zero":
            found = np.where((position >= 0) & (position < n), position, -1)
    return _frozen(found.astype(np.int64))


def _entries(n: int, size: int, sigma: float, boundary: Boundary) -> tuple[Integers, Integers, Floats]:
    """Rows, columns and values of M; a place that occurs more than once stands for the sum."""
    columns = np.lib.stride_tricks.sliding_window_view(extension(n, size // 2, boundary), size)
    rows = np.repeat(np.arange(n), size)
    values = np.tile(window(size, sigma), n)
    inside = columns.ravel() >= 0
    return rows[inside], columns.ravel()[inside], values[inside]


def dense(n: int, size: int, sigma: float, boundary: Boundary) -> Floats:
    """M itself, (n, n)."""
    rows, columns, values = _entries(n, size, sigma, boundary)
    return np.bincount(rows * n + columns, values, n * n).astype(np.float64, copy=False).reshape(n, n)


@lru_cache(maxsize=64)
def border(n: int, size: int, sigma: float, boundary: Boundary, transposed: bool) -> Border:
    """The border rows of M, or of M^T if `transposed`; all rows if n is not much larger than the kernel."""
    reach = size // 2 + 1  # a mirrored pixel still reaches row r of the transposed matrix
    first, last = (reach, n - reach) if n > 2 * reach else (n, n)
    rows, columns, values = _entries(n, size, sigma, boundary)
    if transposed:
        rows, columns = columns, rows
    outside = (rows < first) | (rows >= last)
    numbers = np.where(rows < first, rows, rows - last + first)[outside]
    places, which = np.unique(numbers * n + columns[outside], return_inverse=True)
    merged = np.asarray(np.bincount(which, values[outside], len(places)), np.float64)
    start = np.searchsorted(places, n * np.arange(first + n - last + 1))
    return Border(first, last, _frozen(start.astype(np.int64)), _frozen(places % n), _frozen(merged))


@lru_cache(maxsize=64)
def eigenvalues(n: int, size: int, sigma: float, boundary: Literal["symmetric", "circular"]) -> Floats:
    """The n eigenvalues of M in the order of its basis: w_0 + 2 sum_j w_j cos(omega_k j).

    omega_k = pi k / n in the DCT-II basis (symmetric), 2 pi k / n in the Fourier basis (circular).
    """
    w = weights(size, sigma)
    turns = np.outer(np.arange(n), np.arange(1, len(w))) * (np.pi if boundary == "symmetric" else 2 * np.pi) / n
    return _frozen(w[0] + 2 * (np.cos(turns) @ w[1:]))


@lru_cache(maxsize=64)
def norm_bound(n: int, size: int, sigma: float, boundary: Boundary) -> float:
    """A rigorous upper bound of the spectral norm of M, in practice exact to about 1e-4.

    1 for symmetric and circular, whose eigenvectors are orthonormal and whose weights are positive with sum 1; at most
    1 for zero, which crops both sides of such a convolution. M has no negative entries, so for every positive p
    ||M||^2 <= max_i (M^T M p)_i / p_i (Collatz-Wielandt; Horn and Johnson, Matrix Analysis, 2nd ed., theorem 8.1.26).
    The p taken is the leading singular vector of M, or for long axes that of a shorter M, drawn out in the middle. It
    is added to its mirror image, since M treats both ends alike, but each may have a leading vector of its own.
    """
    if boundary in ("symmetric", "circular"):
        return 1.0
    short = min(n, max(_DENSE_UP_TO, 8 * size))
    matrix = dense(short, size, sigma, boundary)
    leading = np.abs(np.linalg.eigh(matrix.T @ matrix)[1][:, -1])
    leading += leading[::-1]
    middle = np.full(n - short, leading[short // 2])
    p = np.concatenate((leading[: short // 2], middle, leading[short // 2 :])) + 1e-7 * leading.max()
    rows, columns, values = _entries(n, size, sigma, boundary)
    once = np.bincount(rows, values * p[columns], n)
    twice = np.bincount(columns, values * once[rows], n)
    bound = float(np.sqrt((twice / p).max()) * (1 + 1e-12))
    return min(bound, 1.0) if boundary == "zero" else bound


def _frozen(array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Shared through a cache, so nobody may write to it."""
    array.setflags(write=False)
    return array
