"""Limited-memory BFGS for smooth objectives and any operator, with one memory per image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from preimage import Differentiable, ForwardOperator, Key, Prior, Problem, dot, norms, per_image
from preimage.errors import BadParameter

from .checks import not_negative
from .gradient_descent import descent_rules
from .line_search import Point, cauchy_length, evaluate, line_search, smooth
from .stopping import Event, Rule, RuleBased


@dataclass(frozen=True)
class Memory:
    """The last pairs s = x' - x and q = g' - g, the newest last; a step in which an image has none leaves a gap in it.

    - `room`: pairs kept at most. `steps`, `changes`: s and q of each step, (B, *in_shape) each.
    - `inverse`: 1 / s^T q of each step, (B,), 0 where an image has no pair (any more).
    - `scale`: s^T q / q^T q of the newest pair, (B,): the inverse Hessian without the pairs, times the identity.
    """

    room: int
    steps: tuple[Tensor, ...]
    changes: tuple[Tensor, ...]
    inverse: tuple[Tensor, ...]
    scale: Tensor

    @classmethod
    def empty(cls, pairs: int, scale: Tensor) -> "Memory":
        """A memory for so many pairs in which nothing is remembered."""
        return cls(pairs, (), (), (), scale)

    def then(self, s: Tensor, q: Tensor) -> "Memory":
        """With one more pair, for the images in which s^T q is positive beyond rounding; the oldest is dropped."""
        product, square = dot(s, q), dot(q, q)
        valid = product > torch.finfo(s.dtype).eps * square
        inverse = torch.where(valid, 1 / torch.where(valid, product, 1), 0)
        if not bool(valid.all()):  # what is no pair may be NaN or infinite, which a factor 0 does not undo
            shaped = valid.reshape(-1, *[1] * (s.ndim - 1))
            s, q = torch.where(shaped, s, 0), torch.where(shaped, q, 0)
        scale = torch.where(valid, product / torch.where(valid, square, 1), self.scale)
        steps, changes = (*self.steps, s)[-self.room :], (*self.changes, q)[-self.room :]
        return Memory(self.room, steps, changes, (*self.inverse, inverse)[-self.room :], scale)

    def without(self, which: Tensor) -> "Memory":
        """With nothing remembered of the images `which`, bool (B,), but the scale."""
        return replace(self, inverse=tuple(torch.where(which, 0, inverse) for inverse in self.inverse))

    def multiply(self, gradient: Tensor) -> Tensor:
        """H g, H the approximate inverse Hessian: two-loop recursion (Nocedal & Wright 2006, algorithm 7.4)."""
        z, factors = gradient, list[Tensor]()
        pairs = list(zip(self.steps, self.changes, self.inverse, strict=True))
        for s, q, inverse in reversed(pairs):
            factors.append(inverse * dot(s, z))
            z = torch.addcmul(z, per_image(factors[-1], z), q, value=-1)
        z = per_image(self.scale, z) * z
        for (s, q, inverse), factor in zip(pairs, reversed(factors), strict=True):
            z = torch.addcmul(z, per_image(factor - inverse * dot(q, z), z), s)
        return z


@dataclass(frozen=True)
class LBFGSState:
    """One iterate per image.

    - `point`: image, objective and gradient. `memory`: of that image's steps.
    - `scale`: norm of the gradient at the start. `stuck`: the last line search found nothing lower.
    """

    point: Point
    memory: Memory
    scale: Tensor
    stuck: Tensor


@dataclass(frozen=True, kw_only=True)
class LBFGS(RuleBased[LBFGSState]):
    """Minimises misfit(x) + weight R(x), R differentiable or absent, by limited-memory BFGS, image by image.

    x <- x - t H g, with H the inverse Hessian that the last `memory` steps suggest (Liu & Nocedal 1989, "On the limited
    memory BFGS method for large scale optimization", algorithm 2.1; Nocedal & Wright 2006, section 7.2), and t = 1 if
    that fulfils the Wolfe conditions (1e-4, 0.9), otherwise found by bisection. The first step goes to the minimum of
    the linearised problem along the gradient. The objective never rises; for a nonlinear operator the limit
    is a stationary point.

    - `memory`: pairs that are kept, >= 1, default 10; each takes two images of storage.
    - `tolerance`: an image is done when the norm of the gradient is at most `tolerance` times that at the start; >= 0,
      default 1e-3. Also when no length lowers the objective: it is then as low as rounding permits.
    - `max_steps`: default 1000.

    Per step one F and one F'^T, rarely a second pair; at the start one F, F'^T and F'. Suits smooth priors such as
    smoothed-tv. Raises `BadParameter` for a memory below 1 or a negative tolerance.
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    prior_type: ClassVar[type[Prior] | None] = Differentiable
    prior_optional: ClassVar[bool] = True

    memory: int = 10
    tolerance: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        if self.memory < 1:
            raise BadParameter(f"memory is {self.memory}", "an integer >= 1", "write memory = 10")
        not_negative("tolerance", self.tolerance)

    def init(self, problem: Problem, keys: Sequence[Key]) -> LBFGSState:
        point = evaluate(problem, problem.start())
        memory = Memory.empty(self.memory, cauchy_length(problem, point))
        stuck = torch.zeros_like(point.value, dtype=torch.bool)
        return LBFGSState(point, memory, norms(point.gradient), stuck)

    def step(self, problem: Problem, state: LBFGSState) -> LBFGSState:
        old, one = state.point, torch.ones_like(state.scale)
        new, _, moved, *_ = line_search(smooth(problem), old, -state.memory.multiply(old.gradient), one, wolfe=True)
        memory = state.memory.then(new.x - old.x, new.gradient - old.gradient)
        return LBFGSState(new, memory, state.scale, ~moved)

    def estimate(self, problem: Problem, state: LBFGSState) -> Tensor:
        return state.point.x

    def objective(self, problem: Problem, state: LBFGSState) -> Tensor:
        return state.point.value

    def rules(self, problem: Problem, state: LBFGSState) -> Sequence[Rule | Event]:
        return descent_rules(state.point, state.scale, self.tolerance, state.stuck)
