"""What the subsampled transforms have in common: A A^T = (n / m) I."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from preimage import Key, per_image

from ._rebuilt import Rebuilt, Tables


class SubsampledTransform(Rebuilt[Tables]):
    """y = sqrt(n / m) R T D x: (B, n) -> (B, m), in O(n log n) operations and O(n) memory.

    - D: random signs, one for each entry of x; they spread x over all coefficients, whatever x looks like.
    - T: an orthonormal transform of R^n.
    - R: the rows of m of the n coefficients, drawn without replacement, in rising order.

    The rows are orthogonal, A A^T = (n / m) I. Hence ||A|| = sqrt(n / m) exactly, and

        (A^T A + s I)^-1 b = (b - A^T A b / (n / m + s)) / s.

    E ||A x||^2 = ||x||^2 over the draw of R, for any x and any signs: all coefficients are equally likely. Over both
    draws the standard deviation of ||A x||^2 / ||x||^2 is at most about sqrt(2 / m (1 - m / n)) for an x whose energy
    is spread over many entries.

    Not the Gaussian ensemble: rows are orthogonal and of equal norm, entries bounded and dependent. Results
    of the two are not to be compared with each other.

    Source: Do, Gan, Nguyen and Tran, "Fast and efficient compressive sensing using structurally random matrices",
    IEEE Trans. Signal Process. 60 (2012); Ailon and Chazelle, SIAM J. Comput. 39 (2009) for the Hadamard transform.
    """

    @property
    def scale(self) -> float:
        """sqrt(n / m)."""
        return math.sqrt(self.in_shape[0] / self.out_shape[0])

    def norm_bound(self) -> float:
        return self.scale

    def gram_factor(self) -> float:
        return self.scale**2

    def solve_gram(self, b: Tensor, shift: float | Tensor) -> Tensor:
        return b / (self.scale**2 + per_image(shift, b))

    def solve_normal(self, b: Tensor, shift: float | Tensor) -> Tensor:
        s = per_image(shift, b)
        return (b - self.normal(b) / (self.scale**2 + s)) / s


def draw_signs(key: Key, n: int) -> Tensor:
    """The diagonal of D: n independent signs in float64."""
    uniform = key.child("signs").uniform((n,), like=torch.zeros((), dtype=torch.float64))
    return torch.where(uniform < 0.5, -torch.ones_like(uniform), torch.ones_like(uniform))


def draw_rows(key: Key, n: int, m: int) -> Tensor:
    """The m coefficients that are measured, rising."""
    return key.child("rows").permutation(n)[:m].sort().values


def positions(rows: Tensor, n: int) -> Tensor:
    """Where in (y, 0) each of the n coefficients is found: R^T as a gather, which is faster than a scatter."""
    where = torch.full((n,), len(rows))
    where[rows] = torch.arange(len(rows))
    return where


def append_zero(y: Tensor) -> Tensor:
    """(y, 0) along the last axis."""
    return F.pad(y, (0, 1))
