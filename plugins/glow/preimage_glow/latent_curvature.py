"""How the misfit of F(G(z)) bends at a latent, by Gauss & Newton."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from preimage import Generative, Problem, norms, per_image

from .gaussian_approximation import Curvature


def latent_curvature(problem: Problem, z: Tensor, scale: float) -> Callable[[Tensor], Curvature]:
    """J^T W J at latents (B, n): J the derivative of z -> F(G(z)), W the second derivative of misfit / `scale` in F.

    J v is a central difference, two evaluations of G: forward mode need not be there for every G. G(z) and its graph
    are kept for J^T. W is a difference of the misfit's gradients, exact for least squares.
    """
    prior = cast(Generative, problem.prior)
    reach = torch.finfo(z.dtype).eps ** 0.25

    def measured(u: Tensor) -> Tensor:
        return problem.operator(prior.decode(u.reshape(-1, *prior.latent_shape)))

    with torch.enable_grad():
        leaf = z.detach().clone().requires_grad_()
        image = prior.decode(leaf.reshape(-1, *prior.latent_shape))
    predicted, pullback = problem.operator.vjp(image.detach())
    length = norms(predicted)

    def curvature(v: Tensor) -> Curvature:
        tangent = (measured(z + reach * v) - measured(z - reach * v)) / (2 * reach)
        tiny = torch.finfo(z.dtype).tiny
        step = per_image(reach * length.clamp_min(1e-3) / norms(tangent).clamp_min(tiny), tangent)
        ahead, behind = (problem.noise.misfit_grad(predicted + sign * step * tangent, problem.y) for sign in (1, -1))
        weighed = (ahead - behind) / (2 * step * scale)
        (product,) = torch.autograd.grad(image, leaf, pullback(weighed), retain_graph=True)
        return Curvature(tangent.flatten(1), weighed.flatten(1), product)

    return curvature
