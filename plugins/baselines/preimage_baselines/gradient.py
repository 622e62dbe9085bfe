"""The discrete gradient by forward differences, zero across the border."""

import math

import torch
from torch import Tensor

from preimage import Basis, Diagonal, LinearOperator, Shape, check_shape
from preimage.errors import ShapeMismatch


class DiscreteGradient(LinearOperator):
    """(K x)[0] = x[i + 1, j] - x[i, j] and (K x)[1] = x[i, j + 1] - x[i, j], zero in the last row and column.

    (C, H, W) -> (2, C, H, W): the direction first, 0 down the rows and 1 along the columns. In units of the image per
    pixel. K^T K is the negative Laplacian with the half-sample symmetric (Neumann) boundary, which the orthonormal
    DCT-II makes diagonal with eigenvalues 4 sin^2(pi k / 2H) + 4 sin^2(pi l / 2W); so ||K|| < sqrt(8).

    Raises `ShapeMismatch` unless `in_shape` is (C, H, W).
    """

    def __init__(self, in_shape: Shape):
        check_image_shape(in_shape, "the discrete gradient")
        super().__init__(in_shape, (2, *in_shape))

    def forward(self, x: Tensor) -> Tensor:
        gradient = x.new_zeros((len(x), *self.out_shape))
        torch_sub(x[..., 1:, :], x[..., :-1, :], gradient[:, 0, :, :-1, :])
        torch_sub(x[..., :, 1:], x[..., :, :-1], gradient[:, 1, :, :, :-1])
        return gradient

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of DiscreteGradient")
        down, along = y[:, 0, :, :-1, :], y[:, 1, :, :, :-1]
        x = y.new_zeros((len(y), *self.in_shape))
        x[..., 1:, :] += down
        x[..., :-1, :] -= down
        x[..., :, 1:] += along
        x[..., :, :-1] -= along
        return x

    def norm_bound(self) -> float:
        height, width = self.in_shape[-2:]
        return math.sqrt(sum(4 * math.sin(math.pi * (n - 1) / (2 * n)) ** 2 for n in (height, width)))

    def normal_diagonal(self) -> Diagonal:
        down, along = (
            4 * torch.sin(math.pi * torch.arange(n, dtype=torch.float64) / (2 * n)).square() for n in self.in_shape[-2:]
        )
        return Diagonal(Basis.COSINE, down[:, None] + along)


def check_image_shape(in_shape: Shape, what: str) -> None:
    """Raise `ShapeMismatch` unless it is (C, H, W)."""
    if len(in_shape) != 3:
        raise ShapeMismatch(f"{what} got images of shape {tuple(in_shape)}", "images (C, H, W)", "add a channel axis")


def torch_sub(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out = a - b, without a temporary; differentiable, unlike `torch.sub(..., out=...)`."""
    out.copy_(a)
    out.sub_(b)
