"""U-Net (Ronneberger, Fischer & Brox 2015) in the size that Arndt & Nickel compare with."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage.errors import BadParameter

Preset = Literal["paper", "small"]

_PRESETS: dict[Preset, tuple[int, int]] = {"paper": (16, 5), "small": (16, 3)}
_SKIP = 4


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 5, stride, 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Down(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.halve = _convolution(channels, 2 * channels, stride=2)
        self.same = _convolution(2 * channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.same(self.halve(x))


class _Up(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.enlarge = nn.Conv2d(2 * channels, channels, 5, padding=2, bias=False)
        self.skip = nn.Sequential(
            nn.Conv2d(channels, _SKIP, 1, bias=False), nn.BatchNorm2d(_SKIP), nn.ReLU(inplace=True)
        )
        self.join = _convolution(channels + _SKIP, channels)
        self.same = _convolution(channels, channels)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        x = self.enlarge(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.same(self.join(torch.cat([x, self.skip(finer)], dim=1)))


class UNet(nn.Module):
    """An encoder and a decoder of 5 x 5 convolutions on several scales, joined by narrow skip connections.

    Encoder: 5 x 5 to c features; on each further scale a strided convolution that doubles them and another one.
    Decoder: enlarged twofold, halved in features, 4 features of the encoder's scale joined, two convolutions.
    Batch normalisation follows every convolution but the enlarging and the last ones; in evaluation its statistics are
    constants, so images of a batch do not influence each other. The output is added to the input. The paper prints no
    layout; this one has its number of parameters (Arndt & Nickel 2024, table 1).

    Images (B, image_channels, H, W) of any size: they are continued by their edge pixels to a multiple of
    2^(scales - 1), and cut again.

    - `preset`: "paper" has 5 scales of 16 to 256 features (5,468,705 parameters on grey images), "small" 3 of 16 to 64
      (326,417). `features` (of the finest scale) and `scales` replace its values.

    Raises `BadParameter` if a number is not positive.
    """

    def __init__(
        self,
        preset: Preset = "small",
        image_channels: int = 1,
        features: int | None = None,
        scales: int | None = None,
    ):
        super().__init__()
        features, scales = (
            own if own is not None else p for own, p in zip((features, scales), _PRESETS[preset], strict=True)
        )
        for name, value in {"image_channels": image_channels, "features": features, "scales": scales}.items():
            if value < 1:
                raise BadParameter(f"{name} is {value}", "an integer >= 1")
        self.image_channels = image_channels
        self._multiple = 2 ** (scales - 1)
        widths = [features * 2**scale for scale in range(scales - 1)]
        self.first = _convolution(image_channels, features)
        self.down = nn.ModuleList(_Down(width) for width in widths)
        self.up = nn.ModuleList(_Up(width) for width in reversed(widths))
        self.last = nn.Conv2d(features, image_channels, 5, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        below, right = -height % self._multiple, -width % self._multiple
        x = self.first(F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image)
        finer = list[Tensor]()
        for down in self.down:
            finer.append(x)
            x = down(x)
        for up in self.up:
            x = up(x, finer.pop())
        return image + self.last(x)[..., :height, :width]
