"""Quadratic priors: small images, or smooth ones."""

from typing import Literal

from torch import Tensor

from preimage import (
    Differentiable,
    LinearOperator,
    Proximable,
    Quadratic,
    Shape,
    per_image,
)

from .gradient import DiscreteGradient


class Tikhonov(Quadratic, Proximable, Differentiable):
    """R(x) = 1/2 ||x||^2 or 1/2 ||K x||^2, K the discrete gradient (Tikhonov & Arsenin 1977).

    - `kind`: "gradient" (default) penalises differences of neighbouring pixels and leaves the mean alone; "identity"
      pulls towards zero, so it darkens images: rarely what one wants except for pixel values centred on zero.

    Both are quadratic, so `conjugate-gradients` solves least squares with them directly. The proximal map is exact:
    x / (1 + step), or (I + step K^T K)^-1 x by the orthonormal cosine transform. Channels are independent.
    """

    def __init__(self, in_shape: Shape, *, kind: Literal["gradient", "identity"] = "gradient"):
        super().__init__(in_shape)
        self.kind = kind
        self._gradient = DiscreteGradient(in_shape) if kind == "gradient" else None

    def analysis(self) -> LinearOperator:
        return Proximable.analysis(self) if self._gradient is None else self._gradient

    def grad(self, x: Tensor) -> Tensor:
        return x.clone() if self._gradient is None else self._gradient.normal(x)

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        if self._gradient is None:
            return x / (1 + per_image(step, x))
        # A step of zero has no 1 / step, so solve (I + step K^T K) u = x rather than (K^T K + I / step) u = x / step.
        diagonal = self._gradient.normal_diagonal()
        eigenvalues = 1 + per_image(step, x) * diagonal.eigenvalues.to(x)
        return type(diagonal)(diagonal.basis, eigenvalues).solve(x)
