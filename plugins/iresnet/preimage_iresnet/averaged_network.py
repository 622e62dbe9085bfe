"""Denoising networks that are averaged operators: (1 - t) Id + t N with N nonexpansive, by construction."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage.errors import BadParameter
from preimage.trained import Certified

from .norms import FollowedNorm, grid_norm

Preset = Literal["tiny", "small"]

BLOCK = 2
"""Side of the blocks of pixels that become the channels of one pixel."""

BOUND = math.sqrt(2)
"""||W|| up to which u - W^T s(W u) is nonexpansive."""

REFERENCE = 0.1
"""Standard deviation of noise, in pixel units, at which thresholds are what they are called."""

_PRESETS: dict[Preset, tuple[int, int, int, int]] = {"tiny": (8, 16, 32, 3), "small": (10, 32, 64, 3)}
GREY = 0.5
"""The middle of the range of pixel values, from which images are measured."""

_REACH = 1.5


class ShrinkageLayer(nn.Module):
    """u -> u - W^T s(W u), for images (B, M, h, w) of any size: the gradient step of a convex function of u.

    W is a convolution to H channels with zero padding; s(v) is v cut off at +- a threshold for each channel. As s is
    nondecreasing and 1-Lipschitz, the derivative of the layer is Id - W^T S W with 0 <= S <= Id, and the layer is
    nonexpansive if ||W||^2 <= 2 (Meunier, Delattre, Araujo & Allauzen 2022, "A dynamical system perspective for
    Lipschitz neural networks", convex potential layers). W on an image is part of the convolution on the plane, whose
    norm, the largest over all frequencies, bounds that of W at every size.

    - `kernel`: (H, M, k, k). `gain`: what makes ||W||^2 = 2 sigmoid(gain), until the layer is certified.
    - `threshold`, `power`: (H,), of exp(threshold) (sigma / 0.1)^(1 + power).
    - `norm`: follows that of the kernel through training.
    """

    def __init__(self, channels: int, hidden: int, size: int):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(hidden, channels, size, size) / math.sqrt(channels * size**2))
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.threshold = nn.Parameter(torch.full((hidden,), math.log(0.03)))
        self.power = nn.Parameter(torch.zeros(hidden))
        self.norm = FollowedNorm(channels)

    def divided(self, norm: Tensor) -> Tensor:
        """W with the norm that the gain asks for, given that of the kernel."""
        return self.kernel * ((2 * torch.sigmoid(self.gain)).sqrt() / norm)

    def followed(self) -> Tensor:
        """W by the norm followed from step to step, differentiable; advances it."""
        return self.divided(self.norm(self.kernel))

    def forward(self, u: Tensor, kernel: Tensor, level: Tensor) -> Tensor:
        """- `kernel`: W. `level`: log(sigma / 0.1), (B,)."""
        threshold = (self.threshold + (1 + self.power) * level[:, None]).exp()[:, :, None, None]
        padding = kernel.shape[-1] // 2
        features = torch.clamp(F.conv2d(u, kernel, padding=padding), -threshold, threshold)
        return u - F.conv_transpose2d(features, kernel, padding=padding)


class AveragedNetwork(Certified):
    """D_sigma = (1 - t) Id + t N_sigma: removes Gaussian noise of standard deviation sigma, and is t-averaged for each.

    N_sigma is E^T L_K ... L_1 E: E makes the pixels of every block of 2 x 2 channels of one pixel, and adds channels of
    zeros up to M, an isometry; the L_k are nonexpansive (`ShrinkageLayer`). For an odd side it is the mean over the two
    ways to cut the image into blocks, in which the pixels left over stay as they are. The values, as distances from
    0.5, are cut off at +- 1.5. So N_sigma is nonexpansive in the Euclidean norm, at every image size, and bounded. With
    t <= 1/2, D_sigma is firmly nonexpansive, and the resolvent of a monotone operator. Only thresholds depend on sigma,
    so the same norms prove it for all.

    Images are grey, (B, 1, h, w); channels of others pass one by one.

    - `preset`: "tiny" has K = 8 layers of M = 16 and H = 32 channels, "small" 10 of 32 and 64, kernels 3 x 3.
      `layers`, `channels`, `hidden`, `kernel` replace its values.
    - `averaged`: t in (0, 1).

    In training kernels are divided by norms that are followed from step to step, in evaluation mode by those on a
    grid of frequencies: both estimates. `certify` brings them to a bound that is one, after which they are left alone.

    Raises `BadParameter` if a number is out of its range.
    """

    def __init__(
        self,
        preset: Preset = "tiny",
        averaged: float = 0.5,
        layers: int | None = None,
        channels: int | None = None,
        hidden: int | None = None,
        kernel: int | None = None,
    ):
        super().__init__()
        given = (layers, channels, hidden, kernel)
        layers, channels, hidden, kernel = (
            own if own is not None else p for own, p in zip(given, _PRESETS[preset], strict=True)
        )
        least = {"layers": (layers, 1), "channels": (channels, BLOCK**2), "hidden": (hidden, 1), "kernel": (kernel, 1)}
        for name, (value, smallest) in least.items():
            if value < smallest:
                raise BadParameter(f"{name} is {value}", f"an integer >= {smallest}")
        if kernel % 2 == 0:
            raise BadParameter(f"kernel is {kernel}", "an odd integer", "use 3")
        if not 0 < averaged < 1:
            remedy = "plug-and-play ADMM is known to converge up to 0.5, proximal gradient descent for all of them"
            raise BadParameter(f"averaged is {averaged}", "a number in (0, 1)", remedy)
        self.averaged, self.channels, self.kernel = averaged, channels, kernel
        self.layers = nn.ModuleList(ShrinkageLayer(channels, hidden, kernel) for _ in range(layers))
        self.certified: Tensor
        self.register_buffer("certified", torch.tensor(False))

    @property
    def smallest(self) -> int:
        """Side in pixels of the smallest images that hold a kernel."""
        return BLOCK * self.kernel

    def kernels(self) -> list[Tensor]:
        """W_1, ..., W_K as they are applied, ||W_k||^2 <= 2 as far as the mode promises.

        In training every call is one step of power iteration, and ends what a certificate promised.
        """
        layers: list[Any] = list(self.layers)
        if self.training:
            self.certified.fill_(False)
            return [layer.followed() for layer in layers]
        if bool(self.certified):
            return [layer.kernel for layer in layers]
        return [layer.divided(grid_norm(layer.kernel)) for layer in layers]

    def certify(self, examples: Tensor) -> dict[str, Any]:
        """Divide the kernels by certified norms; `examples` play no part."""
        from .averaged_certificate import certify

        return certify(self)

    def forward(self, images: Tensor, sigma: float | Tensor) -> Tensor:
        """D_sigma of a batch (B, C, h, w); sigma > 0, one number or one per image (B,)."""
        return torch.lerp(images, self.nonexpansive(images, sigma), self.averaged)

    def nonexpansive(self, images: Tensor, sigma: float | Tensor) -> Tensor:
        """N_sigma: (B, C, h, w) -> the same shape."""
        kernels = self.kernels()
        grey = (images - GREY).flatten(0, 1)[:, None]
        levels = torch.as_tensor(sigma, dtype=images.dtype, device=images.device).expand(len(images))
        level = (levels / REFERENCE).log().repeat_interleave(images.shape[1])
        cuts = [(rows, columns) for rows in _blocks(grey.shape[2]) for columns in _blocks(grey.shape[3])]
        parts = [self._of_cut(grey, cut, level, kernels) for cut in cuts]
        mean = parts[0] if len(parts) == 1 else torch.stack(parts).mean(0)
        return mean.clamp(-_REACH, _REACH).reshape(images.shape) + GREY

    def _of_cut(self, grey: Tensor, cut: tuple[slice, slice], level: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        inside = (..., *cut)
        blocks = self._of_blocks(grey[inside], level, kernels)
        if blocks.shape == grey.shape:
            return blocks
        whole = grey.clone()
        whole[inside] = blocks
        return whole

    def _of_blocks(self, grey: Tensor, level: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        u = F.pixel_unshuffle(grey, BLOCK)
        u = F.pad(u, (0, 0, 0, 0, 0, self.channels - BLOCK**2)).contiguous(memory_format=torch.channels_last)
        for layer, kernel in zip(self.layers, kernels, strict=True):
            u = layer(u, kernel, level)
        return F.pixel_shuffle(u[:, : BLOCK**2], BLOCK).to(grey)


def _blocks(side: int) -> list[slice]:
    """The pixels along one axis that are in blocks, for every cut that there is."""
    if side % BLOCK == 0:
        return [slice(0, side)]
    return [slice(0, side - 1), slice(1, side)]
