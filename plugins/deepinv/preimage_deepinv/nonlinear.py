"""Nonlinear measurements and the linear ones inside them: phase retrieval, scattering, haze, single photons."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from preimage import Key, Shape
from preimage.errors import BadParameter

from ._bridge import Bridge, LinearBridge, as_complex, as_real, check_image
from ._deepinv import build, call, generator, lookup
from .masks import check_count, check_layers, check_output_size


class RandomPhaseRetrieval(Bridge):
    """y = |B x|^2, B (m, n) with independent complex normal entries of variance 1/m: (2C, H, W) -> (m,), or (C, m).

    The first C channels are the real parts of the complex image, the last C the imaginary parts.

    - `m`, `channelwise`: as for deepinv/compressed-sensing. B is drawn from the key.
    """

    deepinv = "RandomPhaseRetrieval"
    instead: ClassVar[Mapping[str, str]] = {"img_size": "in_shape", "dtype": ".to", "device": ".to", "rng": "key"}

    def __init__(self, in_shape: Shape, *, m: int, channelwise: bool = False, key: Key):
        size = complex_size(in_shape, "deepinv/random-phase-retrieval")
        check_count(m)
        physics = build("physics.RandomPhaseRetrieval", m=m, img_size=size, channelwise=channelwise, rng=generator(key))
        super().__init__(in_shape, physics)

    def to_deepinv(self, x: Tensor) -> Any:
        return as_complex(x)


class StructuredRandomPhaseRetrieval(Bridge):
    """y = |prod_i (F D_i) x|^2, F the Fourier transform and D_i random phases: (2C, H, W) -> (C, H', W').

    The first C channels are the real parts of the complex image, the last C the imaginary parts.

    - `n_layers`, `output_size`: as for deepinv/structured-random; output_size is (C, H', W'). D_i are drawn
      from the key.
    - `shared_weights`: the same D in all layers.
    """

    deepinv = "StructuredRandomPhaseRetrieval"
    instead: ClassVar[Mapping[str, str]] = {
        "img_size": "in_shape",
        "transform": "'fft', the only one",
        "diagonal_mode": "'uniform_phase'; 'rademacher' draws the same signs in each layer and for each seed",
        "dtype": ".to",
        "device": ".to",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        n_layers: float,
        output_size: tuple[int, int, int] | None = None,
        shared_weights: bool = False,
        key: Key,
    ):
        size = complex_size(in_shape, "deepinv/structured-random-phase-retrieval")
        check_layers(n_layers)
        if n_layers < 1:
            raise BadParameter(f"n_layers is {n_layers}", "at least one layer")
        check_output_size(size, size if output_size is None else output_size)
        physics = build(
            "physics.StructuredRandomPhaseRetrieval",
            img_size=size,
            output_size=size if output_size is None else output_size,
            n_layers=n_layers,
            shared_weights=shared_weights,
            seed=key,
        )
        super().__init__(in_shape, physics)

    def to_deepinv(self, x: Tensor) -> Any:
        return as_complex(x)


class Ptychography(Bridge):
    """y_k = |F (p_k x)|^2 for a probe at K positions: a complex image (2, H, W) -> (K, H, W).

    - `n_img`: K, a square number; positions on a grid over the image. `probe_radius`: of the disk p, in pixels.
    """

    deepinv = "Ptychography"
    instead: ClassVar[Mapping[str, str]] = {
        "img_size": "in_shape",
        "probe": "probe_radius",
        "shifts": "n_img",
        "geometry": "probe_radius",
        "device": ".to",
    }

    def __init__(self, in_shape: Shape, *, n_img: int = 25, probe_radius: float = 10):
        physics = build("physics.Ptychography", **_probe(in_shape, n_img, probe_radius, "deepinv/ptychography"))
        super().__init__(in_shape, physics)

    def to_deepinv(self, x: Tensor) -> Any:
        return as_complex(x)


class PtychographyLinear(LinearBridge):
    """y_k = F (p_k x), the field whose intensity deepinv/ptychography measures: (2, H, W) -> (2K, H, W).

    The first K channels are real parts, the last K imaginary parts. Parameters as for deepinv/ptychography.
    """

    deepinv = "PtychographyLinearOperator"
    instead: ClassVar[Mapping[str, str]] = Ptychography.instead

    def __init__(self, in_shape: Shape, *, n_img: int = 25, probe_radius: float = 10):
        arguments = _probe(in_shape, n_img, probe_radius, "deepinv/ptychography-linear")
        super().__init__(in_shape, build("physics.PtychographyLinearOperator", **arguments))

    def to_deepinv(self, x: Tensor) -> Any:
        return as_complex(x)

    def from_deepinv(self, y: Any) -> Tensor:
        return as_real(y)

    def measurement_to_deepinv(self, y: Tensor) -> Any:
        return as_complex(y)

    def image_from_deepinv(self, x: Any) -> Tensor:
        return as_real(x)


def _probe(in_shape: Shape, n_img: int, probe_radius: float, who: str) -> dict[str, Any]:
    check_image(in_shape, who, channels=2)
    if n_img < 1 or round(n_img**0.5) ** 2 != n_img:
        raise BadParameter(f"n_img is {n_img}", "a square number, such as 25")
    if probe_radius <= 0:
        raise BadParameter(f"probe_radius is {probe_radius}", "a positive radius, in pixels")
    size = (1, *in_shape[1:])
    module = "physics.phase_retrieval"
    probe = call("build_probe", lookup(f"{module}.build_probe"), {"img_size": size, "probe_radius": probe_radius})
    shifts = call("generate_shifts", lookup(f"{module}.generate_shifts"), {"img_size": size, "n_img": n_img})
    return {"img_size": size, "probe": probe, "shifts": shifts}


class Scattering(Bridge):
    """Waves scattered by a contrast x: (1, N, N) -> (2T, T - 1), for T transmitters, the others receiving.

    y_t = G (x u_t), u_t the total field, which solves the Lippmann-Schwinger equation u_t = u_t^in + G(x u_t); the
    first T rows are real parts, the last T imaginary parts. The derivative is that of the equation's solution, through
    deepinv's iterations; a tolerance above the rounding error shows in it.

    - `sensors`: T, on a circle of `radius` around the box. `background_wavenumber`, `box_length`: in reciprocal units;
      there must be more pixels than 2 box_length wavenumber / 2 pi.
    - `wave_type`: "circular_wave" or "plane_wave". - `max_iter`, `tol`: of deepinv's inner solver (CG on the normal
      equations).
    """

    deepinv = "Scattering"
    single = True  # deepinv's inner solver stops for the batch as a whole
    instead: ClassVar[Mapping[str, str]] = {
        "img_width": "in_shape",
        "receivers": "sensors, radius",
        "transmitters": "sensors, radius",
        "solver_config": "max_iter, tol",
        "device": ".to",
        "dtype": ".to",
        "verbose": "never",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        sensors: int = 8,
        radius: float = 1.0,
        background_wavenumber: float = 10.0,
        box_length: float = 1.0,
        wave_type: Literal["circular_wave", "plane_wave"] = "circular_wave",
        max_iter: int = 500,
        tol: float = 1e-5,
    ):
        physics = _scattering(in_shape, sensors, radius, background_wavenumber, box_length, wave_type, max_iter, tol)
        super().__init__(in_shape, physics)

    def run_physics(self, x: Any) -> Any:
        # As its A, which leaves the field behind in a buffer.
        total = self.physics.compute_total_field(x)
        return torch.einsum("bthw,trhw->btr", x * total, self.physics.born_operator.green_operator)

    def from_deepinv(self, y: Any) -> Tensor:
        return as_real(y)


class BornScattering(LinearBridge):
    """First Born approximation of deepinv/scattering, y_t = G (x u_t^in): (1, N, N) -> (2T, T - 1).

    The first T rows are real parts, the last T imaginary parts. Parameters as for deepinv/scattering.
    """

    deepinv = "scattering.BornOperator"
    instead: ClassVar[Mapping[str, str]] = {
        "total_field": "the incident field",
        "receivers": "sensors, radius",
        "x_domain": "in_shape, box_length",
        "y_domain": "in_shape, box_length",
        "wavenumber": "background_wavenumber",
        "pixel_area": "in_shape, box_length",
        "img_width": "in_shape",
        "verbose": "never",
    }

    def __init__(
        self,
        in_shape: Shape,
        *,
        sensors: int = 8,
        radius: float = 1.0,
        background_wavenumber: float = 10.0,
        box_length: float = 1.0,
        wave_type: Literal["circular_wave", "plane_wave"] = "circular_wave",
    ):
        physics = _scattering(in_shape, sensors, radius, background_wavenumber, box_length, wave_type, 500, 1e-5)
        super().__init__(in_shape, physics.born_operator)

    def from_deepinv(self, y: Any) -> Tensor:
        return as_real(y)

    def measurement_to_deepinv(self, y: Tensor) -> Any:
        return as_complex(y)

    def image_from_deepinv(self, x: Any) -> Tensor:
        return x.real


def _scattering(
    in_shape: Shape,
    sensors: int,
    radius: float,
    wavenumber: float,
    box_length: float,
    wave_type: str,
    max_iter: int,
    tol: float,
) -> Any:
    from .projections import check_square

    width = check_square(in_shape, "deepinv/scattering")
    check_image(in_shape, "deepinv/scattering", channels=1)
    if sensors < 2 or radius <= 0 or wavenumber <= 0 or box_length <= 0 or max_iter < 1 or tol <= 0:
        raise BadParameter(
            f"sensors {sensors}, radius {radius}, background_wavenumber {wavenumber}, box_length {box_length}, "
            f"max_iter {max_iter}, tol {tol}",
            "at least two sensors, and positive numbers",
        )
    name = "physics.scattering.circular_sensors"
    transmitters, receivers = call(name, lookup(name), {"number": sensors, "radius": radius})
    kind = lookup("physics.Scattering")
    config = call("SolverConfig", kind.SolverConfig, {"max_iter": max_iter, "tol": tol, "adjoint_state": False})
    return build(
        "physics.Scattering",
        img_width=width,
        receivers=receivers,
        transmitters=transmitters,
        background_wavenumber=wavenumber,
        solver_config=config,
        box_length=box_length,
        wave_type=wave_type,
        dtype=torch.complex64,
    )


class Haze(Bridge):
    """y = t x + (1 - t) a, t = exp(-beta (d + offset)): (C + 2, H, W) -> (C, H, W).

    The first C channels are the image x, the next is the depth d, the last the airlight a, each for every pixel.

    - `beta`: scattering coefficient, `offset`: added to the depth.

    Source: Koschmieder's law, as in deepinv, which takes (x, d, a) as a list.
    """

    deepinv = "Haze"
    instead: ClassVar[Mapping[str, str]] = {}

    def __init__(self, in_shape: Shape, *, beta: float = 0.1, offset: float = 0):
        check_image(in_shape, "deepinv/haze")
        if in_shape[0] < 3:
            raise BadParameter(f"images have {in_shape[0]} channels", "at least 3: image, depth and airlight")
        super().__init__(in_shape, build("physics.Haze", beta=beta, offset=offset))

    def to_deepinv(self, x: Tensor) -> Any:
        return (x[:, :-2], x[:, -2:-1], x[:, -1:])


class SinglePhotonLidar(Bridge):
    """Expected photon counts over time: (3, H, W) -> (bins, H, W), y_t = r h(t - d) + b.

    Channels are the depth d in bins, the intensity r and the background b; h is a Gaussian of width `sigma`, divided by
    its sum over the bins.

    - `sigma`: width of the pulse in bins, > 0. `bins`: number of bins.
    """

    deepinv = "SinglePhotonLidar"
    single = True  # deepinv broadcasts images over bins
    instead: ClassVar[Mapping[str, str]] = {"device": ".to", "rng": "the noise of the pipeline"}

    def __init__(self, in_shape: Shape, *, sigma: float = 1.0, bins: int = 50):
        check_image(in_shape, "deepinv/single-photon-lidar", channels=3)
        if sigma <= 0 or bins < 1:
            raise BadParameter(f"sigma is {sigma}, bins is {bins}", "a width > 0 and at least one bin")
        super().__init__(in_shape, build("physics.SinglePhotonLidar", sigma=sigma, bins=bins))


def complex_size(in_shape: Shape, who: str) -> tuple[int, int, int]:
    """(C, H, W) of complex images given as (2C, H, W)."""
    check_image(in_shape, who, even_channels=True)
    return in_shape[0] // 2, in_shape[1], in_shape[2]
