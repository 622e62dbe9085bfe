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
    Solver,
    dot,
    per_image,
)

from .checks import not_negative


@dataclass(frozen=True)
class CGState:
    """One iterate per image.

    - `x`: the estimate. `residual`: y - A x. `smoothness`: -sqrt(weight) K x, None without a prior.
    - `direction`: of the next step. `square`: squared norm of the negative gradient A^T (y - A x) - weight K^T K x.
    - `scale`: ||A^T y||, what the gradient is compared with.
    """

    x: Tensor
    residual: Tensor
    smoothness: Tensor | None
    direction: Tensor
    square: Tensor
    scale: Tensor


@dataclass(frozen=True, kw_only=True)
class ConjugateGradients(Solver[CGState]):
    """Minimises 1/2 ||A x - y||^2 + weight/2 ||K x||^2: solves (A^T A + weight K^T K) x = A^T y.

    The prior is optional; it must be quadratic (`Quadratic`, such as tikhonov), and K is its analysis operator. Without
    one the problem is plain least squares. If A has small singular values, the noise then grows with the number of
    steps, and stopping early is what regularises: few `max_steps`, or a coarse `tolerance`. The start is x0 if given,
    else zero, from which k steps give the best fit within the k-th Krylov space.

    Conjugate gradients in the least-squares form (CGLS: Hestenes & Stiefel 1952; Bjorck, Numerical Methods for Least
    Squares Problems, 1996, algorithm 7.4.1), which keeps y - A x by recurrence and so never squares A's condition
    number in rounding errors. One A and one A^T (and one K and one K^T) per step.

    - `tolerance`: an image is done when the norm of the gradient is below `tolerance` ||A^T y||; >= 0, default 1e-6.
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

    def init(self, problem: Problem, keys: Sequence[Key]) -> CGState:
        operator, y = cast(LinearOperator, problem.operator), problem.y
        back = operator.adjoint(y)
        if problem.x0 is None:
            x, residual = torch.zeros_like(back), y.clone()
        else:
            x, residual = problem.x0.clone(), y - operator(problem.x0)
        analysis = _analysis(problem)
        smoothness = None if analysis is None else -(problem.weight**0.5) * analysis(x)
        direction = _gradient(problem, residual, smoothness)
        return CGState(x, residual, smoothness, direction, dot(direction, direction), dot(back, back).sqrt())

    def step(self, problem: Problem, state: CGState) -> CGState:
        operator, analysis, direction = cast(LinearOperator, problem.operator), _analysis(problem), state.direction
        image = operator(direction)
        curvature = dot(image, image)
        rough = None if analysis is None else problem.weight**0.5 * analysis(direction)
        if rough is not None:
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

    def done(self, problem: Problem, state: CGState) -> Tensor:
        return state.square.sqrt() <= self.tolerance * state.scale

    def objective(self, problem: Problem, state: CGState) -> Tensor:
        value = 0.5 * dot(state.residual, state.residual)
        return value if state.smoothness is None else value + 0.5 * dot(state.smoothness, state.smoothness)

    def criterion(self) -> str:
        return f"the norm of the gradient fell below {self.tolerance:g} ||A^T y||"


def _analysis(problem: Problem) -> LinearOperator | None:
    return None if problem.prior is None else cast(Quadratic, problem.prior).analysis()


def _gradient(problem: Problem, residual: Tensor, smoothness: Tensor | None) -> Tensor:
    """The negative gradient of the objective."""
    descent = cast(LinearOperator, problem.operator).adjoint(residual)
    analysis = _analysis(problem)
    if analysis is not None and smoothness is not None:
        descent = descent + problem.weight**0.5 * analysis.adjoint(smoothness)
    return descent
