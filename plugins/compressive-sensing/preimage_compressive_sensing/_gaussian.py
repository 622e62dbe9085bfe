"""A dense matrix of independent normal numbers."""

import math

import torch
from torch import Tensor

from preimage import check_shape, per_image

from ._gram import GramSolver
from ._product import product
from ._rebuilt import Rebuilt, enough_memory

_BLOCK = 2**20
"""Entries drawn at a time. Part of what a key means: with another number, a key would stand for another matrix."""


class GaussianMatrix(Rebuilt[Tensor]):
    """y = A x with independent entries A_ij ~ N(0, 1/m): (B, n) -> (B, m).

    E ||A x||^2 = ||x||^2 over the draw of A, and ||A x||^2 / ||x||^2 is chi-squared with m degrees of freedom over
    m: standard deviation sqrt(2 / m) for every x.

    The matrix takes m n numbers of the input's dtype (245 MB for m = 5000, n = 12288 in float32) from the first use
    until the operator is freed, once for each dtype and device in use. It is drawn in float64, in blocks of about
    2^20 entries, each from its own child of `key.child("matrix")`, so that drawing takes a few blocks of 8 MB besides.
    It is neither part of `state_dict()` nor of a pickle.

    Compiled by numba, where that is installed (`pip install preimage-compressive-sensing[fast]`), for float32 and
    float64 on the CPU: `forward` and `adjoint` of an image then do not depend, in any bit, on its batch.

    No `norm_bound`: none is known without a decomposition; ||A|| is close to 1 + sqrt(n / m). `solve_normal` is exact,
    through the m x m matrix A A^T + shift I (`GramSolver`): m^2 n multiplications at the first call, m^3 for each new
    shift, m^2 + 2 m n for each image.

    Source: Candès and Tao, "Near-optimal signal recovery from random projections", IEEE Trans. Inf. Theory 52 (2006).
    """

    def draw(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        (n,), (m,) = self.in_shape, self.out_shape
        what = f"a Gaussian matrix of {m} x {n} numbers of {dtype} ({m * n * dtype.itemsize / 1e9:.1f} GB)"
        with enough_memory(what, 'take fewer measurements, or ensemble = "dct" or "hadamard", which store no matrix'):
            matrix = torch.empty((m, n), dtype=dtype, device=device)
        height = max(1, _BLOCK // n)
        like = torch.zeros((), dtype=torch.float64)
        for index, rows in enumerate(matrix.split(height)):
            drawn = self.key.child("matrix", index).normal((len(rows), n), like=like)
            rows.copy_(drawn.div_(math.sqrt(m)))
        return matrix

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.tables(x), transposed=False)

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of GaussianMatrix")
        return product(y, self.tables(y), transposed=True)

    def solve_gram(self, b: Tensor, shift: float | Tensor) -> Tensor:
        matrix = self.tables(b)
        shifts = torch.as_tensor(shift, dtype=b.dtype, device=b.device).expand(len(b))
        return self.remembered(GramSolver, b, lambda: GramSolver(matrix)).solve(b, shifts)

    def solve_normal(self, b: Tensor, shift: float | Tensor) -> Tensor:
        check_shape(b, self.in_shape, "right-hand side of the normal equations of GaussianMatrix")
        # (A^T A + s I)^-1 = (I - A^T (A A^T + s I)^-1 A) / s (Sherman-Morrison-Woodbury).
        return (b - self.adjoint(self.solve_gram(self(b), shift))) / per_image(shift, b)
