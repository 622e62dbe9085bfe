"""Orthonormal cosine transform, in PyTorch: any device and dtype, differentiable.

Of no interest to users; shared by plugins (closed-form solves, sensing ensembles, priors).
"""

import math
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor
from torch.fft import fft, ifft  # pyright: ignore[reportUnknownVariableType] (torch has no stub for it)

_MATRIX_UP_TO = 512
"""Up to this length a matrix product is faster than an FFT of the reordered signal."""


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)[:, None]
    matrix = torch.cos(math.pi / n * k * (torch.arange(n, dtype=torch.float64) + 0.5)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.to(dtype=dtype, device=device)


def _twiddle(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """e^(-i pi k / 2n) and the scales s_k."""
    k = torch.arange(n, dtype=torch.float64)
    scale = torch.full((n,), math.sqrt(2 / n), dtype=torch.float64)
    scale[0] = math.sqrt(1 / n)
    phase = torch.polar(torch.ones(n, dtype=torch.float64), -math.pi / (2 * n) * k)
    return phase.to(dtype=like.dtype.to_complex(), device=like.device), scale.to(like)


def _reordering(n: int, device: torch.device) -> Tensor:
    """Even positions rising, then odd positions falling."""
    index = torch.arange(n, device=device)
    return torch.cat((index[::2], index[1::2].flip(0)))


def dct(x: Tensor) -> Tensor:
    """Orthonormal DCT-II along the last axis: c_k = s_k sum_j x_j cos(pi k (j + 1/2) / n),
    s_0 = sqrt(1/n), s_k = sqrt(2/n).

    A matrix product for short axes, an FFT of the reordered signal (Makhoul 1980) for long ones.
    """
    n = x.shape[-1]
    if n <= _MATRIX_UP_TO:
        return x @ _matrix(n, x.dtype, x.device).mT
    phase, scale = _twiddle(n, x)
    return torch.real(cast(Tensor, fft(x[..., _reordering(n, x.device)])) * phase) * scale


def idct(c: Tensor) -> Tensor:
    """Inverse (and adjoint) of `dct`: the orthonormal DCT-III along the last axis."""
    n = c.shape[-1]
    if n <= _MATRIX_UP_TO:
        return c @ _matrix(n, c.dtype, c.device)
    # With W_k = e^(-i pi k / 2n) V_k, V the FFT of the reordered signal: Re W_k = c_k / s_k and Im W_k = -Re W_(n-k).
    phase, scale = _twiddle(n, c)
    real = c / scale
    imaginary = torch.cat((torch.zeros_like(real[..., :1]), -real[..., 1:].flip(-1)), -1)
    reordered = torch.real(cast(Tensor, ifft(torch.complex(real, imaginary) * phase.conj())))
    return reordered[..., _reordering(n, c.device).argsort()]


def dct2(x: Tensor) -> Tensor:
    """`dct` along the last two axes."""
    return dct(dct(x).mT).mT


def idct2(c: Tensor) -> Tensor:
    """Inverse (and adjoint) of `dct2`."""
    return idct(idct(c.mT).mT)
