"""Smooth objectives and line searches, image by image: what gradient descent and quasi-Newton methods share."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Generic, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from preimage import Differentiable, LeastSquares, Problem, dot, norms, per_image, take_rows

SUFFICIENT = 1e-4
"""Part of the decrease predicted by the slope that a step must bring (Nocedal & Wright 2006, eq. 3.6a)."""

CURVATURE = 0.9
"""Part of the slope that may be left after a quasi-Newton step (same place, eq. 3.6b)."""

TRIALS = 30
"""Lengths that one line search tries."""


@dataclass(frozen=True)
class Point:
    """An image, the objective there, (B,), and its gradient. A subclass may add tensors, batch first."""

    x: Tensor
    value: Tensor
    gradient: Tensor


P = TypeVar("P", bound=Point)

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Callable[[], P]]]
"""(indices, x) -> the values at x for these images of a batch, and a call that gives the points there."""


def evaluate(problem: Problem, x: Tensor) -> Point:
    """misfit(x) + weight R(x) and its gradient: one F and one F'^T."""
    value, pullback = smooth_objective(problem, x)
    return Point(x, value, pullback())


def smooth_objective(problem: Problem, x: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """misfit(x) + weight R(x), (B,), for one F, and a call that gives its gradient, for one F'^T."""
    predicted, pullback = problem.operator.vjp(x)
    value, prior = problem.noise.misfit(predicted, problem.y), cast("Differentiable | None", problem.prior)
    if prior is not None:
        value = value + problem.weight * prior.energy(x)

    def gradient() -> Tensor:
        g = pullback(problem.noise.misfit_grad(predicted, problem.y))
        return g if prior is None else g + per_image(problem.weight, x) * prior.grad(x)

    return value, gradient


def smooth(problem: Problem) -> Objective[Point]:
    """`smooth_objective` as line searches want it."""

    def objective(index: Tensor, x: Tensor) -> tuple[Tensor, Callable[[], Point]]:
        some = problem if len(index) == len(problem.y) else problem.rows(index)
        value, gradient = smooth_objective(some, x)
        return value, lambda: Point(x, value, gradient())

    return objective


def cauchy_length(problem: Problem, at: Point) -> Tensor:
    """How far to go along the negative gradient: to the minimiser of a quadratic model, (B,), at most twice the image.

    The curvature of the model is that of the misfit with F linearised, and that of the prior. Costs one F' (and one F
    if the noise is not least squares).
    """
    direction, square = at.gradient, dot(at.gradient, at.gradient)
    tiny = torch.finfo(square.dtype).tiny
    tangent = problem.operator.jvp(at.x, direction)
    bent = tangent
    if not isinstance(problem.noise, LeastSquares):
        bent = hessian(lambda p: problem.noise.misfit_grad(p, problem.y), problem.operator(at.x))(tangent)
    curvature = dot(tangent, bent)
    if problem.prior is not None:
        bent = hessian(cast(Differentiable, problem.prior).grad, at.x)(direction)
        curvature = curvature + problem.weight * dot(direction, bent)
    far = 2 * norms(at.x) / square.sqrt().clamp_min(tiny)
    far = torch.where(far > 0, far, 1)
    return torch.where(curvature > 0, torch.minimum(square / curvature.clamp_min(tiny), far), far)


class Search(NamedTuple, Generic[P]):
    """What `line_search` found for each image.

    - `point`: where it ends; the old one where the image did not move. `length`: t there, 0 where it did not move.
    - `moved`: bool. `trials`: how many lengths were tried. `broken`: whether NaN or infinity was met at one of them.
    """

    point: P
    length: Tensor
    moved: Tensor
    trials: Tensor
    broken: Tensor


def line_search(
    objective: Objective[P],
    at: P,
    direction: Tensor,
    length: Tensor,
    *,
    wolfe: bool,
    trials: int | Tensor = TRIALS,
) -> Search[P]:
    """A point x + t d for each image with d = `direction` that lowers the objective enough, t starting from `length`.

    Enough is value(t) <= value(0) + 1e-4 t slope, slope = <gradient, d> (Armijo). With `wolfe` also <gradient(t), d> >=
    0.9 slope, so that the step is not too short either, and (x' - x)^T (g' - g) > 0. A t that is too long is shortened
    to the minimiser of the parabola through what is known of it (within [0.1, 0.5] t), then by bisection; one too
    short is doubled (Nocedal & Wright 2006, section 3.5; bisection: Lewis & Overton 2013, "Nonsmooth optimization via
    quasi-Newton methods", algorithm 2.6). A t at which value or gradient is NaN or infinite is too long; the next is a
    tenth of it.

    Where d is no direction of descent, or nothing lower was found in so many `trials` (one number, or one for each
    image), the image does not move. A trial evaluates the images that still search, and no other; points are asked for
    in trials in which some image descends enough.
    """
    slope = dot(at.gradient, direction)
    moved, taken = torch.zeros_like(slope, dtype=torch.bool), torch.zeros_like(length)
    tried, broken = torch.zeros_like(moved, dtype=torch.int64), torch.zeros_like(moved)
    allowed = torch.as_tensor(trials, device=slope.device).expand(len(slope))
    low, high = torch.zeros_like(length), torch.full_like(length, float("inf"))
    best = at
    pending = ((slope < 0) & (allowed > 0)).nonzero()[:, 0]
    while len(pending):
        t, start, d, s = (part[pending] for part in (length, at.value, direction, slope))
        x = at.x[pending] + per_image(t, d) * d
        value, points_at = objective(pending, x)
        finite = torch.isfinite(value)
        # The first condition alone would let the objective rise by rounding once t s is lost in it.
        descends = (value <= start + SUFFICIENT * t * s) & (value < start) & finite
        ends = descends
        if bool(descends.any()):
            found = points_at()
            finite = finite & torch.isfinite(found.gradient).flatten(1).all(1)
            ends = descends = descends & finite
            if wolfe:
                ends = descends & (dot(found.gradient, d) >= CURVATURE * s)
            best = put(best, pending[descends], take_rows(found, descends.nonzero()[:, 0]))
            moved = moved.index_fill(0, pending[descends], True)
            taken = taken.index_copy(0, pending[descends], t[descends])
        tried = tried.index_add(0, pending, torch.ones_like(pending))
        broken = broken.index_fill(0, pending[~finite], True)
        low = low.index_copy(0, pending, torch.where(descends, t, low[pending]))
        high = high.index_copy(0, pending, torch.where(descends, high[pending], t))
        rise = torch.where(finite, value - start, float("inf"))
        length = length.index_copy(0, pending, _next(t, low[pending], high[pending], rise, s))
        pending = pending[~ends & (tried < allowed)[pending]]
    return Search(best, taken, moved, tried, broken)


def put(points: P, index: Tensor, new: P) -> P:
    """The points, with those at `index` replaced."""
    parts = {f.name: getattr(points, f.name).index_copy(0, index, getattr(new, f.name)) for f in fields(points)}
    return replace(points, **parts)


def _next(t: Tensor, low: Tensor, high: Tensor, rise: Tensor, slope: Tensor) -> Tensor:
    parabola = torch.maximum(0.1 * t, torch.minimum(0.5 * t, -slope * t.square() / (2 * (rise - slope * t))))
    parabola = torch.where(torch.isfinite(parabola), parabola, 0.1 * t)
    between = torch.where(low > 0, 0.5 * (low + high), parabola)
    return torch.where(torch.isinf(high), 2 * t, between)


def hessian(gradient: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """v -> H v, H the Hessian at x of the function with this gradient, by automatic differentiation.

    H is symmetric, so that reverse mode gives H v as well as H^T v.
    """
    pullback = cast("tuple[Tensor, Callable[[Tensor], tuple[Tensor]]]", torch.func.vjp(gradient, x))[1]
    return lambda v: pullback(v)[0]


def lower(
    objective: Callable[[Tensor, Tensor], Tensor], at: Point, step: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """x + t step for each image, t = 1 shortened until the objective falls enough (Armijo), and which images moved.

    - `objective`: (indices, images) -> values, for some images of the batch. `value`: that at t = 1, (B,), which is
      known already. One call per trial, for the images that fail.
    """
    slope = dot(at.gradient, step)
    t, length = torch.zeros_like(slope), torch.ones_like(slope)
    failed = (slope < 0).nonzero()[:, 0]
    values = value[failed]
    for _ in range(TRIALS):
        start, s, tried = at.value[failed], slope[failed], length[failed]
        enough = (values <= start + SUFFICIENT * tried * s) & (values < start)
        t = t.index_copy(0, failed, torch.where(enough, tried, 0))
        shorter = _next(tried, torch.zeros_like(tried), tried, values - start, s)
        length = length.index_copy(0, failed, shorter)
        failed = failed[~enough]
        if not len(failed):
            break
        trial = at.x[failed] + per_image(length[failed], step) * step[failed]
        values = objective(failed, trial)
    return at.x + per_image(t, step) * step, t > 0
