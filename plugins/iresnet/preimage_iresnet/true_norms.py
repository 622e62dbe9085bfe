"""The norm of a zero-padded convolution on images of one size: what a bound for all sizes is compared with."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from preimage import Key

from .convolution import convolve
from .norms import symbol
from .structured_images import Waves


def norm_on_images(kernel: Tensor, size: int, tolerance: float = 1e-4) -> float:
    """The norm of x -> kernel * x, kernel (H, M, k, k), zero padding, on images (M, size, size), to a relative
    tolerance, from below: ||kernel * v|| in float64 for the unit v that the Lanczos iteration for W^T W ends at.

    The iteration is in float32: the error of v enters squared.
    """
    kernel = kernel.detach().to("cpu", torch.float32)
    shape, padding = (1, kernel.shape[1], size, size), kernel.shape[-1] // 2

    def gram(vector: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(vector.copy()).view(shape).contiguous(memory_format=torch.channels_last)
        back = F.conv_transpose2d(F.conv2d(x, kernel, padding=padding), kernel, padding=padding)
        return back.numpy().reshape(-1)

    length = math.prod(shape)
    operator = LinearOperator((length, length), matvec=gram, dtype=np.float32)  # pyright: ignore[reportCallIssue]
    fade = torch.sin(torch.arange(1, size + 1, dtype=torch.float64) * math.pi / (size + 1))
    start = worst_wave(kernel.double()).images(1, (size, size), Key(0)) * fade[:, None] * fade
    _, vectors = eigsh(
        operator,
        k=1,
        v0=start.float().numpy().reshape(-1),
        tol=2 * tolerance,  # pyright: ignore[reportArgumentType]
    )
    v = torch.from_numpy(vectors[:, 0]).double().view(shape)
    with torch.no_grad():
        return float(convolve(v, kernel.double()).norm() / v.norm())


def worst_wave(kernel: Tensor, size: int = 64) -> Waves:
    """The plane wave that a convolution enlarges most, of those on a grid of frequencies."""
    values = symbol(kernel, size)
    index = int(torch.linalg.eigvalsh(values.mH @ values)[:, -1].argmax())
    vector = torch.linalg.svd(values[index]).Vh[0].conj()
    row, column = divmod(index, size // 2 + 1)
    # A Fourier transform is the symbol at -theta.
    return Waves((-2 * math.pi * row / size, -2 * math.pi * column / size), vector)
