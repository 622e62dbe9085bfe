"""What of deepinv is offered, under which name, and what is not, and why. Data only: imports neither torch nor deepinv.

The tests compare it with deepinv: a class of deepinv that is in neither list of its kind fails them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One class of deepinv that is offered as a component.

    - `deepinv`: its class in deepinv.physics. `name`: of the component, after "deepinv/". `target`: "module:Class" of
      this package. `summary`: one line.
    - `shape`, `examples`: as in `preimage.Component`; the first example is the defaults, with what has none.
    - `needs`: a package that deepinv asks for and that is not among its requirements.
    """

    deepinv: str
    name: str
    target: str
    summary: str
    shape: tuple[int, ...] = (1, 16, 16)
    examples: tuple[Mapping[str, Any], ...] = ({},)
    needs: str = ""


OPERATORS = (
    Entry(
        "Blur",
        "blur",
        "blurs:Blur",
        "convolution with a Gaussian, motion, diffraction or given kernel, five boundaries",
        shape=(2, 17, 14),
        examples=(
            {},
            {"padding": "circular"},
            {"padding": "reflect", "filter": "motion", "size": 5},
            {"padding": "zeros", "filter": "diffraction", "size": 7, "use_fft": True},
            {"padding": "replicate", "filter": [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]},
        ),
    ),
    Entry(
        "BlurFFT",
        "blur-fft",
        "blurs:BlurFFT",
        "circular convolution by Fourier transforms, with exact normal equations",
        shape=(2, 17, 14),
        examples=({}, {"filter": "motion", "size": 5}),
    ),
    Entry(
        "SpaceVaryingBlur",
        "space-varying-blur",
        "blurs:SpaceVaryingBlur",
        "a blur that changes over the image, as a sum of masked convolutions",
        examples=(
            {"size": 5, "n_eigen_psf": 3, "spacing": [4, 4]},
            {"size": 5, "n_eigen_psf": 3, "spacing": [4, 4], "mask_first": False, "padding": "circular"},
        ),
    ),
    Entry(
        "TiledSpaceVaryingBlur",
        "tiled-space-varying-blur",
        "blurs:TiledSpaceVaryingBlur",
        "a blur with one kernel for each patch, blended where patches overlap",
        examples=({"size": 5, "patch_size": 8}, {"size": 5, "patch_size": 8, "stride": 4, "use_fft": False}),
    ),
    Entry(
        "Downsampling",
        "downsampling",
        "blurs:Downsampling",
        "every n-th pixel, after an antialiasing filter",
        shape=(2, 16, 24),
        examples=(
            {},
            {"filter": "gaussian"},
            {"filter": "bicubic", "padding": "reflect"},
            {"filter": "sinc", "factor": 3, "padding": "valid"},
        ),
    ),
    Entry(
        "DownsamplingMatlab",
        "downsampling-matlab",
        "blurs:DownsamplingMatlab",
        "smaller images by Matlab's imresize",
        shape=(2, 16, 24),
        examples=({}, {"kernel": "gaussian"}),
    ),
    Entry(
        "Upsampling",
        "upsampling",
        "blurs:Upsampling",
        "larger images: zeros between pixels, then a filter",
        shape=(2, 8, 12),
        examples=({}, {"filter": "gaussian"}, {"filter": "bicubic", "factor": 3, "padding": "reflect"}),
    ),
    Entry("Denoising", "denoising", "masks:Denoising", "the identity", shape=(2, 9, 8)),
    Entry(
        "Inpainting",
        "inpainting",
        "masks:Inpainting",
        "a random mask of pixels, one for all images",
        shape=(2, 9, 8),
        examples=({}, {"mask": 0.2, "pixelwise": False}),
    ),
    Entry("Demosaicing", "demosaicing", "masks:Demosaicing", "a Bayer colour filter", shape=(3, 9, 8)),
    Entry(
        "CompressedSensing",
        "compressed-sensing",
        "masks:CompressedSensing",
        "m random Gaussian measurements; builds a dense pseudoinverse (see compressive-sensing)",
        shape=(2, 8, 6),
        examples=({"m": 30}, {"m": 30, "channelwise": True}),
    ),
    Entry(
        "SinglePixelCamera",
        "single-pixel-camera",
        "masks:SinglePixelCamera",
        "Hadamard coefficients in four orders, or random sign patterns",
        shape=(2, 8, 8),
        examples=(
            {"m": 30},
            {"m": 30, "ordering": "cake_cutting"},
            {"m": 30, "ordering": "zig_zag"},
            {"m": 30, "ordering": "xy"},
            {"m": 30, "fast": False},
        ),
    ),
    Entry(
        "StructuredRandom",
        "structured-random",
        "masks:StructuredRandom",
        "random signs and sine transforms in layers",
        shape=(2, 10, 8),
        examples=({}, {"n_layers": 1.5}, {"output_size": [2, 8, 6]}, {"output_size": [2, 20, 16], "n_layers": 2}),
    ),
    Entry(
        "Tomography",
        "tomography",
        "projections:Tomography",
        "Radon transform, parallel or fan beam",
        shape=(2, 12, 12),
        examples=(
            {"angles": 7},
            {"angles": [0.0, 10.0, 30.0], "circle": True},
            {"angles": 7, "normalize": False, "parallel_computation": False},
            {"angles": 7, "fan_beam": True, "fan_parameters": {"n_detector_pixels": 20}},
        ),
    ),
    Entry(
        "MRI",
        "mri",
        "mri:MRI",
        "columns of the Fourier transform of a complex image",
        shape=(2, 16, 12),
        examples=({}, {"mask": "uniform"}, {"mask": "equispaced"}, {"mask": "full"}),
    ),
    Entry(
        "DynamicMRI",
        "dynamic-mri",
        "mri:DynamicMRI",
        "MRI of a film, other columns in each frame",
        shape=(2, 3, 16, 12),
    ),
    Entry(
        "SequentialMRI",
        "sequential-mri",
        "mri:SequentialMRI",
        "MRI of a still image in frames",
        shape=(2, 16, 12),
    ),
    Entry(
        "MultiCoilMRI",
        "multi-coil-mri",
        "mri:MultiCoilMRI",
        "MRI with several receiving coils",
        shape=(2, 16, 12),
    ),
    Entry(
        "NonCartesianMRI",
        "non-cartesian-mri",
        "mri:NonCartesianMRI",
        "Fourier samples along radial or spiral lines",
        shape=(2, 16, 16),
        examples=({"num_shots": 6, "num_samples_per_shot": 16},),
        needs="mri-nufft[finufft]",
    ),
    Entry(
        "Decolorize",
        "decolorize",
        "spectral:Decolorize",
        "weighted sum of the channels",
        shape=(3, 10, 8),
        examples=({}, {"srf": "flat"}, {"srf": "random"}, {"srf": [0.2, 0.3, 0.5]}),
    ),
    Entry(
        "Pansharpen",
        "pansharpen",
        "spectral:Pansharpen",
        "a small colour and a large grey image",
        shape=(3, 16, 12),
        examples=({}, {"factor": 2, "filter": "gaussian", "padding": "reflect"}),
    ),
    Entry(
        "HyperSpectralUnmixing",
        "hyperspectral-unmixing",
        "spectral:HyperSpectralUnmixing",
        "abundances of materials to spectral bands",
        shape=(5, 4, 3),
        examples=({}, {"M": [[1.0, 2.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [2.0, 1.0]]}),
    ),
    Entry(
        "CompressiveSpectralImaging",
        "compressive-spectral-imaging",
        "spectral:CompressiveSpectralImaging",
        "one coded snapshot of several bands",
        shape=(4, 10, 8),
        examples=({}, {"mode": "sd"}, {"shear_dir": "w", "mask": 0.3}),
    ),
    Entry(
        "RadioInterferometry",
        "radio-interferometry",
        "projections:RadioInterferometry",
        "Fourier samples along a spiral",
        examples=({"samples": 40},),
        needs="torchkbnufft",
    ),
    Entry("PET", "pet", "projections:PET", "positron emission tomography", needs="parallelproj"),
    Entry(
        "TomographyWithAstra",
        "tomography-with-astra",
        "projections:TomographyWithAstra",
        "line integrals by the astra toolbox on a GPU",
        examples=({"angles": 7},),
        needs="astra-toolbox",
    ),
    Entry(
        "UltrasoundPlaneWave",
        "ultrasound-plane-wave",
        "projections:UltrasoundPlaneWave",
        "echoes of plane waves at a linear probe",
        shape=(1, 12, 10),
        examples=tuple(
            {"angles": [-0.1, 0.0, 0.1], "elements": 6, "pitch": 3e-4, "n_samples": 60, "sampling_frequency": 2e7}
            | more
            for more in (
                {},
                {"normalize": True},
                {"f_number": 1.0, "receive_apod_window": "hann", "transmit_apod_window": "hann"},
            )
        ),
    ),
    Entry(
        "RandomPhaseRetrieval",
        "random-phase-retrieval",
        "nonlinear:RandomPhaseRetrieval",
        "squared moduli of random complex measurements",
        shape=(2, 6, 5),
        examples=({"m": 40}, {"m": 40, "channelwise": True}),
    ),
    Entry(
        "StructuredRandomPhaseRetrieval",
        "structured-random-phase-retrieval",
        "nonlinear:StructuredRandomPhaseRetrieval",
        "squared moduli after random phases and Fourier transforms",
        shape=(2, 6, 5),
        examples=(
            {"n_layers": 2},
            {"n_layers": 1.5, "shared_weights": True},
            {"n_layers": 1, "output_size": [1, 8, 9]},
            {"n_layers": 2, "output_size": [1, 4, 5]},
        ),
    ),
    Entry(
        "Ptychography",
        "ptychography",
        "nonlinear:Ptychography",
        "diffraction patterns of overlapping patches",
        shape=(2, 12, 10),
        examples=({}, {"n_img": 9, "probe_radius": 4}),
    ),
    Entry(
        "PtychographyLinearOperator",
        "ptychography-linear",
        "nonlinear:PtychographyLinear",
        "the complex fields behind ptychography",
        shape=(2, 12, 10),
        examples=({}, {"n_img": 9, "probe_radius": 4}),
    ),
    Entry(
        "Scattering",
        "scattering",
        "nonlinear:Scattering",
        "waves scattered by a contrast, by the Lippmann-Schwinger equation",
        shape=(1, 4, 4),
        examples=({"tol": 1e-14, "sensors": 2, "background_wavenumber": 3.0},),
    ),
    Entry(
        "BornOperator",
        "born-scattering",
        "nonlinear:BornScattering",
        "waves scattered once",
        shape=(1, 12, 12),
        examples=({}, {"wave_type": "plane_wave"}),
    ),
    Entry(
        "Haze",
        "haze",
        "nonlinear:Haze",
        "an image seen through haze, with depth and airlight unknown",
        shape=(5, 6, 7),
        examples=({}, {"beta": 0.5, "offset": 1.0}),
    ),
    Entry(
        "SinglePhotonLidar",
        "single-photon-lidar",
        "nonlinear:SinglePhotonLidar",
        "photon counts over time from depth, intensity and background",
        shape=(3, 6, 7),
        examples=({}, {"bins": 20, "sigma": 2.0}),
    ),
)

_COMBINED = "a combination of other physics; operators are combined with @, + and preimage.stack"

OPERATORS_NOT_OFFERED = {
    "Physics": "the base class",
    "LinearPhysics": "the base class of linear ones",
    "DecomposablePhysics": "the base class of those with known factors",
    "StackedPhysics": _COMBINED,
    "StackedLinearPhysics": _COMBINED,
    "ComposedPhysics": _COMBINED,
    "ComposedLinearPhysics": _COMBINED,
    "VirtualLinearPhysics": "a linear physics after a transform of the image; a combination",
    "PhysicsCropper": "another physics on a part of the image; a combination",
    "PhysicsMultiScaler": "another physics at several resolutions, chosen at each call: a state",
    "LinearPhysicsMultiScaler": "as PhysicsMultiScaler",
    "BlurMultiScaler": "as PhysicsMultiScaler",
    "BlurFFTMultiScaler": "as PhysicsMultiScaler",
    "InpaintingMultiScaler": "as PhysicsMultiScaler",
    "PhaseRetrieval": "squared moduli of another physics; the three with a physics of their own are offered",
    "SpatialUnwrapping": "x modulo a threshold jumps, and an operator is a differentiable map",
}

NOISES = (
    Entry("GaussianNoise", "gaussian", "noises:Gaussian", "y = x + sigma n", examples=({}, {"sigma": 0.3})),
    Entry(
        "PoissonNoise",
        "poisson",
        "noises:Poisson",
        "photon counts, gain times Poisson",
        examples=({"gain": 0.02}, {"gain": 0.1, "clip_positive": True}),
    ),
    Entry(
        "PoissonGaussianNoise",
        "poisson-gaussian",
        "noises:PoissonGaussian",
        "photon counts and read-out noise",
        examples=({"gain": 0.02, "sigma": 0.05}, {}),
    ),
    Entry("UniformNoise", "uniform", "noises:Uniform", "uniform between -a and a", examples=({}, {"a": 0.3})),
    Entry(
        "UniformGaussianNoise",
        "uniform-gaussian",
        "noises:UniformGaussian",
        "Gaussian, its level drawn for each image",
        examples=({}, {"sigma_min": 0.1, "sigma_max": 0.2}),
    ),
    Entry(
        "LogPoissonNoise",
        "log-poisson",
        "noises:LogPoisson",
        "logarithms of photon counts (computed tomography)",
        examples=({"N0": 1e4, "mu": 0.5}, {}),
    ),
    Entry("GammaNoise", "gamma", "noises:Gamma", "speckle of intensities: Gamma, mean x", examples=({}, {"l": 4.0})),
    Entry(
        "FisherTippettNoise",
        "fisher-tippett",
        "noises:FisherTippett",
        "speckle of log-intensities",
        examples=({}, {"l": 4.0}),
    ),
    Entry(
        "SaltPepperNoise",
        "salt-pepper",
        "noises:SaltPepper",
        "pixels set to 0 or 1",
        examples=({}, {"p": 0.1, "s": 0.2}),
    ),
    Entry(
        "RicianNoise",
        "rician",
        "noises:Rician",
        "modulus of a complex image with Gaussian noise",
        examples=({}, {"sigma": 0.3}),
    ),
    Entry("LaplaceNoise", "laplace", "noises:Laplace", "double exponential", examples=({}, {"b": 0.3})),
    Entry("ZeroNoise", "zero", "noises:Zero", "none"),
)

NOISES_NOT_OFFERED = {"NoiseModel": "the base class"}
