"""What the splitting methods share: the natural units of the dual variable, and ADMM's step after the update of x."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from preimage import Identity, LinearOperator, Problem, Proximable, Splittable, norms, per_image

from .numpy_images import loops, readable
from .total_variation import TotalVariation

CONTRAST = 0.2
"""The first threshold weight / penalty, as a fraction of the standard deviation of the starting image."""

PROBE = 1e-3
"""The step of the proximal map that measures subgradients of g, as a fraction of the largest coefficient."""


def natural_penalty(problem: Problem, x: Tensor, coefficients: Tensor, otherwise: Tensor) -> Tensor:
    """The dual variable per primal variable, (B,): l / (0.2 s), l the largest entry of a subgradient of weight g at the
    coefficients K x (for a norm, the weight), s the standard deviation of the starting image x.

    - `otherwise`: where that is zero or unknown, (B,).
    """
    spread = x.flatten(1).std(1, correction=0)
    spread = torch.where(spread > 0, spread, x.flatten(1).abs().amax(1))
    step = (PROBE * coefficients.flatten(1).abs().amax(1)).clamp_min(torch.finfo(x.dtype).tiny)
    near = cast(Splittable, problem.prior).prox_coefficients(coefficients, step)
    moved = (coefficients - near).flatten(1).abs().amax(1)
    penalty = per_image(problem.weight, moved) * moved / (step * CONTRAST * spread)
    return torch.where((penalty > 0) & torch.isfinite(penalty), penalty, otherwise.clamp_min(1e-12))


def prox_from(
    prior: Splittable, analysis: LinearOperator, coefficients: Tensor, step: Tensor, memory: Any
) -> tuple[Tensor, Any]:
    """`prox_coefficients`, and what makes the next one on nearby coefficients quicker (`Proximable.prox_from`)."""
    if isinstance(prior, Proximable) and isinstance(analysis, Identity):
        return prior.prox_from(coefficients, step, memory)
    return prior.prox_coefficients(coefficients, step), None


@dataclass(frozen=True)
class Split:
    """What `split` computes.

    - `z`, `u`: coefficients and scaled dual variable. `pull`: K^T (z - u).
    - `norm_z`, `norm_u`: ||z||, ||u||, (B,). `primal`: ||K x - z||. `dual`: ||K x - z_old + u_old - u||.
    - `memory`: of the proximal map, for the next step.
    """

    z: Tensor
    u: Tensor
    pull: Tensor
    norm_z: Tensor
    norm_u: Tensor
    primal: Tensor
    dual: Tensor
    memory: Any


def split(
    prior: Splittable,
    analysis: LinearOperator,
    x: Tensor,
    z: Tensor,
    u: Tensor,
    relaxation: float,
    threshold: Tensor,
    memory: Any = None,
) -> Split:
    """v = relaxation K x + (1 - relaxation) z + u, then z = prox of threshold g at v, and u = v - z.

    - `x`: (B, *in_shape). `z`, `u`: (B, *K.out_shape). `threshold`: weight / penalty, (B,).

    Compiled by numba, where that is installed, for total variation of uncoupled channels on the CPU; the results agree
    up to rounding.
    """
    if isinstance(prior, TotalVariation) and readable(x) and not prior.coupled and (run := _compiled()):
        return _split_compiled(run, prior, x, z, u, relaxation, threshold)
    image = analysis(x)
    v = torch.lerp(z, image, relaxation).add_(u)
    new, memory = prox_from(prior, analysis, v, threshold, memory)
    left = v.sub_(new)
    primal = norms(image - new)
    dual = norms(image.sub_(z).add_(u).sub_(left))
    return Split(new, left, analysis.adjoint(new - left), norms(new), norms(left), primal, dual, memory)


@cache
def _compiled() -> Callable[..., None] | None:
    return loops("_compiled_split", "split_image")


def _split_compiled(
    run: Callable[..., None],
    prior: TotalVariation,
    x: Tensor,
    z: Tensor,
    u: Tensor,
    relaxation: float,
    threshold: Tensor,
) -> Split:
    new, left, pull = torch.empty_like(z), torch.empty_like(u), torch.empty_like(x)
    sums = torch.zeros((len(x), 4), dtype=torch.float64)
    limits, isotropic = threshold.to(x).numpy(), prior.variant == "isotropic"
    factor = limits.dtype.type(relaxation)
    arrays = [t.detach().contiguous().numpy() for t in (x, z, u)]
    outputs = [t.numpy() for t in (new, left, pull, sums)]
    for i in range(len(x)):
        run(*(a[i] for a in arrays), factor, limits[i], isotropic, *(a[i] for a in outputs))
    norm_z, norm_u, primal, dual = sums.sqrt().to(x.dtype).unbind(1)
    return Split(new, left, pull, norm_z, norm_u, primal, dual, None)
