"""The norm of a zero-padded convolution on images of one size: what a bound for all sizes is compared with."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from preimage import Key

from .norms import symbol
from .structured_images import Waves


def norm_on_images(kernel: Tensor, size: int, tolerance: float = 1e-4) -> float:
    """The norm of x -> kernel * x, kernel (H, M, k, k), zero padding, on images (M, size, size): the square root of the
    largest eigenvalue of W^T W by the Lanczos iteration in float64, to a relative tolerance, from below."""
    kernel = kernel.detach().to("cpu", torch.float64)
    shape, padding = (1, kernel.shape[1], size, size), kernel.shape[-1] // 2

    def gram(vector: np.ndarray) -> np.ndarray:
        image = F.conv2d(torch.from_numpy(vector.copy()).view(shape), kernel, padding=padding)
        return F.conv_transpose2d(image, kernel, padding=padding).numpy().reshape(-1)

    length = math.prod(shape)
    operator = LinearOperator((length, length), matvec=gram, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    fade = torch.sin(torch.arange(1, size + 1, dtype=torch.float64) * math.pi / (size + 1))
    start = worst_wave(kernel).images(1, (size, size), Key(0)) * fade[:, None] * fade
    largest = eigsh(
        operator,
        k=1,
        v0=start.numpy().reshape(-1),
        tol=2 * tolerance,  # pyright: ignore[reportArgumentType]
        return_eigenvectors=False,
    )
    return math.sqrt(float(largest[0]))


def worst_wave(kernel: Tensor, size: int = 64) -> Waves:
    """The plane wave that a convolution enlarges most, of those on a grid of frequencies."""
    values = symbol(kernel, size)
    eigenvalues, vectors = torch.linalg.eigh(values.mH @ values)
    index = int(eigenvalues[:, -1].argmax())
    row, column = divmod(index, size // 2 + 1)
    # A Fourier transform is the symbol at -theta.
    return Waves((-2 * math.pi * row / size, -2 * math.pi * column / size), vectors[index, :, -1])
