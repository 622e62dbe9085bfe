"""The operator gaussian-blur."""

import math

import numpy as np
import torch
from torch import Tensor

from preimage import Basis, Diagonal, LinearOperator, Shape, check_shape
from preimage.errors import BadParameter, ShapeMismatch

from . import matrix
from ._function import Blur, blur
from .matrix import Boundary


class GaussianBlur(LinearOperator):
    """y[i, j] = sum_{|k|, |l| <= r} w_k w_l x[i + k, j + l], with w_k = exp(-k^2 / (2 sigma^2)) / Z and sum_k w_k = 1.

    (B, C, H, W) -> (B, C, H, W), each channel by itself; a constant image stays as it is, except under the zero
    boundary. H and W may be smaller than the kernel. Linear and exact: `adjoint` is the transposed matrix for every
    boundary, and `solve_normal` has a closed form for symmetric (cosine transform) and circular (Fourier transform).

    - `size` = 2 r + 1: number of weights along each axis, odd.
    - `sigma`: standard deviation of the Gaussian in pixels, positive. The defaults, 11 and 5/3, put r at 3 sigma.
    - `boundary`: how the image goes on outside, for pixels a b c d (names of scipy.ndimage in brackets): symmetric
      b a | a b c d | d c (reflect), zero (constant), circular c d | a b c d | a b (wrap), mirror c b | a b c d | c b
      (mirror; PyTorch's reflect), replicate a a | a b c d | d d (nearest).

    Raises `BadParameter` for an even size or a sigma that is not positive and finite, `ShapeMismatch` if `in_shape` is
    not (C, H, W).
    """

    def __init__(self, in_shape: Shape, *, size: int = 11, sigma: float = 5 / 3, boundary: Boundary = "symmetric"):
        if len(in_shape) != 3 or min(in_shape) < 1:
            raise ShapeMismatch(
                f"GaussianBlur is made for shape {tuple(in_shape)}",
                "images (C, H, W), every length at least 1",
                "for a single grey-value image use (1, H, W)",
            )
        if size < 1 or size % 2 == 0:
            near = f"{size - 1} or {size + 1}" if size > 1 else "1, 3 or 11"
            raise BadParameter(
                f"size is {size}", "an odd size, at least 1, so that the kernel has a centre", f"use {near}"
            )
        if not 0 < sigma < math.inf:
            raise BadParameter(
                f"sigma is {sigma}", "a positive finite standard deviation, in pixels", "use 5/3, or size 1 for no blur"
            )
        if boundary not in (known := matrix.BOUNDARIES):
            raise BadParameter(f"boundary is {boundary!r}", ", ".join(known), "use 'symmetric'")
        super().__init__(in_shape, in_shape)
        self.size, self.sigma = int(size), float(sigma)
        self.boundary: Boundary = boundary

    @property
    def kernel(self) -> Tensor:
        """The weights w_(-r), ..., w_r along one axis, (size,), float64."""
        return torch.tensor(matrix.window(self.size, self.sigma))

    def forward(self, x: Tensor) -> Tensor:
        return blur(x, self._which(), transposed=False)

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of GaussianBlur")
        return blur(y, self._which(), transposed=True)

    def norm_bound(self) -> float:
        """||M_H|| ||M_W||, the norm of the blur: 1 for symmetric and circular, a little less for zero, a little more
        for mirror and replicate."""
        return math.prod(matrix.norm_bound(n, self.size, self.sigma, self.boundary) for n in self.in_shape[1:])

    def normal_diagonal(self) -> Diagonal | None:
        """The squared products of the eigenvalues along both axes, for symmetric and circular."""
        if self.boundary not in ("symmetric", "circular"):
            return None
        height, width = self.in_shape[1:]
        rows = matrix.eigenvalues(height, self.size, self.sigma, self.boundary)
        columns = matrix.eigenvalues(width, self.size, self.sigma, self.boundary)
        if self.boundary == "symmetric":
            return Diagonal(Basis.COSINE, torch.from_numpy(np.outer(rows, columns) ** 2))
        return Diagonal(Basis.FOURIER, torch.from_numpy(np.outer(rows, columns[: width // 2 + 1]) ** 2))

    def extra_repr(self) -> str:
        return f"{self.in_shape}, size={self.size}, sigma={self.sigma:g}, boundary={self.boundary!r}"

    def _which(self) -> Blur:
        return Blur(self.size, self.sigma, self.boundary)
