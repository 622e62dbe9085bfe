"""Landweber iteration: gradient descent on the misfit, stopped early."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, LeastSquares, Noise, Prior, Problem, norms, per_image
from preimage.errors import BadParameter, Incompatible

from .checks import not_negative, positive
from .pnp_gradient import known_globally
from .proximal_gradient import first_lipschitz
from .solved_at_start import solved_at_start
from .stopping import Growth, Rule, RuleBased, ratio


@dataclass(frozen=True)
class LandweberState:
    """One iterate per image.

    - `x`, `value`, `gradient`: the estimate, its misfit (B,), and the gradient there. `step`: t, (B,).
    - `change`: how far the last step wanted to go, relative to x, (B,). `growth`: watches the misfit.
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    step: Tensor
    change: Tensor
    growth: Growth


@dataclass(frozen=True, kw_only=True)
class Landweber(RuleBased[LandweberState]):
    """x <- P(x + t F'(x)^T (y - F(x))), for linear operators (Landweber 1951) and nonlinear ones (Hanke, Neubauer &
    Scherzer 1995, "A convergence analysis of the Landweber iteration for nonlinear ill-posed problems").

    Noise enters with the number of steps, so stopping early is what regularises. One F and one F'^T per step.

    - `tau`: stop at the first x with 1/2 ||F(x) - y||^2 <= tau^2 times what the noise model expects of the true image
      (Morozov's discrepancy principle): ||F(x) - y|| <= tau sigma sqrt(m) for m measurements with Gaussian noise.
      >= 0, default 1.02; 0: no such rule, as where the level of the noise is unknown or 0.
    - `step_size`: t > 0, or "auto" (default): 1 / ||F'||^2, the norm a bound where the operator has one, else by power
      iteration, at the starting image if F is not linear; then a step that would raise the misfit is not taken, and t
      is halved. A number is used as it is; a linear operator needs one below 2 / ||A||^2.
    - `box`: (least, greatest) pixel value, P the projection onto it; None (default) for no bounds (P the identity).
    - `tolerance`: also stop when a step moves x by at most tolerance ||x||; >= 0, default 1e-6.
    - `max_steps`: default 1000.

    The start is x0 if given, else what `Problem.start` says, projected. A run whose misfit grows far above its start
    ends as diverged. Needs least-squares noise, and takes no prior. Raises `BadParameter` for values out of range.
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares

    tau: float = 1.02
    step_size: Literal["auto"] | float = "auto"
    box: tuple[float, float] | None = None
    tolerance: float = 1e-6

    def __post_init__(self):
        super().__post_init__()
        not_negative("tau", self.tau)
        if self.step_size != "auto":
            positive("step_size", self.step_size, 'leave it out, or write "auto"')
        if self.box is not None and not self.box[0] < self.box[1]:
            raise BadParameter(f"box is {self.box}", "the least pixel value and a greater one", "use (0, 1)")
        not_negative("tolerance", self.tolerance)

    def objections_to_start(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        return solved_at_start(self, operator) if self.box is None else []

    def init(self, problem: Problem, keys: Sequence[Key]) -> LandweberState:
        x = self._project(problem.start())
        value, gradient = problem.misfit_and_grad(x)
        step = 1 / first_lipschitz(problem, x) if self.step_size == "auto" else torch.full_like(value, self.step_size)
        unknown = torch.full_like(value, float("inf"))
        return LandweberState(x, value, gradient, step, unknown, Growth.of(value))

    def step(self, problem: Problem, state: LandweberState) -> LandweberState:
        x = self._project(state.x - per_image(state.step, state.x) * state.gradient)
        value, gradient = problem.misfit_and_grad(x)
        change = ratio(norms(x - state.x), norms(x))
        growth = state.growth.then(value)
        if self.step_size != "auto" or known_globally(problem.operator, problem.noise):
            return LandweberState(x, value, gradient, state.step, change, growth)
        # NaN compares as false, so that a step into nowhere is not taken either.
        lower = value <= state.value
        keep = lower.reshape(-1, *[1] * (x.ndim - 1))
        return LandweberState(
            x=torch.where(keep, x, state.x),
            value=torch.where(lower, value, state.value),
            gradient=torch.where(keep, gradient, state.gradient),
            step=torch.where(lower, state.step, 0.5 * state.step),
            change=change,
            growth=state.growth,
        )

    def estimate(self, problem: Problem, state: LandweberState) -> Tensor:
        return state.x

    def objective(self, problem: Problem, state: LandweberState) -> Tensor:
        return state.value

    def rules(self, problem: Problem, state: LandweberState) -> Sequence[Rule]:
        moved = Rule("the relative change of the last step", state.change, self.tolerance)
        return (*discrepancy(problem, state.value, self.tau), moved)

    def diverged(self, problem: Problem, state: LandweberState) -> Tensor:
        return state.growth.out_of_hand

    def remedy(self) -> str:
        return 'use step_size="auto", or one below 2 / ||F\'||^2'

    def _project(self, x: Tensor) -> Tensor:
        return x if self.box is None else x.clamp(*self.box)


def discrepancy(problem: Problem, misfit: Tensor, tau: float) -> tuple[Rule, ...]:
    """The discrepancy principle: misfit <= tau^2 times its expected value; no rule if that is unknown or tau is 0."""
    expected = problem.noise.expected_misfit(problem.y)
    if tau == 0 or expected is None:
        return ()
    return (Rule("the misfit over its expected value", ratio(misfit, expected), tau**2),)
