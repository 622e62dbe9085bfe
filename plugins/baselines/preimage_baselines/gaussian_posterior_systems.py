"""The linear system of a Gaussian posterior, in coordinates that suit the prior, and closed forms of its solution.

For y = A x + n, n ~ N(0, sigma^2 I), and the prior density exp(-w R), R(x) = 1/2 ||K x - c||^2, the posterior has the
covariance sigma^2 H^-1 and the mean H^-1 (A^T y + s2 K^T c), with H = A^T A + s2 K^T K and s2 = sigma^2 w.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from preimage import Basis, Diagonal, Key, LinearOperator, Problem, Quadratic, Shape, per_image

from .gaussian_spectrum import GaussianSpectrum
from .gaussian_spectrum_posterior import SpectralPosterior, pixel_variances

PROBES = 2
RINGS = 24


class PosteriorSystem(ABC):
    """H in coordinates z, with x = origin + G z: (G^T A^T A G + s2 P) z = b. Batches of z have the images' shape."""

    def __init__(self, problem: Problem, levels: Tensor):
        self.operator, self.levels = cast(LinearOperator, problem.operator), levels
        self.noise_shape: Shape = problem.operator.in_shape

    @abstractmethod
    def image(self, z: Tensor) -> Tensor:
        """origin + G z."""

    @abstractmethod
    def lift(self, z: Tensor) -> Tensor:
        """G z."""

    @abstractmethod
    def right_side(self, y: Tensor) -> Tensor:
        """b."""

    @abstractmethod
    def pull(self, x: Tensor) -> Tensor:
        """G^T x."""

    @abstractmethod
    def penalty(self, z: Tensor) -> Tensor:
        """P z."""

    @abstractmethod
    def penalty_noise(self, noise: Tensor) -> Tensor:
        """P^1/2 noise, for white noise of shape (B, *noise_shape): of covariance P."""

    @abstractmethod
    def precondition(self, z: Tensor, response: Tensor) -> Tensor:
        """About the inverse of the system's matrix; `response` is what `probe` returned."""

    @abstractmethod
    def probe(self, like: Tensor, keys: Sequence[Key]) -> Tensor:
        """What the preconditioner needs to know of A, one row per image, by applying A^T A to random images."""

    def apply(self, z: Tensor) -> Tensor:
        """(G^T A^T A G + s2 P) z."""
        return self.pull(self.operator.normal(self.lift(z))) + per_image(self.levels, z) * self.penalty(z)

    def random_images(self, like: Tensor, keys: Sequence[Key]) -> Tensor:
        """White noise, `PROBES` images for each key, of the operator's shape."""
        shape = (PROBES, *self.operator.in_shape)
        return torch.stack([key.child("probe").normal(shape, like) for key in keys]).transpose(0, 1)


class SpectralSystem(PosteriorSystem):
    """For `GaussianSpectrum`: G the square root of the prior's covariance, origin its mean, P the identity."""

    def __init__(self, problem: Problem, levels: Tensor):
        super().__init__(problem, levels)
        self.prior = cast(GaussianSpectrum, problem.prior)

    def image(self, z: Tensor) -> Tensor:
        return self.prior.decode(z)

    def lift(self, z: Tensor) -> Tensor:
        return self.prior.whitening.inverse(z)

    def right_side(self, y: Tensor) -> Tensor:
        return self.pull(self.gradient(y))

    def gradient(self, y: Tensor) -> Tensor:
        """A^T (y - A mu)."""
        mean = self.prior.mean.to(y).expand(len(y), *self.prior.in_shape)
        return self.operator.adjoint(y - self.operator(mean))

    def pull(self, x: Tensor) -> Tensor:
        return self.prior.whitening.inverse_adjoint(x)

    def penalty(self, z: Tensor) -> Tensor:
        return z

    def penalty_noise(self, noise: Tensor) -> Tensor:
        return noise

    def probe(self, like: Tensor, keys: Sequence[Key]) -> Tensor:
        """The mean eigenvalue of A^T A in each of `RINGS` rings of DCT frequencies (B, 1, H, W), estimated as
        sum (Q u)(Q A^T A u) / sum (Q u)^2 over the ring, for white noise u."""
        whitening = self.prior.whitening
        above, below = 0.0, 0.0
        for u in self.random_images(like, keys):
            c = whitening.principal(u)
            above = above + (c * whitening.principal(self.operator.normal(u))).sum(1)
            below = below + c.square().sum(1)
        ring = _rings(like.shape[-2], like.shape[-1]).to(like.device)
        totals = [
            like.new_zeros(len(like), RINGS).index_add_(1, ring.flatten(), cast(Tensor, total).flatten(1))
            for total in (above, below)
        ]
        response = totals[0] / totals[1].clamp_min(torch.finfo(like.dtype).tiny)
        response = response.clamp_min(1e-6 * response.amax(1, keepdim=True).clamp_min(1e-30))
        return response[:, ring][:, None]

    def precondition(self, z: Tensor, response: Tensor) -> Tensor:
        posterior = self.prior.whitening.posterior(response, self.levels)
        return self.prior.whitening.precondition(posterior, z)

    def diagonal_response(self) -> Tensor | None:
        """The eigenvalues of A^T A (1, 1, H, W), if the cosine transform makes it diagonal, alike for all channels."""
        diagonal = self.operator.normal_diagonal()
        if diagonal is None or diagonal.basis not in (None, Basis.COSINE):
            return None
        channels, height, width = self.prior.in_shape
        eigenvalues = diagonal.eigenvalues.expand(1, channels, height, width)
        alike = channels == 1 or bool((eigenvalues == eigenvalues[:, :1]).all())
        return eigenvalues[:, :1] if alike else None

    def closed_form(self, y: Tensor, response: Tensor) -> tuple[Tensor, SpectralPosterior]:
        """The posterior mean, and what its variance is computed from."""
        tiny = torch.finfo(y.dtype).eps * float(response.amax()) * float(self.prior.whitening.variances.amax())
        levels = common(self.levels).clamp_min(tiny)
        posterior = self.prior.whitening.posterior(response.to(y), levels)
        return self.image(self.prior.whitening.solve(posterior, self.gradient(y))), posterior


class QuadraticSystem(PosteriorSystem):
    """For any `Quadratic` prior: G the identity, origin zero, P = K^T K."""

    def __init__(self, problem: Problem, levels: Tensor):
        super().__init__(problem, levels)
        self.prior = cast(Quadratic, problem.prior)
        self.analysis = self.prior.analysis()
        self.noise_shape = self.analysis.out_shape

    def image(self, z: Tensor) -> Tensor:
        return z

    def lift(self, z: Tensor) -> Tensor:
        return z

    def right_side(self, y: Tensor) -> Tensor:
        back, target = self.operator.adjoint(y), self.prior.target()
        if target is None:
            return back
        drawn = self.analysis.adjoint(target.to(y).expand(len(y), *target.shape))
        return back + per_image(self.levels, y) * drawn

    def pull(self, x: Tensor) -> Tensor:
        return x

    def penalty(self, z: Tensor) -> Tensor:
        return self.analysis.normal(z)

    def penalty_noise(self, noise: Tensor) -> Tensor:
        return self.analysis.adjoint(noise)

    def probe(self, like: Tensor, keys: Sequence[Key]) -> Tensor:
        """The mean eigenvalue of A^T A, (B,)."""
        above, below = 0.0, 0.0
        for u in self.random_images(like, keys):
            above = above + self.operator(u).flatten(1).square().sum(1)
            below = below + u.flatten(1).square().sum(1)
        return cast(Tensor, above) / cast(Tensor, below)

    def precondition(self, z: Tensor, response: Tensor) -> Tensor:
        diagonal = self.analysis.normal_diagonal()
        if diagonal is None:
            return z
        scale = per_image(self.levels, z)
        shift = response.clamp_min(torch.finfo(z.dtype).eps * float(response.amax().clamp_min(1e-30)))
        return Diagonal(diagonal.basis, scale * diagonal.eigenvalues.to(z)).solve(z, shift)

    def diagonal(self) -> Diagonal | None:
        """H in a basis that makes it diagonal, if there is one; no eigenvalue below the resolution of the dtype."""
        normal, penalty = self.operator.normal_diagonal(), self.analysis.normal_diagonal()
        whole = None if normal is None else normal.plus(penalty, self.levels)
        if whole is None:
            return None
        least = torch.finfo(self.levels.dtype).eps * float(whole.eigenvalues.amax())
        return Diagonal(whole.basis, whole.eigenvalues.clamp_min(least))


def common(levels: Tensor) -> Tensor:
    """One level if all images have the same, so that what depends on it is computed once."""
    return levels[:1] if bool((levels == levels[0]).all()) else levels


def diagonal_variances(diagonal: Diagonal, shape: Shape, like: Tensor) -> Tensor:
    """The diagonal of M^-1 in pixels, (B or 1, C, H, W), for a diagonal M."""
    inverse = 1 / diagonal.eigenvalues.to(like)
    if diagonal.basis is Basis.FOURIER:
        half = inverse.expand(*inverse.shape[:-2], shape[-2], shape[-1] // 2 + 1)
        return diagonal.basis.synthesise(torch.complex(half, torch.zeros_like(half)), (shape[-2], shape[-1]))[
            ..., :1, :1
        ].expand(*inverse.shape[:-2], *shape[-2:])
    full = inverse.expand(*inverse.shape[:-2], *shape[-2:]) if inverse.ndim >= 2 else inverse.expand(shape)
    return pixel_variances(full) if diagonal.basis is Basis.COSINE else full


def _rings(height: int, width: int) -> Tensor:
    """The ring of each DCT frequency, 0 to RINGS - 1, by its distance from zero."""
    down, across = (torch.arange(n, dtype=torch.float64) / n for n in (height, width))
    radius = (down.square()[:, None] + across.square()).sqrt() / 2**0.5
    return (radius * RINGS).long().clamp_max(RINGS - 1)
