# ruff: noqa: A002 (filter is deepinv's name for it)
"""Blurs and changes of resolution: the operators deepinv/blur, deepinv/downsampling and so on."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from torch import Tensor

from preimage import Key, Shape, check_shape
from preimage.errors import BadParameter

from ._bridge import DecomposableBridge, LinearBridge, check_image
from ._deepinv import build, call
from .kernels import Filter, Rows, kernel, psf_generator, rows

Padding = Literal["valid", "circular", "replicate", "reflect", "zeros", "constant"]

_KERNEL = "filter, sigma, angle, size, key"


class Blur(LinearBridge):
    """y = h * x, a convolution of every channel: (C, H, W) -> (C, H', W').

    With padding "valid" only where the kernel fits, H' = H - h + 1; otherwise H' = H, the image going on by itself
    ("circular"), its border pixel ("replicate"), mirrored without the border pixel ("reflect") or zero ("zeros" and
    "constant", which are the same).

    - `filter`, `sigma`, `angle` (degrees), `size`: the kernel (`preimage_deepinv.kernels.kernel`); "motion" and
      "diffraction" are drawn from the key.
    - `padding`: how the image goes on. `use_fft`: convolve through the Fourier transform.

    Raises `BadParameter` for a kernel larger than the image and whatever else deepinv refuses.
    """

    deepinv = "Blur"
    instead: ClassVar[Mapping[str, str]] = {"filter": _KERNEL, "device": ".to"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        filter: Filter = "gaussian",
        sigma: float = 1.0,
        angle: float = 0.0,
        size: int = 31,
        padding: Padding = "valid",
        use_fft: bool = False,
        key: Key | None = None,
    ):
        check_image(in_shape, "deepinv/blur")
        h = kernel(filter, sigma, angle, size, key)
        super().__init__(in_shape, build("physics.Blur", filter=h, padding=padding, use_fft=use_fft))


class BlurFFT(DecomposableBridge):
    """y = h * x with circular boundary, by Fourier transforms: (C, H, W) -> (C, H, W). Exact norm and `solve_normal`.

    - `filter`, `sigma`, `angle`, `size`: as for deepinv/blur.
    """

    deepinv = "BlurFFT"
    instead: ClassVar[Mapping[str, str]] = {"img_size": "in_shape", "filter": _KERNEL, "device": ".to"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        filter: Filter = "gaussian",
        sigma: float = 1.0,
        angle: float = 0.0,
        size: int = 31,
        key: Key | None = None,
    ):
        check_image(in_shape, "deepinv/blur-fft")
        h = kernel(filter, sigma, angle, size, key)
        super().__init__(in_shape, build("physics.BlurFFT", img_size=tuple(in_shape), filter=h))

    def refresh(self) -> None:
        self.physics.update_parameters(filter=self.physics.filter)


class SpaceVaryingBlur(LinearBridge):
    """y = sum_k h_k * (w_k x), or sum_k w_k (h_k * x) if not `mask_first`: (C, H, W) -> (C, H', W').

    The kernels h_k and weights w_k are the product-convolution expansion of a blur that changes over the image, drawn
    from the key by deepinv's ProductConvolutionBlurGenerator.

    - `filter`: "motion" or "diffraction"; `size`: of its kernels.
    - `n_eigen_psf`: number of terms. `spacing`: the kernel is drawn every so many pixels, (rows, columns); H / 8 and
      W / 8 if not given.
    - `padding`, `use_fft`: as for deepinv/blur.
    """

    deepinv = "SpaceVaryingBlur"
    instead: ClassVar[Mapping[str, str]] = {
        "filters": "filter, size, n_eigen_psf, spacing, key",
        "multipliers": "filter, size, n_eigen_psf, spacing, key",
        "device": ".to",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        filter: Literal["motion", "diffraction"] = "diffraction",
        size: int = 31,
        n_eigen_psf: int = 10,
        spacing: tuple[int, int] | None = None,
        padding: Padding = "valid",
        use_fft: bool = False,
        mask_first: bool = True,
        key: Key,
    ):
        check_image(in_shape, "deepinv/space-varying-blur")
        draw = build(
            "physics.generator.ProductConvolutionBlurGenerator",
            psf_generator=psf_generator(filter, size, key),
            img_size=(in_shape[1], in_shape[2]),
            n_eigen_psf=n_eigen_psf,
            spacing=spacing,
            seed=key,
        )
        terms = _step(draw, key)
        physics = build(
            "physics.SpaceVaryingBlur",
            filters=terms["filters"],
            multipliers=terms["multipliers"],
            padding=padding,
            use_fft=use_fft,
            mask_first=mask_first,
        )
        super().__init__(in_shape, physics)


class TiledSpaceVaryingBlur(LinearBridge):
    """A blur with one kernel for each of a grid of overlapping patches, blended: (C, H, W) -> (C, H', W').

    H' = H - h + 1 and W' = W - w + 1 for kernels (h, w).

    - `filter`: "motion" or "diffraction", drawn from the key for each patch; `size`: of the kernels.
    - `patch_size`, `stride`: of the patches, in pixels. stride: half the patch if not given.
    - `blending_mode`: "bump" or "linear" weights where patches overlap. `use_fft`: as for deepinv/blur.
    """

    deepinv = "TiledSpaceVaryingBlur"
    instead: ClassVar[Mapping[str, str]] = {"filters": "filter, size, key", "device": ".to", "dtype": ".to"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        patch_size: int,
        stride: int | None = None,
        filter: Literal["motion", "diffraction"] = "diffraction",
        size: int = 31,
        blending_mode: Literal["bump", "linear"] = "bump",
        use_fft: bool = True,
        key: Key,
    ):
        check_image(in_shape, "deepinv/tiled-space-varying-blur")
        tiles = {"patch_size": patch_size, "stride": stride}
        psf = psf_generator(filter, size, key)
        draw = build("physics.generator.TiledBlurGenerator", psf_generator=psf, **tiles, seed=key)
        filters = _step(draw, key, img_size=(in_shape[1], in_shape[2]))["filters"]
        physics = build(
            "physics.TiledSpaceVaryingBlur", filters=filters, **tiles, blending_mode=blending_mode, use_fft=use_fft
        )
        super().__init__(in_shape, physics)


class Downsampling(LinearBridge):
    """y = (h * x) at every `factor`-th pixel: (C, H, W) -> (C, H / factor, W / factor).

    - `filter`: an antialiasing kernel made for the factor, rows of numbers, or None for bare decimation.
    - `padding`: as for deepinv/blur. With "circular", a filter and lengths that the factor divides, `solve_normal` is
      exact (Zhao et al., "Fast single image super-resolution using a new analytical solution", IEEE Trans. Image
      Process. 25, 2016).

    Raises `BadParameter` for a factor below 1.
    """

    deepinv = "Downsampling"
    instead: ClassVar[Mapping[str, str]] = {"img_size": "in_shape", "device": ".to"}
    changed_defaults: ClassVar[Mapping[str, str]] = {"filter": "deepinv's 'warn' means None, with a warning"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        filter: Literal["gaussian", "bilinear", "bicubic", "sinc"] | Rows | None = None,
        factor: int = 2,
        padding: Padding = "circular",
    ):
        check_image(in_shape, "deepinv/downsampling")
        _check_factor(factor)
        h = rows(filter) if isinstance(filter, tuple) else filter
        physics = build("physics.Downsampling", img_size=tuple(in_shape), filter=h, factor=factor, padding=padding)
        super().__init__(in_shape, physics)
        divides = in_shape[1] % factor == in_shape[2] % factor == 0
        self.closed_form = divides and padding == "circular" and filter is not None

    def solve_normal(self, b: Tensor, shift: float | Tensor) -> Tensor | None:
        """(A^T A + shift I)^-1 b by deepinv's prox_l2 at y = 0, if it has the closed form."""
        if not self.closed_form:
            return None
        check_shape(b, self.in_shape, "right-hand side of the normal equations of Downsampling")
        self.check_dtype(b)
        step = 1 / (shift.to(b).reshape(-1, 1, 1, 1) if isinstance(shift, Tensor) and shift.ndim else shift)
        zero = b.new_zeros((len(b), *self.out_shape))
        return cast(Tensor, self.physics.prox_l2(b * step, zero, step))


class DownsamplingMatlab(LinearBridge):
    """y = imresize(x, 1 / factor) as Matlab does it: (C, H, W) -> (C, H / factor, W / factor).

    - `factor`: every length is divided by it. `kernel`: "cubic" or "gaussian"; `antialiasing`: widen it by the factor.
    - `padding`: "reflect", mirrored with the border pixel, as Matlab.
    """

    deepinv = "DownsamplingMatlab"
    instead: ClassVar[Mapping[str, str]] = {"device": ".to"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        factor: int = 2,
        kernel: Literal["cubic", "gaussian"] = "cubic",
        padding: Literal["reflect"] = "reflect",
        antialiasing: bool = True,
    ):
        check_image(in_shape, "deepinv/downsampling-matlab")
        _check_factor(factor)
        physics = build(
            "physics.DownsamplingMatlab", factor=factor, kernel=kernel, padding=padding, antialiasing=antialiasing
        )
        super().__init__(in_shape, physics)


class Upsampling(LinearBridge):
    """y = h^T * (x with `factor` - 1 zeros between pixels): (C, H, W) -> (C, factor H, factor W), the adjoint of
    deepinv/downsampling on the larger image.

    - `filter`, `factor`: as for deepinv/downsampling; `padding`: all but "valid".
    """

    deepinv = "Upsampling"
    instead: ClassVar[Mapping[str, str]] = {"img_size": "factor in_shape", "device": ".to"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        filter: Literal["gaussian", "bilinear", "bicubic", "sinc"] | Rows | None = None,
        factor: int = 2,
        padding: Literal["circular", "replicate", "reflect", "zeros", "constant"] = "circular",
    ):
        check_image(in_shape, "deepinv/upsampling")
        _check_factor(factor)
        larger = (in_shape[0], factor * in_shape[1], factor * in_shape[2])
        h = rows(filter) if isinstance(filter, tuple) else filter
        physics = build("physics.Upsampling", img_size=larger, filter=h, factor=factor, padding=padding)
        super().__init__(in_shape, physics)


def _check_factor(factor: int) -> None:
    if factor < 1:
        raise BadParameter(f"factor is {factor}", "a whole number of at least 1")


def _step(draw: Any, key: Key, **size: tuple[int, int]) -> dict[str, Tensor]:
    arguments = {"batch_size": 1, **size}
    return call(f"physics.generator.{type(draw).__name__}.step", draw.step, arguments, key)
