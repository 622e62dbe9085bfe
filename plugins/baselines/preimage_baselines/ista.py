"""Proximal gradient descent for any operator: one gradient step, one proximal map, no momentum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, LinearOperator, Prior, Problem, Proximable

from .checks import not_negative, positive
from .proximal_gradient import begin, descend, forward_backward, objective, point, relaxed
from .stopping import Event, Growth, Rule, RuleBased, Window, relative_change

OBJECTIVE = 100.0
"""The tolerance on the change of the objective, which is quadratic about its minimum, over the square of that on x."""


@dataclass(frozen=True)
class ISTAState:
    """One iterate per image.

    - `x`, `predicted`, `value`: the image, F(x), and the objective there, (B,).
    - `lipschitz`: of the misfit's gradient; the step is its inverse. `change`: relative fixed-point residual.
    - `window`: the last objectives. `growth`: whether they get out of hand. `memory`: of the prior's proximal map.
    """

    x: Tensor
    predicted: Tensor
    value: Tensor
    lipschitz: Tensor
    change: Tensor
    window: Window
    growth: Growth
    memory: Any


@dataclass(frozen=True, kw_only=True)
class ISTA(RuleBased[ISTAState]):
    """Minimises misfit(x) + weight R(x) by proximal gradient steps (forward-backward splitting; Daubechies, Defrise &
    De Mol 2004; Combettes & Wajs 2005; Beck & Teboulle 2009, section 3):

        x <- prox of (step weight) R at x - step F'(x)^T d misfit

    With backtracking (Beck & Teboulle 2009, "ISTA with backtracking") the objective never rises, for every operator
    and noise; for a nonlinear operator the limit is a stationary point. FISTA is the same with momentum and needs far
    fewer steps on ill-conditioned problems; this is the plain method, for comparison and for early stopping. The prior
    is optional: without one this is gradient descent on the misfit (Landweber's iteration for least squares).

    - `step_size`: "auto" (default) starts from 1 / ||F'||^2, the norm a bound where the operator has one, else by power
      iteration, at the starting image if F is not linear (times the misfit's curvature if it is not least squares). A
      number is a first step, or with `backtracking` off the step.
    - `backtracking`: True (default) halves a step that is too long, and lets it grow by 1 / 0.9 per iteration where
      the curvature is not the same everywhere. False keeps the step; beyond 2 / ||F'||^2 the iteration then diverges,
      which is detected by an objective 100 times its start for 5 steps.
    - `tolerance`: an image is done when ||x_new - x|| <= tolerance ||x_new||, or the objective changed by at most
      100 tolerance^2, relatively, in the last ten steps; >= 0, default 1e-4.
    - `max_steps`: default 1000.

    Per step one F, one F'^T and one proximal map for a linear operator, another F for a nonlinear one.
    Raises `BadParameter` for a step_size that is not positive or a negative tolerance.
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    prior_type: ClassVar[type[Prior] | None] = Proximable
    prior_optional: ClassVar[bool] = True

    step_size: Literal["auto"] | float = "auto"
    backtracking: bool = True
    tolerance: float = 1e-4

    def __post_init__(self):
        super().__post_init__()
        if self.step_size != "auto":
            positive("step_size", self.step_size, 'leave it out, or write "auto"')
        not_negative("tolerance", self.tolerance)

    def init(self, problem: Problem, keys: Sequence[Key]) -> ISTAState:
        x, predicted, value, lipschitz = begin(problem, self.step_size)
        unknown = torch.full_like(value, float("inf"))
        floor = torch.finfo(x.dtype).eps * (1 + problem.noise.misfit(torch.zeros_like(problem.y), problem.y))
        return ISTAState(x, predicted, value, lipschitz, unknown, Window.of(value), Growth.of(value, floor), None)

    def step(self, problem: Problem, state: ISTAState) -> ISTAState:
        at = point(problem, state.x, state.predicted if isinstance(problem.operator, LinearOperator) else None)
        if self.backtracking:
            x, predicted, lipschitz, memory = descend(problem, at, relaxed(problem, state.lipschitz), state.memory)
        else:
            lipschitz = state.lipschitz
            x, memory = forward_backward(problem, at, lipschitz, state.memory)
            predicted = problem.operator(x)
        value = objective(problem, x, predicted)
        change, window, growth = relative_change(x, state.x), state.window.then(value), state.growth.then(value)
        return ISTAState(x, predicted, value, lipschitz, change, window, growth, memory)

    def estimate(self, problem: Problem, state: ISTAState) -> Tensor:
        return state.x

    def rules(self, problem: Problem, state: ISTAState) -> Sequence[Rule | Event]:
        return (
            Rule("the relative fixed-point residual", state.change, self.tolerance),
            Rule("the relative objective change over 10 steps", state.window.change(), OBJECTIVE * self.tolerance**2),
        )

    def diverged(self, problem: Problem, state: ISTAState) -> Tensor:
        return state.growth.out_of_hand

    def remedy(self) -> str:
        return 'use backtracking = true, step_size = "auto", or a step_size below 2 / ||F\'||^2'

    def objective(self, problem: Problem, state: ISTAState) -> Tensor:
        return state.value
