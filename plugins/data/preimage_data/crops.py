"""Images brought to one size."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from preimage.errors import BadData, BadParameter

Size = int | tuple[int, int]
"""A square's side, or (height, width), in pixels."""

Crop = Literal["resize", "centre", "stretch"]
"""How an image is brought to a size: see `fit`."""


Interpolation = Literal["bicubic", "bilinear"]
"""How pixels of another width are made: see `fit`."""


def height_width(size: Size | None, what: str) -> tuple[int, int] | None:
    """`size` as (height, width). Raises `BadParameter` unless both are positive."""
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise BadParameter(f"{what} is {size}", "one or two positive numbers of pixels", "use 128, or [96, 128]")
    return height, width


def fit(
    image: Tensor,
    size: Size,
    crop: Crop = "resize",
    what: str = "the image",
    interpolation: Interpolation = "bicubic",
) -> Tensor:
    """An image (C, H, W) in [0, 1] at the given size.

    - "resize": scaled, keeping its proportions, so that it just covers the size; then the centre is cut out.
    - "centre": the centre is cut out, pixels untouched; an odd margin leaves the extra row below and column right.
    - "stretch": scaled to the size, not keeping its proportions.

    Scaling is bicubic (Keys, a = -1/2) or bilinear (smoother), with antialiasing when it shrinks, as Pillow does it;
    the result is clipped to [0, 1].

    Raises `BadData` if "centre" finds the image smaller than the size.
    """
    height, width = height_width(size, "size") or (0, 0)
    have = tuple(image.shape[1:])
    if crop == "centre" and (have[0] < height or have[1] < width):
        raise BadData(
            f"{what} has {have[0]} x {have[1]} pixels",
            f'at least {height} x {width} for crop = "centre"',
            'use a smaller size, or crop = "resize"',
        )
    if crop == "stretch":
        return _resize(image, height, width, interpolation)
    if crop == "resize":
        scale = max(height / have[0], width / have[1])
        tall, wide = max(height, round(have[0] * scale)), max(width, round(have[1] * scale))
        image = _resize(image, tall, wide, interpolation)
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width].contiguous()


def _resize(image: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    if tuple(image.shape[1:]) == (height, width):
        return image
    # With antialias=True torch uses a = -1/2 for enlarging as well, as Pillow does.
    scaled = F.interpolate(image[None], size=(height, width), mode=interpolation, align_corners=False, antialias=True)
    return scaled[0].clamp(0, 1)
