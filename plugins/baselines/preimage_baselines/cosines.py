"""Sparsity in the cosine basis."""

from typing import Literal

import torch
from torch import Tensor

from preimage import Shape, check_shape
from preimage.transforms import dct2, idct2

from .checks import not_negative
from .gradient import check_image_shape
from .sparsity import (
    OrthonormalSparsity,
    OrthonormalTransform,
    channel_weights,
    check_chroma,
    check_colour,
    mix,
    opponent_matrix,
)


class CosineTransform(OrthonormalTransform):
    """The two-dimensional orthonormal DCT-II of each channel, after an orthonormal change of colours if there is one.

    - `colours`: (C, C) orthonormal, one row for each new channel, or None.
    """

    colours: Tensor | None

    def __init__(self, in_shape: Shape, colours: Tensor | None = None):
        super().__init__(in_shape)
        self.register_buffer("colours", colours)

    def forward(self, x: Tensor) -> Tensor:
        return dct2(x if self.colours is None else mix(self.colours, x))

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of CosineTransform")
        x = idct2(y)
        return x if self.colours is None else mix(self.colours.mT, x)


class CosineSparsity(OrthonormalSparsity):
    """R(x) = sum over channels and frequencies of w |c|, c the orthonormal DCT-II of a channel of x (Ahmed, Natarajan &
    Rao 1974; as the prior of compressive sensing: Bora et al. 2017, section 6, "Lasso-DCT").

    - `colour`: "channels" (default): the channels as they are. "opponent": in the orthonormal basis brightness, red
      against blue, green against both (`opponent_matrix`), in which natural images are sparser; needs 3 channels.
    - `exponent`: p >= 0, default 0: w = f^p, f = sqrt((k / H)^2 + (l / W)^2) the frequency of coefficient (k, l) in
      units of the Nyquist frequency of one axis, so that w does not depend on the size of the image. For p > 0 the
      mean of a channel is not penalised. The spectrum of photographs falls like 1 / f (Field 1987): p = 1 asks as much
      of every frequency.
    - `chroma`: >= 0, default 1: a further factor of w for the two colour differences of "opponent".

    The proximal map is exact. Raises `BadParameter` for an exponent or chroma that is negative or not finite, for
    "opponent" with other than 3 channels, for chroma other than 1 without "opponent"; `ShapeMismatch` unless in_shape
    is (C, H, W).
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        colour: Literal["channels", "opponent"] = "channels",
        exponent: float = 0.0,
        chroma: float = 1.0,
    ):
        check_image_shape(in_shape, "the cosine prior")
        check_colour(colour, in_shape)
        not_negative("exponent", exponent)
        check_chroma(chroma, colour)
        weights = frequency(in_shape[-2:]).pow(exponent) * channel_weights(in_shape, chroma)
        super().__init__(in_shape, weights)
        self.colour, self.exponent, self.chroma = colour, exponent, chroma
        self._transform = CosineTransform(in_shape, opponent_matrix() if colour == "opponent" else None)

    def transform(self) -> OrthonormalTransform:
        return self._transform


def frequency(size: tuple[int, ...]) -> Tensor:
    """Of each DCT coefficient of an image (H, W), in units of the Nyquist frequency of one axis: (H, W), float64."""
    down, along = (torch.arange(n, dtype=torch.float64) / n for n in size)
    return (down[:, None].square() + along.square()).sqrt()
