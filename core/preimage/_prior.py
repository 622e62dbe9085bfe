"""What is known about x before y is seen, as a small set of capabilities.

A prior inherits from every capability it has; a solver names the one it needs, and a combination that cannot work is
refused before anything runs. R is the regulariser, `step` a positive number or one per image (B,).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._key import Key, keys_for
from ._operator import Identity, LinearOperator
from ._tensors import Shape, dot, gradient, per_image


class Prior(nn.Module, ABC):
    """Base of all priors. Promises nothing but the shape of x."""

    in_shape: Shape

    def __init__(self, in_shape: Shape):
        super().__init__()
        self.in_shape = tuple(in_shape)

    def feasible(self, x: Tensor) -> Tensor:
        """The nearest image that the prior's constraints allow (`Constraint`); x itself where there are none."""
        return x


class Energy(Prior):
    """A prior with a value R(x): a regulariser, or a negative log-density."""

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """R(x): (B, *in_shape) -> (B,)."""


class Differentiable(Energy):
    """An energy with a Lipschitz continuous gradient."""

    def grad(self, x: Tensor) -> Tensor:
        """The gradient of R, by automatic differentiation unless replaced."""
        return gradient(self.energy, x)


class Splittable(Energy):
    """R(x) = g(K x) with K linear and a simple proximal map of g: what splitting solvers (ADMM, primal-dual) need."""

    @abstractmethod
    def analysis(self) -> LinearOperator:
        """K, from images (in_shape) to coefficients."""

    @abstractmethod
    def prox_coefficients(self, coefficients: Tensor, step: float | Tensor) -> Tensor:
        """Proximal map of g: argmin_c step g(c) + 1/2 ||c - coefficients||^2, for a batch of coefficients."""


class Quadratic(Splittable, Differentiable):
    """R(x) = 1/2 ||K x - c||^2 with K = `analysis()` and c = `target()`: the prior of linear solvers."""

    def target(self) -> Tensor | None:
        """c, the coefficients that K x is drawn to, without batch axis (K mu if the mean is mu); None is 0."""
        return None

    def energy(self, x: Tensor) -> Tensor:
        target, coefficients = self.target(), self.analysis()(x)
        if target is not None:
            coefficients = coefficients - target
        return 0.5 * dot(coefficients, coefficients)

    def grad(self, x: Tensor) -> Tensor:
        """K^T (K x - c)."""
        analysis, target = self.analysis(), self.target()
        coefficients = analysis(x)
        return analysis.adjoint(coefficients if target is None else coefficients - target)

    def prox_coefficients(self, coefficients: Tensor, step: float | Tensor) -> Tensor:
        """(coefficients + step c) / (1 + step)."""
        target, step = self.target(), per_image(step, coefficients)
        drawn = coefficients if target is None else coefficients + step * target
        return drawn / (1 + step)


class Proximable(Splittable):
    """A prior whose proximal map is known, in closed form or by an inner iteration run to a stated accuracy.

    Trivially splittable, with K the identity.
    """

    @abstractmethod
    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        """argmin_u step R(u) + 1/2 ||u - x||^2; same shape as x."""

    def prox_from(self, x: Tensor, step: float | Tensor, memory: Any) -> tuple[Tensor, Any]:
        """`prox`, started from what an earlier call on a nearby x returned as memory (None at first).

        The memory belongs to the caller: the prior keeps nothing. Closed forms need none. Where R has an inner
        iteration, the memory holds its variables, batch first, and only saves time.
        """
        return self.prox(x, step), None

    def analysis(self) -> LinearOperator:
        return Identity(self.in_shape)

    def prox_coefficients(self, coefficients: Tensor, step: float | Tensor) -> Tensor:
        return self.prox(coefficients, step)


class Constraint(Proximable):
    """R is 0 on a closed convex set of images and infinite outside; the weight plays no part.

    The set is met up to rounding: the energy is 0 within a few units in the last place of it.
    """

    @abstractmethod
    def feasible(self, x: Tensor) -> Tensor:
        """The projection onto the set."""

    def energy(self, x: Tensor) -> Tensor:
        largest = x.abs().flatten(1).amax(1).clamp_min(1.0)
        distance = (x - self.feasible(x)).abs().flatten(1).amax(1)
        return torch.where(distance <= 4 * torch.finfo(x.dtype).eps * largest, 0.0, float("inf")).to(x)

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self.feasible(x)


class Denoiser(Prior):
    """A prior known through a denoiser of Gaussian noise."""

    @abstractmethod
    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """An estimate of u from x = u + sigma n, n standard normal; same shape as x, pixel values in [0, 1]."""


class AveragedDenoiser(Denoiser):
    """A denoiser that is an averaged operator, proved: for every sigma D = (1 - t) Id + t N with N nonexpansive.

    - `averaged`: t in (0, 1). Up to 1/2, D is firmly nonexpansive.
    - `contraction`: a proved bound c <= 1 of the Lipschitz constant of N, so that Lip(D) <= 1 - t (1 - c).
    - `bounded`: whether the range of N is known to be bounded.

    Plug-and-play methods seek x = D(x - step A^T (A x - y)), for a linear operator A: such an x exists if N is bounded,
    and there is only one if c < 1.
    """

    averaged: float
    contraction: float = 1.0
    bounded: bool = False


class Generative(Prior):
    """A prior that is the image of a latent Gaussian: x = decode(z), z ~ N(0, I)."""

    latent_shape: Shape

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """G(z): (B, *latent_shape) -> (B, *in_shape)."""

    def sample(self, count: int, key: Key | Sequence[Key], like: Tensor | None = None) -> Tensor:
        """`count` images, the i-th from `key.child(i)` (or from the i-th key)."""
        return self.decode(torch.stack([k.normal(self.latent_shape, like) for k in keys_for(key, count)]))


class InvertibleMap(Prior):
    """A bijection between states and codes: a flow, or a learned operator with its inverse.

    A state u is an image, unless the map works on something larger, such as several copies of an image: then `lift`
    and `project` lead there and back.
    """

    latent_shape: Shape

    def lift(self, x: Tensor) -> Tensor:
        """The state that stands for an image, (B, *in_shape) -> (B, ...); the image itself unless replaced."""
        return x

    def project(self, u: Tensor) -> Tensor:
        """The image that a state stands for, (B, ...) -> (B, *in_shape): project(lift(x)) = x."""
        return u

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The state u with encode(u) = z: (B, *latent_shape) -> (B, ...)."""

    @abstractmethod
    def encode(self, u: Tensor) -> Tensor:
        """The code z with decode(z) = u: (B, ...) -> (B, *latent_shape)."""


class NormalizingFlow(Generative, InvertibleMap, Energy):
    """A bijection G between latents and images of one number of values n, z ~ N(0, I) being the code of an image.

    By the change of variables the density of x = G(z) is log p(x) = log N(z; 0, I) - log |det G'(z)|; the energy is
    -log p(x), in nats.
    """

    @abstractmethod
    def decode_with_log_determinant(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """G(z), and log |det G'(z)| per image, (B,)."""

    @abstractmethod
    def encode_with_log_determinant(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z with G(z) = u, and log |det (G^-1)'(u)| per image, (B,)."""

    def decode(self, z: Tensor) -> Tensor:
        return self.decode_with_log_determinant(z)[0]

    def encode(self, u: Tensor) -> Tensor:
        return self.encode_with_log_determinant(u)[0]

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (B,)."""
        z, log_determinant = self.encode_with_log_determinant(x)
        return standard_normal_log_density(z) + log_determinant

    def energy(self, x: Tensor) -> Tensor:
        """-log p(x)."""
        return -self.log_density(x)


def standard_normal_log_density(z: Tensor) -> Tensor:
    """log N(z; 0, I) = -1/2 ||z||^2 - n/2 log 2 pi per row, (B, ...) -> (B,)."""
    return -0.5 * (dot(z, z) + math.log(2 * math.pi) * z[0].numel())
