"""One proximal gradient step with a step size that is short enough: what ISTA and FISTA share."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from preimage import (
    LeastSquares,
    LinearOperator,
    Problem,
    Proximable,
    dot,
    operator_norm,
    per_image,
    take_rows,
)

NORM_STEPS = 15
"""Power iterations for the norm of a nonlinear operator's derivative, which only starts the search for the step."""

SHRINK = 0.9
"""Factor by which the Lipschitz estimate may fall at every step where no global one exists."""


@dataclass(frozen=True)
class Point:
    """Where a step starts: the image, F there, the gradient of the misfit in F(v) and in v."""

    v: Tensor
    predicted: Tensor
    slope: Tensor
    gradient: Tensor


def begin(problem: Problem, step_size: Literal["auto"] | float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The starting image, F there, the objective (B,), and the Lipschitz estimate that belongs to the step (B,)."""
    x = problem.start()
    # A start outside of a constraint has no objective to compare with.
    x = x if problem.prior is None else problem.prior.feasible(x)
    predicted = problem.operator(x)
    value = objective(problem, x, predicted)
    lipschitz = first_lipschitz(problem, x) if step_size == "auto" else torch.full_like(value, 1 / step_size)
    return x, predicted, value, lipschitz


def point(problem: Problem, v: Tensor, predicted: Tensor | None) -> Point:
    """The gradient of the misfit at v; `predicted` is F(v) where it is known and the operator linear, else None."""
    if predicted is None:
        predicted, pullback = problem.operator.vjp(v)
    else:
        pullback = cast(LinearOperator, problem.operator).adjoint
    slope = problem.noise.misfit_grad(predicted, problem.y)
    return Point(v, predicted, slope, pullback(slope))


def descend(problem: Problem, at: Point, lipschitz: Tensor, memory: Any) -> tuple[Tensor, Tensor, Tensor, Any]:
    """The proximal step from a point, its F, and the Lipschitz estimate that was large enough for it.

    Backtracking (Beck & Teboulle 2009, eq. 4.3): the step is halved until the misfit lies below its quadratic model.
    Only the images whose step was too long try again; the memory is that of the first trial, which is near enough.
    """
    z, memory_after = forward_backward(problem, at, lipschitz, memory)
    predicted = problem.operator(z)
    while True:
        failed = _exceeds(problem, at, z, predicted, lipschitz).nonzero()[:, 0]
        if not len(failed):
            return z, predicted, lipschitz, memory_after
        lipschitz = lipschitz.index_copy(0, failed, 2 * lipschitz[failed])
        some = problem.rows(failed)
        again, _ = forward_backward(some, take_rows(at, failed), lipschitz[failed], take_rows(memory_after, failed))
        z = z.index_copy(0, failed, again)
        predicted = predicted.index_copy(0, failed, some.operator(again))


def forward_backward(problem: Problem, at: Point, lipschitz: Tensor, memory: Any) -> tuple[Tensor, Any]:
    """prox of (weight / lipschitz) R at v - gradient / lipschitz, and the memory of the prox."""
    target = at.v - at.gradient / per_image(lipschitz, at.v)
    if problem.prior is None:
        return target, None
    step = per_image(problem.weight, lipschitz) / lipschitz
    return cast(Proximable, problem.prior).prox_from(target, step, memory)


def first_lipschitz(problem: Problem, x: Tensor) -> Tensor:
    """The square of the operator's norm times the curvature of the misfit along the gradient at x; (B,)."""
    operator, noise = problem.operator, problem.noise
    norm = (
        operator_norm(operator, x)
        if isinstance(operator, LinearOperator)
        else operator_norm(operator, x, steps=NORM_STEPS)
    )
    lipschitz = norm.safe.square().clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
    if isinstance(noise, LeastSquares):
        return lipschitz
    predicted, pullback = operator.vjp(x)
    direction = operator.jvp(x, pullback(noise.misfit_grad(predicted, problem.y)))

    def slope(p: Tensor) -> Tensor:
        return noise.misfit_grad(p, problem.y)

    bent = torch.func.jvp(slope, (predicted,), (direction,))[1]
    curvature = dot(direction, bent) / dot(direction, direction)
    return lipschitz * torch.where(curvature > 0, curvature, 1)


def relaxed(problem: Problem, lipschitz: Tensor) -> Tensor:
    """The estimate to begin the next step with: a little smaller where the curvature is not the same everywhere."""
    globally = isinstance(problem.operator, LinearOperator) and isinstance(problem.noise, LeastSquares)
    return lipschitz if globally else SHRINK * lipschitz


def objective(problem: Problem, x: Tensor, predicted: Tensor) -> Tensor:
    """misfit + weight R(x), from F(x); (B,). Outside of a constraint it is infinite whatever the weight."""
    value = problem.noise.misfit(predicted, problem.y)
    if problem.prior is None:
        return value
    energy = cast(Proximable, problem.prior).energy(x)
    return value + torch.where(torch.isinf(energy), energy, per_image(problem.weight, energy) * energy)


def _exceeds(problem: Problem, at: Point, z: Tensor, predicted: Tensor, lipschitz: Tensor) -> Tensor:
    """Whether the misfit at z lies above its quadratic model at v, by more than rounding explains; (B,)."""
    move, image = z - at.v, predicted - at.predicted
    model = 0.5 * lipschitz * dot(move, move)
    rise, rounding = dot(at.slope, image), 16 * torch.finfo(z.dtype).eps
    if not isinstance(problem.noise, LeastSquares):
        before, after = (problem.noise.misfit(p, problem.y) for p in (at.predicted, predicted))
        slack = rounding * (before.abs() + after.abs())
        bend = after - before - dot(at.gradient, move)
    elif isinstance(problem.operator, LinearOperator):
        # What remains of the misfit when its linear part is taken away; nothing cancels.
        slack, bend = rounding * model, 0.5 * dot(image, image)
    else:
        slack, bend = rounding * rise.abs(), 0.5 * dot(image, image) + rise - dot(at.gradient, move)
    # A step so short that 1 / lipschitz is lost in rounding ends the search; NaN compares as false and ends it too.
    return (bend > model + slack) & (lipschitz < 1 / torch.finfo(z.dtype).eps ** 2)
