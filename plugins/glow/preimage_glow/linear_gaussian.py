"""The linear Gaussian generator: a generative prior of which everything is known in closed form."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from preimage import (
    Denoiser,
    Differentiable,
    Key,
    LinearOperator,
    NormalizingFlow,
    Shape,
    per_image,
)
from preimage.errors import BadParameter, ShapeMismatch
from preimage.transforms import dct2, idct2

Spectrum = Literal["flat", "inverse", "inverse-square", "step"]

LARGEST_RANDOM = 2048
"""Most values of an image for a random basis, which is a dense matrix made in O(n^3)."""


@dataclass(frozen=True)
class LinearGaussianPosterior:
    """p(x | y), a Gaussian, for a batch of measurements by one operator; n values in an image.

    - `mean`: (B, *in_shape). `covariance`: of the flattened image, (n, n), the same for every y.
    - `deviation`: of each pixel, the root of the covariance's diagonal, (*in_shape).
    - `latent_mean`, (B, n), and `latent_covariance`, (n, n): the same of z.
    """

    mean: Tensor
    covariance: Tensor
    deviation: Tensor
    latent_mean: Tensor
    latent_covariance: Tensor


class LinearGaussian(NormalizingFlow, Differentiable, Denoiser):
    """x = mean + S z, z ~ N(0, I), so that x ~ N(mean, S S^T): S = Q diag(s), (n, n) and invertible, n = C H W.

    A generator to learn from and to test by, not a model of images: its likelihood, its denoiser and its posterior
    under linear measurements are closed forms, and its representation error is zero. (The Gaussian that is fitted to
    photographs or faces is prior/gaussian-spectrum.)

    - `spectrum`: s_i / `scale` for i = 1, ..., n, the largest first:
      - "flat": 1. "inverse": 1 / i. "inverse-square": 1 / i^2.
      - "step": 1 for the first `rank`, `floor` for all others.
      - or n numbers > 0.
    - `scale`: > 0. `mean`: the value of every pixel of the mean image.
    - `rank`: 1 to n, only for "step"; n / 10, at least 1, unless given. `floor`: in (0, 1], only for "step".
    - `basis`: Q, orthonormal. "identity": s_i belongs to the i-th value of the image, in the order channel, row,
      column. "dct": to the frequencies of the orthonormal DCT-II of the whole image, from the lowest on
      (by (k/H)^2 + (l/W)^2, then by row), all channels of one before the next. "random": uniformly distributed over the
      orthogonal matrices, drawn from `seed`, for n <= 2048.

    Raises `BadParameter` for values out of these ranges.
    """

    singular_values: Tensor
    order: Tensor
    matrix: Tensor

    def __init__(
        self,
        in_shape: Shape,
        *,
        spectrum: Spectrum | tuple[float, ...] = "inverse",
        scale: float = 1.0,
        mean: float = 0.0,
        rank: int | None = None,
        floor: float = 1e-3,
        basis: Literal["identity", "dct", "random"] = "identity",
        seed: int = 0,
    ):
        super().__init__(in_shape)
        n = math.prod(self.in_shape)
        self.latent_shape = (n,)
        if not 0 < scale < float("inf"):
            raise BadParameter(f"scale is {scale}", "a finite number > 0")
        if not math.isfinite(mean):
            raise BadParameter(f"mean is {mean}", "a finite number, the value of every pixel of the mean image")
        self.mean, self.basis = float(mean), basis
        self.register_buffer("singular_values", scale * _shape_of(spectrum, n, rank, floor), persistent=False)
        self.register_buffer("order", torch.empty(0, dtype=torch.int64), persistent=False)
        self.register_buffer("matrix", torch.empty(0, 0, dtype=torch.float64), persistent=False)
        if basis == "dct":
            if len(self.in_shape) != 3:
                raise ShapeMismatch(f'images are {self.in_shape}, for basis = "dct"', "(C, H, W)")
            self.order = _by_frequency(self.in_shape)
        elif basis == "random":
            if n > LARGEST_RANDOM:
                found = f'basis = "random" for images of {n} values'
                raise BadParameter(found, f"at most {LARGEST_RANDOM} values", 'use basis = "dct"')
            self.matrix = _random_basis(n, Key(seed).child("basis"))
        elif basis != "identity":
            raise BadParameter(f"basis is {basis!r}", "'identity', 'dct' or 'random'")

    def decode_with_log_determinant(self, z: Tensor) -> tuple[Tensor, Tensor]:
        s = self.singular_values.to(z)
        return self.mean + self._rotate(s * z), s.log().sum().expand(len(z))

    def encode_with_log_determinant(self, u: Tensor) -> tuple[Tensor, Tensor]:
        s = self.singular_values.to(u)
        return self._rotate_back(u - self.mean) / s, -s.log().sum().expand(len(u))

    def grad(self, x: Tensor) -> Tensor:
        """(S S^T)^-1 (x - mean)."""
        return self._rotate(self._rotate_back(x - self.mean) / self.singular_values.to(x).square())

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """mean + S S^T (S S^T + sigma^2 I)^-1 (x - mean): the posterior mean, exactly."""
        variances, c = self.singular_values.to(x).square(), self._rotate_back(x - self.mean)
        return self.mean + self._rotate(c * variances / (variances + per_image(sigma, c) ** 2))

    def posterior(
        self, operator: LinearOperator, y: Tensor, sigma: float, weight: float = 1.0
    ) -> LinearGaussianPosterior:
        """p(x | y) for y = A x + sigma n, n ~ N(0, I), and z ~ N(0, I / weight): y (B, *operator.out_shape).

        With B = A S = U diag(t) V^T,

            E[z | y] = V diag(t / (t^2 + weight sigma^2)) U^T (y - A mean),
            Cov[z | y] = (I - V diag(t^2 / (t^2 + weight sigma^2)) V^T) / weight;

        x = mean + S z carries them over (Bishop 2006, "Pattern recognition and machine learning", eq. 2.116 and 2.117).
        For sigma = 0 the limit: z of least norm among those that explain y, t = 0 counting as such up to rounding.
        `A` is applied to all n columns of S, and the rest is done with dense matrices in the dtype of y.

        Raises `BadParameter` unless sigma >= 0 and weight > 0.
        """
        if not 0 <= sigma < float("inf"):
            raise BadParameter(f"sigma is {sigma}", "a finite number >= 0")
        if not 0 < weight < float("inf"):
            raise BadParameter(f"weight is {weight}", "a finite number > 0")
        n = self.latent_shape[0]
        eye = torch.eye(n, dtype=y.dtype, device=y.device)
        columns = self.decode(eye) - self.mean
        centre = operator(y.new_full((1, *self.in_shape), self.mean)).flatten(1)
        u, t, v = torch.linalg.svd(operator(columns).flatten(1).mT, full_matrices=False)
        resolved = t > max(n, y[0].numel()) * torch.finfo(t.dtype).eps * t[0]
        squares = torch.where(resolved, t.square(), 0)
        explained = torch.where(resolved, squares / (squares + weight * sigma**2), 0)
        inverse = torch.where(resolved, explained / t, 0)
        latent_mean = (((y.flatten(1) - centre) @ u) * inverse) @ v
        latent_covariance = (eye - v.mT @ (explained[:, None] * v)) / weight
        factor = columns.flatten(1)
        covariance = factor.mT @ latent_covariance @ factor
        deviation = covariance.diagonal().clamp_min(0).sqrt().reshape(self.in_shape)
        return LinearGaussianPosterior(self.decode(latent_mean), covariance, deviation, latent_mean, latent_covariance)

    def _rotate(self, c: Tensor) -> Tensor:
        """Q c: (B, n) -> (B, *in_shape)."""
        if self.basis == "dct":
            return idct2(torch.empty_like(c).index_copy(1, self.order, c).reshape(-1, *self.in_shape))
        return (c @ self.matrix.to(c).mT if self.basis == "random" else c).reshape(-1, *self.in_shape)

    def _rotate_back(self, x: Tensor) -> Tensor:
        """Q^T x: (B, *in_shape) -> (B, n)."""
        if self.basis == "dct":
            return dct2(x).flatten(1)[:, self.order]
        return x.flatten(1) @ self.matrix.to(x) if self.basis == "random" else x.flatten(1)


def _shape_of(spectrum: Spectrum | tuple[float, ...], n: int, rank: int | None, floor: float) -> Tensor:
    """The singular values of scale 1, float64, (n,)."""
    if spectrum != "step" and rank is not None:
        raise BadParameter(f"rank is {rank}, for spectrum {spectrum!r}", 'rank only for "step"', "leave it out")
    i = torch.arange(1, n + 1, dtype=torch.float64)
    if spectrum == "step":
        rank = max(1, n // 10) if rank is None else rank
        if not 1 <= rank <= n:
            raise BadParameter(f"rank is {rank} for images of {n} values", f"1 to {n}")
        if not 0 < floor <= 1:
            raise BadParameter(f"floor is {floor}", "a number in (0, 1], relative to the first singular values")
        return torch.where(i <= rank, torch.ones_like(i), floor)
    if isinstance(spectrum, str):
        power = {"flat": 0, "inverse": 1, "inverse-square": 2}.get(spectrum)
        if power is None:
            names = ", ".join(map(repr, get_args(Spectrum)))
            raise BadParameter(f"spectrum is {spectrum!r}", f"{names}, or {n} numbers > 0")
        return i**-power
    if len(spectrum) != n or not all(0 < value < float("inf") for value in spectrum):
        found = f"spectrum has {len(spectrum)} numbers, the least {min(spectrum, default=0)}"
        raise BadParameter(found, f"{n} finite numbers > 0, one for each value of an image")
    return torch.tensor(spectrum, dtype=torch.float64)


def _by_frequency(shape: Shape) -> Tensor:
    """Positions in the flattened (C, H, W) coefficients, lowest frequency first, (n,) int64."""
    channels, height, width = shape
    down = torch.arange(height, dtype=torch.float64) / height
    across = torch.arange(width, dtype=torch.float64) / width
    radius = (down.square()[:, None] + across.square()).flatten()
    places = radius.argsort(stable=True)
    return (places[:, None] + height * width * torch.arange(channels)).flatten()


def _random_basis(n: int, key: Key) -> Tensor:
    """Uniformly distributed over the orthogonal matrices, float64, (n, n): Mezzadri 2007, "How to generate random
    matrices from the classical compact groups", Notices AMS 54."""
    q, r = torch.linalg.qr(key.normal((n, n), torch.zeros((), dtype=torch.float64)))
    return q * r.diagonal().sign()
