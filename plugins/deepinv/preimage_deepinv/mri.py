"""Magnetic resonance imaging: the operators deepinv/mri, deepinv/multi-coil-mri and so on."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from preimage import Key, Shape
from preimage.errors import BadParameter, ShapeMismatch

from ._bridge import DecomposableBridge, LinearBridge
from ._deepinv import build, call, generator

Sampling = Literal["gaussian", "uniform", "equispaced", "full"]
"""How the sampled columns of k-space are drawn."""

_GENERATORS = {
    "gaussian": "GaussianMaskGenerator",
    "uniform": "RandomMaskGenerator",
    "equispaced": "EquispacedMaskGenerator",
}
_MASK: Mapping[str, str] = {"mask": "mask, acceleration, center_fraction, key", "img_size": "in_shape", "device": ".to"}


class MRI(DecomposableBridge):
    """y = mask * F x, F the orthonormal centred Fourier transform of a complex image: (2, H, W) -> (2, H, W).

    Channel 0 is the real, channel 1 the imaginary part, of the image and of k-space, which is zero where not sampled. A
    real image (1, H, W) is taken with imaginary part 0; the adjoint is then the real part, without `solve_normal`.

    - `mask`: which columns are sampled, drawn from the key by deepinv's generators: "gaussian" (more often near the
      centre), "uniform", "equispaced" (with a random offset), or "full".
    - `acceleration`: one of so many columns. - `center_fraction`: of the columns around the centre, always sampled;
      deepinv's rule for the acceleration if not given.
    - `three_d`: volumes (2, D, H, W), transformed along all three axes; the mask is the same for all D.
    """

    deepinv = "MRI"
    instead: ClassVar[Mapping[str, str]] = _MASK

    def __init__(
        self,
        in_shape: Shape,
        *,
        mask: Sampling = "gaussian",
        acceleration: int = 4,
        center_fraction: float | None = None,
        three_d: bool = False,
        key: Key | None = None,
    ):
        size = (2, *in_shape[1:])
        self.real = check_complex(in_shape, "deepinv/mri", "(2, D, H, W)" if three_d else "(2, H, W)", real=True)
        sampled = columns(mask, acceleration, center_fraction, (2, *size[-2:]), key)
        sampled = sampled[:, :, None].expand(1, *size) if three_d else sampled
        super().__init__(in_shape, build("physics.MRI", mask=sampled, img_size=size, three_d=three_d))

    def to_deepinv(self, x: Tensor) -> Any:
        return torch.cat((x, torch.zeros_like(x)), 1) if self.real else x

    def image_from_deepinv(self, x: Any) -> Tensor:
        return x[:, :1] if self.real else x

    def solve_normal(self, b: Tensor, shift: float | Tensor) -> Tensor | None:
        return None if self.real else super().solve_normal(b, shift)


class DynamicMRI(DecomposableBridge):
    """deepinv/mri of a film, with its own columns in each frame: (2, T, H, W) -> (2, T, H, W).

    - `mask`, `acceleration`, `center_fraction`: as for deepinv/mri.
    """

    deepinv = "DynamicMRI"
    instead: ClassVar[Mapping[str, str]] = _MASK | {"three_d": "without effect in deepinv"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        mask: Sampling = "gaussian",
        acceleration: int = 4,
        center_fraction: float | None = None,
        key: Key | None = None,
    ):
        check_complex(in_shape, "deepinv/dynamic-mri", "(2, T, H, W)")
        sampled = columns(mask, acceleration, center_fraction, tuple(in_shape), key)
        super().__init__(in_shape, build("physics.DynamicMRI", mask=sampled, img_size=tuple(in_shape)))


class SequentialMRI(LinearBridge):
    """A still image, measured in frames that each sample other columns: (2, H, W) -> (2, frames, H, W).

    - `frames`: number of frames. `mask`, `acceleration`, `center_fraction`: as for deepinv/mri.
    """

    deepinv = "SequentialMRI"
    transpose_of = "autodiff"
    single = True  # deepinv expands the image to the shape of the mask, with batch size 1
    instead: ClassVar[Mapping[str, str]] = _MASK | {"three_d": "without effect in deepinv"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        frames: int = 4,
        mask: Sampling = "gaussian",
        acceleration: int = 4,
        center_fraction: float | None = None,
        key: Key | None = None,
    ):
        check_complex(in_shape, "deepinv/sequential-mri", "(2, H, W)")
        if frames < 1:
            raise BadParameter(f"frames is {frames}", "at least one frame")
        film = (2, frames, *in_shape[1:])
        sampled = columns(mask, acceleration, center_fraction, film, key)
        super().__init__(in_shape, build("physics.SequentialMRI", mask=sampled, img_size=film))


class MultiCoilMRI(LinearBridge):
    """y_n = mask * F (s_n x) for N coils of sensitivity s_n: (2, H, W) -> (2N, H, W), or (2N, D, H, W) for volumes.

    The first N channels of the measurement are the real parts for coil 1 to N, the last N the imaginary parts; deepinv
    has them as (2, N, H, W). Real images (1, H, W) as for deepinv/mri.

    - `coil_maps`: number of coils, with simulated birdcage sensitivities (needs the package sigpy, or raises
      `NotInstalled`); one coil with sensitivity 1 if not given.
    - `mask`, `acceleration`, `center_fraction`, `three_d`: as for deepinv/mri.
    """

    deepinv = "MultiCoilMRI"
    instead: ClassVar[Mapping[str, str]] = _MASK

    def __init__(
        self,
        in_shape: Shape,
        *,
        coil_maps: int | None = None,
        mask: Sampling = "gaussian",
        acceleration: int = 4,
        center_fraction: float | None = None,
        three_d: bool = False,
        key: Key | None = None,
    ):
        size = (2, *in_shape[1:])
        wanted = "(2, D, H, W)" if three_d else "(2, H, W)"
        self.real = check_complex(in_shape, "deepinv/multi-coil-mri", wanted, real=True)
        check_coils(coil_maps)
        sampled = columns(mask, acceleration, center_fraction, (2, *size[-2:]), key)
        sampled = sampled[:, :, None].expand(1, *size) if three_d else sampled
        physics = build("physics.MultiCoilMRI", mask=sampled, coil_maps=coil_maps, img_size=size, three_d=three_d)
        super().__init__(in_shape, physics)

    def to_deepinv(self, x: Tensor) -> Any:
        return torch.cat((x, torch.zeros_like(x)), 1) if self.real else x

    def image_from_deepinv(self, x: Any) -> Tensor:
        return x[:, :1] if self.real else x

    def from_deepinv(self, y: Any) -> Tensor:
        return y.flatten(1, 2)

    def measurement_to_deepinv(self, y: Tensor) -> Any:
        return y.unflatten(1, (2, -1))


class NonCartesianMRI(LinearBridge):
    """Samples of the Fourier transform along radial or spiral lines: (2, H, W) -> (2N, shots * samples), N coils.

    Needs the package mri-nufft, or raises `NotInstalled`. deepinv rounds to float32.

    - `num_shots`, `num_samples_per_shot`: number of lines, and of samples on each.
    - `trajectory`: "radial" or "spiral"; `tilt`: angle between lines ("uniform", "golden" or a number in radians);
      `in_out`: lines through the centre.
    - `coil_maps`: as for deepinv/multi-coil-mri. `backend`: of mri-nufft. `normalize`: divide by the norm.
    """

    deepinv = "NonCartesianMRI"
    opaque = True
    instead: ClassVar[Mapping[str, str]] = {"img_size": "in_shape", "device": ".to"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        num_shots: int = 100,
        num_samples_per_shot: int = 500,
        trajectory: Literal["radial", "spiral"] = "radial",
        tilt: str | float = "uniform",
        in_out: bool = False,
        coil_maps: int | None = None,
        backend: str = "finufft",
        normalize: bool = False,
    ):
        check_complex(in_shape, "deepinv/non-cartesian-mri", "(2, H, W)")
        check_coils(coil_maps)
        self._arguments: dict[str, Any] = {
            "num_shots": num_shots,
            "num_samples_per_shot": num_samples_per_shot,
            "trajectory": trajectory,
            "tilt": tilt,
            "in_out": in_out,
            "coil_maps": coil_maps,
            "backend": backend,
            "normalize": normalize,
        }
        super().__init__(in_shape, build("physics.NonCartesianMRI", img_size=tuple(in_shape), **self._arguments))

    def __reduce__(self) -> Any:
        # The transform holds pointers of another library, which can be neither copied nor saved.
        return partial(NonCartesianMRI, **self._arguments), (self.in_shape,)

    def from_deepinv(self, y: Any) -> Tensor:
        return y.flatten(1, 2)

    def measurement_to_deepinv(self, y: Tensor) -> Any:
        return y.unflatten(1, (2, -1))


def columns(
    mask: Sampling, acceleration: int, center_fraction: float | None, size: tuple[int, ...], key: Key | None
) -> Tensor:
    """A mask of sampled columns, (1, *size)."""
    if mask == "full":
        return torch.ones((1, *size))
    if mask not in _GENERATORS:
        raise BadParameter(f"mask is {mask!r}", ", ".join(map(repr, (*_GENERATORS, "full"))))
    if key is None:
        raise BadParameter(f"mask is {mask!r}, and there is no key to draw it from", "a preimage.Key", "pass key")
    if acceleration < 1:
        raise BadParameter(f"acceleration is {acceleration}", "a whole number of at least 1")
    draw = build(
        f"physics.generator.{_GENERATORS[mask]}",
        img_size=size,
        acceleration=acceleration,
        center_fraction=center_fraction,
        rng=generator(key),
        seed=key,
    )
    return call(f"physics.generator.{_GENERATORS[mask]}.step", draw.step, {"batch_size": 1}, key)["mask"]


def check_complex(in_shape: Shape, who: str, wanted: str, real: bool = False) -> bool:
    """Raise `ShapeMismatch` unless in_shape is that of complex images in two channels, or, if `real` ones may be, of
    real images in one; whether they are real."""
    channels = (1, 2) if real else (2,)
    if len(in_shape) != wanted.count(",") + 1 or in_shape[0] not in channels or min(in_shape) < 1:
        or_real = f", or real images {wanted.replace('2', '1', 1)}" if real else ""
        raise ShapeMismatch(
            f"{who} is made for shape {tuple(in_shape)}",
            f"complex images {wanted}, channel 0 the real parts and channel 1 the imaginary parts{or_real}",
            "choose another dataset, or set shape",
        )
    return in_shape[0] == 1


def check_coils(coil_maps: int | None) -> None:
    """Raise `BadParameter` unless there is at least one coil."""
    if coil_maps is not None and coil_maps < 1:
        raise BadParameter(f"coil_maps is {coil_maps}", "at least one coil")
