"""Operators that keep, drop or mix pixels: the operators deepinv/inpainting, deepinv/compressed-sensing and so on."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

from preimage import Key, Shape
from preimage.errors import BadParameter

from ._bridge import DecomposableBridge, LinearBridge, check_image
from ._deepinv import build, generator, lookup


class Denoising(DecomposableBridge):
    """y = x, any shape."""

    deepinv = "Denoising"
    instead: ClassVar[Mapping[str, str]] = {"noise_model": "the noise of the pipeline", "device": ".to"}

    def __init__(self, in_shape: Shape):
        super().__init__(in_shape, build("physics.Denoising", noise_model=lookup("physics.ZeroNoise")()))


class Inpainting(DecomposableBridge):
    """y = mask * x with a random mask of zeros and ones, the same for all images: (C, H, W) -> (C, H, W).

    - `mask`: the fraction of pixels that are kept, between 0 and 1.
    - `pixelwise`: a pixel is kept in all channels or in none.

    The mask is drawn from the key.
    """

    deepinv = "Inpainting"
    instead: ClassVar[Mapping[str, str]] = {"img_size": "in_shape", "device": ".to", "rng": "key"}
    changed_defaults: ClassVar[Mapping[str, str]] = {"mask": "None in deepinv, which gives an operator that cannot run"}

    def __init__(self, in_shape: Shape, *, mask: float = 0.5, pixelwise: bool = True, key: Key):
        check_image(in_shape, "deepinv/inpainting")
        if not 0 < mask <= 1:
            raise BadParameter(f"mask is {mask}", "the fraction of pixels to keep, above 0 and at most 1")
        physics = build(
            "physics.Inpainting",
            img_size=tuple(in_shape),
            mask=float(mask),
            pixelwise=pixelwise,
            rng=generator(key),
            seed=key,
        )
        del physics.gen  # the generator of the mask, which is drawn
        super().__init__(in_shape, physics)


class Demosaicing(DecomposableBridge):
    """y = mask * x with the mask of a Bayer colour filter: (3, H, W) -> (3, H, W), two of three values zero.

    - `pattern`: of the filter.
    """

    deepinv = "Demosaicing"
    instead: ClassVar[Mapping[str, str]] = {"img_size": "in_shape", "device": ".to"}

    def __init__(self, in_shape: Shape, *, pattern: Literal["bayer"] = "bayer"):
        check_image(in_shape, "deepinv/demosaicing", channels=3)
        super().__init__(in_shape, build("physics.Demosaicing", img_size=tuple(in_shape), pattern=pattern))


class CompressedSensing(LinearBridge):
    """y = A vec(x), A (m, n) with independent entries N(0, 1/m): (C, H, W) -> (m,), or (C, m) if `channelwise`.

    deepinv computes the pseudoinverse of A in its constructor, in O(m^2 n) operations and as much memory as A, and
    nothing here uses it; the operator compressive-sensing does without, and knows `solve_normal`.

    - `m`: number of measurements. - `channelwise`: one A for all channels, each on its own. A is drawn from the key.
    """

    deepinv = "CompressedSensing"
    instead: ClassVar[Mapping[str, str]] = {"img_size": "in_shape", "device": ".to", "dtype": ".to", "rng": "key"}

    def __init__(self, in_shape: Shape, *, m: int, channelwise: bool = False, key: Key):
        check_image(in_shape, "deepinv/compressed-sensing")
        check_count(m)
        physics = build(
            "physics.CompressedSensing", m=m, img_size=tuple(in_shape), channelwise=channelwise, rng=generator(key)
        )
        super().__init__(in_shape, physics)


class SinglePixelCamera(DecomposableBridge):
    """m Hadamard coefficients of each channel, or m random sign patterns: the single-pixel camera.

    - `m`: number of measurements. `fast`: Hadamard patterns, (C, H, W) -> (C, H, W), zero where not measured, for
      lengths that are powers of two; otherwise a matrix of random signs over sqrt(m), drawn from the key, (C, H, W) ->
      (C, m).
    - `ordering`: which Hadamard coefficients come first.
    """

    deepinv = "SinglePixelCamera"
    instead: ClassVar[Mapping[str, str]] = {"img_size": "in_shape", "device": ".to", "dtype": ".to", "rng": "key"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        m: int,
        fast: bool = True,
        ordering: Literal["sequency", "cake_cutting", "zig_zag", "xy"] = "sequency",
        key: Key,
    ):
        check_image(in_shape, "deepinv/single-pixel-camera")
        check_count(m, in_shape[1] * in_shape[2])
        physics = build(
            "physics.SinglePixelCamera",
            m=m,
            img_size=tuple(in_shape),
            fast=fast,
            ordering=ordering,
            rng=generator(key),
        )
        super().__init__(in_shape, physics)
        self.square = fast

    def refresh(self) -> None:
        if not self.square:  # factors rounded to float32 are not orthogonal in float64
            physics = self.physics
            factors = torch.linalg.svd(physics.u * physics.mask @ physics.vh, full_matrices=False)
            physics.u, physics.mask, physics.vh = factors.U, factors.S[None], factors.Vh


class StructuredRandom(LinearBridge):
    """y = prod_i (F D_i) x, D_i random signs and F the sine transform along rows: (C, H, W) -> (C, H', W').

    - `output_size`: (C, H', W'), both lengths at most or both at least those of the image; that of the image if not
      given. A larger image is cropped at the end, a smaller one padded with zeros at the start.
    - `n_layers`: number of layers F D; a further half layer, as in 1.5, is an F at the start. D_i are drawn from
      the key.

    Source: Dong et al., "Asymptotic stability in reservoir computing", 2022 (deepinv's reference).
    """

    deepinv = "StructuredRandom"
    instead: ClassVar[Mapping[str, str]] = {
        "img_size": "in_shape",
        "diagonals": "key",
        "transform_func": "the sine transform",
        "transform_func_inv": "the sine transform",
        "device": ".to",
        "rng": "key",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        output_size: tuple[int, int, int] | None = None,
        n_layers: float = 1,
        key: Key,
    ):
        check_image(in_shape, "deepinv/structured-random")
        check_layers(n_layers)
        out_shape = tuple(in_shape) if output_size is None else output_size
        check_output_size(in_shape, out_shape)
        # deepinv draws signs of the image's shape, which do not fit where the image is padded.
        shape = tuple(map(max, in_shape, out_shape))
        uniform = key.child("diagonals").uniform((int(n_layers), *shape), like=torch.zeros(()))
        physics = build(
            "physics.StructuredRandom",
            img_size=tuple(in_shape),
            output_size=out_shape,
            n_layers=n_layers,
            diagonals=torch.where(uniform < 0.5, -1.0, 1.0),
        )
        super().__init__(in_shape, physics)


def check_count(m: int, most: float = math.inf) -> None:
    """Raise `BadParameter` unless 1 <= m <= most."""
    if not 1 <= m <= most:
        expected = "at least 1 measurement" if most == math.inf else f"1 to {most} measurements"
        raise BadParameter(f"m is {m}", expected)


def check_layers(n_layers: float) -> None:
    """Raise `BadParameter` unless n_layers is a positive multiple of one half."""
    if n_layers <= 0 or 2 * n_layers % 1:
        raise BadParameter(f"n_layers is {n_layers}", "a positive whole number, or one and a half and so on")


def check_output_size(in_shape: Shape, out_shape: Shape) -> None:
    """Raise `BadParameter` unless both lengths are at most, or both at least, those of the image."""
    wrong = len(out_shape) != 3 or out_shape[0] != in_shape[0] or min(out_shape) < 1
    if wrong or (out_shape[1] - in_shape[1]) * (out_shape[2] - in_shape[2]) < 0:
        expected = f"({in_shape[0]}, H, W), both lengths at most {tuple(in_shape[1:])}, or both at least"
        raise BadParameter(f"output_size is {tuple(out_shape)}", expected)
