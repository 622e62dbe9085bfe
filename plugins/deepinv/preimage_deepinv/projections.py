"""Projections along lines and waves: the operators deepinv/tomography, deepinv/pet and so on."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from preimage import Shape
from preimage.errors import BadParameter, NotInstalled, ShapeMismatch

from ._bridge import LinearBridge, as_complex, as_real, check_image, same
from ._deepinv import build


class Tomography(LinearBridge):
    """Radon transform, line integrals of each channel: (C, N, N) -> (C, D, angles), D = ceil(sqrt(2) N) detectors.

    A x [d, a] = sum over pixels along the line at distance d from the centre, at angle a, by bilinear interpolation
    of the rotated image. The adjoint is exact, by automatic differentiation.

    - `angles`: their number, spread evenly over [0, 180) degrees, or the angles in degrees.
    - `circle`: the image is zero outside its inscribed circle; then D = N.
    - `parallel_computation`: all angles at once, which takes angles * D^2 numbers.
    - `normalize`: divide by the norm of the operator (of a single channel, by power iteration).
    - `fan_beam`, `fan_parameters`: rays from a point; pixel_spacing (0.5 / N), source_radius (57.5), detector_radius
      (57.5), n_detector_pixels (258), detector_spacing (0.077). Then D = n_detector_pixels.

    Raises `ShapeMismatch` unless images are square.
    """

    deepinv = "Tomography"
    transpose_of = "autodiff"
    instead: ClassVar[Mapping[str, str]] = {
        "img_width": "in_shape",
        "adjoint_via_backprop": "always: the other adjoint is not one",
        "fbp_interpolate_boundary": "only for its A_dagger",
        "device": ".to",
        "dtype": ".to",
    }
    changed_defaults: ClassVar[Mapping[str, str]] = {"normalize": "deepinv's None means True, with a warning"}

    def __init__(
        self,
        in_shape: Shape,
        *,
        angles: int | tuple[float, ...],
        circle: bool = False,
        parallel_computation: bool = True,
        normalize: bool = True,
        fan_beam: bool = False,
        fan_parameters: dict[str, int | float] | None = None,
    ):
        width = check_square(in_shape, "deepinv/tomography")
        check_angles(angles)
        if fan_parameters is not None and (wrong := sorted(set(fan_parameters) - set(_FAN))):
            raise BadParameter(f"fan_parameters has {', '.join(wrong)}", f"some of {', '.join(_FAN)}")
        physics = build(
            "physics.Tomography",
            angles=angles,
            img_width=width,
            circle=circle,
            parallel_computation=parallel_computation,
            normalize=normalize,
            fan_beam=fan_beam,
            fan_parameters=None if fan_parameters is None else dict(fan_parameters),
        )
        super().__init__(in_shape, physics)
        # A function that deepinv keeps between calls, and that cannot be saved; A^T is not asked of deepinv.
        physics._auto_grad_adjoint_fn = None


_FAN = ("pixel_spacing", "source_radius", "detector_radius", "n_detector_pixels", "detector_spacing")


class TomographyWithAstra(LinearBridge):
    """Line integrals by the astra toolbox, on a GPU with CUDA: (1, H, W) -> (1, angles, detectors).

    Needs astra-toolbox, or raises `NotInstalled`, and a GPU, or raises `BadParameter`.

    - `angles`: number, spread evenly over `angular_range` in degrees.
    - `n_detector_pixels`: number of detectors, ceil(sqrt(2) H) if not given.
      `detector_spacing`, `pixel_spacing`: sizes.
    - `geometry_type`: "parallel" or "fanbeam"; `geometry_parameters`: source_radius and detector_radius of a fan.
    - `normalize`: divide by the norm.
    """

    deepinv = "TomographyWithAstra"
    opaque = True
    instead: ClassVar[Mapping[str, str]] = {
        "img_size": "in_shape",
        "bounding_box": "pixel_spacing",
        "geometry_vectors": "geometry_type",
        "object_geometry": "pixel_spacing",
        "projection_geometry": "geometry_type",
        "is_2d": "in_shape",
        "device": "CUDA",
    }
    changed_defaults: ClassVar[Mapping[str, str]] = {
        "normalize": "deepinv's None means True, with a warning",
        "geometry_parameters": "None, for the same values",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        angles: int = 180,
        n_detector_pixels: int | None = None,
        angular_range: tuple[float, float] = (0, 180),
        detector_spacing: float = 1.0,
        pixel_spacing: float = 1.0,
        geometry_type: Literal["parallel", "fanbeam"] = "parallel",
        geometry_parameters: dict[str, float] | None = None,
        normalize: bool = True,
    ):
        check_image(in_shape, "deepinv/tomography-with-astra", channels=1)
        check_angles(angles)
        try:
            lookup_astra()
        except ImportError as error:
            raise NotInstalled(
                "deepinv's TomographyWithAstra needs the package astra-toolbox, which is not installed",
                "astra-toolbox and a GPU with CUDA, or the operator deepinv/tomography",
                "pip install astra-toolbox",
            ) from error
        if not torch.cuda.is_available():
            raise BadParameter(
                "deepinv's TomographyWithAstra runs on CUDA only, and torch finds no GPU",
                "a GPU with CUDA, or the operator deepinv/tomography",
            )
        extra: dict[str, Any] = {} if geometry_parameters is None else {"geometry_parameters": geometry_parameters}
        physics = build(
            "physics.TomographyWithAstra",
            img_size=tuple(in_shape[1:]),
            angles=angles,
            n_detector_pixels=n_detector_pixels,
            angular_range=angular_range,
            detector_spacing=detector_spacing,
            pixel_spacing=pixel_spacing,
            geometry_type=geometry_type,
            normalize=normalize,
            device="cuda",
            **extra,
        )
        super().__init__(in_shape, physics)


def lookup_astra() -> None:
    """Raise ImportError unless astra can be imported."""
    import_module("astra")


class PET(LinearBridge):
    """Positron emission tomography, line integrals of a blurred and attenuated image: (1, H, W) -> (1, ...).

    Needs the package parallelproj, or raises `NotInstalled`. The mean background deepinv can add is zero here.

    - `voxel_size`, `fwhm_data_mm`: in mm. `radial_trim`: radial bins left out at both ends.
    - `normalize`: divide by the norm.
    """

    deepinv = "PET"
    opaque = True
    instead: ClassVar[Mapping[str, str]] = {
        "img_size": "in_shape",
        "scanner": "deepinv's demo scanner",
        "gain": "the noise of the pipeline",
        "normalize_counts": "the noise of the pipeline",
        "views": "all",
        "background": "none",
        "attenuation": "none",
        "device": ".to",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        voxel_size: tuple[float, float, float] = (2, 2, 2),
        fwhm_data_mm: float = 4.0,
        radial_trim: int = 3,
        normalize: bool = False,
    ):
        check_image(in_shape, "deepinv/pet", channels=1)
        physics = build(
            "physics.PET",
            img_size=tuple(in_shape),
            voxel_size=voxel_size,
            fwhm_data_mm=fwhm_data_mm,
            radial_trim=radial_trim,
            normalize=normalize,
        )
        super().__init__(in_shape, physics)


class UltrasoundPlaneWave(LinearBridge):
    """Echoes of plane waves sent at several angles: (1, H, W) -> (1, angles, elements, n_samples).

    Every pixel reflects, and is added to the sample of each element at the time the wave takes there and back.

    - `angles`: of the waves, in radians. `elements`, `pitch`: number of elements of the linear probe, centred at 0, and
      their distance in metres. `n_samples`, `sampling_frequency` (Hz): of the recording.
    - `sound_speed` (m/s), `t0` (s): when the recording starts. `pixel_size`: (rows, columns) in metres, half a
      wavelength of the sampling frequency if not given. `pixel_origin`: centre of the first pixel.
    - `f_number`, `receive_apod_window`, `transmit_apod_window`: apodisation. `normalize`: divide by the norm.
    """

    deepinv = "UltrasoundPlaneWave"
    hard_coded = True
    instead: ClassVar[Mapping[str, str]] = {
        "img_size": "in_shape",
        "element_positions": "elements, pitch",
        "pixel_grid": "pixel_size, pixel_origin",
        "pulse": "none",
        "device": ".to",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        angles: tuple[float, ...],
        elements: int,
        pitch: float,
        n_samples: int,
        sampling_frequency: float,
        sound_speed: float = 1540.0,
        t0: float = 0.0,
        pixel_size: tuple[float, float] | None = None,
        pixel_origin: tuple[float, float] | None = None,
        f_number: float | None = None,
        receive_apod_window: Literal["rect", "hann"] = "rect",
        transmit_apod_window: Literal["rect", "hann"] | None = None,
        normalize: bool = False,
    ):
        check_image(in_shape, "deepinv/ultrasound-plane-wave", channels=1)
        if not angles or elements < 1 or n_samples < 1 or pitch <= 0 or sampling_frequency <= 0 or sound_speed <= 0:
            raise BadParameter(
                f"angles {angles}, elements {elements}, pitch {pitch}, n_samples {n_samples}, sampling_frequency "
                f"{sampling_frequency}, sound_speed {sound_speed}",
                "at least one angle, element and sample, and a positive pitch, frequency and speed",
            )
        across = pitch * (torch.arange(elements) - (elements - 1) / 2)
        physics = build(
            "physics.UltrasoundPlaneWave",
            img_size=tuple(in_shape[1:]),
            angles=angles,
            element_positions=torch.stack((across, torch.zeros(elements)), 1),
            n_samples=n_samples,
            sampling_frequency=sampling_frequency,
            sound_speed=sound_speed,
            t0=t0,
            pixel_size=pixel_size,
            pixel_origin=pixel_origin,
            f_number=f_number,
            receive_apod_window=receive_apod_window,
            transmit_apod_window=transmit_apod_window,
            normalize=normalize,
        )
        super().__init__(in_shape, physics)


class RadioInterferometry(LinearBridge):
    """Visibilities of an image at points of the Fourier plane: (1, H, W) -> (2, samples), real and imaginary parts.

    Needs the package torchkbnufft, or raises `NotInstalled`.

    - `samples`: number of points, spread over an Archimedean spiral of `turns` turns from 0 to the edge.
    - `k_oversampling`, `interp_points`: of the non-uniform Fourier transform.
    """

    deepinv = "RadioInterferometry"
    hard_coded = True
    opaque = True
    instead: ClassVar[Mapping[str, str]] = {
        "img_size": "in_shape",
        "samples_loc": "samples, turns",
        "dataWeight": "1",
        "real_projection": "always: images are real",
        "device": ".to",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        samples: int,
        turns: float = 10.0,
        k_oversampling: float = 2,
        interp_points: int = 7,
    ):
        check_image(in_shape, "deepinv/radio-interferometry", channels=1)
        if samples < 1:
            raise BadParameter(f"samples is {samples}", "at least one sample")
        radius = torch.linspace(0, torch.pi, samples)
        angle = 2 * torch.pi * turns * torch.linspace(0, 1, samples)
        physics = build(
            "physics.RadioInterferometry",
            img_size=tuple(in_shape[1:]),
            samples_loc=torch.stack((radius * angle.cos(), radius * angle.sin())),
            k_oversampling=k_oversampling,
            interp_points=interp_points,
            real_projection=False,  # the real part is taken in image_from_deepinv
        )
        physics.adj_projection = same
        super().__init__(in_shape, physics)

    def from_deepinv(self, y: Any) -> Tensor:
        return as_real(y)

    def measurement_to_deepinv(self, y: Tensor) -> Any:
        return as_complex(y)

    def image_from_deepinv(self, x: Any) -> Tensor:
        return x.real


def check_square(in_shape: Shape, who: str) -> int:
    """The width of square images (C, N, N); raises `ShapeMismatch` for others."""
    check_image(in_shape, who)
    if in_shape[1] != in_shape[2]:
        raise ShapeMismatch(f"{who} is made for shape {tuple(in_shape)}", "square images (C, N, N)", "crop or resize")
    return in_shape[1]


def check_angles(angles: int | tuple[float, ...]) -> None:
    """Raise `BadParameter` unless there is an angle."""
    if (angles if isinstance(angles, int) else len(angles)) < 1:
        raise BadParameter(f"angles is {angles}", "at least one angle")
