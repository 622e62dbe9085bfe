"""Limited-memory BFGS for many functions at once: every image of a batch has its own memory, step and end."""

from dataclasses import dataclass, replace
from typing import TypeVar, cast

import torch
from preimage_baselines.lbfgs import Memory
from preimage_baselines.line_search import Objective, Point, line_search
from torch import Tensor

from preimage import dot, norms
from preimage.errors import BadParameter

from .batched_search import BatchedSearch, SearchState, first_points

P = TypeVar("P", bound=Point)

REACH = 0.003
"""Length of the first step at most, in units of sqrt(n): unknowns are taken to be of order one, as latents are.

So short because that step goes along the gradient, before any curvature is known: of a search without a penalty it puts
into x what no later step takes out again (docs/generative-priors.md)."""


@dataclass(frozen=True)
class LBFGSState(SearchState[P]):
    """- `memory`: of each image's own steps. `fresh`: nothing is remembered, bool, (B,)."""

    memory: Memory
    fresh: Tensor


@dataclass(frozen=True, kw_only=True)
class BatchedLBFGS(BatchedSearch):
    """x <- x - t H g, H the inverse Hessian that an image's last `memory` steps suggest (Liu & Nocedal 1989).

    t = `length` if the value then falls enough (Armijo, 1e-4), else shortened by interpolation; only images whose step
    failed are evaluated again. A pair (s, q) with s^T q <= 0 is not remembered, so that H stays positive definite; the
    Wolfe condition, which would ensure s^T q > 0 at the cost of more evaluations, is not asked for. A length that meets
    NaN or infinity is too long. Where `trials` lengths do not help, the image forgets its memory and begins anew from
    where it is, its best point; where that does not help either, or after `max_restarts`, it ends. It also ends where
    the slope promises less than rounding of the value.

    - `memory`: pairs kept, >= 1; each takes twice the storage of x. `trials`: lengths tried in one step, >= 1.
    - `length`: t that is tried first, in (0, 1]. Below 1 the search takes more steps and follows more closely the curve
      that is their limit.

    The first step goes to where the linearised value is -f (the minimum along g if f is half a squared residual that
    falls to zero), 0.003 sqrt(n) far at most. The value never rises. Raises `BadParameter` for values out of range.
    """

    memory: int = 100
    length: float = 1.0
    trials: int = 12

    def __post_init__(self):
        if not 0 < self.length <= 1:
            raise BadParameter(f"length is {self.length}", "a number in (0, 1]")
        for name, value in {"memory": self.memory, "trials": self.trials}.items():
            if value < 1:
                raise BadParameter(f"{name} is {value}", "an integer >= 1")

    def start(self, objective: Objective[P], x: Tensor) -> LBFGSState[P]:
        point, evaluations, failed = first_points(objective, x, self.max_restarts)
        none = torch.zeros_like(failed)
        memory = Memory.empty(self.memory, _first_length(point))
        return LBFGSState(point, evaluations, evaluations - 1, evaluations > 1, none, failed, memory, ~none)

    def step(self, objective: Objective[P], state: SearchState[P], budget: Tensor) -> LBFGSState[P]:
        state, old = cast("LBFGSState[P]", state), state.best
        direction = -state.memory.multiply(old.gradient)
        length = torch.where(state.fresh, 1.0, self.length).to(old.value)
        lowest = dot(old.gradient, direction).abs() <= torch.finfo(old.value.dtype).eps * old.value.abs()
        idle = state.stuck | state.failed | (lowest & (budget > 0))
        trials = torch.where(idle, 0, budget.clamp_max(self.trials))
        found = line_search(objective, old, direction, length, wolfe=False, trials=trials)
        memory = state.memory.then(found.point.x - old.x, found.point.gradient - old.gradient)
        # A search that the budget cut short says nothing.
        lost = ~found.moved & (trials > 0) & ((found.trials == 0) | (found.trials == self.trials))
        again = lost & ~state.fresh & (state.restarts < self.max_restarts)
        ended = lost & ~again
        return replace(
            state,
            best=found.point,
            evaluations=state.evaluations + found.trials,
            restarts=state.restarts + again,
            hindered=found.broken,
            stuck=(idle & ~state.failed) | (ended & ~found.broken),
            failed=state.failed | (ended & found.broken),
            memory=memory.without(again) if bool(again.any()) else memory,
            fresh=(state.fresh & ~found.moved) | again,
        )


def _first_length(point: Point) -> Tensor:
    """How far to go along the negative gradient at first, (B,), as a multiple of it."""
    square, tiny = dot(point.gradient, point.gradient), torch.finfo(point.value.dtype).tiny
    far = REACH * point.x[0].numel() ** 0.5 / norms(point.gradient).clamp_min(tiny)
    down = 2 * point.value / square.clamp_min(tiny)
    return torch.where((down > 0) & torch.isfinite(down), torch.minimum(down, far), far)
