"""A small problem on which every solver must run: for `preimage.testing`, not for use."""

from typing import Any

import torch
from torch import Tensor

from ._key import Key
from ._noise import GaussianNoise, Noise, NoNoise, PoissonNoise
from ._operator import Identity, LinearOperator
from ._prior import Denoiser, Differentiable, Generative, InvertibleMap, Proximable, Quadratic
from ._problem import Problem
from ._solver import Solver
from ._tensors import Shape, dot, per_image
from .errors import Incompatible


class ReferenceOperator(LinearOperator):
    """Means of neighbouring columns, circular: (A x)_j = (x_j + x_(j+1)) / 2."""

    def __init__(self, in_shape: Shape):
        super().__init__(in_shape, in_shape)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (x + x.roll(-1, -1))

    def adjoint(self, y: Tensor) -> Tensor:
        return 0.5 * (y + y.roll(1, -1))

    def norm_bound(self) -> float:
        return 1.0


class ReferencePrior(Proximable, Quadratic, Differentiable, Denoiser, Generative, InvertibleMap):
    """R(x) = 1/2 ||x||^2, every capability: prox x / (1 + step), denoiser x / (1 + sigma^2), decode the identity."""

    def __init__(self, in_shape: Shape):
        super().__init__(in_shape)
        self.latent_shape = in_shape

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * dot(x, x)

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return x / (1 + per_image(step, x))

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return x / (1 + per_image(sigma, x) ** 2)

    def decode(self, z: Tensor) -> Tensor:
        return z.clone()

    def encode(self, u: Tensor) -> Tensor:
        return u.clone()


def reference_problem(solver: Solver[Any], key: Key, shape: Shape = (1, 8, 8)) -> Problem:
    """Three 8x8 images, blurred and noisy, in float64, with a prior if the solver takes one."""
    blurring: LinearOperator = ReferenceOperator(shape)
    operator = blurring if isinstance(blurring, solver.operator_type) else Identity(shape)
    prior = ReferencePrior(shape)
    noises: list[Noise] = [GaussianNoise(sigma=0.05), PoissonNoise(peak=100.0), NoNoise()]
    fitting = [noise for noise in noises if isinstance(noise, solver.noise_type)]
    if not fitting or not isinstance(operator, solver.operator_type):
        raise Incompatible(
            f"{type(solver).__name__} does not accept the reference problem", remedy="give check_solver a problem"
        )
    x = key.child("image").uniform((3, *shape), like=torch.zeros((), dtype=torch.float64))
    y = fitting[0].sample(operator(x), key.child("noise"))
    return Problem(operator, y, fitting[0], None if solver.prior_type is None else prior, weight=0.05)
