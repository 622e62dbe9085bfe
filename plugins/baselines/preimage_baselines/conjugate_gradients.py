"""Least squares, and least squares with a quadratic prior, by conjugate gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from preimage import (
    ForwardOperator,
    Key,
    LeastSquares,
    LinearOperator,
    Noise,
    Prior,
    Problem,
    Quadratic,
    dot,
    per_image,
)
from preimage.errors import Incompatible

from .checks import not_negative
from .solved_at_start import solved_at_start
from .stopping import Rule, RuleBased


@dataclass(frozen=True)
class CGState:
    """One iterate per image.

    - `x`: the estimate. `residual`: y - A x. `smoothness`: sqrt(weight) (c - K x), None without a prior.
    - `direction`: of the next step. `square`: squared norm of the negative gradient,
      A^T (y - A x) + weight K^T (c - K x).
    - `scale`: ||A^T y + weight K^T c||, what the gradient is compared with.
    """

    x: Tensor
    residual: Tensor
    smoothness: Tensor | None
    direction: Tensor
    square: Tensor
    scale: Tensor


@dataclass(frozen=True, kw_only=True)
class ConjugateGradients(RuleBased[CGState]):
    """Minimises 1/2 ||A x - y||^2 + weight/2 ||K x - c||^2: solves (A^T A + weight K^T K) x = A^T y + weight K^T c.

    The prior is optional; it must be quadratic (`Quadratic`, such as tikhonov), K is its analysis operator and c its
    target. Without one the problem is plain least squares. If A has small singular values, the noise then grows with
    the number of steps, and stopping early is what regularises: few `max_steps`, or a coarse `tolerance`. The start is
    x0 if given, else zero, from which k steps give the best fit within the k-th Krylov space.

    Conjugate gradients in the least-squares form (CGLS: Hestenes & Stiefel 1952; Bjorck, Numerical Methods for Least
    Squares Problems, 1996, algorithm 7.4.1), which keeps y - A x by recurrence and so never squares A's condition
    number in rounding errors. One A and one A^T (and one K and one K^T) per step.

    - `tolerance`: an image is done when the norm of the gradient is at most `tolerance` ||A^T y + weight K^T c||, its
      norm at x = 0; >= 0, default 1e-6.
    - `max_steps`: default 1000.

    Raises `BadParameter` for a negative tolerance. The objective is known at every step at no cost.
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = Quadratic
    prior_optional: ClassVar[bool] = True

    tolerance: float = 1e-6

    def __post_init__(self):
        super().__post_init__()
        not_negative("tolerance", self.tolerance)

    def objections_to_start(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        return solved_at_start(self, operator) if prior is None else []

    def init(self, problem: Problem, keys: Sequence[Key]) -> CGState:
        operator, y = cast(LinearOperator, problem.operator), problem.y
        back = operator.adjoint(y)
        analysis, root = _analysis(problem), _root(problem, y)
        target = None if problem.prior is None else cast(Quadratic, problem.prior).target()
        if analysis is not None and target is not None:
            drawn = per_image(root.square(), back) * analysis.adjoint(target.to(back).expand(len(back), *target.shape))
            back = back + drawn
        if problem.x0 is None:
            x, residual = torch.zeros_like(back), y.clone()
        else:
            x, residual = problem.x0.clone(), y - operator(problem.x0)
        smoothness = None
        if analysis is not None:
            rough = analysis(x)
            smoothness = per_image(root, rough) * (-rough if target is None else target.to(rough) - rough)
        direction = _gradient(problem, residual, smoothness)
        return CGState(x, residual, smoothness, direction, dot(direction, direction), dot(back, back).sqrt())

    def step(self, problem: Problem, state: CGState) -> CGState:
        operator, analysis, direction = cast(LinearOperator, problem.operator), _analysis(problem), state.direction
        image = operator(direction)
        curvature = dot(image, image)
        rough = None
        if analysis is not None:
            rough = analysis(direction)
            rough = per_image(_root(problem, rough), rough) * rough
            curvature = curvature + dot(rough, rough)
        tiny = torch.finfo(direction.dtype).tiny
        length = state.square / curvature.clamp_min(tiny)
        x = state.x + per_image(length, state.x) * direction
        residual = state.residual - per_image(length, image) * image
        smoothness = state.smoothness
        if smoothness is not None and rough is not None:
            smoothness = smoothness - per_image(length, rough) * rough
        descent = _gradient(problem, residual, smoothness)
        square = dot(descent, descent)
        direction = descent + per_image(square / state.square.clamp_min(tiny), direction) * direction
        return CGState(x, residual, smoothness, direction, square, state.scale)

    def estimate(self, problem: Problem, state: CGState) -> Tensor:
        return state.x

    def rules(self, problem: Problem, state: CGState) -> Sequence[Rule]:
        return (Rule("the norm of the gradient", state.square.sqrt(), self.tolerance * state.scale),)

    def objective(self, problem: Problem, state: CGState) -> Tensor:
        value = 0.5 * dot(state.residual, state.residual)
        return value if state.smoothness is None else value + 0.5 * dot(state.smoothness, state.smoothness)


def _analysis(problem: Problem) -> LinearOperator | None:
    return None if problem.prior is None else cast(Quadratic, problem.prior).analysis()


def _root(problem: Problem, like: Tensor) -> Tensor:
    """The root of the weight: (), or (B,)."""
    return torch.as_tensor(problem.weight, dtype=like.dtype, device=like.device).sqrt()


def _gradient(problem: Problem, residual: Tensor, smoothness: Tensor | None) -> Tensor:
    """The negative gradient of the objective."""
    descent = cast(LinearOperator, problem.operator).adjoint(residual)
    analysis = _analysis(problem)
    if analysis is not None and smoothness is not None:
        descent = descent + per_image(_root(problem, descent), descent) * analysis.adjoint(smoothness)
    return descent
