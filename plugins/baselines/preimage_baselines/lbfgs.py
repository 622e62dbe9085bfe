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
    """The last pairs s = x' - x and q = g' - g of each image, the newest last; all zero where there is none yet.

    - `steps`, `changes`: (B, pairs, *in_shape). `inverse`: 1 / s^T q, (B, pairs), 0 where there is no pair (any more).
    - `scale`: s^T q / q^T q of the newest pair, (B,): the inverse Hessian without the pairs, times the identity.
    """

    steps: Tensor
    changes: Tensor
    inverse: Tensor
    scale: Tensor

    @classmethod
    def empty(cls, x: Tensor, pairs: int, scale: Tensor) -> "Memory":
        """A memory for images like x in which nothing is remembered."""
        room = x.new_zeros((len(x), pairs, *x.shape[1:]))
        return cls(room, room, x.new_zeros((len(x), pairs)), scale)

    def then(self, s: Tensor, q: Tensor) -> "Memory":
        """With one more pair, for the images in which s^T q is positive beyond rounding; the oldest is dropped."""
        product, square = dot(s, q), dot(q, q)
        valid = product > torch.finfo(s.dtype).eps * square
        inverse = 1 / torch.where(valid, product, 1)

        everywhere = bool(valid.all())

        def shifted(all_: Tensor, newest: Tensor) -> Tensor:
            moved = torch.cat((all_[:, 1:], newest[:, None]), 1)
            return moved if everywhere else torch.where(valid.reshape(-1, *[1] * (all_.ndim - 1)), moved, all_)

        scale = torch.where(valid, product / torch.where(valid, square, 1), self.scale)
        return Memory(shifted(self.steps, s), shifted(self.changes, q), shifted(self.inverse, inverse), scale)

    def without(self, which: Tensor) -> "Memory":
        """With nothing remembered of the images `which`, bool (B,), but the scale."""
        pairs = torch.where(which[:, None], 0, self.inverse)
        return replace(self, inverse=pairs)

    def multiply(self, gradient: Tensor) -> Tensor:
        """H g, H the approximate inverse Hessian: two-loop recursion (Nocedal & Wright 2006, algorithm 7.4)."""
        z, factors = gradient, list[Tensor]()
        pairs = range(self.inverse.shape[1])
        for i in reversed(pairs):
            factors.append(self.inverse[:, i] * dot(self.steps[:, i], z))
            z = z - per_image(factors[-1], z) * self.changes[:, i]
        z = per_image(self.scale, z) * z
        for i in pairs:
            back = self.inverse[:, i] * dot(self.changes[:, i], z)
            z = z + per_image(factors[-1 - i] - back, z) * self.steps[:, i]
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
        memory = Memory.empty(point.x, self.memory, cauchy_length(problem, point))
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
