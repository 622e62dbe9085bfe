"""The quadratic model of Gauss-Newton methods, and its approximate minimiser by truncated conjugate gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import cast

import torch
from torch import Tensor

from preimage import Diagonal, Differentiable, LinearOperator, Prior, Quadratic, dot, norms, per_image
from preimage.errors import Incompatible

from .line_search import hessian
from .smoothed_total_variation import LaggedDiffusivity, SmoothedTotalVariation

Map = Callable[[Tensor], Tensor]

FLOOR = 1e-3
"""Least shift of the preconditioner, relative to the curvature of the misfit."""


@dataclass(frozen=True)
class Curvature:
    """A symmetric matrix C that models a prior near an image: R(x + s) ~ R(x) + <grad R(x), s> + 1/2 <s, C s>.

    - `apply`: v -> C v for the batch it was made for. `diagonal`: an approximation of C for preconditioning, its
      eigenvalues perhaps one row per image (B, ...), or None.
    """

    apply: Map
    diagonal: Diagonal | None = None


@singledispatch
def curvature(prior: Prior, x: Tensor) -> Curvature:
    """The curvature of a prior at x, (B, *in_shape): what Gauss-Newton methods know of it beside the gradient.

    A quadratic prior has K^T K, smoothed total variation its lagged diffusivity, which lies above it everywhere, and
    any other differentiable prior its exact Hessian by automatic differentiation, which may have negative eigenvalues
    where R is not convex. Register a better one for a prior of your own: `@curvature.register`.
    """
    raise Incompatible(f"{type(prior).__name__} has no gradient", "a Differentiable prior")


@curvature.register
def _(prior: Differentiable, x: Tensor) -> Curvature:
    return Curvature(hessian(prior.grad, x))


@curvature.register
def _(prior: Quadratic, x: Tensor) -> Curvature:
    analysis = prior.analysis()
    return Curvature(analysis.normal, analysis.normal_diagonal())


@curvature.register
def _(prior: SmoothedTotalVariation, x: Tensor) -> Curvature:
    model = cast(LaggedDiffusivity, prior.majoriser(x))
    # K^T W K is near to mean(W) K^T K, which the cosine transform inverts.
    mean = model.weights.mean((1, 3, 4))[..., None, None]
    squared = model.gradient.normal_diagonal()
    return Curvature(model, Diagonal(squared.basis, mean * squared.eigenvalues.to(x)))


@dataclass(frozen=True)
class GaussNewtonModel:
    """m(s) = 1/2 ||F'(x) s + r||^2 + weight (<grad R, s> + 1/2 <s, C s>) + damping/2 ||s||^2, at the images x.

    - `jacobian`: F'(x). `prior`: C and weight, None without one. `damping`: (B,). `scale`: a typical eigenvalue of
      F'^T F', (B,), for the preconditioner.
    """

    jacobian: LinearOperator
    prior: tuple[Curvature, float | Tensor] | None
    damping: Tensor
    scale: Tensor

    def misfit_curvature(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """F'^T F' s and ||F' s||^2, (B,), for one F' and one F'^T."""
        tangent = self.jacobian(s)
        return self.jacobian.adjoint(tangent), dot(tangent, tangent)

    def smooth_curvature(self, s: Tensor) -> Tensor:
        """(weight C + damping I) s, for no F at all."""
        product = per_image(self.damping, s) * s
        if self.prior is None:
            return product
        known, weight = self.prior
        return product + per_image(weight, s) * known.apply(s)

    def preconditioner(self) -> Map:
        """An approximation of the inverse of the model's matrix: exact where one basis makes both parts diagonal."""
        shift = self.damping + FLOOR * self.scale
        zero = Diagonal.identity(0.0)
        smooth = None if self.prior is None or self.prior[0].diagonal is None else self.prior
        part = zero if smooth is None else zero.plus(smooth[0].diagonal, smooth[1])
        data = self.jacobian.normal_diagonal()
        both = None if data is None or part is None else data.plus(part)
        if both is None:
            both, shift = part or zero, self.damping + self.scale
        return lambda v: both.solve(v, shift)


@dataclass(frozen=True)
class Step:
    """An approximate minimiser of the model.

    - `s`: the step. `product`: the model's matrix times s, so that the model's decrease is known, (B, *in_shape) each.
    - `scale`: ||F' d||^2 / ||d||^2 of the first direction, (B,), for the next model.
    """

    s: Tensor
    product: Tensor
    scale: Tensor

    def decrease(self, gradient: Tensor) -> Tensor:
        """m(0) - m(s), (B,)."""
        return -dot(gradient, self.s) - 0.5 * dot(self.s, self.product)


def truncated_conjugate_gradients(model: GaussNewtonModel, gradient: Tensor, forcing: Tensor, max_steps: int) -> Step:
    """Minimise <gradient, s> + 1/2 <s, H s> until ||H s + gradient|| <= forcing ||gradient|| for each image.

    Preconditioned conjugate gradients (Nocedal & Wright 2006, algorithm 7.1, "line search Newton-CG"): a direction
    of negative or no curvature ends an image with what it has, or with the first direction itself, so that s is always
    a direction of descent. An image that has ended no longer changes. One F' and one F'^T per step.

    - `forcing`: (B,), in [0, 1). `max_steps`: at least 1.
    """
    precondition, tiny = model.preconditioner(), torch.finfo(gradient.dtype).tiny
    s = product = torch.zeros_like(gradient)
    residual = -gradient
    limit = forcing * norms(gradient)
    active = norms(gradient) > 0
    direction = z = precondition(residual)
    energy, scale = dot(residual, z), model.scale
    for index in range(max_steps):
        if not bool(active.any()):
            break
        image, square = model.misfit_curvature(direction)
        image = image + model.smooth_curvature(direction)
        bend = dot(direction, image)
        if index == 0:
            length = dot(direction, direction)
            scale = torch.where((square > 0) & (length > 0), square / length.clamp_min(tiny), scale)
        curved = bend > torch.finfo(gradient.dtype).eps * square
        # With nothing better at hand the length of a direction that bends down is left to the caller's line search.
        length = torch.where(curved, energy / torch.where(curved, bend, 1), 1.0 if index == 0 else 0.0)
        length = torch.where(active, length, 0)
        s = s + per_image(length, s) * direction
        product = product + per_image(length, s) * image
        residual = residual - per_image(length, s) * image
        active = active & curved & (norms(residual) > limit)
        z = precondition(residual)
        previous, energy = energy, dot(residual, z)
        direction = z + per_image(energy / torch.where(previous > 0, previous, 1), z) * direction
    return Step(s, product, scale)
