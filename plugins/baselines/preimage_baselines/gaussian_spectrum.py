"""A Gaussian prior fitted to images: a spectrum with colour, a mean, and perhaps principal components."""

import torch
from torch import Tensor

from preimage import (
    Basis,
    Denoiser,
    Diagonal,
    Generative,
    InvertibleMap,
    LinearOperator,
    Proximable,
    Quadratic,
    Shape,
    check_shape,
    dot,
)
from preimage.transforms import dct2, idct2
from preimage.weights import WeightsName

from .gaussian_spectrum_model import SpectrumModel
from .gaussian_spectrum_posterior import SpectralPosterior, along, pixel_variances, spectral_posterior

SMALLEST_VARIANCE = 1 / (12 * 255**2)
"""Variance of rounding to 8 bits: no fitted variance is believed to be smaller."""


class Whitening(LinearOperator):
    """K x: images to coefficients that are independent and of variance one under the prior, (C, H, W) -> (C, H, W).

    K = (I + U^T e U)^-1/2 D^-1/2 V^T Q (see `gaussian_spectrum_posterior`), so that K^T K is the inverse of the
    prior's covariance, and K is invertible. Frequencies are in the order of the DCT-II; the axis of channels holds the
    principal colour axes, the strongest last.
    """

    axes: Tensor
    variances: Tensor
    directions: Tensor
    gains: Tensor

    def __init__(self, model: SpectrumModel):
        super().__init__(model.shape, model.shape)
        variances, axes = torch.linalg.eigh(model.spectrum.double().permute(2, 3, 0, 1))
        self.register_buffer("axes", axes.permute(2, 3, 0, 1).contiguous())
        self.register_buffer("variances", variances.permute(2, 0, 1).contiguous().clamp_min(SMALLEST_VARIANCE))
        directions, gains = self._low_rank(model.components.double())
        self.register_buffer("directions", directions)
        self.register_buffer("gains", gains)

    def _low_rank(self, components: Tensor) -> tuple[Tensor, Tensor]:
        """Orthonormal directions and gains: U^T e U is the components' covariance in whitened coefficients."""
        if not len(components):
            return components.new_zeros(0, *self.in_shape), components.new_zeros(0)
        rows = (self.principal(components) / self.variances.sqrt()).flatten(1)
        gains, mixing = torch.linalg.eigh(rows @ rows.mT)
        kept = gains > 1e-9 * gains.amax().clamp_min(1e-30)
        directions = (mixing[:, kept] / gains[kept].sqrt()).mT @ rows
        return directions.reshape(-1, *self.in_shape), gains[kept]

    def principal(self, x: Tensor) -> Tensor:
        """V^T Q x: coefficients along the principal colour axes of each frequency. Orthonormal."""
        c = dct2(x)
        return c if self.in_shape[0] == 1 else torch.einsum("ijhw,bihw->bjhw", self.axes.to(x), c)

    def from_principal(self, c: Tensor) -> Tensor:
        """Inverse (and adjoint) of `principal`."""
        return idct2(c if self.in_shape[0] == 1 else torch.einsum("ijhw,bjhw->bihw", self.axes.to(c), c))

    def _along(self, a: Tensor, gains: Tensor) -> Tensor:
        return along(self.directions.to(a), a, gains.to(a))

    def forward(self, x: Tensor) -> Tensor:
        return self._along(self.principal(x) / self.variances.to(x).sqrt(), self._tightening())

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of Whitening")
        return self.from_principal(self._along(y, self._tightening()) / self.variances.to(y).sqrt())

    def inverse(self, z: Tensor) -> Tensor:
        """K^-1 z, a square root of the covariance."""
        check_shape(z, self.out_shape, "input of the inverse of Whitening")
        return self.from_principal(self._along(z, (1 + self.gains).sqrt() - 1) * self.variances.to(z).sqrt())

    def inverse_adjoint(self, x: Tensor) -> Tensor:
        """K^-T x."""
        check_shape(x, self.in_shape, "input of the adjoint of the inverse of Whitening")
        return self._along(self.principal(x) * self.variances.to(x).sqrt(), (1 + self.gains).sqrt() - 1)

    def normal_diagonal(self) -> Diagonal | None:
        if self.in_shape[0] > 1 or len(self.gains):
            return None
        return Diagonal(Basis.COSINE, 1 / (self.axes[0].square() * self.variances))

    def posterior(self, response: Tensor, noise: Tensor) -> SpectralPosterior:
        """The posterior for A^T A = Q^T diag(response) Q and noise variances (B,); `response`: (B or 1, 1, H, W)."""
        tensors = (response, self.variances, noise, self.directions, self.gains)
        return spectral_posterior(*(tensor.to(noise) for tensor in tensors))

    def solve(self, posterior: SpectralPosterior, gradient: Tensor) -> Tensor:
        """K times the posterior mean of x - mu, from gradient = A^T (y - A mu)."""
        scaled = self.principal(gradient) * self.variances.to(gradient).sqrt()
        a = posterior.solve(scaled, self.directions.to(gradient), self.gains.to(gradient))
        return self._along(a, self._tightening())

    def precondition(self, posterior: SpectralPosterior, z: Tensor) -> Tensor:
        """(K^-T A^T A K^-1 + s2 I)^-1 z."""
        a = posterior.solve(self._along(z, self._tightening()), self.directions.to(z), self.gains.to(z))
        return self._along(a, self._tightening())

    def pixel_variance(self, posterior: SpectralPosterior) -> Tensor:
        """Posterior variance of every pixel, (B, C, H, W)."""
        variances = posterior.variances()
        d = self.variances.to(variances)
        squared = self.axes.to(variances).square()
        found = pixel_variances(torch.einsum("ijhw,bjhw->bihw", squared, variances * d))
        if len(self.gains):
            spread = posterior.spread(self.directions.to(d), self.gains.to(d))
            images = self.from_principal((spread * d.sqrt()).flatten(0, 1)).reshape(spread.shape)
            found = found + images.square().sum(1)
        return found

    def _tightening(self) -> Tensor:
        return (1 + self.gains).rsqrt() - 1


class GaussianSpectrum(Quadratic, Proximable, Denoiser, Generative, InvertibleMap):
    """x ~ N(mu, C), R(x) = 1/2 (x - mu)^T C^-1 (x - mu): the strongest prior with closed forms.

    C is diagonal over the frequencies of the orthonormal DCT-II of the whole image (a stationary texture with the
    half-sample symmetric boundary), with one covariance of the channels at each; a mean image, and a low-rank part,
    principal components of the images the model was fitted to, may be added. All of R's machinery is exact: gradient,
    proximal map mu + C (C + step I)^-1 (x - mu), Wiener filter (`denoise`, the same with step = sigma^2), samples
    x = mu + C^1/2 z (`decode`), and whitening, its inverse (`encode`).

    - `weights`: a fitted model by name, or a file from `preimage fit gaussian-spectrum`. "natural": photographs
      (Berkeley Segmentation Data Set), the default. "faces": aligned faces, with their mean image. Images in [0, 1].

    Every shape of images is served; how a model is carried to another size or number of channels is told by
    `SpectrumModel.to_shape`. Variances below that of rounding to 8 bits, 1 / (12 255^2), are raised to it.

    With noise of standard deviation sigma, misfit + weight R has the posterior mean as its minimiser at
    weight = sigma^2. The solver `gaussian-posterior` knows that by itself, and is the direct way to it.

    Raises `BadFile` for weights that are missing or of another component, and `ShapeMismatch` for anything but images.
    """

    mean: Tensor

    def __init__(self, in_shape: Shape, *, weights: WeightsName = "natural"):
        super().__init__(in_shape)
        self._build(SpectrumModel.load(weights))

    @classmethod
    def of(cls, in_shape: Shape, model: SpectrumModel) -> "GaussianSpectrum":
        """The prior of a model at hand, such as `fit_spectrum` gives."""
        prior = cls.__new__(cls)
        Quadratic.__init__(prior, in_shape)
        prior._build(model)
        return prior

    def _build(self, model: SpectrumModel) -> None:
        model = model.to_shape(self.in_shape)
        self.latent_shape = self.in_shape
        self.whitening = Whitening(model)
        self.register_buffer("mean", model.mean.double().contiguous())

    def analysis(self) -> Whitening:
        """K with K^T K = C^-1."""
        return self.whitening

    def target(self) -> Tensor:
        return self.whitening(self.mean[None])[0]

    def energy(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        return 0.5 * dot(z, z)

    def grad(self, x: Tensor) -> Tensor:
        return self.whitening.adjoint(self.encode(x))

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        steps = torch.as_tensor(step, dtype=x.dtype, device=x.device).reshape(-1)
        posterior = self.whitening.posterior(x.new_ones(1, 1, 1, 1), steps)
        deviation = x - self.mean.to(x)
        return self.mean.to(x) + self.whitening.inverse(self.whitening.solve(posterior, deviation))

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.prox(x, sigma**2)

    def decode(self, z: Tensor) -> Tensor:
        return self.mean.to(z) + self.whitening.inverse(z)

    def encode(self, u: Tensor) -> Tensor:
        return self.whitening(u - self.mean.to(u))

    def variance(self) -> Tensor:
        """Prior variance of every pixel, (C, H, W)."""
        mean = self.mean
        nothing = self.whitening.posterior(mean.new_zeros(1, 1, 1, 1), mean.new_ones(1))
        return self.whitening.pixel_variance(nothing)[0]
