"""Primal-dual splitting for linear operators and priors that are not smooth: Chambolle-Pock and Condat-Vu."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

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
    Splittable,
    norms,
    operator_norm,
    per_image,
)
from preimage.errors import BadParameter, Incompatible

from .checks import not_negative, positive
from .duality import duality_gap
from .primal_dual_steps import (
    DataStep,
    DataTerm,
    Resolvent,
    Steps,
    first_data_term,
    next_data_term,
    relaxed_data_term,
    step_sizes,
)
from .splitting import natural_penalty, prox_from
from .stopping import Growth, Rule, RuleBased, ratio

CHECK_EVERY = 10
"""Steps between two evaluations of the duality gap, which costs A, A^T and K."""

LAST_BALANCE = 1024
"""The steps are not changed after so many iterations, so that convergence is proven."""


@dataclass(frozen=True)
class PrimalDualState:
    """One iterate per image; `count` iterations so far.

    - `x`, `image`: an image and K x. `p`, `pull`: the dual variable of K x, and K^T p. `data`: of the data term.
    - `estimate`: x before over-relaxation. `memory`: of the prior's proximal map.
    - `norm`, `lipschitz`: ||K||, ||A||^2, (B,). `ratio`: sqrt(dual / primal step). `steps`: the steps.
    - `resolvent`: of the data term, for "prox". `primal`, `dual`: relative residuals, (B,). `gap`: the relative duality
      gap, when last computed. `growth`: whether the steps get out of hand.
    """

    x: Tensor
    image: Tensor
    p: Tensor
    pull: Tensor
    data: DataTerm
    estimate: Tensor
    memory: Any
    norm: Tensor
    lipschitz: Tensor
    ratio: Tensor
    steps: Steps
    resolvent: Resolvent | None
    primal: Tensor
    dual: Tensor
    gap: Tensor
    growth: Growth | None
    count: int


@dataclass(frozen=True, kw_only=True)
class PrimalDual(RuleBased[PrimalDualState]):
    """Minimises 1/2 ||A x - y||^2 + weight g(K x) by steps of x and of the dual variable p of K x in turn:

        x' <- data step from x - tau K^T p
        p' <- prox of sigma (weight g)* at p + sigma K (2 x' - x)
        (x, p) <- (x, p) + relaxation ((x', p') - (x, p))

    The proximal map of the conjugate comes from that of g by Moreau's identity, so any `Splittable` prior will do,
    among them sums of priors and constraints, and no linear system with K is ever solved.

    - `data_step`: "prox": x' is the proximal map of 1/2 ||A x - y||^2, which needs `solve_normal` (Chambolle & Pock
      2011, "A first-order primal-dual algorithm for convex problems with applications to imaging", algorithm 1).
      "conjugate": A x is dualised like K x, with a dual step of its own (the same algorithm for the operator (A, K);
      steps as in Pock & Chambolle 2011). "gradient": x' is a step along the gradient (Condat 2013, "A primal-dual
      splitting method for convex optimization involving Lipschitzian, proximable and linear composite terms",
      algorithm 3.1; Vu 2013). "auto" (default): "prox" where the operator has the closed form, else "conjugate",
      which takes fewer steps than "gradient" at the same cost.
    - `step_size`: tau > 0, or "auto" (default). `dual_step_size`: sigma > 0, or "auto" (default): as long as
      convergence allows, from norms of A and K (bounds of the operators, else power iteration plus 2 %). If both are
      automatic, sqrt(sigma / tau) starts at l / (0.2 s), l the largest entry of a subgradient of weight g at K x and s
      the standard deviation of the starting image; it is then balanced for each image after 4, 8, ..., 1024 steps,
      divided by sqrt(primal / dual) of the relative residuals, at most by 10, if these differ by a factor of 10 (after
      Goldstein et al. 2015, "Adaptive primal-dual splitting methods for statistical learning and image processing").
      Given steps that are too long diverge, which is detected by squared moves 100 times the first for 5 steps, or
      never settle where the dual variable is bounded and the data term is not a gradient step.
    - `relaxation`: in [1, 2), or "auto" (default): 1.8, and 1.5 for "gradient", whose primal step shrinks with it.
    - `tolerance`: an image is done when both relative residuals are at most this, ||r|| / ||K^T p'|| for the primal
      optimality condition r = A^T (A x' - y) + K^T p' and likewise in the space of the coefficients; or, where a dual
      point is known (`duality_gap`), when the duality gap is at most tolerance times the objective, looked at every 10
      steps. >= 0, default 1e-3.
    - `max_steps`: default 1000.

    The estimate is x', projected onto the constraints, if the prior has any, so that its objective is finite.

    Only for linear operators: for nonlinear ones neither the conjugate nor the gradient step has a proof of convergence
    that covers the operators at hand (it would need a convex misfit); `fista` and `ista` take those.
    Needs least-squares noise and a `Splittable` prior. Raises `BadParameter` for a step that is not positive, a
    relaxation outside [1, 2) or a negative tolerance, and `Incompatible` for data_step = "prox" without closed form.
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = Splittable

    data_step: Literal["auto", "prox", "conjugate", "gradient"] = "auto"
    step_size: Literal["auto"] | float = "auto"
    dual_step_size: Literal["auto"] | float = "auto"
    relaxation: Literal["auto"] | float = "auto"
    tolerance: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        if self.step_size != "auto":
            positive("step_size", self.step_size, 'leave it out, or write "auto"')
        if self.dual_step_size != "auto":
            positive("dual_step_size", self.dual_step_size, 'leave it out, or write "auto"')
        if self.data_step not in (known := ("auto", "prox", "conjugate", "gradient")):
            raise BadParameter(f"data_step is {self.data_step!r}", f"one of {', '.join(known)}", 'use "auto"')
        if self.relaxation != "auto" and not 1 <= self.relaxation < 2:
            raise BadParameter(f"relaxation is {self.relaxation}", "a number from 1 to 2, 2 excluded", "use 1.8")
        not_negative("tolerance", self.tolerance)

    def init(self, problem: Problem, keys: Sequence[Key]) -> PrimalDualState:
        operator, analysis = cast(LinearOperator, problem.operator), _analysis(problem)
        x = problem.start()
        image, back = analysis(x), operator.adjoint(problem.y)
        data_step = self._data_step(problem, back)
        norm = operator_norm(analysis, x).safe
        norm = torch.where(norm > 0, norm, 1)
        lipschitz = operator_norm(operator, x).safe.square().clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
        balance = natural_penalty(problem, x, image, lipschitz)
        p, unknown = torch.zeros_like(image), torch.full_like(norm, float("inf"))
        steps = self._steps(data_step, norm, lipschitz, balance)
        resolvent = Resolvent.of(problem, back, steps.primal) if data_step == "prox" else None
        data = first_data_term(problem, data_step, x)
        return PrimalDualState(
            x, image, p, torch.zeros_like(x), data, x, None, norm, lipschitz, balance, steps, resolvent,
            primal=unknown, dual=unknown, gap=unknown, growth=None, count=0,
        )  # fmt: skip

    def step(self, problem: Problem, state: PrimalDualState) -> PrimalDualState:
        analysis, (tau, sigma, _), relaxation = _analysis(problem), state.steps, self._relaxation(_kind(state))
        old_pull = state.pull if state.data.pull is None else state.pull + state.data.pull
        x = torch.addcmul(state.x, per_image(-tau, state.x), old_pull)
        if state.resolvent is not None:
            x = state.resolvent(problem, x)
        image = analysis(x)
        data, data_residual = next_data_term(problem, state.data, x, state.steps.data)
        size = torch.maximum(norms(image), 1e-3 * norms(x))
        move, image_move = x - state.x, image.sub_(state.image)

        # Moreau: the prox of sigma (weight g)* at w is w - sigma prox of (weight / sigma) g at w / sigma.
        scale = per_image(sigma, image)
        w = torch.addcdiv(state.image, state.p, scale).add_(image_move, alpha=2)
        threshold, prior = per_image(problem.weight, sigma) / sigma, cast(Splittable, problem.prior)
        kept, memory = prox_from(prior, analysis, w, threshold, state.memory)
        p = w.sub_(kept).mul_(scale)
        pull = analysis.adjoint(p)
        pull_size = norms(pull)
        dual_move, pull_move = p.sub_(state.p), pull.sub_(state.pull)

        slope_move = (
            pull_move if data.pull is None or state.data.pull is None else pull_move + data.pull - state.data.pull
        )
        primal = norms(torch.addcdiv(slope_move, move, per_image(-tau, move)))
        dual = torch.hypot(norms(torch.addcdiv(image_move, dual_move, -scale)), data_residual)
        moved = norms(move).square() / tau + norms(dual_move).square() / sigma
        if state.growth is None:
            growth = Growth.of(moved, torch.finfo(x.dtype).eps * norms(x).square() / tau)
        else:
            growth = state.growth.then(moved)
        count = state.count + 1
        new = replace(
            state,
            x=torch.add(state.x, move, alpha=relaxation),
            image=torch.add(state.image, image_move, alpha=relaxation),
            p=torch.add(state.p, dual_move, alpha=relaxation),
            pull=torch.add(state.pull, pull_move, alpha=relaxation),
            data=relaxed_data_term(state.data, data, relaxation),
            estimate=x,
            memory=memory,
            primal=ratio(primal, torch.maximum(pull_size, 1e-3 * state.lipschitz * norms(x))),
            dual=ratio(dual, size),
            growth=growth,
            count=count,
        )
        if count % CHECK_EVERY == 0 and (gap := self.certificate(problem, new)) is not None:
            new = replace(new, gap=ratio(gap, problem.objective(self.estimate(problem, new)).to(gap)))
        automatic = self.step_size == "auto" and self.dual_step_size == "auto"
        return self._balanced(problem, new) if automatic and _is_time_to_balance(count) else new

    def estimate(self, problem: Problem, state: PrimalDualState) -> Tensor:
        return cast(Splittable, problem.prior).feasible(state.estimate)

    def rules(self, problem: Problem, state: PrimalDualState) -> Sequence[Rule]:
        residual = torch.maximum(state.primal, state.dual)
        return (
            Rule("the relative duality gap", state.gap, self.tolerance),
            Rule("the larger of the relative primal and dual residuals", residual, self.tolerance),
        )

    def diverged(self, problem: Problem, state: PrimalDualState) -> Tensor:
        return torch.zeros_like(state.norm, dtype=torch.bool) if state.growth is None else state.growth.out_of_hand

    def remedy(self) -> str:
        return 'use step_size = "auto" and dual_step_size = "auto", or shorter ones'

    def objective(self, problem: Problem, state: PrimalDualState) -> Tensor:
        return problem.objective(self.estimate(problem, state))

    def certificate(self, problem: Problem, state: PrimalDualState) -> Tensor | None:
        return duality_gap(problem, self.estimate(problem, state), state.p)

    def _data_step(self, problem: Problem, back: Tensor) -> DataStep:
        if self.data_step in ("conjugate", "gradient"):
            return self.data_step
        operator = cast(LinearOperator, problem.operator)
        if operator.normal_diagonal() is not None or operator.solve_normal(back, 1.0) is not None:
            return "prox"
        if self.data_step == "auto":
            return "conjugate"
        raise Incompatible(
            f'data_step is "prox", and {type(operator).__name__} has no solve_normal',
            "an operator whose normal equations have a closed form",
            'use data_step = "auto", "conjugate" or "gradient"',
        )

    def _relaxation(self, data_step: DataStep) -> float:
        if self.relaxation == "auto":
            return 1.5 if data_step == "gradient" else 1.8
        return self.relaxation

    def _steps(self, data_step: DataStep, norm: Tensor, lipschitz: Tensor, balance: Tensor) -> Steps:
        primal, dual = (
            None if step == "auto" else torch.full_like(norm, step) for step in (self.step_size, self.dual_step_size)
        )
        return step_sizes(data_step, norm, lipschitz, balance, self._relaxation(data_step), primal, dual)

    def _balanced(self, problem: Problem, state: PrimalDualState) -> PrimalDualState:
        factor = ratio(state.primal, state.dual).sqrt().nan_to_num(1.0, 10.0).clamp(0.1, 10)
        factor = torch.where((factor > 10**0.5) | (factor < 10**-0.5), factor, 1)
        if bool((factor == 1).all()):
            return state
        balance = state.ratio / factor
        steps = self._steps(_kind(state), state.norm, state.lipschitz, balance)
        resolvent = None if state.resolvent is None else Resolvent.of(problem, state.resolvent.back, steps.primal)
        # A move is measured in units of the steps.
        growth = None if state.growth is None else replace(state.growth, limit=100 * state.growth.limit)
        return replace(state, ratio=balance, steps=steps, resolvent=resolvent, growth=growth)


def _analysis(problem: Problem) -> LinearOperator:
    return cast(Splittable, problem.prior).analysis()


def _kind(state: PrimalDualState) -> DataStep:
    if state.resolvent is not None:
        return "prox"
    return "gradient" if state.data.dual is None else "conjugate"


def _is_time_to_balance(count: int) -> bool:
    return 4 <= count <= LAST_BALANCE and count & (count - 1) == 0
