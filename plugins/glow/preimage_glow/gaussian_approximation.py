"""A Gaussian approximation of a density of latents: Laplace's, of low rank, by Gauss & Newton."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from preimage import Key, norms


class Curvature(NamedTuple):
    """For directions v, (B, n): `tangent` J v and `weighed` W J v, (B, m), and `product` J^T W J v, (B, n)."""

    tangent: Tensor
    weighed: Tensor
    product: Tensor


@dataclass(frozen=True)
class GaussianApproximation:
    """N(centre, M^-1) for each image, M = base I + V^T diag(precisions - base) V.

    - `centre`: (B, n). `base`: (B,), > 0, the precision of what V leaves out.
    - `directions`: V, orthonormal rows or rows of zeros, (B, r, n). `precisions`: > 0, (B, r).

    Latents are (B, K, n) in what follows, K of them for each image.
    """

    centre: Tensor
    base: Tensor
    directions: Tensor
    precisions: Tensor

    def precision(self, u: Tensor) -> Tensor:
        """M u."""
        return self._with(u, self.base, self.precisions)

    def covariance(self, u: Tensor) -> Tensor:
        """M^-1 u."""
        return self._with(u, 1 / self.base, 1 / self.precisions)

    def draw(self, normal: Tensor) -> Tensor:
        """M^-1/2 u, distributed as N(0, M^-1) if u is standard normal."""
        return self._with(normal, self.base.rsqrt(), self.precisions.rsqrt())

    def quadratic(self, u: Tensor) -> Tensor:
        """1/2 u^T M u, (B, K), summed in float64."""
        return 0.5 * (u.double() * self.precision(u).double()).sum(-1)

    def _with(self, u: Tensor, base: Tensor, along: Tensor) -> Tensor:
        """base u + V^T diag(along - base) V u."""
        coefficients = torch.einsum("brn,bkn->bkr", self.directions, u) * (along - base[:, None])[:, None]
        return base[:, None, None] * u + torch.einsum("brn,bkr->bkn", self.directions, coefficients)


def no_directions(centre: Tensor, base: Tensor) -> GaussianApproximation:
    """N(centre, I / base)."""
    return GaussianApproximation(
        centre, base, centre.new_zeros(len(centre), 0, centre.shape[1]), centre.new_zeros(len(centre), 0)
    )


def laplace_approximation(
    curvature: Callable[[Tensor], Curvature], centre: Tensor, base: Tensor, rank: int, keys: Sequence[Key]
) -> GaussianApproximation:
    """The Gaussian of M = base I + H, H = J^T W J known within a Krylov space of dimension min(rank, n).

    The Lanczos method with full reorthogonalisation (Golub & Van Loan 2013, section 10.3); `rank` = n is exact. H is
    that of Gauss & Newton, without the second derivative of what is measured, so that it is never indefinite: near a
    mode of a network with kinks the Hessian itself is (second differences of prior/dcgan: eigenvalues down to -240
    where Gauss & Newton's are 50, and a Gaussian 100 times further from the density).

    - `curvature`: of directions (B, n), called min(rank, n) times. `centre`: (B, n). `base`: (B,), the precision of the
      prior. `keys`: of the first vectors, one for each image.
    """
    count, n = centre.shape
    rank = min(rank, n)
    if not rank:
        return no_directions(centre, base)
    basis, vector = centre.new_zeros(count, rank, n), _normal(keys, "first", centre)
    tangents, weighed = list[Tensor](), list[Tensor]()
    for index in range(rank):
        direction = _orthonormal(vector, basis[:, :index])
        # Where the Krylov space is exhausted, another random direction goes on.
        exhausted = ~(norms(direction) > 0.5)
        if bool(exhausted.any()):
            other = _orthonormal(_normal(keys, index, centre), basis[:, :index])
            direction = torch.where(exhausted[:, None], other, direction)
        found = curvature(direction)
        finite = torch.isfinite(found.product).all(1) & torch.isfinite(found.weighed).all(1)
        known = [torch.where(finite[:, None], part, 0) for part in found]
        basis[:, index], vector = direction, known[2]
        tangents.append(known[0])
        weighed.append(known[1])
    # From J v and W J v, not v and H v: J by differences and J^T by the chain rule agree to some digits only.
    projected = torch.einsum("brm,bsm->brs", torch.stack(tangents, 1), torch.stack(weighed, 1))
    values, rotation = torch.linalg.eigh(0.5 * (projected + projected.mT))
    directions = torch.einsum("brs,brn->bsn", rotation, basis)
    return GaussianApproximation(centre, base, directions, base[:, None] + values.clamp_min(0))


def _orthonormal(vector: Tensor, basis: Tensor) -> Tensor:
    """The unit vector of what is orthogonal to the rows of the basis; zero if that is lost in rounding."""
    size = norms(vector)
    for _ in range(2):  # twice is enough (Parlett 1998, section 6.9)
        vector = vector - torch.einsum("brn,br->bn", basis, torch.einsum("brn,bn->br", basis, vector))
    rest, floor = norms(vector), 100 * torch.finfo(vector.dtype).eps * size
    kept = (rest > floor) & torch.isfinite(rest)
    return torch.where(kept[:, None], vector / rest.clamp_min(torch.finfo(vector.dtype).tiny)[:, None], 0)


def _normal(keys: Sequence[Key], label: str | int, like: Tensor) -> Tensor:
    return torch.stack([key.child("lanczos", label).normal(like.shape[1:], like) for key in keys])
