"""Layers of networks that treat pixels alike, with their derivatives written out.

Pixels are rows: (B, N, C), N = H W, the memory order in which torch interpolates fastest and mixing channels is
one matrix product. Each layer gives its output and a pullback, the map from a gradient in the output to the gradients
in the arguments. Against automatic differentiation of the plain formulas in `per_image_layers` this saves passes over
the activations: normalisation is folded into the product that follows it and never applied to a pixel, and two of the
three terms of its derivative come from that product too.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def products(left: Tensor, right: Tensor, start: Tensor | None = None) -> Tensor:
    """left_i right_i for each image i, (B, n, m) x (B, m, k) -> (B, n, k), added to `start` in its memory if given.

    On a CPU image by image: libraries round a batch of products differently from a single one.
    """
    if left.device.type != "cpu":
        return torch.bmm(left, right) if start is None else start.baddbmm_(left, right)
    if start is not None:
        for one, other, result in zip(left, right, start, strict=True):
            result.addmm_(one, other)
        return start
    start = left.new_empty(len(left), left.shape[1], right.shape[2])
    for one, other, result in zip(left, right, start, strict=True):
        torch.mm(one, other, out=result)
    return start


def mix_normalised(
    x: Tensor, mixing: Tensor, scale: Tensor, shift: Tensor, *, planar: bool
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]]:
    """Channel normalisation, then mixing: y = M (s (x - m) / sqrt(v + 1e-5) + t) at each pixel of each image.

    m and v are mean and variance of a channel over the pixels. With a = s / sqrt(v + 1e-5) this is computed as
    (M diag(a)) (x - m) + M t.

    - `x`: (B, N, C). `mixing` M: (B, O, C). `scale` s, `shift` t: (B, C). `planar`: y as (B, O, N), else (B, N, O).

    The pullback takes the gradient in y as (B, O, N), in any memory order, and gives those in x, M, s and t.
    """
    pixels, scale, shift = x.shape[1], scale[:, None], shift[:, None]
    centred = x - x.sum(1, keepdim=True) / pixels
    rate = (centred.square().sum(1, keepdim=True) / pixels + 1e-5).rsqrt()
    factor = rate * scale
    folded = mixing * factor
    if planar:
        y = products(folded, centred.mT).add_((mixing * shift).sum(2)[:, :, None])
    else:
        y = products(centred, folded.mT).add_((mixing * shift).sum(2)[:, None])

    def pullback(slope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        total = slope.sum(2)[:, :, None]
        in_folded = products(slope, centred)
        in_factor = (in_folded * mixing).sum(1, keepdim=True)
        bend = factor * rate.square() * in_factor / -pixels
        in_x = torch.addcmul((total * folded).sum(1, keepdim=True) / -pixels, centred, bend)
        return (
            products(slope.mT, folded, in_x),
            torch.addcmul(in_folded * factor, total, shift),
            (in_factor * rate)[:, 0],
            (total * mixing).sum(1),
        )

    return y, pullback


def enlarge_pixels(
    x: Tensor, size: tuple[int, int], larger: tuple[int, int]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Bilinear interpolation from size (H, W) to (H', W'): (B, H W, C) -> (B, H' W', C)."""
    batch, _, channels = x.shape

    def planes(rows: Tensor, shape: tuple[int, int]) -> Tensor:
        return rows.view(batch, *shape, channels).permute(0, 3, 1, 2)

    def rows(image: Tensor) -> Tensor:
        return image.permute(0, 2, 3, 1).reshape(batch, -1, channels)

    def pullback(slope: Tensor) -> Tensor:
        shape = (batch, channels, *size)
        slope = planes(slope, larger)
        return rows(torch.ops.aten.upsample_bilinear2d_backward(slope, larger, shape, False, None, None))

    return rows(F.interpolate(planes(x, size), size=larger, mode="bilinear")), pullback
