"""Accelerated proximal gradient descent for any operator, with a step that adapts and an objective that never rises."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, LinearOperator, Prior, Problem, Proximable, per_image

from .checks import not_negative, positive
from .proximal_gradient import begin, descend, objective, point, relaxed
from .stopping import Event, Rule, RuleBased, Window, relative_change

OBJECTIVE = 100.0
"""The tolerance on the change of the objective, which is quadratic about its minimum, over the square of that on x."""

PATIENCE = 3
"""Steps in a row that may fail to lower the objective before an image counts as finished."""


@dataclass(frozen=True)
class FISTAState:
    """One iterate per image.

    - `x`, `predicted`, `value`: the best image so far, F(x), and the objective there, (B,).
    - `v`, `predicted_v`: where the next gradient is taken, and F(v) if the operator is linear, else None.
    - `t`: momentum parameter. `lipschitz`: of the misfit's gradient; the step is its inverse.
    - `change`: relative fixed-point residual. `window`: the last objectives. `failures`: steps in a row that did not
      lower the objective.
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
    window: Window
    failures: Tensor
    memory: Any


@dataclass(frozen=True, kw_only=True)
class FISTA(RuleBased[FISTAState]):
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
    - `tolerance`: an image is done when ||z - v|| <= tolerance ||z||, or the objective fell by at most 100 tolerance^2,
      relatively, in the last ten steps; >= 0, default 1e-4. Also when three steps in a row do not lower the objective,
      which is then as low as rounding and the accuracy of the proximal map permit.
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
        x, predicted, value, lipschitz = begin(problem, self.step_size)
        predicted_v = predicted if isinstance(problem.operator, LinearOperator) else None
        one, unknown = torch.ones_like(value), torch.full_like(value, float("inf"))
        failures = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        window = Window.of(value)
        return FISTAState(x, predicted, value, x, predicted_v, one, lipschitz, unknown, window, failures, None)

    def step(self, problem: Problem, state: FISTAState) -> FISTAState:
        at = point(problem, state.v, state.predicted_v)
        z, predicted, lipschitz, memory = descend(problem, at, relaxed(problem, state.lipschitz), state.memory)
        value = objective(problem, z, predicted)

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

        best = torch.where(lower, value, state.value)
        return FISTAState(
            x=x,
            predicted=predicted_x,
            value=best,
            v=ahead(x, state.x, z),
            predicted_v=None if state.predicted_v is None else ahead(predicted_x, state.predicted, predicted),
            t=t,
            lipschitz=lipschitz,
            change=relative_change(z, state.v),
            window=state.window.then(best),
            failures=torch.where(value < state.value, 0, state.failures + 1),
            memory=memory,
        )

    def estimate(self, problem: Problem, state: FISTAState) -> Tensor:
        return state.x

    def rules(self, problem: Problem, state: FISTAState) -> Sequence[Rule | Event]:
        return (
            Rule("the relative fixed-point residual", state.change, self.tolerance),
            Event(f"{PATIENCE} steps in a row could not lower the objective", state.failures >= PATIENCE),
            Rule("the relative objective change over 10 steps", state.window.change(), OBJECTIVE * self.tolerance**2),
        )

    def objective(self, problem: Problem, state: FISTAState) -> Tensor:
        return state.value


def _where(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)
