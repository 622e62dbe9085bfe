"""deepinv's noise models, drawn from keys, with the likelihood that deepinv leaves out.

Each image is drawn on the CPU in float64 by deepinv's own class, from a generator started from the image's key, and
then moved: the same numbers on every device, whatever its batch mates. Gamma and FisherTippett are drawn by NumPy,
because deepinv's take no generator.

misfit is minus the logarithm of the density, up to a constant and a factor (see `preimage.Noise`), but for two: for
uniform noise the density is 0 or constant, which has no derivative, and for salt and pepper there is none, since pixels
are exact or lost. Their documentation says what misfit is instead; solvers for least squares refuse both.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from preimage import GaussianNoise, Key, LeastSquares, Noise, NoNoise, PoissonNoise
from preimage.errors import BadData, BadParameter

from ._deepinv import build, generator, quiet

_FLOOR = 1e-6
"""Smallest prediction in a logarithm or denominator; below it the gradient is zero."""


def _number(name: str, value: float, positive: bool = False) -> float:
    """The value; raises `BadParameter` unless it is finite and at least 0, or above it."""
    if not (value > 0 if positive else value >= 0) or value == float("inf"):
        raise BadParameter(f"{name} is {value}", f"a finite number {'> 0' if positive else '>= 0'}")
    return float(value)


def _draw(name: str, clean: Tensor, key: Key, **parameters: Any) -> Tensor:
    """One draw of deepinv's noise model of this name for one image."""
    model = build(f"physics.{name}", rng=generator(key), **parameters)
    with quiet():
        y = cast(Tensor, model(clean.detach().double().cpu().clone()[None]))
    return y[0].to(clean)


def _refuse(clean: Tensor, allowed: str, holds: bool, remedy: str) -> None:
    if not holds:
        raise BadData(f"a clean measurement with minimum {float(clean.min()):.3g}", allowed, remedy)


class Gaussian(GaussianNoise):
    """y = x + sigma n, n standard normal; misfit 1/2 ||p - y||^2. As the noise gaussian, drawn by deepinv.

    - `sigma`: standard deviation, >= 0.
    """

    deepinv: ClassVar[str] = "GaussianNoise"
    instead: ClassVar[Mapping[str, str]] = {"rng": "the key of each image"}

    def __init__(self, *, sigma: float = 0.1):
        super().__init__(sigma=sigma)

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        return _draw(self.deepinv, clean, key, sigma=self.sigma)


class Zero(NoNoise):
    """y = x; misfit 1/2 ||p - y||^2."""

    deepinv: ClassVar[str] = "ZeroNoise"
    instead: ClassVar[Mapping[str, str]] = {}


class UniformGaussian(LeastSquares):
    """y = x + sigma n, n standard normal, with one sigma for each image, uniform in [sigma_min, sigma_max].

    misfit 1/2 ||p - y||^2, minus the logarithm of the density for whatever sigma the image had, times sigma^2.

    - `sigma_min`, `sigma_max`: standard deviations, 0 <= sigma_min <= sigma_max.
    """

    deepinv: ClassVar[str] = "UniformGaussianNoise"
    instead: ClassVar[Mapping[str, str]] = {"rng": "the key of each image"}

    def __init__(self, *, sigma_min: float = 0.0, sigma_max: float = 0.5):
        super().__init__()
        self.sigma_min, self.sigma_max = _number("sigma_min", sigma_min), _number("sigma_max", sigma_max)
        if sigma_min > sigma_max:
            raise BadParameter(f"sigma_min is {sigma_min}, above sigma_max {sigma_max}", "sigma_min <= sigma_max")

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        return _draw(self.deepinv, clean, key, sigma_min=self.sigma_min, sigma_max=self.sigma_max)


class Poisson(PoissonNoise):
    """y = gain Poisson(x / gain), mean x and variance gain x; the noise poisson with peak = 1 / gain, drawn by deepinv.

    misfit: sum(y log(y / p) - y + p) with p floored at 1e-6.

    - `gain`: > 0. - `clip_positive`: count negative x as 0, instead of raising `BadData`.
    """

    deepinv: ClassVar[str] = "PoissonNoise"
    instead: ClassVar[Mapping[str, str]] = {
        "normalize": "always: counts are in other units than the operator's output",
        "rng": "the key of each image",
    }

    def __init__(self, *, gain: float = 1.0, clip_positive: bool = False):
        super().__init__(peak=1 / _number("gain", gain, positive=True))
        self.gain, self.clip_positive = float(gain), clip_positive

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        return _draw_counts(self.deepinv, clean, key, gain=self.gain, clip_positive=self.clip_positive)


class PoissonGaussian(Noise):
    """y = gain Poisson(x / gain) + sigma n, n standard normal.

    misfit: that of the shifted Poisson variable, exact in mean and variance: with s = sigma^2 / gain, y + s is taken
    for gain Poisson((x + s) / gain), hence sum((y + s) log((y + s) / (p + s)) - y + p), arguments floored at 1e-6
    (Snyder,
    Hammoud and White, "Image recovery from data acquired with a charge-coupled-device camera", JOSA A 10, 1993). The
    density itself is an infinite sum.

    - `gain`: > 0. `sigma`: standard deviation, >= 0. - `clip_positive`: as for deepinv/poisson.
    """

    deepinv: ClassVar[str] = "PoissonGaussianNoise"
    instead: ClassVar[Mapping[str, str]] = {"min_gain": "gain itself", "rng": "the key of each image"}

    def __init__(self, *, gain: float = 1.0, sigma: float = 0.1, clip_positive: bool = False):
        super().__init__()
        self.gain, self.sigma = _number("gain", gain, positive=True), _number("sigma", sigma)
        self.clip_positive = clip_positive

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        levels = {"gain": self.gain, "sigma": self.sigma, "min_gain": min(self.gain, 1e-12)}
        return _draw_counts(self.deepinv, clean, key, clip_positive=self.clip_positive, **levels)

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        shift = self.sigma**2 / self.gain
        p, counts = (predicted + shift).clamp_min(_FLOOR), (y + shift).clamp_min(0)
        return (torch.xlogy(counts, counts.clamp_min(_FLOOR) / p) - counts + p).flatten(1).sum(1)

    def expected_misfit(self, y: Tensor) -> Tensor:
        """m gain / 2, as for Poisson noise."""
        return y.new_full((len(y),), 0.5 * y[0].numel() * self.gain)


def _draw_counts(name: str, clean: Tensor, key: Key, *, clip_positive: bool, **levels: float) -> Tensor:
    remedy = "an operator that keeps images non-negative, clip_positive = true, or Gaussian noise"
    _refuse(clean, "for photon counts, nowhere negative", clip_positive or not bool((clean < 0).any()), remedy)
    return _draw(name, clean, key, clip_positive=clip_positive, **levels)


class LogPoisson(Noise):
    """y = -log(N / N0) / mu, N ~ Poisson(N0 exp(-mu x)): line integrals from photon counts in computed tomography.

    A count of zero is read as 0.1, as in the data set LoDoPaB-CT, where deepinv gives infinity.

    misfit: the Kullback-Leibler divergence of the counts over N0 mu^2,
    sum(exp(-mu y) mu (p - y) - exp(-mu y) + exp(-mu p)) / mu^2, close to 1/2 ||p - y||^2 where mu x is small.

    - `N0`: photons without absorption, > 0. `mu`: absorption for x = 1, > 0.

    Source: Leuschner et al., "LoDoPaB-CT, a benchmark dataset for low-dose computed tomography reconstruction",
    Scientific Data 8 (2021).
    """

    deepinv: ClassVar[str] = "LogPoissonNoise"
    instead: ClassVar[Mapping[str, str]] = {"rng": "the key of each image"}

    def __init__(self, *, N0: float = 1024.0, mu: float = 0.02):
        super().__init__()
        self.photons, self.mu = _number("N0", N0, positive=True), _number("mu", mu, positive=True)

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        y = _draw(self.deepinv, clean.double(), key, N0=self.photons, mu=self.mu)
        unseen = -torch.log(torch.as_tensor(0.1 / self.photons, dtype=torch.float64)) / self.mu
        return torch.where(torch.isinf(y), unseen.to(y), y).to(clean)

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        seen = torch.exp(-self.mu * y)
        divergence = seen * self.mu * (predicted - y) - seen + torch.exp(-self.mu * predicted)
        return divergence.flatten(1).sum(1) / self.mu**2

    def expected_misfit(self, y: Tensor) -> Tensor:
        """m / (2 N0 mu^2): the divergence is half a chi-squared variable where counts are not small."""
        return y.new_full((len(y),), 0.5 * y[0].numel() / (self.photons * self.mu**2))


class Gamma(Noise):
    """y ~ Gamma with shape l and mean x: speckle of intensities, variance x^2 / l.

    misfit: sum(y / p - log(y / p) - 1), which is -log p(y | p) / l up to a constant, p and y floored at 1e-6.

    - `l`: number of looks, > 0. Draws raise `BadData` unless x > 0.
    """

    deepinv: ClassVar[str] = "GammaNoise"
    instead: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, l: float = 1.0):  # noqa: E741 (deepinv's name)
        super().__init__()
        self.looks = _number("l", l, positive=True)

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        _refuse(clean, "for speckle, positive everywhere", bool((clean > 0).all()), "an operator with positive output")
        drawn = key.generator().gamma(self.looks, clean.detach().double().cpu().numpy() / self.looks)
        return torch.as_tensor(drawn).to(clean)

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        ratio = y.clamp_min(_FLOOR) / predicted.clamp_min(_FLOOR)
        return (ratio - ratio.log() - 1).flatten(1).sum(1)

    def expected_misfit(self, y: Tensor) -> Tensor:
        """m (log l - digamma(l))."""
        return _speckle(y, self.looks)


class FisherTippett(Noise):
    """y = log(s), s ~ Gamma with shape l and mean exp(x): speckle of log-intensities.

    misfit: sum(exp(y - p) - (y - p) - 1), which is -log p(y | p) / l up to a constant.

    - `l`: number of looks, > 0.
    """

    deepinv: ClassVar[str] = "FisherTippettNoise"
    instead: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, l: float = 1.0):  # noqa: E741 (deepinv's name)
        super().__init__()
        self.looks = _number("l", l, positive=True)

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        intensity = key.generator().gamma(self.looks, clean.detach().double().cpu().exp().numpy() / self.looks)
        return torch.as_tensor(intensity).log().to(clean)

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        excess = y - predicted
        return (excess.exp() - excess - 1).flatten(1).sum(1)

    def expected_misfit(self, y: Tensor) -> Tensor:
        """m (log l - digamma(l))."""
        return _speckle(y, self.looks)


def _speckle(y: Tensor, looks: float) -> Tensor:
    l = torch.as_tensor(looks, dtype=torch.float64)  # noqa: E741
    return y.new_full((len(y),), y[0].numel() * float(l.log() - torch.digamma(l)))


class Rician(Noise):
    """y = sqrt((x + sigma n1)^2 + (sigma n2)^2), n1 and n2 standard normal: the modulus of a complex image.

    misfit: sum((y^2 + p^2) / 2 - sigma^2 log I0(p y / sigma^2)), I0 the modified Bessel function, which is
    -sigma^2 log p(y | p) up to a term in y. Not zero at its least value, which is near p = sqrt(y^2 - sigma^2).

    - `sigma`: > 0.

    Source: Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", Magn. Reson. Med. 34 (1995).
    """

    deepinv: ClassVar[str] = "RicianNoise"
    instead: ClassVar[Mapping[str, str]] = {"rng": "the key of each image"}

    def __init__(self, *, sigma: float = 0.1):
        super().__init__()
        self.sigma = _number("sigma", sigma, positive=True)

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        return _draw(self.deepinv, clean, key, sigma=self.sigma)

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        variance = self.sigma**2
        z = predicted * y / variance
        bessel = torch.special.i0e(z).log() + z.abs()
        return (0.5 * (y.square() + predicted.square()) - variance * bessel).flatten(1).sum(1)


class Laplace(Noise):
    """y = x + n, n with density exp(-|n| / b) / (2 b), variance 2 b^2; misfit sum |p - y|.

    - `b`: scale, >= 0.
    """

    deepinv: ClassVar[str] = "LaplaceNoise"
    instead: ClassVar[Mapping[str, str]] = {"rng": "the key of each image"}

    def __init__(self, *, b: float = 0.1):
        super().__init__()
        self.b = _number("b", b)

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        return _draw(self.deepinv, clean, key, b=self.b)

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        return (predicted - y).abs().flatten(1).sum(1)

    def misfit_grad(self, predicted: Tensor, y: Tensor) -> Tensor:
        """sign(p - y), a subgradient where p = y."""
        return (predicted - y).sign()

    def expected_misfit(self, y: Tensor) -> Tensor:
        """m b."""
        return y.new_full((len(y),), y[0].numel() * self.b)


class Uniform(Noise):
    """y = x + n, n uniform in [-a, a].

    The density is constant where |y - p| <= a everywhere and 0 elsewhere: its logarithm has no derivative to follow.
    misfit is instead half the squared distance from there, 1/2 sum max(|p - y| - a, 0)^2, zero exactly where the
    density is not.

    - `a`: >= 0.
    """

    deepinv: ClassVar[str] = "UniformNoise"
    instead: ClassVar[Mapping[str, str]] = {"rng": "the key of each image"}

    def __init__(self, *, a: float = 0.1):
        super().__init__()
        self.a = _number("a", a)

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        return _draw(self.deepinv, clean, key, a=self.a)

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        return 0.5 * ((predicted - y).abs() - self.a).clamp_min(0).square().flatten(1).sum(1)


class SaltPepper(Noise):
    """y = 0 (pepper) with probability p, 1 (salt) with probability s, x otherwise, for every value.

    Values are exact or lost, so that there is no density. misfit is instead sum |p - y|, which ignores a few wrong
    values, as is usual for impulse noise (Nikolova, "A variational approach to remove outliers and impulse noise",
    J. Math. Imaging Vis. 20, 2004).

    - `p`, `s`: probabilities, p + s <= 1.
    """

    deepinv: ClassVar[str] = "SaltPepperNoise"
    instead: ClassVar[Mapping[str, str]] = {"rng": "the key of each image"}

    def __init__(self, *, p: float = 0.025, s: float = 0.025):
        super().__init__()
        self.p, self.s = _number("p", p), _number("s", s)
        if not 0 < p + s <= 1:
            raise BadParameter(f"p is {p}, s is {s}", "probabilities with 0 < p + s <= 1")

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        return _draw(self.deepinv, clean, key, p=self.p, s=self.s)

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        return (predicted - y).abs().flatten(1).sum(1)

    def misfit_grad(self, predicted: Tensor, y: Tensor) -> Tensor:
        """sign(p - y), a subgradient where p = y."""
        return (predicted - y).sign()
