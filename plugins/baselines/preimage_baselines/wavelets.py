"""Sparsity in orthonormal wavelet bases."""

from typing import Literal

import pywt
import torch

from preimage import Shape
from preimage.errors import BadParameter

from .gradient import check_image_shape
from .sparsity import OrthonormalSparsity, OrthonormalTransform, channel_weights, check_chroma, check_colour
from .wavelet_transform import WaveletTransform


class WaveletSparsity(OrthonormalSparsity):
    """R(x) = sum over channels and scales of w |c|, c the coefficients of x in an orthonormal wavelet basis
    (Mallat 2009, "A wavelet tour of signal processing", sections 7.7 and 10.2).

    - `wavelet`: any orthogonal wavelet of PyWavelets: "haar" (default), "db2" ... "db38", "sym2" ... "sym20", "coif1"
      ... "coif17". The image is extended periodically, because no other extension keeps the basis orthonormal.
    - `levels`: how often the coarse image is divided; None (default): as often as its sides are even, so 6 for
      64 x 64 and Haar down to one mean per channel.
    - `penalise_approximation`: True (default); False leaves the coarse image alone.
    - `colour`, `chroma`: as for the cosine prior: "opponent" is an orthonormal basis of brightness and colour
      differences, the latter with the further weight `chroma`.

    The proximal map is exact. The penalty is not invariant to shifts of the image. Raises `BadParameter` for a wavelet
    that is unknown or not orthogonal, for levels that the size of the image does not allow (2^levels must divide both
    sides), and as the cosine prior; `ShapeMismatch` unless in_shape is (C, H, W).
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        wavelet: str = "haar",
        levels: int | None = None,
        penalise_approximation: bool = True,
        colour: Literal["channels", "opponent"] = "channels",
        chroma: float = 1.0,
    ):
        check_image_shape(in_shape, "the wavelet prior")
        check_colour(colour, in_shape)
        check_chroma(chroma, colour)
        low_pass = orthogonal_filter(wavelet)
        depth = deepest(in_shape) if levels is None else levels
        check_levels(in_shape, depth)
        weights = torch.ones(in_shape, dtype=torch.float64) * channel_weights(in_shape, chroma)
        if not penalise_approximation:
            weights[..., : in_shape[-2] >> depth, : in_shape[-1] >> depth] = 0
        super().__init__(in_shape, weights)
        self.wavelet, self.levels, self.colour, self.chroma = wavelet, depth, colour, chroma
        self.penalise_approximation = penalise_approximation
        self._transform = WaveletTransform(in_shape, low_pass, depth, opponent=colour == "opponent")

    def transform(self) -> OrthonormalTransform:
        return self._transform


def orthogonal_filter(name: str) -> tuple[float, ...]:
    """The low-pass analysis filter of a wavelet of PyWavelets. Raises `BadParameter` unless it is orthonormal."""
    if name not in pywt.wavelist(kind="discrete"):  # pyright: ignore[reportAttributeAccessIssue] (star imports)
        found, remedy = f"wavelet is {name!r}, which PyWavelets does not know", 'write wavelet = "db4", say'
        raise BadParameter(found, "a discrete wavelet: haar, db2, sym4, coif2, ...", remedy)
    wavelet = pywt.Wavelet(name)  # pyright: ignore[reportAttributeAccessIssue]
    low_pass = torch.tensor(wavelet.dec_lo, dtype=torch.float64)
    length = len(low_pass)
    # <g, g shifted by s> for even s: one at zero, zero elsewhere. "dmey" is a truncation, and only nearly orthogonal.
    overlaps = torch.stack([low_pass[s:] @ low_pass[: length - s] for s in range(0, length, 2)])
    overlaps[0] -= 1
    if not wavelet.orthogonal or float(overlaps.abs().max()) > 1e-8:
        raise BadParameter(
            f"wavelet {name!r} is not orthonormal",
            "an orthogonal wavelet: haar, dbN, symN or coifN",
            'write wavelet = "sym4", which is nearly symmetric',
        )
    return tuple(low_pass.tolist())


def deepest(in_shape: Shape) -> int:
    """How often both sides of the image can be halved."""
    levels = 0
    while all(side % 2 ** (levels + 1) == 0 for side in in_shape[-2:]):
        levels += 1
    return levels


def check_levels(in_shape: Shape, levels: int) -> None:
    """Raise `BadParameter` unless levels >= 1 and 2^levels divides both sides."""
    height, width = in_shape[-2:]
    if (most := deepest(in_shape)) == 0:
        raise BadParameter(
            f"an orthonormal wavelet basis for images of {height} x {width}", "even sides", "crop to even sides"
        )
    if not 1 <= levels <= most:
        raise BadParameter(
            f"levels is {levels} for images of {height} x {width}",
            f"1 to {most}: 2^levels must divide both sides",
            f"leave it out for {most} levels, or crop to sides with more factors of two",
        )
