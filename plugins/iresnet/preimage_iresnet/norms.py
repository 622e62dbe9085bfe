"""The norm of a convolution, followed through training: a warm vector, now and then seeded anew."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = 32
"""Side in pixels of the torus on which norms are estimated."""

_RESEED = 100


def symbol(kernel: Tensor, size: int) -> Tensor:
    """S(theta) = sum_k kernel[:, :, k] e^{i k theta} on the grid theta = 2 pi j / size: (frequencies, H, M), complex.

    The singular values of S are those of the convolution on a torus of `size` pixels. Of each pair theta, -theta
    with conjugate values one stands in the result.
    """
    spectrum = torch.fft.rfft2(kernel, s=(size, size))
    return spectrum.flatten(2).permute(2, 0, 1)


def grid_norm(kernel: Tensor, size: int = GRID) -> Tensor:
    """max ||S(theta)|| over the grid: the norm on a torus of `size` pixels, a little below that on the whole plane."""
    values = symbol(kernel, size)
    return torch.linalg.eigvalsh(values.mH @ values).amax().clamp_min(0).sqrt()


def seed_vector(kernel: Tensor, size: int = GRID) -> Tensor:
    """An image (1, M, size, size) of norm 1 in which every frequency has its own leading singular vector, weighted by
    the 64th power of its singular value, and a little of all.

    Power iteration started here finds the largest mode at once, and others that may overtake it are there.
    """
    values = symbol(kernel, size)
    eigenvalues, vectors = torch.linalg.eigh(values.mH @ values)
    largest = eigenvalues[:, -1].clamp_min(0)
    weights = ((largest / largest.amax().clamp_min(1e-30)) ** 32).clamp_min(1e-3)
    modes = (vectors[:, :, -1] * weights[:, None]).mT.unflatten(1, (size, size // 2 + 1))
    seed = torch.fft.irfft2(modes.conj(), s=(size, size))
    return (seed / seed.norm().clamp_min(1e-30))[None]


def torus_convolution(kernel: Tensor, v: Tensor) -> Tensor:
    """The convolution of an image with periodic continuation."""
    reach = kernel.shape[-1] // 2
    return F.conv2d(F.pad(v, [reach] * 4, mode="circular"), kernel)


def torus_adjoint(kernel: Tensor, u: Tensor) -> Tensor:
    """The adjoint of `torus_convolution`."""
    return torus_convolution(kernel.transpose(0, 1).flip(2, 3), u)


def warm_norm(kernel: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """||W v|| for v of norm 1, differentiable in the kernel, and the v for the next call: one step of power iteration.

    For a leading singular vector v this has the derivative of the norm itself.
    """
    image = torus_convolution(kernel, v)
    with torch.no_grad():
        back = torus_adjoint(kernel, image)
        following = back / back.norm().clamp_min(1e-30)
    return image.norm(), following


class FollowedNorm(nn.Module):
    """The norm of a kernel (H, M, k, k), followed from step to step: one power iteration each, seeded anew every 100.

    `vector` and `age` (the number of steps) are part of a checkpoint, but not of exported weights.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.vector: Tensor
        self.age: Tensor
        self.register_buffer("vector", torch.zeros(1, channels, GRID, GRID), persistent=False)
        self.register_buffer("age", torch.zeros((), dtype=torch.long), persistent=False)

    def forward(self, kernel: Tensor) -> Tensor:
        """The norm, differentiable in the kernel; advances the vector."""
        with torch.no_grad():
            if int(self.age) % _RESEED == 0:
                self.vector.copy_(seed_vector(kernel))
            self.age += 1
        norm, following = warm_norm(kernel, self.vector.clone())
        with torch.no_grad():
            self.vector.copy_(following)
        return norm
