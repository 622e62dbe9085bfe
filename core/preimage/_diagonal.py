"""Operators that an orthonormal basis makes diagonal: what closed-form solves need to know."""

from dataclasses import dataclass
from enum import Enum
from typing import cast

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2  # pyright: ignore[reportUnknownVariableType] (no stub)

from ._tensors import per_image
from .transforms import dct2, idct2


class Basis(Enum):
    """An orthonormal basis of images, acting on the last two axes."""

    PIXEL = "pixels"
    COSINE = "orthonormal DCT-II (half-sample symmetric boundary)"
    FOURIER = "discrete Fourier transform (circular boundary), half spectrum of a real image"

    def analyse(self, x: Tensor) -> Tensor:
        """Coefficients of x; for FOURIER the unnormalised half spectrum (normalisation cancels in `synthesise`)."""
        if self is Basis.FOURIER:
            return cast(Tensor, rfft2(x))
        return dct2(x) if self is Basis.COSINE else x

    def synthesise(self, coefficients: Tensor, shape: tuple[int, int]) -> Tensor:
        """The image (..., *shape) with these coefficients."""
        if self is Basis.FOURIER:
            return cast(Tensor, irfft2(coefficients, s=shape))
        return idct2(coefficients) if self is Basis.COSINE else coefficients


@dataclass(frozen=True)
class Diagonal:
    """M = Q^T diag(eigenvalues) Q, symmetric and positive semi-definite, such as A^T A.

    - `basis`: Q; None if M is a multiple of the identity, which every basis makes diagonal.
    - `eigenvalues`: not negative, broadcastable against the coefficients of (B, C, H, W); for FOURIER against the
      half spectrum (B, C, H, W // 2 + 1).
    """

    basis: Basis | None
    eigenvalues: Tensor

    @classmethod
    def identity(cls, factor: float = 1.0) -> "Diagonal":
        """factor times the identity."""
        return cls(None, torch.tensor(factor, dtype=torch.float64))

    def plus(self, other: "Diagonal | None", factor: float | Tensor = 1.0) -> "Diagonal | None":
        """M + factor * other, if one basis makes both diagonal; None otherwise. `factor`: a number or (B,)."""
        if other is None or (self.basis is not None and other.basis is not None and self.basis is not other.basis):
            return None
        like = self.eigenvalues if self.eigenvalues.ndim else other.eigenvalues
        scale = factor.to(like).reshape(-1, 1, 1, 1) if isinstance(factor, Tensor) and factor.ndim else factor
        return Diagonal(self.basis or other.basis, self.eigenvalues.to(like) + scale * other.eigenvalues.to(like))

    def apply(self, x: Tensor) -> Tensor:
        """M x."""
        return self._multiply(x, self.eigenvalues.to(x))

    def solve(self, b: Tensor, shift: float | Tensor = 0.0) -> Tensor:
        """(M + shift I)^-1 b, for shift a number or one per image (B,)."""
        return self._multiply(b, 1 / (self.eigenvalues.to(b) + per_image(shift, b)))

    def _multiply(self, x: Tensor, factors: Tensor) -> Tensor:
        basis = self.basis or Basis.PIXEL
        return basis.synthesise(basis.analyse(x) * factors, (x.shape[-2], x.shape[-1]))
