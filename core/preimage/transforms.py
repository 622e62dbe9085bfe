"""Orthonormal cosine transform, in PyTorch: any device and dtype, differentiable.

Of no interest to users; shared by plugins (closed-form solves, sensing ensembles, priors).
"""

import math
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor
from torch.fft import irfft, rfft  # pyright: ignore[reportUnknownVariableType] (torch has no stub for it)

_MATRIX_UP_TO = 256
"""Up to this length a matrix product is faster than an FFT of the reordered signal."""


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)[:, None]
    matrix = torch.cos(math.pi / n * k * (torch.arange(n, dtype=torch.float64) + 0.5)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.to(dtype=dtype, device=device)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _tables(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For long axes: s_k e^(-i pi k / 2n) and its inverse for k <= n / 2, and the order of the samples."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    scale = torch.full_like(k, math.sqrt(2 / n))
    scale[0] = math.sqrt(1 / n)
    phase = torch.polar(scale, -math.pi / (2 * n) * k)
    index = torch.arange(n, device=device)
    reordering = torch.cat((index[::2], index[1::2].flip(0)))
    return phase.to(device, dtype.to_complex()), (1 / phase).to(device, dtype.to_complex()), reordering


def dct(x: Tensor) -> Tensor:
    """Orthonormal DCT-II along the last axis: c_k = s_k sum_j x_j cos(pi k (j + 1/2) / n),
    s_0 = sqrt(1/n), s_k = sqrt(2/n).

    A matrix product for short axes, a real FFT of the reordered signal (Makhoul 1980, "A fast cosine transform in one
    and two dimensions", section II) for long ones.
    """
    n = x.shape[-1]
    if n <= _MATRIX_UP_TO:
        return x @ _matrix(n, x.dtype, x.device).mT
    phase, _, reordering = _tables(n, x.dtype, x.device)
    # With W_k = s_k e^(-i pi k / 2n) FFT(reordered)_k: c_k = Re W_k, and c_(n-k) = -Im W_k.
    w = cast(Tensor, rfft(x[..., reordering])) * phase
    return torch.cat((torch.real(w), -torch.imag(w)[..., 1 : (n + 1) // 2].flip(-1)), -1)


def idct(c: Tensor) -> Tensor:
    """Inverse (and adjoint) of `dct`: the orthonormal DCT-III along the last axis."""
    n = c.shape[-1]
    if n <= _MATRIX_UP_TO:
        return c @ _matrix(n, c.dtype, c.device)
    _, inverse, reordering = _tables(n, c.dtype, c.device)
    imaginary = torch.cat((torch.zeros_like(c[..., :1]), -c[..., (n + 1) // 2 :].flip(-1)), -1)
    reordered = cast(Tensor, irfft(torch.complex(c[..., : n // 2 + 1], imaginary) * inverse, n=n))
    return reordered[..., reordering.argsort()]


def dct2(x: Tensor) -> Tensor:
    """`dct` along the last two axes."""
    if max(x.shape[-2:]) > _MATRIX_UP_TO:
        return dct(dct(x).mT).mT
    return _matrix(x.shape[-2], x.dtype, x.device) @ x @ _matrix(x.shape[-1], x.dtype, x.device).mT


def idct2(c: Tensor) -> Tensor:
    """Inverse (and adjoint) of `dct2`."""
    if max(c.shape[-2:]) > _MATRIX_UP_TO:
        return idct(idct(c.mT).mT)
    return _matrix(c.shape[-2], c.dtype, c.device).mT @ c @ _matrix(c.shape[-1], c.dtype, c.device)
