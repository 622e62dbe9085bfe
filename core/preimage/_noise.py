"""Noise models. A noise model is also the data misfit: sampling and likelihood live in one place."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._key import Key, keys_for
from ._tensors import gradient
from .errors import BadData, BadParameter


class Noise(nn.Module, ABC):
    """A family of distributions of the measurement y around the clean F(x)."""

    @abstractmethod
    def draw(self, clean: Tensor, key: Key) -> Tensor:
        """The measurement of one image: `clean` has no batch axis; same shape, device and dtype."""

    @abstractmethod
    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        """-log p(y | predicted) up to an additive constant and a positive factor, per image: (B,).

        The factor is chosen so that the value does not depend on the noise level (for Gaussian noise it is sigma^2,
        which gives half the squared residual): step sizes then depend on the operator alone, and sigma = 0 is legal.
        """

    def misfit_grad(self, predicted: Tensor, y: Tensor) -> Tensor:
        """Gradient of the misfit in `predicted`, by automatic differentiation unless replaced."""
        return gradient(lambda p: self.misfit(p, y), predicted)

    def expected_misfit(self, y: Tensor) -> Tensor | None:
        """What the misfit of the true image is on average, (B,), for discrepancy principles; None if unknown."""
        return None

    def sample(self, clean: Tensor, key: Key | Sequence[Key]) -> Tensor:
        """Draw y given F(x) for a batch (B, ...), image i from its own key (`key.child(i)` if one key is given)."""
        return torch.stack([self.draw(image, k) for image, k in zip(clean, keys_for(key, len(clean)), strict=True)])


class LeastSquares(Noise):
    """Noise whose misfit is 1/2 ||predicted - y||^2."""

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        return 0.5 * (predicted - y).flatten(1).square().sum(1)

    def misfit_grad(self, predicted: Tensor, y: Tensor) -> Tensor:
        return predicted - y


class GaussianNoise(LeastSquares):
    """y = F(x) + sigma n with n standard normal; misfit 1/2 ||F(x) - y||^2.

    - `sigma`: standard deviation in units of the measurement, >= 0. A negative or infinite one raises `BadParameter`.
    """

    def __init__(self, *, sigma: float):
        super().__init__()
        if not 0 <= sigma < float("inf"):
            raise BadParameter(f"sigma is {sigma}", "a finite number >= 0, in units of the measurement")
        self.sigma = sigma

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        return clean + self.sigma * key.normal(clean.shape, like=clean)

    def expected_misfit(self, y: Tensor) -> Tensor:
        """m sigma^2 / 2, m the number of values in the measurement of one image."""
        return y.new_full((len(y),), 0.5 * y[0].numel() * self.sigma**2)


class NoNoise(LeastSquares):
    """y = F(x); misfit 1/2 ||F(x) - y||^2."""

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        return clean.clone()

    def expected_misfit(self, y: Tensor) -> Tensor:
        """Zero."""
        return y.new_zeros(len(y))


class PoissonNoise(Noise):
    """Photon counts: y = Poisson(peak F(x)) / peak, so that y has mean F(x) and variance F(x) / peak.

    misfit: the Kullback-Leibler divergence sum(y log(y / p) - y + p) >= 0, with p floored at 1e-6 where it is smaller
    (there the gradient is zero).

    - `peak`: expected count at F(x) = 1, > 0. Another one raises `BadParameter`; a negative F(x) raises `BadData`.
    """

    floor = 1e-6

    def __init__(self, *, peak: float):
        super().__init__()
        if not 0 < peak < float("inf"):
            raise BadParameter(f"peak is {peak}", "a finite number > 0: the expected count at value 1")
        self.peak = peak

    def draw(self, clean: Tensor, key: Key) -> Tensor:
        if bool((clean < 0).any()):
            raise BadData(
                f"Poisson noise met a measurement with minimum {float(clean.min()):.3g}",
                "a clean measurement that is nowhere negative",
                "use an operator that keeps images non-negative, or Gaussian noise",
            )
        counts = key.generator().poisson(self.peak * clean.double().cpu().numpy())
        return torch.from_numpy(counts / self.peak).to(clean)

    def expected_misfit(self, y: Tensor) -> Tensor:
        """m / (2 peak): the divergence is half a chi-squared variable where counts are not small (Bertero et al. 2010,
        "A discrepancy principle for Poisson data", section 2)."""
        return y.new_full((len(y),), 0.5 * y[0].numel() / self.peak)

    def misfit(self, predicted: Tensor, y: Tensor) -> Tensor:
        p = predicted.clamp_min(self.floor)
        return (torch.xlogy(y, y.clamp_min(self.floor) / p) - y + p).flatten(1).sum(1)
