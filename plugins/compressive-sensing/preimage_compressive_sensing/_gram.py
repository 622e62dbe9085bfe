"""Solves with A A^T + s I for a dense matrix A with fewer rows than columns."""

from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from ._product import product
from ._rebuilt import aside

_BLOCK = 320
"""Rows of A A^T computed at a time: only what lies on and below the diagonal, nearly half of the work."""

_DISTINCT = 4
"""So many shifts at once are worth a Cholesky factorisation each; more of them share one eigendecomposition."""

_REFERENCE = 1 / 64
"""The shift whose inverse serves its neighbours, as a fraction of the mean eigenvalue."""

_SPREAD = 2.0
"""Neighbours are shifts for which no eigenvalue of A A^T + s I differs by a larger factor from the reference's: so ten
steps of conjugate gradients reach double precision."""

_PROBES = 8
"""Steps of power iteration for the least eigenvalue. It only decides which way a system is solved."""


class _Reference(NamedTuple):
    """A shift, the inverse of A A^T + shift I, and an estimate of the least eigenvalue of A A^T."""

    shift: float
    inverse: Tensor
    least: float


class GramSolver:
    """(A A^T + s I)^-1 for shifts s > 0 that are known one after the other.

    A A^T is computed once, and so is the inverse for one shift, a 64th of the mean eigenvalue. Shifts near it, in the
    sense that all eigenvalues differ by at most a factor of two, are solved by conjugate gradients with that inverse as
    the preconditioner, in a few products with it, to rounding. Any others, up to four of them in a call, by a Cholesky
    factorisation, of which the last four are kept; more of them by the eigenvectors of A A^T, computed once, which
    serve every shift. What is kept follows from A and the shift alone: results do not depend on earlier calls. It takes
    at most 7 m^2 numbers.

    - `matrix`: A, (m, n), not modified.
    """

    def __init__(self, matrix: Tensor):
        self._gram = _gram(matrix)
        self._reference = _reference(self._gram)
        self._factors: dict[float, Tensor | None] = {}
        self._eigen: tuple[Tensor, Tensor] | None = None
        self._lock = Lock()

    def solve(self, b: Tensor, shifts: Tensor) -> Tensor:
        """(A A^T + s_i I)^-1 b_i for each row: (B, m) and (B,) -> (B, m)."""
        near = self._is_near(shifts)
        if bool(near.all()):
            return self._from_reference(b, shifts)
        solved = torch.empty_like(b)
        if bool(near.any()):
            solved[near] = self._from_reference(b[near], shifts[near])
        distinct = sorted(set(shifts[~near].tolist()))
        if len(distinct) > _DISTINCT:
            solved[~near] = self._by_eigenvectors(b[~near], shifts[~near])
            return solved
        for shift in distinct:
            rows = (shifts == shift).nonzero()[:, 0]
            factor = self._factor(shift)
            if factor is None:
                solved[rows] = self._by_eigenvectors(b[rows], shifts[rows])
            else:
                solved[rows] = torch.cholesky_solve(b[rows].mT, factor).mT
        return solved

    def _is_near(self, shifts: Tensor) -> Tensor:
        if self._reference is None:
            return torch.zeros_like(shifts, dtype=torch.bool)
        factor = (self._reference.least + shifts) / (self._reference.least + self._reference.shift)
        return (factor <= _SPREAD) & (factor >= 1 / _SPREAD)

    def _from_reference(self, b: Tensor, shifts: Tensor) -> Tensor:
        """Preconditioned conjugate gradients, each row until it is solved to rounding.

        With M = (A A^T + r I)^-1 as the preconditioner, (A A^T + s I) M v = v + (s - r) M v: A A^T itself is not used.
        """
        assert self._reference is not None
        inverse, away = self._reference.inverse, (shifts - self._reference.shift)[:, None]
        x, residual = torch.zeros_like(b), b
        z = product(residual, inverse, transposed=False)
        p, image, energy = z, residual, _dots(residual, z)
        limit = (16 * torch.finfo(b.dtype).eps) ** 2 * _dots(b, b)
        for _ in range(50):
            forth = image + away * p
            # A row that is solved stays as it is, whatever the others need.
            left = _dots(residual, residual) > limit
            if not bool(left.any()):
                break
            length = torch.where(left, energy / _dots(p, forth), 0)
            x, residual = x + length * p, residual - length * forth
            z = product(residual, inverse, transposed=False)
            now = _dots(residual, z)
            turn = torch.where(left, now / energy, 0)
            p, image, energy = z + turn * p, residual + turn * image, now
        return x

    def _by_eigenvectors(self, b: Tensor, shifts: Tensor) -> Tensor:
        with self._lock:
            if self._eigen is None:
                values, vectors = aside(lambda: torch.linalg.eigh(self._gram))
                self._eigen = values.clamp_min(0), vectors
            values, vectors = self._eigen
        return ((b @ vectors) / (values + shifts[:, None])) @ vectors.mT

    def _factor(self, shift: float) -> Tensor | None:
        with self._lock:
            factor = self._factors.pop(shift) if shift in self._factors else aside(lambda: _factor(self._gram, shift))
            # The last one used is the last one in the dictionary.
            self._factors[shift] = factor
            if len(self._factors) > _DISTINCT:
                del self._factors[next(iter(self._factors))]
            return factor


def _gram(matrix: Tensor) -> Tensor:
    gram = matrix.new_empty((len(matrix), len(matrix)))
    for start in range(0, len(matrix), _BLOCK):
        stop = min(start + _BLOCK, len(matrix))
        part = matrix[start:stop] @ matrix[:stop].mT
        gram[start:stop, :stop] = part
        gram[:stop, start:stop] = part.mT
    return gram


def _reference(gram: Tensor) -> _Reference | None:
    shift = _REFERENCE * float(gram.diagonal().mean())
    factor = _factor(gram, shift) if shift > 0 else None
    if factor is None:
        return None
    inverse = torch.cholesky_inverse(factor)
    v = inverse.sum(0, keepdim=True)
    for _ in range(_PROBES):
        v = (v / torch.linalg.vector_norm(v)) @ inverse
    return _Reference(shift, inverse, max(1 / float(torch.linalg.vector_norm(v)) - shift, 0.0))


def _factor(gram: Tensor, shift: float) -> Tensor | None:
    """The Cholesky factor of gram + shift I; None if rounding makes that indefinite: the shift is far below the
    precision of the largest eigenvalue."""
    shifted = gram.clone()
    shifted.diagonal().add_(shift)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    return None if bool(failed) else factor


def _dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)
