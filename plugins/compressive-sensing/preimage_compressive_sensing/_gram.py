"""Solves with A A^T + s I for a dense matrix A with fewer rows than columns."""

from threading import Lock

import torch
from torch import Tensor

from ._rebuilt import aside

_BLOCK = 320
"""Rows of A A^T computed at a time: only what lies on and below the diagonal, nearly half of the work."""

_DISTINCT = 4
"""So many shifts at once are worth a Cholesky factorisation each; more of them share one eigendecomposition."""


class GramSolver:
    """(A A^T + s I)^-1 for shifts s > 0 that are known one after the other.

    A A^T is computed once. For up to four distinct shifts in a call, the inverse for each is computed by a Cholesky
    factorisation and kept for later calls, the last four of them; for more, the eigenvectors of A A^T are, once,
    which serve every shift. What is kept follows from A and the shift alone: results do not depend on earlier calls.
    It takes at most 6 m^2 numbers.

    - `matrix`: A, (m, n), not modified.
    """

    def __init__(self, matrix: Tensor):
        self._gram = _gram(matrix)
        self._inverses: dict[float, Tensor] = {}
        self._eigen: tuple[Tensor, Tensor] | None = None
        self._lock = Lock()

    def solve(self, b: Tensor, shifts: Tensor) -> Tensor:
        """(A A^T + s_i I)^-1 b_i for each row: (B, m) and (B,) -> (B, m)."""
        distinct = sorted(set(shifts.tolist()))
        if len(distinct) > _DISTINCT:
            values, vectors = self._decomposition()
            return ((b @ vectors) / (values + shifts[:, None])) @ vectors.mT
        if len(distinct) == 1:
            return b @ self._inverse(distinct[0])
        solved = torch.empty_like(b)
        for shift in distinct:
            rows = (shifts == shift).nonzero()[:, 0]
            solved[rows] = b[rows] @ self._inverse(shift)
        return solved

    def _inverse(self, shift: float) -> Tensor:
        with self._lock:
            inverse = self._inverses.pop(shift, None)
            if inverse is None:
                inverse = aside(lambda: _shifted_inverse(self._gram, shift))
            # The last one used is the last one in the dictionary.
            self._inverses[shift] = inverse
            if len(self._inverses) > _DISTINCT:
                del self._inverses[next(iter(self._inverses))]
            return inverse

    def _decomposition(self) -> tuple[Tensor, Tensor]:
        with self._lock:
            if self._eigen is None:
                values, vectors = aside(lambda: torch.linalg.eigh(self._gram))
                self._eigen = values.clamp_min(0), vectors
            return self._eigen


def _gram(matrix: Tensor) -> Tensor:
    gram = matrix.new_empty((len(matrix), len(matrix)))
    for start in range(0, len(matrix), _BLOCK):
        stop = min(start + _BLOCK, len(matrix))
        part = matrix[start:stop] @ matrix[:stop].mT
        gram[start:stop, :stop] = part
        gram[:stop, start:stop] = part.mT
    return gram


def _shifted_inverse(gram: Tensor, shift: float) -> Tensor:
    shifted = gram.clone()
    shifted.diagonal().add_(shift)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if not bool(failed):
        return torch.cholesky_inverse(factor)
    # Rounding has made the matrix indefinite: a shift far below the precision of the largest eigenvalue.
    values, vectors = torch.linalg.eigh(gram)
    return (vectors / (values.clamp_min(0) + shift)) @ vectors.mT
