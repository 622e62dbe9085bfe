"""Accelerated proximal gradient descent for any operator, with a step that adapts and an objective that never rises."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from preimage import (
    ForwardOperator,
    Key,
    LeastSquares,
    LinearOperator,
    Prior,
    Problem,
    Proximable,
    Solver,
    dot,
    norms,
    operator_norm,
    per_image,
    take_rows,
)

from .checks import not_negative, positive

NORM_STEPS = 15
"""Power iterations for the norm of a nonlinear operator's derivative, which only starts the search for the step."""

SHRINK = 0.9
"""Factor by which the Lipschitz estimate may fall at every step where no global one exists."""

PATIENCE = 3
"""Steps in a row that may fail to lower the objective before an image counts as finished."""


@dataclass(frozen=True)
class FISTAState:
    """One iterate per image.

    - `x`, `predicted`, `value`: the best image so far, F(x), and the objective there, (B,).
    - `v`, `predicted_v`: where the next gradient is taken, and F(v) if the operator is linear, else None.
    - `t`: momentum parameter. `lipschitz`: of the misfit's gradient; the step is its inverse.
    - `change`: relative fixed-point residual. `failures`: steps in a row that did not lower the objective.
    - `memory`: of the prior's proximal map.
    """

    x: Tensor
    predicted: Tensor
    value: Tensor
    v: Tensor
    predicted_v: Tensor | None
    t: Tensor
    lipschitz: Tensor
    change: Tensor
    failures: Tensor
    memory: Any


@dataclass(frozen=True, kw_only=True)
class FISTA(Solver[FISTAState]):
    """Minimises misfit(x) + weight R(x) by accelerated proximal gradient steps (Beck & Teboulle 2009, "A fast
    iterative shrinkage-thresholding algorithm", section 4):

        z <- prox of (step weight) R at v - step F'(v)^T d misfit        v <- z + (t - 1) / t' (z - x)

    with three changes that make it work for every operator and noise, image by image:

    - the step is shortened until the misfit at z lies below its quadratic model at v (backtracking, same paper,
      eq. 4.3), so that convergence does not rest on a norm being known;
    - z is accepted only if it lowers the objective, which therefore never rises; if it is not, the next step starts
      from x without momentum (function restart of O'Donoghue & Candes 2015, section 3.2);
    - a proximal map with an inner iteration goes on from its last result (`Proximable.prox_from`).

    The prior is optional: without one this is accelerated gradient descent on the misfit. For a nonlinear operator the
    limit is a stationary point.

    - `step_size`: "auto" (default) starts from 1 / ||F'||^2, the norm a bound where the operator has one, else by power
      iteration, at the starting image if F is not linear (times the misfit's curvature if it is not least squares). A
      number is a first step; it is shortened in the same way if it is too long. Where the curvature is not the same
      everywhere (nonlinear operator, other noise) the step may also grow, by 1 / 0.9 per iteration.
    - `restart`: True (default), or False to keep the momentum after a rejected step (MFISTA: Beck & Teboulle 2009,
      "Fast gradient-based algorithms for constrained total variation", section 5.1).
    - `tolerance`: an image is done when ||z - v|| <= tolerance ||z||; >= 0, default 1e-4. Also when three steps in a
      row do not lower the objective, which is then as low as rounding and the accuracy of the proximal map permit.
    - `max_steps`: default 1000.

    Per step one F, one F'^T and one proximal map for a linear operator, another F for a nonlinear one.
    Raises `BadParameter` for a step_size that is not positive or a negative tolerance.
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    prior_type: ClassVar[type[Prior] | None] = Proximable
    prior_optional: ClassVar[bool] = True

    step_size: Literal["auto"] | float = "auto"
    restart: bool = True
    tolerance: float = 1e-4

    def __post_init__(self):
        super().__post_init__()
        if self.step_size != "auto":
            positive("step_size", self.step_size, 'leave it out, or write "auto"')
        not_negative("tolerance", self.tolerance)

    def init(self, problem: Problem, keys: Sequence[Key]) -> FISTAState:
        x = problem.start()
        predicted = problem.operator(x)
        value = _objective(problem, x, predicted)
        lipschitz = _lipschitz(problem, x) if self.step_size == "auto" else torch.full_like(value, 1 / self.step_size)
        predicted_v = predicted if isinstance(problem.operator, LinearOperator) else None
        one, unknown = torch.ones_like(value), torch.full_like(value, float("inf"))
        failures = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return FISTAState(x, predicted, value, x, predicted_v, one, lipschitz, unknown, failures, None)

    def step(self, problem: Problem, state: FISTAState) -> FISTAState:
        v = state.v
        if state.predicted_v is None:
            predicted_v, pullback = problem.operator.vjp(v)
        else:
            predicted_v, pullback = state.predicted_v, cast(LinearOperator, problem.operator).adjoint
        slope = problem.noise.misfit_grad(predicted_v, problem.y)
        here = _Point(v, predicted_v, slope, pullback(slope))
        z, predicted, lipschitz, memory = _descend(problem, here, _relaxed(problem, state.lipschitz), state.memory)
        value = _objective(problem, z, predicted)

        lower = value <= state.value
        t = 0.5 + (0.25 + state.t.square()).sqrt()
        x, predicted_x = _where(lower, z, state.x), _where(lower, predicted, state.predicted)
        if self.restart:
            momentum, overshoot = torch.where(lower, (state.t - 1) / t, 0), torch.zeros_like(t)
            t = torch.where(lower, t, 1)
        else:
            # If z was rejected, x has not moved, and v lies beyond it towards z.
            momentum, overshoot = (state.t - 1) / t, torch.where(lower, 0, state.t / t)

        def ahead(new: Tensor, old: Tensor, trial: Tensor) -> Tensor:
            return new + per_image(momentum, new) * (new - old) + per_image(overshoot, new) * (trial - new)

        return FISTAState(
            x=x,
            predicted=predicted_x,
            value=torch.where(lower, value, state.value),
            v=ahead(x, state.x, z),
            predicted_v=None if state.predicted_v is None else ahead(predicted_x, state.predicted, predicted),
            t=t,
            lipschitz=lipschitz,
            change=norms(z - v) / norms(z).clamp_min(torch.finfo(z.dtype).tiny),
            failures=torch.where(value < state.value, 0, state.failures + 1),
            memory=memory,
        )

    def estimate(self, problem: Problem, state: FISTAState) -> Tensor:
        return state.x

    def done(self, problem: Problem, state: FISTAState) -> Tensor:
        return (state.change <= self.tolerance) | (state.failures >= PATIENCE)

    def objective(self, problem: Problem, state: FISTAState) -> Tensor:
        return state.value

    def criterion(self) -> str:
        return f"a step moved the image by less than {self.tolerance:g} of its norm, or could not lower the objective"


@dataclass(frozen=True)
class _Point:
    """Where a step starts: the image, F there, the gradient of the misfit in F(v) and in v."""

    v: Tensor
    predicted: Tensor
    slope: Tensor
    gradient: Tensor


def _descend(problem: Problem, at: _Point, lipschitz: Tensor, memory: Any) -> tuple[Tensor, Tensor, Tensor, Any]:
    """The proximal step from a point, its F, and the Lipschitz estimate that was large enough for it.

    Only the images whose step was too long try again; the memory is that of the first trial, which is near enough.
    """
    z, memory_after = _forward_backward(problem, at, lipschitz, memory)
    predicted = problem.operator(z)
    while True:
        failed = _exceeds(problem, at, z, predicted, lipschitz).nonzero()[:, 0]
        if not len(failed):
            return z, predicted, lipschitz, memory_after
        lipschitz = lipschitz.index_copy(0, failed, 2 * lipschitz[failed])
        some = problem.rows(failed)
        again, _ = _forward_backward(some, take_rows(at, failed), lipschitz[failed], take_rows(memory_after, failed))
        z = z.index_copy(0, failed, again)
        predicted = predicted.index_copy(0, failed, some.operator(again))


def _forward_backward(problem: Problem, at: _Point, lipschitz: Tensor, memory: Any) -> tuple[Tensor, Any]:
    target = at.v - at.gradient / per_image(lipschitz, at.v)
    if problem.prior is None:
        return target, None
    return cast(Proximable, problem.prior).prox_from(target, problem.weight / lipschitz, memory)


def _exceeds(problem: Problem, at: _Point, z: Tensor, predicted: Tensor, lipschitz: Tensor) -> Tensor:
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


def _lipschitz(problem: Problem, x: Tensor) -> Tensor:
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


def _relaxed(problem: Problem, lipschitz: Tensor) -> Tensor:
    globally = isinstance(problem.operator, LinearOperator) and isinstance(problem.noise, LeastSquares)
    return lipschitz if globally else SHRINK * lipschitz


def _objective(problem: Problem, x: Tensor, predicted: Tensor) -> Tensor:
    value = problem.noise.misfit(predicted, problem.y)
    return value if problem.prior is None else value + problem.weight * cast(Proximable, problem.prior).energy(x)


def _where(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)
