"""Layers whose weights differ from image to image, and the one vector per image that holds all weights of a network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage import Key


@dataclass(frozen=True)
class Weight:
    """One weight tensor of a network: its shape for one image, and how it is drawn.

    - `start`: "uniform" on [-1, 1) / sqrt(fan-in), the fan-in being the product of all axes but the first (the usual
      start of convolutions, LeCun et al. 1998 up to a factor); or 1, or 0.
    """

    shape: tuple[int, ...]
    start: Literal["uniform", 0, 1] = "uniform"

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The weights of a network in the order of use, kept as one vector for each image."""

    weights: tuple[Weight, ...]

    @property
    def count(self) -> int:
        """How many numbers there are for one image."""
        return sum(weight.count for weight in self.weights)

    def draw(self, key: Key, like: Tensor) -> Tensor:
        """Weights to start from, (count,), in `like`'s dtype and on its device."""
        drawn = 2 * key.uniform((self.count,), like=like) - 1
        parts = list[Tensor]()
        for weight, part in zip(self.weights, drawn.split([w.count for w in self.weights]), strict=True):
            fan_in = math.prod(weight.shape[1:])
            parts.append(part / math.sqrt(fan_in) if weight.start == "uniform" else torch.full_like(part, weight.start))
        return torch.cat(parts)

    def split(self, vectors: Tensor) -> list[Tensor]:
        """(B, count) -> one tensor (B, *shape) for each weight."""
        parts = vectors.split([weight.count for weight in self.weights], 1)
        return [part.reshape(-1, *weight.shape) for weight, part in zip(self.weights, parts, strict=True)]


def side_by_side(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (1, B C, H, W), as grouped operations want it."""
    return x if len(x) == 1 else x.reshape(1, -1, *x.shape[2:])  # reshape would hide the memory order of one image


def one_by_one(x: Tensor, batch: int) -> Tensor:
    """(1, B C, H, W) -> (B, C, H, W)."""
    return x if batch == 1 else x.reshape(batch, -1, *x.shape[2:])


def convolve(x: Tensor, kernels: Tensor, stride: int = 1) -> Tensor:
    """Image i convolved with kernels i, borders continued by reflection: (B, C, H, W) * (B, O, C, k, k).

    Gives (B, O, H', W') with H' = ceil(H / stride); k is odd. One grouped convolution for the whole batch.
    """
    margin = kernels.shape[-1] // 2
    if margin:
        x = F.pad(x, (margin, margin, margin, margin), mode="reflect")
    y = F.conv2d(side_by_side(x), kernels.flatten(0, 1), stride=stride, groups=len(kernels))
    return one_by_one(y, len(kernels))


def normalise(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Channel normalisation: each channel of each image gets mean `shift` and deviation `scale`, both (B, C).

    scale (x - mean) / sqrt(variance + 1e-5) + shift, mean and variance over the pixels of that channel of that image;
    without them deviation 1 and mean 0.
    """
    scale, shift = (None if t is None else t.flatten() for t in (scale, shift))
    y = F.batch_norm(side_by_side(x), None, None, scale, shift, True, 0.0, 1e-5)
    return one_by_one(y, len(x))


def enlarge(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation to (H, W); nothing if x has that size."""
    return x if tuple(x.shape[2:]) == tuple(size) else F.interpolate(x, size=tuple(size), mode="bilinear")


def halvings(size: Sequence[int], most: int, least: int = 4) -> tuple[tuple[int, int], ...]:
    """(H, W) and its halves, rounded up, the largest first: at most `most` halvings, no side below `least` by them."""
    sizes = [(size[0], size[1])]
    while len(sizes) <= most:
        height, width = (-(-side // 2) for side in sizes[-1])
        if min(height, width) < least:
            break
        sizes.append((height, width))
    return tuple(sizes)
