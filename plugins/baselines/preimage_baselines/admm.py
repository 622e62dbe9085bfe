"""The alternating direction method of multipliers, for linear operators and splittable priors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from preimage import (
    Diagonal,
    ForwardOperator,
    Identity,
    Key,
    LeastSquares,
    LinearOperator,
    Noise,
    Prior,
    Problem,
    Splittable,
    dot,
    norms,
    per_image,
)
from preimage.errors import BadParameter

from .checks import not_negative, positive
from .duality import duality_gap
from .fast_diagonal import apply_diagonal
from .krylov import conjugate_gradients
from .splitting import natural_penalty, split
from .stopping import Rule, RuleBased, ratio

INNER_STEPS = 100
"""At most so many conjugate gradient steps for one update of x."""


@dataclass(frozen=True)
class ADMMState:
    """One iterate per image; `count` iterations so far.

    - `x`: the image. `z`: its coefficients, after the proximal map. `u`: the scaled dual variable, in units of z.
    - `pull`: K^T (z - u). `back`: A^T y. `penalty`: rho, (B,). `level`: the mean eigenvalue of A^T A, roughly, (B,).
    - `filter`: (A^T A + rho K^T K)^-1 if `exact`, a preconditioner otherwise; None if there is neither.
    - `memory`: of the prior's proximal map.
    - `primal`, `dual`: relative residuals, (B,). `inner`: absolute accuracy of the next inexact update of x, (B,).
    """

    x: Tensor
    z: Tensor
    u: Tensor
    pull: Tensor
    back: Tensor
    penalty: Tensor
    level: Tensor
    filter: Diagonal | None
    exact: bool
    memory: Any
    primal: Tensor
    dual: Tensor
    inner: Tensor
    count: int


@dataclass(frozen=True, kw_only=True)
class ADMM(RuleBased[ADMMState]):
    """Minimises 1/2 ||A x - y||^2 + weight g(K x) over x and z = K x in turn (Boyd et al. 2011, section 3.1.1):

        x <- (A^T A + rho K^T K)^-1 (A^T y + rho K^T (z - u))
        v <- relaxation K x + (1 - relaxation) z
        z <- prox of (weight / rho) g at v + u
        u <- u + v - z

    The update of x is exact where one basis makes A^T A and K^T K diagonal (blur with the half-sample symmetric
    boundary and total variation: the cosine basis), or K is a tight frame (an orthonormal basis) and the operator has
    `solve_normal`. Else it is done by preconditioned conjugate gradients from the last x, to a tenth of the current
    residuals.

    - `penalty`: rho > 0, or "auto" (default): rho starts at l / (0.2 s), l the largest entry of a subgradient of
      weight g at K x (for a norm, the weight) and s the standard deviation of x, the starting image, so that it follows
      the units of x and the weight; it is then balanced for each image after 4, 8, 16, ... steps, multiplied by
      sqrt(primal / dual) of the relative residuals, at most by 10, if these differ by a factor of 10 (Wohlberg 2017,
      "ADMM penalty parameter selection by residual balancing", section 3).
    - `relaxation`: in (0, 2), default 1.8 (Eckstein & Bertsekas 1992).
    - `tolerance`: an image is done when both relative residuals are below it; >= 0, default 1e-3. They are
      ||K x - z|| / max(||z||, ||u||) and ||p - p'|| / ||rho u||, p = rho u the dual variable that goes with z and p'
      the one that goes with x (Boyd et al. 2011, section 3.3, in the space of the coefficients).
    - `max_steps`: default 1000.

    The estimate is x; z if K is the identity (then it is what the prior wants: sparse, or within bounds). It is then
    projected onto the constraints, if the prior has any, so that its objective is finite. The objective costs one A and
    one energy, and is computed only when asked for; the certificate is a duality gap, where one is known.

    Needs a linear operator, least-squares noise and a `Splittable` prior. Raises `BadParameter` for a penalty that is
    not positive, a relaxation outside (0, 2), or a negative tolerance.
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = Splittable

    penalty: Literal["auto"] | float = "auto"
    relaxation: float = 1.8
    tolerance: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        if self.penalty != "auto":
            positive("penalty", self.penalty, 'leave it out, or write "auto"')
        if not 0 < self.relaxation < 2:
            raise BadParameter(f"relaxation is {self.relaxation}", "a number between 0 and 2, both excluded", "use 1.8")
        not_negative("tolerance", self.tolerance)

    def init(self, problem: Problem, keys: Sequence[Key]) -> ADMMState:
        operator = cast(LinearOperator, problem.operator)
        x = problem.start()
        level = _level(operator, x)
        analysis = _analysis(problem)
        z = analysis(x)
        nothing = torch.full_like(level, float("inf"))
        auto = natural_penalty(problem, x, z, level)
        penalty = auto if self.penalty == "auto" else torch.full_like(level, self.penalty)
        back = operator.adjoint(problem.y)
        inner = 0.01 * dot(back, back).sqrt()
        state = ADMMState(
            x,
            z,
            torch.zeros_like(z),
            analysis.adjoint(z),
            back,
            penalty,
            level,
            None,
            False,
            None,
            nothing,
            nothing,
            inner,
            count=0,
        )
        return _with_filter(problem, state)

    def step(self, problem: Problem, state: ADMMState) -> ADMMState:
        analysis, prior = _analysis(problem), cast(Splittable, problem.prior)
        x = _update(problem, state, analysis)
        threshold = per_image(problem.weight, state.penalty) / state.penalty
        new = split(prior, analysis, x, state.z, state.u, self.relaxation, threshold, state.memory)
        # p' = rho (u_old + K x - z_old) solves A^T (A x - y) + K^T p' = 0, and p = rho u_new is a subgradient at z_new.
        # The accuracy of the next update is in units of the gradient of the objective, with ||K|| taken for one.
        inner = 0.1 * state.penalty * (new.primal * new.dual).sqrt()
        # u is zero if the weight is; z then says what is small.
        primal = ratio(new.primal, torch.maximum(new.norm_z, new.norm_u))
        dual = ratio(new.dual, torch.maximum(new.norm_u, 1e-3 * new.norm_z))
        state = replace(
            state, x=x, z=new.z, u=new.u, pull=new.pull, memory=new.memory, primal=primal, dual=dual, inner=inner,
            count=state.count + 1,
        )  # fmt: skip
        return self._balanced(problem, state) if self.penalty == "auto" and _is_power_of_two(state.count) else state

    def estimate(self, problem: Problem, state: ADMMState) -> Tensor:
        estimate = state.z if isinstance(_analysis(problem), Identity) else state.x
        return cast(Splittable, problem.prior).feasible(estimate)

    def rules(self, problem: Problem, state: ADMMState) -> Sequence[Rule]:
        residual = torch.maximum(state.primal, state.dual)
        return (Rule("the larger of the relative primal and dual residuals", residual, self.tolerance),)

    def objective(self, problem: Problem, state: ADMMState) -> Tensor:
        return problem.objective(self.estimate(problem, state))

    def certificate(self, problem: Problem, state: ADMMState) -> Tensor | None:
        return duality_gap(problem, self.estimate(problem, state), per_image(state.penalty, state.u) * state.u)

    def _balanced(self, problem: Problem, state: ADMMState) -> ADMMState:
        factor = (state.primal / state.dual).sqrt().nan_to_num(1.0, 10.0).clamp(0.1, 10)
        factor = torch.where((factor > 10**0.5) | (factor < 10**-0.5), factor, 1)
        if state.count < 4 or bool((factor == 1).all()):
            return state
        u = state.u / per_image(factor, state.u)
        pull = _analysis(problem).adjoint(state.z - u)
        return _with_filter(problem, replace(state, u=u, pull=pull, penalty=state.penalty * factor))


def _update(problem: Problem, state: ADMMState, analysis: LinearOperator) -> Tensor:
    """argmin_x 1/2 ||A x - y||^2 + rho/2 ||K x - z + u||^2."""
    operator, penalty = cast(LinearOperator, problem.operator), state.penalty
    b = torch.addcmul(state.back, per_image(penalty, state.back), state.pull)
    if state.exact:
        if state.filter is not None:
            return apply_diagonal(state.filter, b)
        return cast(Tensor, operator.solve_normal(b, _tightness(analysis) * penalty))

    def apply(v: Tensor) -> Tensor:
        return operator.normal(v) + per_image(penalty, v) * analysis.normal(v)

    def precondition(v: Tensor) -> Tensor:
        return v if state.filter is None else apply_diagonal(state.filter, v)

    # Rounding leaves a residual of about this size, however many steps are taken.
    tolerance = torch.maximum(state.inner, 4 * torch.finfo(b.dtype).eps * norms(b))
    return conjugate_gradients(apply, b, state.x, tolerance, INNER_STEPS, precondition)


def _level(operator: LinearOperator, like: Tensor) -> Tensor:
    """The mean eigenvalue of A^T A, roughly, (B,)."""
    if (diagonal := operator.normal_diagonal()) is not None:
        return diagonal.eigenvalues.mean().to(like).expand(len(like))
    # The same direction for every image, so that the result does not depend on the batch.
    probe = Key(0).child("admm", "probe").normal(operator.in_shape, like).expand_as(like)
    image = operator(probe)
    return dot(image, image) / dot(probe, probe)


def _with_filter(problem: Problem, state: ADMMState) -> ADMMState:
    """The state with what its penalty asks for."""
    operator, analysis = cast(LinearOperator, problem.operator), _analysis(problem)
    rough, own = analysis.normal_diagonal(), operator.normal_diagonal()
    if own is not None and (both := own.plus(rough, state.penalty)) is not None:
        return replace(state, filter=_inverse(both, state.x), exact=True)
    factor = _tightness(analysis)
    if factor > 0 and operator.solve_normal(state.back, factor * state.penalty) is not None:
        return replace(state, filter=None, exact=True)
    if rough is None:
        return replace(state, filter=None, exact=False)
    # A^T A replaced by its mean eigenvalue times the identity.
    scale = (state.penalty / state.level.clamp_min(1e-30)).to(rough.eigenvalues)
    return replace(state, filter=_inverse(cast(Diagonal, Diagonal.identity().plus(rough, scale)), state.x), exact=False)


def _tightness(analysis: LinearOperator) -> float:
    """c if K^T K = c I (an orthonormal basis, or several), else 0."""
    diagonal = analysis.normal_diagonal()
    return float(diagonal.eigenvalues) if diagonal is not None and diagonal.eigenvalues.ndim == 0 else 0.0


def _inverse(diagonal: Diagonal, like: Tensor) -> Diagonal:
    """The inverse, zero where the eigenvalue is (there b is zero too), with the batch as the first axis."""
    eigenvalues = diagonal.eigenvalues
    eigenvalues = eigenvalues.expand(len(like), *([1] * (4 - eigenvalues.ndim) + [*eigenvalues.shape])[-3:])
    largest = eigenvalues.flatten(1).amax(1).reshape(-1, 1, 1, 1)
    regular = eigenvalues > 1e-14 * largest
    return Diagonal(diagonal.basis, torch.where(regular, 1 / eigenvalues, 0).to(like))


def _analysis(problem: Problem) -> LinearOperator:
    return cast(Splittable, problem.prior).analysis()


def _is_power_of_two(count: int) -> bool:
    return count & (count - 1) == 0
