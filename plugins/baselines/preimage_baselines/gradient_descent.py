"""Gradient descent with Barzilai-Borwein steps, for smooth objectives and any operator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from preimage import Differentiable, ForwardOperator, Key, Prior, Problem, dot, norms

from .checks import not_negative, positive
from .line_search import Point, cauchy_length, evaluate, line_search, smooth
from .stopping import Event, Rule, RuleBased, ratio

RANGE = 1e10
"""Factor by which a step may differ from the first one."""

SHORT = 0.5
"""Where the shorter of the two step lengths is below this part of the longer one it is taken (Zhou, Gao & Dai 2006)."""


@dataclass(frozen=True)
class GradientDescentState:
    """One iterate per image.

    - `point`: image, objective and gradient. `length`: of the next step. `first`: that of the first one.
    - `scale`: norm of the gradient at the start. `stuck`: the last line search found nothing lower.
    """

    point: Point
    length: Tensor
    first: Tensor
    scale: Tensor
    stuck: Tensor


@dataclass(frozen=True, kw_only=True)
class GradientDescent(RuleBased[GradientDescentState]):
    """Minimises misfit(x) + weight R(x), R differentiable or absent, by x <- x - t (gradient), image by image.

    The length t is that of Barzilai & Borwein (1988, "Two-point step size gradient methods", eqs. 5 and 6): with
    s = x' - x and q the difference of the gradients, t1 = s^T s / s^T q or t2 = s^T q / q^T q. The shorter, t2, is
    taken where t2 < 0.5 t1 (adaptive choice of Zhou, Gao & Dai 2006, "Gradient methods with adaptive step-sizes",
    section 2), and t doubles where s^T q <= 0. It is then shortened until the objective falls enough (Armijo), so the
    objective never rises. For a nonlinear operator the limit is a stationary point.

    - `step_size`: "auto" (default): the first step goes to the minimum of the linearised problem along the gradient;
      or a number > 0.
    - `tolerance`: an image is done when the norm of the gradient is at most `tolerance` times that at the start; >= 0,
      default 1e-3. Also when no length lowers the objective: it is then as low as rounding permits.
    - `max_steps`: default 1000.

    Per step one F and one F'^T, and one F for every time t is shortened; at the start one F, F'^T and F'.
    Raises `BadParameter` for a step_size that is not positive or a negative tolerance.
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    prior_type: ClassVar[type[Prior] | None] = Differentiable
    prior_optional: ClassVar[bool] = True

    step_size: Literal["auto"] | float = "auto"
    tolerance: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        if self.step_size != "auto":
            positive("step_size", self.step_size, 'leave it out, or write "auto"')
        not_negative("tolerance", self.tolerance)

    def init(self, problem: Problem, keys: Sequence[Key]) -> GradientDescentState:
        point = evaluate(problem, problem.start())
        length = (
            cauchy_length(problem, point)
            if self.step_size == "auto"
            else torch.full_like(point.value, float(self.step_size))
        )
        stuck = torch.zeros_like(point.value, dtype=torch.bool)
        return GradientDescentState(point, length, length, norms(point.gradient), stuck)

    def step(self, problem: Problem, state: GradientDescentState) -> GradientDescentState:
        old = state.point
        new, taken, moved, *_ = line_search(smooth(problem), old, -old.gradient, state.length, wolfe=False)
        s, q = new.x - old.x, new.gradient - old.gradient
        product, tiny = dot(s, q), torch.finfo(old.x.dtype).tiny
        long = dot(s, s) / product.clamp_min(tiny)
        short = product / dot(q, q).clamp_min(tiny)
        length = torch.where(product > 0, torch.where(short < SHORT * long, short, long), 2 * taken)
        length = torch.minimum(torch.maximum(length, state.first / RANGE), state.first * RANGE)
        return GradientDescentState(new, length, state.first, state.scale, ~moved)

    def estimate(self, problem: Problem, state: GradientDescentState) -> Tensor:
        return state.point.x

    def objective(self, problem: Problem, state: GradientDescentState) -> Tensor:
        return state.point.value

    def rules(self, problem: Problem, state: GradientDescentState) -> Sequence[Rule | Event]:
        return descent_rules(state.point, state.scale, self.tolerance, state.stuck)


def descent_rules(point: Point, scale: Tensor, tolerance: float, stuck: Tensor) -> Sequence[Rule | Event]:
    """What ends a descent: a small gradient, in relation to `scale`, or a line search that found nothing lower."""
    return (
        Rule("the norm of the gradient relative to the start's", ratio(norms(point.gradient), scale), tolerance),
        Event("no step along the search direction lowers the objective, which is as low as rounding permits", stuck),
    )
