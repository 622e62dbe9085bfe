"""Masks: boolean tensors, True where a pixel is known."""

import math

import torch
from torch import Tensor

from preimage import Key, Shape
from preimage.errors import BadData, BadParameter, ShapeMismatch


def image_size(in_shape: Shape) -> tuple[int, int, int]:
    """(C, H, W). Raises `ShapeMismatch` for shapes of anything but an image."""
    if len(in_shape) != 3:
        raise ShapeMismatch(f"in_shape is {tuple(in_shape)}", "(channels, height, width)", "inpainting is for images")
    channels, height, width = in_shape
    return channels, height, width


def random_mask(in_shape: Shape, *, keep: float, key: Key, per_channel: bool = False) -> Tensor:
    """round(keep H W) known pixels drawn without replacement: (1, H, W), or (C, H, W), drawn for each channel.

    The number of known pixels is exact, so that every draw has as much data as any other.

    Raises `BadParameter` unless 0 < keep < 1 and a pixel is known.
    """
    channels, height, width = image_size(in_shape)
    if not 0 < keep < 1:
        raise BadParameter(f"keep is {keep}", "a number between 0 and 1, both excluded", "write keep = 0.5, say")
    count = round(keep * height * width)
    if count == 0:
        raise BadParameter(
            f"keep is {keep}, which leaves no known pixel in an image of {height} x {width}",
            f"more than {0.5 / (height * width):.2g}",
            "keep more pixels, or take a larger image",
        )
    mask = torch.zeros(channels if per_channel else 1, height * width, dtype=torch.bool)
    for index, row in enumerate(mask):
        row[key.child("mask", index).permutation(height * width)[:count]] = True
    return mask.reshape(-1, height, width)


def box_mask(in_shape: Shape, box: tuple[int, int, int, int]) -> Tensor:
    """All known but the box (top, left, height, width), rows counted downwards from 0: (1, H, W).

    Raises `BadParameter` for a box that is empty, reaches outside the image, or covers all of it.
    """
    _, height, width = image_size(in_shape)
    if len(box) != 4 or not all(isinstance(number, int) for number in box):
        raise BadParameter(
            f"box is {tuple(box)!r}", "four whole numbers: top, left, height, width", "write box = [8, 8, 16, 16], say"
        )
    top, left, tall, wide = box
    if tall < 1 or wide < 1:
        raise BadParameter(
            f"box is {tall} x {wide} pixels", "at least one pixel", "write box = [top, left, height, width]"
        )
    if top < 0 or left < 0 or top + tall > height or left + wide > width:
        raise BadParameter(
            f"the box covers rows {top} to {top + tall - 1} and columns {left} to {left + wide - 1}",
            f"rows within 0 to {height - 1} and columns within 0 to {width - 1}, the image",
            "move the box or make it smaller; box = [top, left, height, width]",
        )
    if (tall, wide) == (height, width):
        raise BadParameter(f"the box covers the whole image, {height} x {width}", "a known pixel", "make it smaller")
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[:, top : top + tall, left : left + wide] = False
    return mask


def centre_mask(in_shape: Shape, fraction: float) -> Tensor:
    """All known but a box in the centre, with sides `fraction` of the image's: (1, H, W).

    Unknown are rows floor(H (1 - fraction) / 2) to floor(H (1 + fraction) / 2) - 1, and columns likewise. At 64 x 64
    and 0.3 these are rows and columns 22 to 40, the published "center 0.3" of Asim et al., "Invertible generative
    models for inverse problems: mitigating representation error and dataset bias" (ICML 2020). The unknown share of
    the area is about fraction^2.

    Raises `BadParameter` unless 0 < fraction < 1 and the box has at least one pixel.
    """
    _, height, width = image_size(in_shape)
    if not 0 < fraction < 1:
        raise BadParameter(
            f"fraction is {fraction}", "a number between 0 and 1, both excluded", "write fraction = 0.3, say"
        )
    top, tall = _central(height, fraction)
    left, wide = _central(width, fraction)
    if tall == 0 or wide == 0:
        raise BadParameter(
            f"fraction is {fraction}, which hides nothing of an image of {height} x {width}",
            "a box of at least one pixel",
            f"take fraction = {math.ceil(1000 / min(height, width)) / 1000} or more",
        )
    return box_mask(in_shape, (top, left, tall, wide))


def _central(length: int, fraction: float) -> tuple[int, int]:
    tolerance = 1e-9  # 20 (1 - 0.3) / 2 is 7, whatever rounding says
    start = math.floor(length * (1 - fraction) / 2 + tolerance)
    return start, math.floor(length * (1 + fraction) / 2 + tolerance) - start


def random_box(in_shape: Shape, size: tuple[int, int], key: Key) -> Tensor:
    """`box_mask` of a box of this (height, width), all places inside the image equally likely.

    Raises as `box_mask`.
    """
    _, height, width = image_size(in_shape)
    if len(size) != 2 or not all(isinstance(number, int) for number in size):
        raise BadParameter(f"size is {tuple(size)!r}", "two whole numbers: height, width", "write size = [16, 16], say")
    tall, wide = size
    if tall > height or wide > width:
        raise BadParameter(
            f"size is {tall} x {wide}", f"a box inside the image, {height} x {width}", "make the box smaller"
        )
    places = torch.tensor([height - tall + 1, width - wide + 1], dtype=torch.float64)
    corner = key.child("box").uniform((2,), like=places) * places
    return box_mask(in_shape, (int(corner[0]), int(corner[1]), tall, wide))


def check_mask(in_shape: Shape, mask: Tensor, what: str) -> Tensor:
    """The mask as (1, H, W) or (C, H, W), boolean; known where it is more than half its largest value.

    So False and True, 0 and 1, 0 and 255 mean the same, and a resampled mask is cut halfway.

    Raises `ShapeMismatch` for another size, `BadData` for NaN, infinity, or no known pixel.
    """
    channels, height, width = image_size(in_shape)
    shape = tuple(mask.shape)
    if shape not in ((height, width), (1, height, width), (channels, height, width)):
        raise ShapeMismatch(
            f"{what} has shape {shape}",
            f"({height}, {width}), or ({channels}, {height}, {width}) for a mask for each channel, the image's size",
            f"crop or resize the mask to {height} x {width}",
        )
    if mask.dtype is not torch.bool:
        if not bool(torch.isfinite(mask).all()):
            raise BadData(f"{what} has values that are not finite", "0 where unknown, 1 where known", "mend the mask")
        largest = mask.max()
        mask = (mask > largest / 2) & (largest > 0)
    if not bool(mask.any()):
        raise BadData(f"{what} has no known pixel", "at least one value that is not 0", "check which value means known")
    return mask.reshape(-1, height, width)
