"""How far floating-point evaluations of a residual can be from the exact ones."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .residual import Residual

_SECOND_ORDER = 2.0  # products of rounding errors, and those of the constants themselves


class Rounding(NamedTuple):
    """||fl(z + f(x)) - (z + f(x))|| <= rho = slope max(||x||, ||z + f(x)||) + constant, Euclidean norms over an image.

    Convolutions are taken to be sums of n products in any order, with an error of at most gamma_n = n u / (1 - n u)
    times the sum of the absolute values of the products, u being the unit roundoff (the error analysis of inner
    products: Higham 2002, "Accuracy and stability of numerical algorithms"). Underflow is left out. With S >= ||W1 * x
    + b1|| of all norms of x,

        rho = ||W2|| (gamma_n + u) S + gamma_H (|| |W2| || S + ||b2||) + u ||z + f(x)||,
        S = || |W1| || ||x|| + ||b1||, || |W1| || = || sum_k |W1[:, :, k]| ||_2,

    the last because no symbol of a kernel is larger than that of its absolute values at frequency 0; twice this is
    returned, for products of errors.
    """

    slope: float
    constant: float

    @classmethod
    def of(cls, residual: Residual, pixels: int, dtype: torch.dtype) -> "Rounding":
        """The rounding errors on images of so many pixels in this dtype."""
        unit = torch.finfo(dtype).eps / 2
        wide, narrow = residual.wide.detach().double(), residual.narrow.detach().double()[:, :, 0, 0]
        of_wide = _norm(wide.abs().sum((2, 3)))
        wide_bias, narrow_bias = (
            math.sqrt(pixels) * float(b.detach().double().norm()) for b in (residual.wide_bias, residual.narrow_bias)
        )
        sums, mixed = _gamma(wide[0].numel() + 1, unit), _gamma(narrow.shape[1] + 1, unit)
        features = _norm(narrow) * (sums + unit) + mixed * _norm(narrow.abs())
        slope, constant = features * of_wide + unit, features * wide_bias + mixed * narrow_bias
        return cls(_SECOND_ORDER * slope, _SECOND_ORDER * constant)

    def rho(self, size: Tensor) -> Tensor:
        """The bound for images whose x and z + f(x) have at most these norms."""
        return self.slope * size + self.constant


def _gamma(n: int, unit: float) -> float:
    return n * unit / (1 - n * unit)


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))
