"""Total generalised variation and its proximal map, by one primal-dual iteration run to a duality gap."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from preimage import dot, norms, per_image, take_rows

from .gradient import DiscreteGradient
from .numpy_images import each_image, loops, readable
from .symmetrized_gradient import SymmetrizedGradient
from .total_variation_prox import lengths, project

CHECK_EVERY = 20
"""Iterations between two evaluations of the duality gap, which costs about as much as two iterations."""

FLOOR = 1e-2
"""A value below this fraction of step TV(x) need not be known to its own relative accuracy: it may be zero."""

SHRINK = 0.5
"""The gap from which an iteration goes on with given variables is to become smaller at least by this factor."""

LEAST_TOLERANCE = 1e-6
"""A gap smaller than this fraction of the value is small enough in any case: single precision knows no better."""

NORM = 11.4**0.5
"""Of (u, w) -> (K u - w, E w): the norm of [[sqrt(8), 1], [0, sqrt(8)]] is the root of (17 + sqrt(33)) / 2."""

RELAXATION = 1.9

BALANCE = 0.1
"""Primal over dual step size, in units of the image's mean slope; found by trial on noisy images."""


class Model(NamedTuple):
    """sum |K u - w| + ratio sum |E w|, lengths over the axes `group` of fields (B, 2 or 3, C, H, W)."""

    gradient: DiscreteGradient
    symmetrized: SymmetrizedGradient
    ratio: float
    group: tuple[int, ...]


class Variables(NamedTuple):
    """Image u, field w, and the dual variables p of K u - w and q of E w, |p| <= 1, |q| <= ratio; batch first."""

    u: Tensor
    w: Tensor
    p: Tensor
    q: Tensor


def minimise(
    model: Model, x: Tensor, step: Tensor, memory: Variables | None, tolerance: float, max_steps: int, *, fixed: bool
) -> tuple[Tensor, Variables, Tensor]:
    """u, all variables and the value of min over u and w of step (sum |K u - w| + ratio sum |E w|) + 1/2 ||u - x||^2;
    with `fixed`, u = x is kept and only w is found.

    The over-relaxed primal-dual iteration (Chambolle & Pock 2011, algorithm 1; Condat 2013, relaxation 1.9). The step
    sizes scale with the image, so that its units do not matter. An image leaves when its gap is below tolerance times
    its value, or times a hundredth of step TV(x) if that is larger. From a memory the gap must be halved as well: that
    of a nearby x is good enough as it is, and a solver that got it back again and again would stand still.

    Compiled by numba, where that is installed, for tensors on the CPU of which no derivative is taken; the results
    agree up to rounding.
    """
    now = _start(model, x) if memory is None else memory
    now = now._replace(u=x) if fixed else now
    balance = _balance(model, x, step, fixed)
    least = FLOOR * step * lengths(model.gradient(x), model.group).flatten(1).sum(1)
    warm = memory is not None
    if readable(x, step, *now) and (run := compiled()):
        return _minimise_compiled(run, model, now, x, step, balance, least, tolerance, warm, max_steps, fixed)
    out, value = Variables(*(torch.empty_like(part) for part in now)), torch.empty_like(step)
    rows, wanted = torch.arange(len(x), device=x.device), torch.full_like(step, float("inf"))
    for iteration in range(max_steps + 1):
        if iteration % CHECK_EVERY == 0 or iteration == max_steps:
            gap, worth = _gap(model, now, x, step, fixed)
            if warm and iteration == 0:
                wanted = SHRINK * gap
            unit = torch.maximum(worth, least)
            limit = torch.minimum(tolerance * unit, torch.maximum(wanted, LEAST_TOLERANCE * unit))
            done = (gap <= limit) | (iteration == max_steps)
            if bool(done.any()):
                for whole, part in zip(out, now, strict=True):
                    whole[rows[done]] = part[done]
                value[rows[done]] = worth[done]
                left = (~done).nonzero()[:, 0]
                kept = (rows, x, step, balance, least, wanted, now)
                rows, x, step, balance, least, wanted, now = take_rows(kept, left)
                if not len(rows):
                    break
        now = _iterate(model, now, x, step, balance, fixed)
    return out.u, out, value


@cache
def compiled() -> Callable[..., float] | None:
    """The compiled iteration for one image, or None without numba."""
    return loops("_compiled_tgv", "minimise_image")


def _minimise_compiled(
    run: Callable[..., float],
    model: Model,
    now: Variables,
    x: Tensor,
    step: Tensor,
    balance: Tensor,
    least: Tensor,
    tolerance: float,
    warm: bool,
    max_steps: int,
    fixed: bool,
) -> tuple[Tensor, Variables, Tensor]:
    out = Variables(*(part.detach().clone(memory_format=torch.contiguous_format) for part in now))
    given, *parts = (part.detach().contiguous().flatten(-2).numpy() for part in (x, *out))
    tau, sigma = balance / NORM, 1 / (balance * NORM)
    sizes = [size.detach().numpy() for size in (tau, sigma, _pull(tau, step))]
    steps, real, value = step.detach().numpy(), given.dtype.type, torch.empty_like(step)

    def one(i: int) -> None:
        value[i] = run(
            given[i], x.shape[-1], *(part[i] for part in parts), steps[i], real(model.ratio),
            *(size[i] for size in sizes), real(RELAXATION), float(least[i]), tolerance, LEAST_TOLERANCE,
            SHRINK, warm, max_steps, CHECK_EVERY, 2 in model.group, fixed,
        )  # fmt: skip

    each_image(one, len(x))
    return out.u, out, value


def _pull(tau: Tensor, step: Tensor) -> Tensor:
    """How strongly u is drawn to x: both objectives divided by the step, 1/2 ||u - x||^2 / step is strongly convex."""
    return tau / step.clamp_min(torch.finfo(step.dtype).tiny)


def _start(model: Model, x: Tensor) -> Variables:
    field, tensor = (
        x.new_zeros((len(x), *model.symmetrized.in_shape)),
        x.new_zeros((len(x), *model.symmetrized.out_shape)),
    )
    return Variables(x, field, field, tensor)


def _balance(model: Model, x: Tensor, step: Tensor, fixed: bool) -> Tensor:
    """From the root mean square of the gradient, or the step where that is what moves u: both in units of the image."""
    slope = norms(model.gradient(x)) / x[0].numel() ** 0.5
    scale = BALANCE * (slope if fixed else torch.maximum(slope, step))
    return torch.where(scale > 0, scale, 1)


def _iterate(model: Model, now: Variables, x: Tensor, step: Tensor, balance: Tensor, fixed: bool) -> Variables:
    # In units where the dual variables are of length one: the step multiplies the coupling of u and w with p and q.
    tau, sigma = balance / NORM, 1 / (balance * NORM)
    q_back = model.symmetrized.adjoint(now.q)
    w = now.w + per_image(tau, now.w) * (now.p - q_back)
    if fixed:
        u = now.u
    else:
        moved = now.u - per_image(tau, now.u) * model.gradient.adjoint(now.p)
        weight = per_image(_pull(tau, step), x)
        u = (moved + weight * x) / (1 + weight)
    ahead_u, ahead_w = 2 * u - now.u, 2 * w - now.w
    scale = per_image(sigma, w)
    p = project(now.p + scale * (model.gradient(ahead_u) - ahead_w), model.group)
    q = model.ratio * project((now.q + scale * model.symmetrized(ahead_w)) / model.ratio, model.group)
    new = Variables(u, w, p, q)
    return Variables(*(torch.lerp(old, part, RELAXATION) for old, part in zip(now, new, strict=True)))


def _gap(model: Model, now: Variables, x: Tensor, step: Tensor, fixed: bool) -> tuple[Tensor, Tensor]:
    """Duality gap and primal value, (B,).

    A dual point needs p = E^T q with |p| <= 1 and |q| <= ratio: the iterate's q, shrunk until both hold. The gap is
    then a sum of terms that are not negative.
    """
    q = model.ratio * project(now.q / model.ratio, model.group)
    p = model.symmetrized.adjoint(q)
    shrink = 1 / lengths(p, model.group).flatten(1).amax(1).clamp_min(1)
    p, q = per_image(shrink, p) * p, per_image(shrink, q) * q
    first, second = model.gradient(now.u) - now.w, model.symmetrized(now.w)
    rough, bent = lengths(first, model.group), model.ratio * lengths(second, model.group)
    slack = (rough - _products(p, first, model.group)).flatten(1).sum(1)
    slack = slack + (bent - _products(q, second, model.group)).flatten(1).sum(1)
    value, gap = step * (rough.flatten(1).sum(1) + bent.flatten(1).sum(1)), step * slack
    if not fixed:
        change = now.u - x
        rest = change + per_image(step, x) * model.gradient.adjoint(p)
        value, gap = value + 0.5 * dot(change, change), gap + 0.5 * dot(rest, rest)
    # What `lengths` adds where they are zero.
    tiny = step * 4 * first[0].numel() * torch.finfo(x.dtype).tiny ** 0.5
    return (gap - tiny).clamp_min(0), value


def _products(a: Tensor, b: Tensor, group: tuple[int, ...]) -> Tensor:
    """Summed pixel by pixel, as the lengths are, before anything is summed over the image."""
    return (a * b).sum(group, keepdim=True)
