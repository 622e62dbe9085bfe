"""deepinv's denoisers without weights: filters, thresholding in wavelet frames, total generalised variation."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from torch import Tensor

from preimage import Shape
from preimage.errors import BadParameter, NotInstalled, ShapeMismatch

from ._deepinv import build
from .denoiser import WrappedDenoiser


class Median(WrappedDenoiser):
    """deepinv's MedianFilter: the median of a square window, with mirrored edges.

    - `kernel_size`: side of the window, an odd number >= 1; 3 by default (deepinv's default is 9).

    `denoise(x, sigma)` does not depend on sigma. It is no proximal map. Raises `BadParameter` for another kernel_size,
    `ShapeMismatch` unless images are (C, H, W) with sides above half the window.
    """

    def __init__(self, in_shape: Shape, *, kernel_size: int = 3):
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise BadParameter(f"kernel_size is {kernel_size}", "an odd number >= 1")
        check_sides(in_shape, "deepinv/median", kernel_size // 2 + 1)
        made = build("models.MedianFilter", kernel_size=kernel_size)
        super().__init__(in_shape, made, name="deepinv/median", one_by_one=False, fresh=False)


class Bilateral(WrappedDenoiser):
    """deepinv's BilateralFilter (Tomasi & Manduchi 1998): means weighted by nearness in space and in value.

    - `sigma_d`: standard deviation of the weights in space, in pixels, > 0, default 1.
    - `sigma_r`: of the weights in value, > 0; "twice-sigma" (default): twice the noise level that `denoise` is given
      (deepinv's default is 1, whatever the noise).
    - `window_size`: side of the window, an odd number >= 1, default 5.

    Outside of the image are zeros, as deepinv has it. Raises `BadParameter` for another value.
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        sigma_d: float = 1.0,
        sigma_r: Literal["twice-sigma"] | float = "twice-sigma",
        window_size: int = 5,
    ):
        if window_size < 1 or window_size % 2 == 0:
            raise BadParameter(f"window_size is {window_size}", "an odd number >= 1")
        positive("sigma_d", sigma_d)
        if sigma_r != "twice-sigma":
            positive("sigma_r", sigma_r)
        check_sides(in_shape, "deepinv/bilateral", 1)
        super().__init__(
            in_shape, build("models.BilateralFilter"), name="deepinv/bilateral", one_by_one=False, fresh=False
        )
        self.sigma_d, self.sigma_r, self.window_size = sigma_d, sigma_r, window_size

    def run(self, denoiser: Any, x: Tensor, sigma: Tensor) -> Tensor:
        # A range of zero would be 0 / 0 at the centre of the window.
        spread = (2 * sigma).clamp_min(1e-6) if self.sigma_r == "twice-sigma" else self.sigma_r
        return denoiser(x, sigma_d=self.sigma_d, sigma_r=spread, window_size=self.window_size)


class BM3D(WrappedDenoiser):
    """deepinv's BM3D (Dabov et al. 2007), by the authors' package bm3d, on the CPU; for non-commercial use only.

    deepinv gives the package no profile, so that it works on as many threads as the machine has, in an order that
    changes; here it is given its default profile with one thread, which makes it repeatable. As in deepinv, the
    channels of a colour image are filtered as they are; `prior/bm3d` of preimage-baselines goes to an opponent colour
    space first (C-BM3D).

    Raises `NotInstalled` without the package bm3d, `ShapeMismatch` unless images are (1 or 3, H, W) with sides >= 12.
    """

    def __init__(self, in_shape: Shape):
        check_sides(in_shape, "deepinv/bm3d", 12)
        if in_shape[0] not in (1, 3):
            raise ShapeMismatch(f"deepinv/bm3d got images with {in_shape[0]} channels", "1 or 3 channels")
        needs("bm3d", "deepinv/bm3d")
        made = build("models.BM3D")
        made.bm3d_lib = _OneThread()
        super().__init__(in_shape, made, name="deepinv/bm3d", one_by_one=False, fresh=False)


class _OneThread:
    """The part of the package bm3d that deepinv calls, with one thread."""

    def bm3d(self, image: Any, sigma: float) -> Any:
        package = import_module("bm3d")
        profile = package.BM3DProfile()
        profile.num_threads = 1
        return package.bm3d(image, sigma, profile)


class TotalGeneralizedVariation(WrappedDenoiser):
    """deepinv's TGVDenoiser: argmin_u 1/2 ||u - x||^2 + t min_r (0.1 ||r||_{1,2} + 0.15 ||J(D u - r)||_{1,F}), the
    total generalised variation of second order (Bredies, Kunisch & Pock 2010) with t = scale sigma.

    It is a proximal map, but deepinv has no way to evaluate the regulariser, so that this is a denoiser only;
    `prior/tgv` of preimage-baselines is proximable. deepinv's object goes on from its last image (with few iterations
    that costs many dB); here each image starts anew.

    - `scale`: > 0, default 1: the threshold is sigma itself, as in deepinv's plug-and-play prior.
    - `crit`: the inner iteration stops at this relative change; > 0, default 1e-6. `n_it_max`: at most so many steps,
      >= 1, default 1000.

    Raises `BadParameter` for another value.
    """

    def __init__(self, in_shape: Shape, *, scale: float = 1.0, crit: float = 1e-6, n_it_max: int = 1000):
        positive("scale", scale)
        positive("crit", crit)
        if n_it_max < 1:
            raise BadParameter(f"n_it_max is {n_it_max}", "an integer >= 1")
        check_sides(in_shape, "deepinv/tgv", 2)
        super().__init__(in_shape, build("models.TGVDenoiser", crit=crit, n_it_max=n_it_max), name="deepinv/tgv")
        self.scale = scale

    def run(self, denoiser: Any, x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, self.scale * sigma) if bool(sigma > 0) else x


class Wavelet(WrappedDenoiser):
    """deepinv's WaveletDenoiser: thresholding of the details in a wavelet decomposition, threshold scale sigma.

    - `wv`: a wavelet of PyWavelets, default "db8". `level`: of the decomposition, >= 1, default 3. `mode`: how images
      go on beyond their edges, default "zero" (with which the transform is not orthogonal, so that soft thresholding
      is no proximal map; `prior/wavelet-l1` of preimage-baselines is one).
    - `non_linearity`: "soft" (default) or "hard" thresholding.
    - `scale`: > 0, default 1: the threshold is sigma itself, as in deepinv's plug-and-play prior.

    Raises `NotInstalled` without the package ptwt, `BadParameter` for another value.
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        wv: str = "db8",
        level: int = 3,
        non_linearity: Literal["soft", "hard"] = "soft",
        mode: Literal["zero", "constant", "symmetric", "reflect", "periodic"] = "zero",
        scale: float = 1.0,
    ):
        _check_wavelets(in_shape, "deepinv/wavelet", [wv], level, scale)
        made = build("models.WaveletDenoiser", wv=wv, level=level, non_linearity=non_linearity, mode=mode)
        super().__init__(in_shape, made, name="deepinv/wavelet")
        self.scale = scale

    def run(self, denoiser: Any, x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, ths=self.scale * sigma)


class WaveletDictionary(WrappedDenoiser):
    """deepinv's WaveletDictDenoiser: soft thresholding in the union of several wavelet bases, by a parallel
    proximal algorithm.

    - `list_wv`: wavelets of PyWavelets, default db8 and db4. `level`: default 3. `max_iter`: steps, >= 1, default 10.
    - `non_linearity`, `mode`, `scale`: as for `Wavelet`.

    Raises `NotInstalled` without the package ptwt, `BadParameter` for another value.
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        list_wv: tuple[str, ...] = ("db8", "db4"),
        level: int = 3,
        max_iter: int = 10,
        non_linearity: Literal["soft", "hard"] = "soft",
        mode: Literal["zero", "constant", "symmetric", "reflect", "periodic"] = "zero",
        scale: float = 1.0,
    ):
        _check_wavelets(in_shape, "deepinv/wavelet-dictionary", list_wv, level, scale)
        if max_iter < 1:
            raise BadParameter(f"max_iter is {max_iter}", "an integer >= 1")
        arguments: dict[str, Any] = {"list_wv": list(list_wv), "level": level, "max_iter": max_iter}
        made = build("models.WaveletDictDenoiser", non_linearity=non_linearity, mode=mode, **arguments)
        super().__init__(in_shape, made, name="deepinv/wavelet-dictionary")
        self.scale = scale

    def run(self, denoiser: Any, x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, ths=self.scale * sigma)


def _check_wavelets(in_shape: Shape, who: str, wavelets: Any, level: int, scale: float) -> None:
    needs("ptwt", who, "its licence is the EUPL 1.2")
    known = import_module("pywt").wavelist(kind="discrete")
    if unknown := [name for name in wavelets if name not in known]:
        raise BadParameter(
            f"there is no wavelet {unknown[0]!r}", "a discrete wavelet of PyWavelets: haar, db2, sym4 ..."
        )
    if not wavelets or level < 1:
        raise BadParameter(f"{who} got {len(wavelets)} wavelets and level {level}", "at least one of each")
    positive("scale", scale)
    check_sides(in_shape, who, 2)


def needs(package: str, who: str, note: str = "") -> None:
    """Raise `NotInstalled` unless the package can be imported."""
    if find_spec(package) is None:
        expected = f"the package {package}" + (f" ({note})" if note else "")
        raise NotInstalled(
            f"{who} needs the package {package}, which is not installed", expected, f"pip install {package}"
        )


def positive(name: str, value: float) -> None:
    """Raise `BadParameter` unless value is finite and > 0."""
    if not 0 < value < float("inf"):
        raise BadParameter(f"{name} is {value}", "a finite number > 0")


def check_sides(in_shape: Shape, who: str, smallest: int) -> None:
    """Raise `ShapeMismatch` unless in_shape is (C, H, W) with sides of at least `smallest`."""
    if len(in_shape) != 3 or min(in_shape[1:]) < smallest:
        wanted = "images (C, H, W)" + (f" with sides of at least {smallest}" if smallest > 1 else "")
        raise ShapeMismatch(f"{who} got images of shape {tuple(in_shape)}", wanted)
