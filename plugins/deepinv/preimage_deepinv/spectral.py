# ruff: noqa: A002 (filter is deepinv's name for it)
"""Operators over colour channels and spectral bands: deepinv/decolorize, deepinv/pansharpen and so on."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from preimage import Key, Shape
from preimage.errors import BadParameter

from ._bridge import DecomposableBridge, LinearBridge, check_image, count
from ._deepinv import build, generator, lookup
from .kernels import Rows, rows


class Decolorize(DecomposableBridge):
    """y = sum_c w_c x_c: (C, H, W) -> (1, H, W).

    - `srf`: the weights (spectral response): "rec601" (0.299, 0.587, 0.114, for three channels), "flat" and "average"
      (1/C), "random" (uniform, divided by their sum, drawn from the key), or C numbers with sum 1.
    """

    deepinv = "Decolorize"
    square = False
    instead: ClassVar[Mapping[str, str]] = {"channels": "in_shape", "device": ".to"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        srf: Literal["rec601", "flat", "average", "random"] | tuple[float, ...] = "rec601",
        key: Key | None = None,
    ):
        check_image(in_shape, "deepinv/decolorize")
        if srf == "random" and key is None:
            raise BadParameter("srf is 'random', and there is no key to draw it from", "a preimage.Key", "pass key")
        super().__init__(in_shape, build("physics.Decolorize", channels=in_shape[0], srf=srf, seed=key))

    def refresh(self) -> None:
        physics = self.physics
        physics.mask = torch.linalg.vector_norm(physics.srf, dim=1, keepdim=True)


class Pansharpen(LinearBridge):
    """A colour image of low and a grey one of full resolution: (C, H, W) -> (C H W / factor^2 + H W,).

    The measurement is a vector: first the colour image of deepinv/downsampling, then the grey image of
    deepinv/decolorize, both flattened.

    - `filter`, `factor`, `padding`: as for deepinv/downsampling. `srf`: as for deepinv/decolorize.
    """

    deepinv = "Pansharpen"
    instead: ClassVar[Mapping[str, str]] = {
        "img_size": "in_shape",
        "noise_color": "the noise of the pipeline",
        "noise_gray": "the noise of the pipeline",
        "use_brovey": "only for its A_dagger",
        "normalize": "only for its A_dagger",
        "eps": "only for its A_dagger",
        "device": ".to",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        filter: Literal["gaussian", "bilinear", "bicubic", "sinc"] | Rows | None = "bilinear",
        factor: int = 4,
        srf: Literal["rec601", "flat", "average"] | tuple[float, ...] = "flat",
        padding: Literal["valid", "circular", "replicate", "reflect", "zeros", "constant"] = "circular",
    ):
        check_image(in_shape, "deepinv/pansharpen")
        if factor < 1:
            raise BadParameter(f"factor is {factor}", "a whole number of at least 1")
        physics = build(
            "physics.Pansharpen",
            img_size=tuple(in_shape),
            filter=rows(filter) if isinstance(filter, tuple) else filter,
            factor=factor,
            srf=srf,
            padding=padding,
        )
        super().__init__(in_shape, physics)
        colour, grey = physics.A(torch.zeros((1, *in_shape)))
        self.part_shapes: tuple[Shape, Shape] = (tuple(colour.shape[1:]), tuple(grey.shape[1:]))
        self.parts = lookup("utils.TensorList")

    def from_deepinv(self, y: Any) -> Tensor:
        return torch.cat((y[0].flatten(1), y[1].flatten(1)), 1)

    def measurement_to_deepinv(self, y: Tensor) -> Any:
        first, second = self.part_shapes
        colour, grey = y.split((count(first), count(second)), 1)
        return self.parts([colour.unflatten(1, first), grey.unflatten(1, second)])


class HyperSpectralUnmixing(LinearBridge):
    """y_c = sum_e M_ec x_e in every pixel: abundances of E materials (E, H, W) -> C spectral bands (C, H, W).

    - `C`: number of bands. - `M`: the spectra, E rows of C numbers; drawn from the key (uniform, bands divided by their
      sums) if not given.
    """

    deepinv = "HyperSpectralUnmixing"
    instead: ClassVar[Mapping[str, str]] = {"E": "in_shape", "device": ".to"}

    def __init__(self, in_shape: Shape, *, C: int = 64, M: Rows | None = None, key: Key | None = None):
        check_image(in_shape, "deepinv/hyperspectral-unmixing")
        if M is None and key is None:
            raise BadParameter("there are no spectra M and no key to draw them from", "M or a preimage.Key")
        spectra = None if M is None else rows(M)[0, 0]
        if spectra is not None and len(spectra) != in_shape[0]:
            raise BadParameter(f"M has {len(spectra)} rows", f"one for each of the {in_shape[0]} materials")
        super().__init__(in_shape, build("physics.HyperSpectralUnmixing", M=spectra, E=in_shape[0], C=C, seed=key))


class CompressiveSpectralImaging(LinearBridge):
    """One coded snapshot of C bands (CASSI): (C, H, W) -> (1, H, W) for mode "ss", one side longer by C - 1 for "sd".

    - `mask`: the fraction of open cells of the coded aperture, drawn from the key; 0.5 if not given.
    - `mode`: "ss", spatial and spectral coding (shear, mask, shear back, sum), or "sd", single disperser (mask, shear,
      sum). `shear_dir`: bands are shifted along "h", the height, or "w".
    """

    deepinv = "CompressiveSpectralImaging"
    transpose_of = "autodiff"
    instead: ClassVar[Mapping[str, str]] = {"img_size": "in_shape", "device": ".to", "rng": "key"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        mask: float | None = None,
        mode: Literal["ss", "sd"] = "ss",
        shear_dir: Literal["h", "w"] = "h",
        key: Key,
    ):
        check_image(in_shape, "deepinv/compressive-spectral-imaging")
        if in_shape[0] < 2:
            raise BadParameter("images have one band", "at least two bands, which the snapshot mixes")
        physics = build(
            "physics.CompressiveSpectralImaging",
            img_size=tuple(in_shape),
            mask=mask,
            mode=mode,
            shear_dir=shear_dir,
            rng=generator(key),
            seed=key,
        )
        super().__init__(in_shape, physics)
