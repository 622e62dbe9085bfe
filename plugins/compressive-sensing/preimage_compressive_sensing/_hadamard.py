"""The subsampled randomised Hadamard transform."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from preimage import Key, check_shape
from preimage.errors import BadParameter
from preimage.transforms import dct, idct

from ._structured import SubsampledTransform, append_zero, draw_rows, draw_signs, positions

_RADIX = 16
"""Butterflies of this size are matrix products: fewer passes over memory than with size two, at the same order."""

_MATRIX_UP_TO = 32
"""Up to this length the cosine transform of the odd factor is part of the first matrix product."""


class HadamardTables(NamedTuple):
    """Signs (with the factor sqrt(n / m)), measured rows, where each coefficient is in (y, 0), and the factors of T."""

    signs: Tensor
    rows: Tensor
    source: Tensor
    first: Tensor | None
    factors: tuple[Tensor, ...]


class SubsampledHadamard(SubsampledTransform[HadamardTables]):
    """`SubsampledTransform` with T = H_p (x) C_q, n = p q, p the largest power of two that divides n.

    H_p is the Walsh-Hadamard matrix over sqrt(p) in Sylvester's order, C_q the orthonormal DCT-II of odd length q
    (1 if n is a power of two), (x) the Kronecker product with C_q acting on neighbouring entries. T is orthonormal for
    every n, so that nothing is padded and the rows stay exactly orthogonal. 3 x 64 x 64: p = 4096, q = 3.

    Raises `BadParameter` for odd n, where no factor of two is left for H_p.
    """

    def __init__(self, n: int, *, measurements: int, key: Key):
        if n % 2 and n > 1:
            raise BadParameter(
                f"ensemble is 'hadamard' for images of {n} values",
                "an even number of values, which a Hadamard matrix needs",
                'use ensemble = "dct", which takes any number',
            )
        super().__init__(n, measurements=measurements, key=key)

    @property
    def odd_factor(self) -> int:
        """q: n without its factors of two."""
        (n,) = self.in_shape
        return n // (n & -n)

    def draw(self, dtype: torch.dtype, device: torch.device) -> HadamardTables:
        (n,), (m,), q = self.in_shape, self.out_shape, self.odd_factor
        rows = draw_rows(self.key, n, m)
        factors = [hadamard(radix) for radix in radices(n // q)]
        first = None
        if q <= _MATRIX_UP_TO:
            cosine = dct(torch.eye(q, dtype=torch.float64)).mT.contiguous()
            first = torch.kron(factors.pop(), cosine) if factors else cosine
        return HadamardTables(
            self.scale * draw_signs(self.key, n).to(dtype=dtype, device=device),
            rows.to(device),
            positions(rows, n).to(device),
            None if first is None else first.to(dtype=dtype, device=device),
            tuple(factor.to(dtype=dtype, device=device) for factor in reversed(factors)),
        )

    def forward(self, x: Tensor) -> Tensor:
        t = self.tables(x)
        signed, odd = x * t.signs, self.odd_factor
        mixed = dct(signed.reshape(-1, odd)) if t.first is None else _rows_by(signed, t.first.mT)
        return self._butterflies(mixed, t).reshape(x.shape).index_select(1, t.rows)

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of SubsampledHadamard")
        t = self.tables(y)
        coefficients = append_zero(y).index_select(1, t.source)
        odd = self.odd_factor
        mixed = idct(coefficients.reshape(-1, odd)) if t.first is None else _rows_by(coefficients, t.first)
        return self._butterflies(mixed, t).reshape(coefficients.shape) * t.signs

    def _butterflies(self, x: Tensor, t: HadamardTables) -> Tensor:
        # The factors are symmetric and act on axes of their own: their order does not matter, and T^T has the same.
        width = x.shape[-1]
        for factor in t.factors:
            x = torch.matmul(factor, x.reshape(-1, len(factor), width))
            width *= len(factor)
        return x


def _rows_by(x: Tensor, matrix: Tensor) -> Tensor:
    return x.reshape(-1, len(matrix)) @ matrix


def radices(p: int) -> list[int]:
    """Factors of the power of two p, none above 16: 4096 = 16 * 16 * 16."""
    found: list[int] = []
    while p > 1:
        found.append(min(p, _RADIX))
        p //= found[-1]
    return found


def hadamard(p: int) -> Tensor:
    """The p x p Walsh-Hadamard matrix in Sylvester's order over sqrt(p), p a power of two, in float64."""
    matrix = torch.ones((1, 1), dtype=torch.float64)
    while len(matrix) < p:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    return matrix / math.sqrt(p)
