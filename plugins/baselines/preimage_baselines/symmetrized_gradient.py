"""The symmetrised derivative of a field of gradients."""

import math

from torch import Tensor

from preimage import LinearOperator, Shape, check_shape

from .gradient import check_image_shape


class SymmetrizedGradient(LinearOperator):
    """E w: (2, C, H, W) -> (3, C, H, W), for a field w laid out like the discrete gradient of an image:

        (E w)[0] = d0 w0,   (E w)[1] = d1 w1,   (E w)[2] = (d1 w0 + d0 w1) / sqrt(2),

    so that the Euclidean length over the first axis is the Frobenius length of the symmetric 2 x 2 matrix. d0 and d1
    are forward differences down the rows and along the columns, zero where one of the two values does not exist. The
    discrete gradient has no value in the last row (w0) or column (w1), and these entries are not used: then E K x = 0
    exactly for affine x. ||E||^2 <= 8.

    Raises `ShapeMismatch` unless in_shape, that of the image, is (C, H, W).
    """

    def __init__(self, in_shape: Shape):
        check_image_shape(in_shape, "the symmetrised gradient")
        super().__init__((2, *in_shape), (3, *in_shape))

    def forward(self, x: Tensor) -> Tensor:
        down, along = x[:, 0], x[:, 1]
        symmetric = x.new_zeros((len(x), *self.out_shape))
        symmetric[:, 0, :, :-2] = down[..., 1:-1, :] - down[..., :-2, :]
        symmetric[:, 1, :, :, :-2] = along[..., :, 1:-1] - along[..., :, :-2]
        mixed = (down[..., :-1, 1:] - down[..., :-1, :-1]) + (along[..., 1:, :-1] - along[..., :-1, :-1])
        symmetric[:, 2, :, :-1, :-1] = mixed * math.sqrt(0.5)
        return symmetric

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of SymmetrizedGradient")
        x = y.new_zeros((len(y), *self.in_shape))
        down, along, mixed = x[:, 0], x[:, 1], y[:, 2, :, :-1, :-1] * math.sqrt(0.5)
        for field, part in ((down, y[:, 0]), (along.mT, y[:, 1].mT)):
            field[..., 1:-1, :] += part[..., :-2, :]
            field[..., :-2, :] -= part[..., :-2, :]
        down[..., :-1, 1:] += mixed
        down[..., :-1, :-1] -= mixed
        along[..., 1:, :-1] += mixed
        along[..., :-1, :-1] -= mixed
        return x

    def norm_bound(self) -> float:
        return math.sqrt(8)
