"""Closed forms of a Gaussian whose covariance the cosine transform makes (almost) diagonal.

Everything here happens in *whitened coefficients* a = D^-1/2 V^T Q x: Q is the orthonormal DCT-II, V_k the principal
colour axes at frequency k, D the variances along them, so that the spectrum is Q^T V D V^T Q. In these coordinates the
covariance of the prior is I + U^T e U: `directions` U, orthonormal rows (r, C, H, W), and `gains` e >= 0, (r,).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from preimage.transforms import dct


def along(directions: Tensor, a: Tensor, gains: Tensor) -> Tensor:
    """(I + U^T g U) a, for a batch of coefficients (B, C, H, W)."""
    if not len(directions):
        return a
    flat = directions.flatten(1)
    return a + ((a.flatten(1) @ flat.mT) * gains @ flat).reshape(a.shape)


@dataclass(frozen=True)
class SpectralPosterior:
    """What a measurement whose normal matrix is Q^T diag(response) Q, the same for all channels, leaves unknown.

    The prior is a = a_0 + U^T e^1/2 v with a_0 and v standard normal. Given v, the coefficients are independent; v
    itself is found from an r x r system (Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, section
    2.7). Axis 0 of all tensors is the batch.

    - `shrink`: T = 1 / (response D + s2), (B, C, H, W). `signal`: response D T, so that 1 - signal = s2 T.
    - `factor`: Cholesky factor of I + e^1/2 U signal U^T e^1/2, (B, r, r). `noise`: s2, (B,).
    """

    shrink: Tensor
    signal: Tensor
    factor: Tensor
    noise: Tensor

    def solve(self, b: Tensor, directions: Tensor, gains: Tensor) -> Tensor:
        """The a that minimises 1/2 a^T M a - b^T a + s2/2 a^T (I + U^T e U)^-1 a, M = response D; b: (B, C, H, W)."""
        independent = self.shrink * b
        if not len(gains):
            return independent
        flat, root = directions.flatten(1), gains.sqrt()
        projected = (independent.flatten(1) @ flat.mT) * root
        v = torch.cholesky_solve(projected[..., None], self.factor)[..., 0]
        return independent + (1 - self.signal) * ((v * root) @ flat).reshape(b.shape)

    def variances(self) -> Tensor:
        """Variances of the coefficients given v and the measurement, in units of the prior's: s2 T, (B, C, H, W)."""
        return 1 - self.signal

    def spread(self, directions: Tensor, gains: Tensor) -> Tensor:
        """Vectors (B, r, C, H, W) whose outer products sum to what the uncertainty of v adds to the covariance."""
        columns = (gains.sqrt()[:, None] * directions.flatten(1)).expand(len(self.factor), -1, -1)
        mixed = torch.linalg.solve_triangular(self.factor, columns, upper=False)
        return (1 - self.signal)[:, None] * mixed.reshape(len(mixed), *directions.shape)


def spectral_posterior(
    response: Tensor, variances: Tensor, noise: Tensor, directions: Tensor, gains: Tensor
) -> SpectralPosterior:
    """The posterior for eigenvalues `response` of A^T A, broadcastable to (B, 1, H, W), prior variances D (C, H, W)
    and noise s2 > 0 (B,)."""
    level = noise.reshape(-1, 1, 1, 1)
    power = response * variances
    shrink = 1 / (power + level)
    signal = power * shrink
    count = len(gains)
    if not count:
        factor = shrink.new_zeros(len(shrink), 0, 0)
        return SpectralPosterior(shrink, signal, factor, noise)
    flat, root = directions.flatten(1), gains.sqrt()
    # One system at a time: the weighted copy of the directions is as large as they are.
    gram = torch.stack([(flat * weights.flatten()) @ flat.mT for weights in signal])
    eye = torch.eye(count, dtype=gram.dtype, device=gram.device)
    return SpectralPosterior(shrink, signal, torch.linalg.cholesky(eye + root[:, None] * gram * root), noise)


def pixel_variances(coefficients: Tensor) -> Tensor:
    """Variances of the pixels of an image whose DCT-II coefficients are independent with these variances, (..., H, W).

    The variance at a pixel is the sum over frequencies of the squared basis function there times the variance.
    """
    height, width = coefficients.shape[-2:]
    down, across = (
        dct(torch.eye(n, dtype=coefficients.dtype, device=coefficients.device)).mT.square() for n in (height, width)
    )
    return down.mT @ coefficients @ across
