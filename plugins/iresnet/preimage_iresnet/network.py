"""The invertible residual network, and the control of its Lipschitz constants in training."""

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage.errors import BadParameter
from preimage.trained import Certified

from .norms import FollowedNorm, grid_norm
from .residual import KERNEL, Residual
from .terms import Terms, invert_block

Preset = Literal["big", "small", "tiny"]

_PRESETS: dict[Preset, tuple[int, int, int]] = {"big": (20, 64, 128), "small": (12, 32, 64), "tiny": (12, 16, 32)}
_REFIT = 100


class ResidualBlock(nn.Module):
    """The trainable tensors of one residual, of any size; what is applied are these divided by their norms.

    `start` and `start_bias` are a convolution that guesses x - z for the x with x - f(x) = z: where the inverse starts,
    in half precision, since any start will do. `norm` follows that of the 5 x 5 convolution through training.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        wide, narrow = nn.Conv2d(channels, hidden, KERNEL), nn.Conv2d(hidden, channels, 1)
        self.wide, self.wide_bias = wide.weight, cast(nn.Parameter, wide.bias)
        self.narrow, self.narrow_bias = narrow.weight, cast(nn.Parameter, narrow.bias)
        self.threshold = nn.Parameter(torch.tensor(0.05))
        self.norm = FollowedNorm(channels)
        self.start: Tensor
        self.start_bias: Tensor
        self.register_buffer("start", torch.zeros(channels, channels, 3, 3, dtype=torch.float16))
        self.register_buffer("start_bias", torch.zeros(channels, dtype=torch.float16))

    def plain(self) -> Residual:
        """The tensors as they are."""
        return Residual(self.wide, self.wide_bias, self.threshold.abs(), self.narrow, self.narrow_bias)

    def divided(self, norm: Tensor, lipschitz: float) -> Residual:
        """W1 divided by its norm, W2 by its own and multiplied by the bound."""
        narrow = self.narrow * (lipschitz / torch.linalg.matrix_norm(self.narrow[:, :, 0, 0], 2))
        return Residual(self.wide / norm, self.wide_bias, self.threshold.abs(), narrow, self.narrow_bias)

    @torch.no_grad()
    def guess(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """The linear start of the inverse, its convolution in `dtype`."""
        with torch.autocast(z.device.type, enabled=False):
            return z + F.conv2d(z.to(dtype), self.start.to(dtype), self.start_bias.to(dtype), padding=1)

    def followed(self, lipschitz: float) -> Residual:
        """The residual with the norms followed from step to step, differentiable; advances them."""
        return self.divided(self.norm(self.wide), lipschitz)


class InvertibleResNet(Certified):
    """phi = phi_1 o ... o phi_N on R^M, phi_i = Id - f_i, f_i = W2_i shrink(W1_i . + b1_i) + b2_i (`Residual`), whose
    inverse has Lip(phi^-1) <= 1 / (1 - L) (Arndt & Nickel 2024).

    An image (C, h, w) of any size becomes M / C copies of itself, and is the mean of what becomes of them: phi
    approximates an operator, its inverse reconstructs. Every f_i has Lip(f_i) <= L_i, 1 - L = prod (1 - L_i).

    - `preset`: "big" has N = 20 blocks of M = 64 and H = 128 channels (4,263,700 parameters), "small" 12 of 32 and 64
      (640,140), "tiny" 12 of 16 and 32 (160,332). `blocks`, `channels`, `hidden` replace its values.
    - `lipschitz`: L in (0, 1). `split`: L_1, ..., L_N; without it all are 1 - (1 - L)^(1/N).

    In training weights are divided by norms that are followed from step to step, in evaluation mode by those on a
    grid of frequencies: both estimates. `certify` brings them to a bound that is one, after which they are left alone.

    Raises `BadParameter` if a number is out of its range, or the split does not multiply out.
    """

    def __init__(
        self,
        preset: Preset = "tiny",
        lipschitz: float = 0.999,
        image_channels: int = 1,
        split: Sequence[float] | None = None,
        blocks: int | None = None,
        channels: int | None = None,
        hidden: int | None = None,
    ):
        super().__init__()
        given = (blocks, channels, hidden)
        blocks, channels, hidden = (
            own if own is not None else p for own, p in zip(given, _PRESETS[preset], strict=True)
        )
        numbers = {"image_channels": image_channels, "blocks": blocks, "channels": channels, "hidden": hidden}
        for name, value in numbers.items():
            if value < 1:
                raise BadParameter(f"{name} is {value}", "an integer >= 1")
        if channels % image_channels:
            found = f"channels is {channels} for images of {image_channels}"
            raise BadParameter(
                found, f"a multiple of {image_channels}", "change channels: they are copies of the image"
            )
        self.image_channels, self.channels = image_channels, channels
        self.lipschitz = lipschitz
        self.bounds = split_bounds(lipschitz, blocks, split)
        self.blocks = nn.ModuleList(ResidualBlock(channels, hidden) for _ in range(blocks))
        self.certified: Tensor
        self.register_buffer("certified", torch.tensor(False))

    def residuals(self) -> list[Residual]:
        """f_1, ..., f_N as they are applied, bounds kept as far as the mode promises.

        In training every call is one step of power iteration, and ends what a certificate promised.
        """
        blocks: list[Any] = list(self.blocks)
        if self.training:
            self.certified.fill_(False)
            return [block.followed(bound) for block, bound in zip(blocks, self.bounds, strict=True)]
        if bool(self.certified):
            return [block.plain() for block in blocks]
        return [block.divided(grid_norm(block.wide), bound) for block, bound in zip(blocks, self.bounds, strict=True)]

    def refit(self, examples: Tensor) -> None:
        """In every hundredth step of training: fit the linear starts to the inverses of `examples`."""
        from .linear_start import fit

        block: Any = self.blocks[0]
        if self.training and int(block.norm.age) % _REFIT == 0:
            with torch.autocast(examples.device.type, enabled=False):
                fit(self, examples)

    def certify(self, examples: Tensor) -> dict[str, Any]:
        """Divide the weights by certified norms, and fit the linear starts to the inverses of `examples`."""
        from .certificate import certify

        return certify(self, examples)

    def lift(self, images: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, M, h, w): copies, one after the other."""
        return images.repeat(1, self.channels // self.image_channels, 1, 1)

    def project(self, states: Tensor) -> Tensor:
        """(B, M, h, w) -> (B, C, h, w): the mean of the copies; a left inverse of `lift`."""
        return states.unflatten(1, (-1, self.image_channels)).mean(1)

    def forward(self, images: Tensor) -> Tensor:
        """The approximation of the operator: the mean of phi over the copies of each image."""
        return self.project(apply(self.residuals(), self.lift(images)))

    def invert(
        self, residuals: Sequence[Residual], z: Tensor, terms: Terms, dtype: torch.dtype | None = None
    ) -> Tensor:
        """phi^-1(z) for these residuals, up to `terms` of every block from its linear start on, convolutions in `dtype`
        (that of z); differentiable (`terms.invert_block`)."""
        z = z.contiguous(memory_format=torch.channels_last)
        blocks: list[Any] = list(self.blocks)
        dtype = dtype or z.dtype
        for block, residual in zip(blocks, residuals, strict=True):
            z = invert_block(z, residual, terms, dtype, block.guess(z, dtype))
        return z


def apply(residuals: Sequence[Residual], x: Tensor) -> Tensor:
    """phi(x), phi_1 being applied last: (B, M, h, w) -> (B, M, h, w)."""
    x = x.contiguous(memory_format=torch.channels_last)  # the layout in which convolutions are fast
    for residual in reversed(residuals):
        x = x - residual(x)
    return x


def split_bounds(lipschitz: float, blocks: int, split: Sequence[float] | None = None) -> tuple[float, ...]:
    """L_1, ..., L_N with prod (1 - L_i) = 1 - L: equal ones, or those given.

    Raises `BadParameter` if L or one of them is not in (0, 1), or if they do not multiply out (to 1e-6 of 1 - L).
    """
    if not 0 < lipschitz < 1:
        remedy = "the larger it is, the better reconstructions and the weaker their stability: 0.999 is the paper's"
        raise BadParameter(f"lipschitz is {lipschitz}", "a number in (0, 1)", remedy)
    if split is None:
        return (-math.expm1(math.log1p(-lipschitz) / blocks),) * blocks
    if len(split) != blocks or not all(0 < bound < 1 for bound in split):
        raise BadParameter(f"split is {list(split)}", f"{blocks} numbers in (0, 1), one for each block")
    whole = math.prod(1 - bound for bound in split)
    if abs(whole - (1 - lipschitz)) > 1e-6 * (1 - lipschitz):
        found = f"the split stands for lipschitz = {1 - whole:.9g}, not {lipschitz}"
        raise BadParameter(found, "1 - lipschitz = the product of 1 - L_i", "change one of them, or leave split out")
    return tuple(split)
