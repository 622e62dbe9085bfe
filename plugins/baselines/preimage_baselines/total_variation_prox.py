"""The proximal map of total variation, by accelerated projected gradient on the dual problem."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from preimage import dot, per_image

from .gradient import DiscreteGradient
from .numpy_images import each_image, loops, readable

CHECK_EVERY = 8
"""Iterations between two evaluations of the duality gap, which costs about as much as an iteration."""


def dual_prox(
    gradient: DiscreteGradient,
    group: tuple[int, ...],
    x: Tensor,
    step: Tensor,
    dual: Tensor | None,
    tolerance: float,
    max_steps: int,
) -> tuple[Tensor, Tensor]:
    """argmin_u step sum |K u| + 1/2 ||u - x||^2 for each image, and the dual variable p with u = x - step K^T p.

    The dual problem is min 1/2 ||x - step K^T p||^2 over |p| <= 1 at each pixel (Chambolle 2004). It is solved by the
    fast gradient projection of Beck & Teboulle (2009, "Fast gradient-based algorithms for constrained total variation
    image denoising and deblurring problems", section 4.2), with the gradient restart of O'Donoghue & Candes (2015,
    eq. 13). The duality gap step sum(|K u| - p . K u) is a sum of terms that are not negative, so it is accurate in
    single precision too. An image leaves when its gap is below tolerance * (step sum |K u| + 1/2 ||u - x||^2).

    Compiled by numba, where that is installed, for tensors on the CPU without gradient and uncoupled channels; the
    results agree to the tolerance.
    """
    start = gradient(torch.zeros_like(x)) if dual is None else dual
    if 2 not in group and readable(x, step, start) and (run := compiled()):
        return _dual_prox_compiled(run, gradient, group, x, step, start, tolerance, max_steps)
    return _dual_prox_portable(gradient, group, x, step, start, tolerance, max_steps)


@cache
def compiled() -> Callable[..., None] | None:
    """The compiled proximal map of one image, or None without numba."""
    return loops("_compiled", "dual_prox_image")


def _dual_prox_compiled(
    run: Callable[..., None],
    gradient: DiscreteGradient,
    group: tuple[int, ...],
    x: Tensor,
    step: Tensor,
    start: Tensor,
    tolerance: float,
    max_steps: int,
) -> tuple[Tensor, Tensor]:
    given, steps = x.detach().contiguous().numpy(), step.detach().numpy()
    p = start.detach().clone(memory_format=torch.contiguous_format)
    u = torch.empty_like(p[:, 0])
    p_array, u_array = p.numpy(), u.numpy()
    bound = given.dtype.type(gradient.norm_bound() ** 2)

    def one(i: int) -> None:
        run(given[i], p_array[i], u_array[i], steps[i], bound, tolerance, max_steps, CHECK_EVERY, bool(group))

    each_image(one, len(x))
    return u, p


def _dual_prox_portable(
    gradient: DiscreteGradient,
    group: tuple[int, ...],
    x: Tensor,
    step: Tensor,
    p: Tensor,
    tolerance: float,
    max_steps: int,
) -> tuple[Tensor, Tensor]:
    out_u, out_p = torch.empty_like(x), torch.empty_like(p)
    rows = torch.arange(len(x), device=x.device)
    q, t = p, torch.ones_like(step)
    bound = gradient.norm_bound() ** 2
    for iteration in range(max_steps + 1):
        if iteration % CHECK_EVERY == 0 or iteration == max_steps:
            u = x - per_image(step, x) * gradient.adjoint(p)
            done = _gap_is_closed(gradient(u), p, u - x, step, group, tolerance)
            if iteration == max_steps:
                done = torch.ones_like(done)
            if bool(done.any()):
                out_u[rows[done]], out_p[rows[done]] = u[done], p[done]
                rows, x, step, p, q, t = (part[~done] for part in (rows, x, step, p, q, t))
                if not len(rows):
                    break
        scale = 1 / (bound * step)
        slope = gradient(x - per_image(step, x) * gradient.adjoint(q))
        new = project(slope.mul_(per_image(scale, slope)).add_(q), group)
        moved = new - p
        restart = dot(q - new, moved) > 0
        larger = torch.where(restart, 1, 0.5 + (0.25 + t * t).sqrt())
        momentum = torch.where(restart, 0, (t - 1) / larger)
        q = torch.addcmul(new, per_image(momentum, moved), moved)
        p, t = new, larger
    return out_u, out_p


def project(p: Tensor, group: tuple[int, ...]) -> Tensor:
    """p with every vector along the axes `group` shortened to length one where it is longer."""
    if not group:
        return p.clamp(-1, 1)
    return p / lengths(p, group).clamp_min(1)


def lengths(coefficients: Tensor, group: tuple[int, ...]) -> Tensor:
    """Euclidean lengths over the axes `group`, kept with size one; absolute values if there are none.

    At most 1e-19 too long where they are zero, so that the gradient by automatic differentiation is zero there.
    """
    if group == (1,):
        first, *others = coefficients.split(1, 1)
        # Twenty times faster than a reduction over so short an axis.
        square = first * first
        for part in others:
            square = torch.addcmul(square, part, part)
    elif not group:
        return coefficients.abs()
    else:
        square = coefficients.square().sum(group, keepdim=True)
    # The root of zero has no derivative; that of the smallest positive number has, and the clamp makes it zero.
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


def _gap_is_closed(
    slope: Tensor, p: Tensor, change: Tensor, step: Tensor, group: tuple[int, ...], tolerance: float
) -> Tensor:
    size = lengths(slope, group).flatten(1)
    roughness = size.sum(1)
    value = step * roughness + 0.5 * dot(change, change)
    # Summed pixel by pixel before the difference is taken over the image: that is what keeps it accurate.
    products = (p * slope).sum(group, keepdim=True) if group else p * slope
    gap = step * (size - products.flatten(1)).sum(1)
    # Where all differences are zero, `lengths` leaves this much.
    rest = 2 * size.shape[1] * torch.finfo(size.dtype).tiny ** 0.5
    return gap <= tolerance * value + step * rest
