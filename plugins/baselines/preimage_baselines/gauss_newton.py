"""Gauss-Newton with inner conjugate gradients and a line search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from preimage import (
    Differentiable,
    ForwardOperator,
    Key,
    LeastSquares,
    LinearOperator,
    Noise,
    Prior,
    Problem,
    dot,
    norms,
    per_image,
)
from preimage.errors import BadParameter

from .checks import not_negative
from .gauss_newton_model import GaussNewtonModel, Step, curvature, truncated_conjugate_gradients
from .gradient_descent import descent_rules
from .line_search import Point, lower
from .stopping import Event, Rule, RuleBased, ratio

LEAST_FORCING = 1e-10
"""Below this an inner solve is exact."""


@dataclass(frozen=True)
class GaussNewtonState:
    """One iterate per image.

    - `point`: image, objective and gradient. `planned`: the step to be tried next, an approximate minimiser of the
      model.
    - `forcing`: accuracy of that minimiser, (B,). `damping`, `growth`: of the model, and the factor by which the former
      grows when a step fails; 0 and 1 without damping. `scale`: a typical eigenvalue of F'^T F'.
    - `start`: norm of the gradient at the start. `stuck`: no step lowers the objective.
    """

    point: Point
    planned: Step
    forcing: Tensor
    damping: Tensor
    growth: Tensor
    scale: Tensor
    start: Tensor
    stuck: Tensor


@dataclass(frozen=True, kw_only=True)
class InexactGaussNewton(RuleBased[GaussNewtonState]):
    """What Gauss-Newton and Levenberg-Marquardt share: the linearisation, the inner solve, and when to stop."""

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = Differentiable
    prior_optional: ClassVar[bool] = True

    max_steps: int = 100
    max_inner_steps: int = 10
    forcing: float = 0.3
    tolerance: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        if self.max_inner_steps < 1:
            raise BadParameter(f"max_inner_steps is {self.max_inner_steps}", "an integer >= 1")
        if not 0 <= self.forcing < 1:
            raise BadParameter(f"forcing is {self.forcing}", "a number in [0, 1)", "0.3 suits most problems")
        not_negative("tolerance", self.tolerance)

    def estimate(self, problem: Problem, state: GaussNewtonState) -> Tensor:
        return state.point.x

    def objective(self, problem: Problem, state: GaussNewtonState) -> Tensor:
        return state.point.value

    def rules(self, problem: Problem, state: GaussNewtonState) -> Sequence[Rule | Event]:
        return descent_rules(state.point, state.start, self.tolerance, state.stuck)

    def plan(
        self,
        problem: Problem,
        at: Point,
        jacobian: LinearOperator,
        forcing: Tensor,
        damping: Tensor,
        start: Tensor,
        scale: Tensor,
    ) -> Step:
        """The step from a point; zero, at no cost, where the image is done."""
        known = None if problem.prior is None else (curvature(problem.prior, at.x), problem.weight)
        model = GaussNewtonModel(jacobian, known, damping, scale)
        goes_on = ratio(norms(at.gradient), start) > self.tolerance
        gradient = torch.where(per_image(goes_on, at.gradient) > 0, at.gradient, 0)
        return truncated_conjugate_gradients(model, gradient, forcing, self.max_inner_steps)

    def tightened(self, old: Point, new: Point, forcing: Tensor) -> Tensor:
        """The accuracy of the next inner solve: choice 2 of Eisenstat & Walker (1996, "Choosing the forcing terms in an
        inexact Newton method", eq. 2.6 with gamma 0.9 and alpha 2, and its safeguard), at most `forcing`."""
        falls = 0.9 * ratio(norms(new.gradient), norms(old.gradient)).square()
        before = 0.9 * forcing.square()
        return torch.where(before > 0.1, torch.maximum(falls, before), falls).clamp(
            LEAST_FORCING, max(self.forcing, LEAST_FORCING)
        )


def linearise(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor, LinearOperator]:
    """F(x) - y, the objective at x, (B,), and F'(x), for one F."""
    predicted, jacobian = problem.operator.linearize(x)
    residual = predicted - problem.y
    value = problem.noise.misfit(predicted, problem.y)
    if problem.prior is not None:
        value = value + problem.weight * cast(Differentiable, problem.prior).energy(x)
    return residual, value, jacobian


def point_of(problem: Problem, x: Tensor, residual: Tensor, value: Tensor, jacobian: LinearOperator) -> Point:
    """The point at x, for one F'^T."""
    gradient = jacobian.adjoint(residual)
    if problem.prior is not None:
        gradient = gradient + per_image(problem.weight, x) * cast(Differentiable, problem.prior).grad(x)
    return Point(x, value, gradient)


def rayleigh(jacobian: LinearOperator, direction: Tensor) -> Tensor:
    """||F' d||^2 / ||d||^2, (B,), for one F'; 1 where d or F' d is zero."""
    tangent = jacobian(direction)
    above, below = dot(tangent, tangent), dot(direction, direction)
    known = (above > 0) & (below > 0)
    return torch.where(known, above / torch.where(known, below, 1), 1)


@dataclass(frozen=True, kw_only=True)
class GaussNewton(InexactGaussNewton):
    """Minimises 1/2 ||F(x) - y||^2 + weight R(x), R differentiable or absent, by inexact Gauss-Newton steps.

    x <- x + t s, where s nearly minimises the model that linearises F:

        1/2 ||F'(x) s + F(x) - y||^2 + weight (<grad R(x), s> + 1/2 <s, C s>)

    (Nocedal & Wright 2006, section 10.3; for images Haber, Ascher & Oldenburg 2000, "On optimization techniques for
    solving nonlinear inverse problems", section 3). C is the prior's curvature (`curvature`): K^T K for a quadratic
    one, lagged diffusivity for smoothed-tv, the exact Hessian by automatic differentiation for others.

    s comes from conjugate gradients that see F' by its products only, preconditioned by the inverse of c I + weight C
    in the cosine, Fourier or pixel basis where that is diagonal or nearly so (c is estimated from F' itself, or F'^T F'
    is taken where the operator knows its diagonal). They stop when the model's gradient has fallen by a factor that
    tightens as the outer iteration converges (Eisenstat & Walker 1996), at a direction of negative curvature, or after
    `max_inner_steps`. t is 1, shortened until the objective falls enough (Armijo), so the objective never rises. Where
    the data can be fitted exactly the convergence is quadratic; otherwise linear, faster the smaller the residual.

    - `forcing`: in [0, 1): the largest relative accuracy of an inner solve, default 0.3; 0 solves exactly.
    - `max_inner_steps`: >= 1, default 10. Each costs one F' and one F'^T.
    - `tolerance`: an image is done when the norm of the gradient is at most `tolerance` times that at the start; >= 0,
      default 1e-3. Also when no length lowers the objective: it is then as low as rounding permits.
    - `max_steps`: default 100.

    Per step one F and one F'^T besides the inner steps, and where t is shortened one F per trial and one more. Whether
    this is cheaper than a gradient method depends on the problem: see the README. Raises `BadParameter`
    for parameters outside their ranges.
    """

    def init(self, problem: Problem, keys: Sequence[Key]) -> GaussNewtonState:
        x = problem.start()
        residual, value, jacobian = linearise(problem, x)
        point = point_of(problem, x, residual, value, jacobian)
        zero, start = torch.zeros_like(value), norms(point.gradient)
        forcing = torch.full_like(value, self.forcing)
        step = self.plan(problem, point, jacobian, forcing, zero, start, rayleigh(jacobian, point.gradient))
        return GaussNewtonState(point, step, forcing, zero, zero + 1, step.scale, start, start < 0)

    def step(self, problem: Problem, state: GaussNewtonState) -> GaussNewtonState:
        old, s = state.point, state.planned.s
        x = old.x + s
        residual, value, jacobian = linearise(problem, x)
        x, moved = lower(lambda index, u: problem.rows(index).objective(u), old, s, value)
        if not torch.equal(x, old.x + s):
            residual, value, jacobian = linearise(problem, x)
        new = point_of(problem, x, residual, value, jacobian)
        forcing = self.tightened(old, new, state.forcing)
        step = self.plan(problem, new, jacobian, forcing, state.damping, state.start, state.scale)
        return GaussNewtonState(new, step, forcing, state.damping, state.growth, step.scale, state.start, ~moved)
