"""Linear generators under Gaussian measurements: the error of the least-norm solution, and bounds on its mean.

x0 = S z with z ~ N(0, I) and singular values s_1 >= ... >= s_n of S is measured by A (m, n) with independent normal
entries of mean zero, and recovered as the image of the shortest z that explains A x0,

    x = S (A S)^+ A x0.

For 4 <= m < n

    sum_{i > m} s_i^2  <=  E ||x0 - x||^2  <=  min_{2 <= k <= m - 2} (1 + k / (m - k - 1)) sum_{i > k} s_i^2
                                           <=  m sum_{i > m - 2} s_i^2,

the last as k = m - 2 gives the factor m - 1. The outer two are theorem 1 of Asim, Daniels, Leong, Ahmed & Hand 2020,
"Invertible generative models for inverse problems: mitigating representation error and dataset bias"; the one between
is that of Halko, Martinsson & Tropp 2011, "Finding structure with randomness", theorem 10.5. The lower bound holds for
every single A too: x is a linear map of rank m of x0, and none has a smaller mean error than the projection onto the
first m singular vectors (Eckart & Young 1936).
"""

from typing import NamedTuple

import torch
from torch import Tensor

FEWEST = 4
"""The fewest measurements of the theorem."""

MARGIN = 4
"""How many fewer than n measurements are simulated: nearer to n the error has tails too heavy for a sample mean."""


class Bounds(NamedTuple):
    """`lower` <= E ||x0 - x||^2 <= `best` <= `simple`; `best_k` is the k of the minimum."""

    lower: float
    best: float
    best_k: int
    simple: float


def bounds(singular_values: Tensor, measurements: int) -> Bounds:
    """The bounds of the theorem for m measurements; s falling, float64, (n,). Raises `ValueError` unless 4 <= m < n."""
    m, n = measurements, len(singular_values)
    if not FEWEST <= m < n:
        raise ValueError(f"{m} measurements of {n} values; the theorem is for {FEWEST} <= m < n")
    tails = singular_values.square().flip(0).cumsum(0).flip(0)  # from the smallest on, so that none is rounded away
    k = torch.arange(2, m - 1)
    candidates = (1 + k.to(tails) / (m - k - 1)) * tails[k]
    place = int(candidates.argmin())
    return Bounds(float(tails[m]), float(candidates[place]), int(k[place]), float(m * tails[m - 2]))


def expected_error(matrix: Tensor, generator: Tensor) -> Tensor:
    """E_z ||x0 - x||^2 given A, exactly: (..., m, n) and S (n, n) -> (...).

    (A S)^+ A S projects z onto the rows of A S, so that x0 - x = S N N^T z with an orthonormal basis N of the null
    space of A S, and the mean over z is ||S N||_F^2. (||S||_F^2 minus what is recovered would be the same, and zero to
    rounding where the singular values fall fast.)
    """
    m = matrix.shape[-2]
    null = torch.linalg.qr((matrix @ generator).mT, mode="complete")[0][..., m:]
    return (generator @ null).square().sum((-2, -1))


def least_norm(matrix: Tensor, generator: Tensor, x: Tensor) -> Tensor:
    """x = S (A S)^+ A x0 for rows x0: (..., m, n), (n, n), (..., B, n) -> (..., B, n)."""
    z = torch.linalg.lstsq(matrix @ generator, matrix @ x.mT, driver="gelsd").solution
    return (generator @ z).mT
