"""The alternating direction method of multipliers, for linear operators and splittable priors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

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
    Solver,
    Splittable,
    dot,
    norms,
    per_image,
)
from preimage.errors import BadParameter

from .checks import not_negative, positive
from .krylov import conjugate_gradients

CONTRAST = 0.2
"""The first threshold weight / penalty, as a fraction of the standard deviation of the starting image."""

INNER_STEPS = 100
"""At most so many conjugate gradient steps for one update of x."""


@dataclass(frozen=True)
class ADMMState:
    """One iterate per image; `count` iterations so far.

    - `x`: the image. `z`: its coefficients, after the proximal map. `u`: the scaled dual variable, in units of z.
    - `back`: A^T y. `penalty`: rho, (B,). `level`: the mean eigenvalue of A^T A, roughly, (B,).
    - `filter`: (A^T A + rho K^T K)^-1 if `exact`, a preconditioner otherwise; None if there is neither.
    - `primal`, `dual`: relative residuals, (B,). `inner`: absolute accuracy of the next inexact update of x, (B,).
    """

    x: Tensor
    z: Tensor
    u: Tensor
    back: Tensor
    penalty: Tensor
    level: Tensor
    filter: Diagonal | None
    exact: bool
    primal: Tensor
    dual: Tensor
    inner: Tensor
    count: int


@dataclass(frozen=True, kw_only=True)
class ADMM(Solver[ADMMState]):
    """Minimises 1/2 ||A x - y||^2 + weight g(K x) over x and z = K x in turn (Boyd et al. 2011, section 3.1.1):

        x <- (A^T A + rho K^T K)^-1 (A^T y + rho K^T (z - u))
        v <- relaxation K x + (1 - relaxation) z
        z <- prox of (weight / rho) g at v + u
        u <- u + v - z

    The update of x is exact where one basis makes A^T A and K^T K diagonal (blur with the half-sample symmetric
    boundary and total variation: the cosine basis), or K is the identity and the operator has `solve_normal`. Else
    it is done by preconditioned conjugate gradients from the last x, to a tenth of the current residuals.

    - `penalty`: rho > 0, or "auto" (default): rho starts at weight / (0.2 s), s the standard deviation of the starting
      image, so that it follows the units of x and the weight; it is then balanced for each image after 4, 8, 16, ...
      steps, multiplied by sqrt(primal / dual) of the relative residuals, at most by 10, if these differ by a factor
      of 10 (Wohlberg 2017, "ADMM penalty parameter selection by residual balancing", section 3).
    - `relaxation`: in (0, 2), default 1.8 (Eckstein & Bertsekas 1992).
    - `tolerance`: an image is done when both relative residuals are below it; >= 0, default 1e-3. They are
      ||K x - z|| / max(||z||, ||u||) and ||p - p'|| / ||rho u||, p = rho u the dual variable that goes with z and p'
      the one that goes with x (Boyd et al. 2011, section 3.3, in the space of the coefficients).
    - `max_steps`: default 1000.

    The estimate is x; z if K is the identity (then it is what the prior wants: sparse, or within bounds). The objective
    costs one A and one energy, and is computed only when asked for.

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
        # The same direction for every image, so that the result does not depend on the batch.
        probe = Key(0).child("admm", "probe").normal(operator.in_shape, x).expand_as(x)
        image = operator(probe)
        level = dot(image, image) / dot(probe, probe)
        z = _analysis(problem)(x)
        nothing = torch.full_like(level, float("inf"))
        penalty = self._first_penalty(problem, x, level)
        back = operator.adjoint(problem.y)
        inner = 0.01 * dot(back, back).sqrt()
        state = ADMMState(
            x, z, torch.zeros_like(z), back, penalty, level, None, False, nothing, nothing, inner, count=0
        )
        return _with_filter(problem, state)

    def step(self, problem: Problem, state: ADMMState) -> ADMMState:
        analysis, prior = _analysis(problem), cast(Splittable, problem.prior)
        x = _update(problem, state, analysis)
        image = analysis(x)
        v = torch.lerp(state.z, image, self.relaxation).add_(state.u)
        z = prior.prox_coefficients(v, problem.weight / state.penalty)
        u = v.sub_(z)

        norm_z, norm_u = norms(z), norms(u)
        primal = norms(image - z)
        # p' = rho (u_old + K x - z_old) solves A^T (A x - y) + K^T p' = 0, and p = rho u_new is a subgradient at z_new.
        dual = norms(image.sub_(state.z).add_(state.u).sub_(u))
        # In units of the gradient of the objective, with ||K|| taken for one.
        inner = 0.1 * state.penalty * (primal * dual).sqrt()
        tiny = torch.finfo(x.dtype).tiny
        primal = primal / torch.maximum(norm_z, norm_u).clamp_min(tiny)
        # u is zero if the weight is; z then says what is small.
        dual = dual / torch.maximum(norm_u, 1e-3 * norm_z).clamp_min(tiny)
        count = state.count + 1
        new = replace(state, x=x, z=z, u=u, primal=primal, dual=dual, inner=inner, count=count)
        return self._balanced(problem, new) if self.penalty == "auto" and _is_power_of_two(count) else new

    def estimate(self, problem: Problem, state: ADMMState) -> Tensor:
        return state.z if isinstance(_analysis(problem), Identity) else state.x

    def done(self, problem: Problem, state: ADMMState) -> Tensor:
        return torch.maximum(state.primal, state.dual) <= self.tolerance

    def objective(self, problem: Problem, state: ADMMState) -> Tensor:
        return problem.objective(self.estimate(problem, state))

    def criterion(self) -> str:
        return f"the relative primal and dual residuals fell below {self.tolerance:g}"

    def _first_penalty(self, problem: Problem, x: Tensor, level: Tensor) -> Tensor:
        if self.penalty != "auto":
            return torch.full_like(level, self.penalty)
        spread = x.flatten(1).std(1, correction=0)
        spread = torch.where(spread > 0, spread, x.flatten(1).abs().amax(1))
        penalty = problem.weight / (CONTRAST * spread)
        return torch.where((penalty > 0) & torch.isfinite(penalty), penalty, level.clamp_min(1e-12))

    def _balanced(self, problem: Problem, state: ADMMState) -> ADMMState:
        factor = (state.primal / state.dual).sqrt().nan_to_num(1.0, 10.0).clamp(0.1, 10)
        factor = torch.where((factor > 10**0.5) | (factor < 10**-0.5), factor, 1)
        if state.count < 4 or bool((factor == 1).all()):
            return state
        u = state.u / per_image(factor, state.u)
        return _with_filter(problem, replace(state, u=u, penalty=state.penalty * factor))


def _update(problem: Problem, state: ADMMState, analysis: LinearOperator) -> Tensor:
    """argmin_x 1/2 ||A x - y||^2 + rho/2 ||K x - z + u||^2."""
    operator, penalty = cast(LinearOperator, problem.operator), state.penalty
    b = torch.addcmul(state.back, per_image(penalty, state.back), analysis.adjoint(state.z - state.u))
    if state.exact:
        if state.filter is not None:
            return state.filter.apply(b)
        return cast(Tensor, operator.solve_normal(b, penalty))

    def apply(v: Tensor) -> Tensor:
        return operator.normal(v) + per_image(penalty, v) * analysis.normal(v)

    def precondition(v: Tensor) -> Tensor:
        return v if state.filter is None else state.filter.apply(v)

    # Rounding leaves a residual of about this size, however many steps are taken.
    tolerance = torch.maximum(state.inner, 4 * torch.finfo(b.dtype).eps * norms(b))
    return conjugate_gradients(apply, b, state.x, tolerance, INNER_STEPS, precondition)


def _with_filter(problem: Problem, state: ADMMState) -> ADMMState:
    """The state with what its penalty asks for."""
    operator, analysis = cast(LinearOperator, problem.operator), _analysis(problem)
    rough, own = analysis.normal_diagonal(), operator.normal_diagonal()
    if own is not None and (both := own.plus(rough, state.penalty)) is not None:
        return replace(state, filter=_inverse(both, state.x), exact=True)
    if isinstance(analysis, Identity) and operator.solve_normal(state.back, state.penalty) is not None:
        return replace(state, filter=None, exact=True)
    if rough is None:
        return replace(state, filter=None, exact=False)
    # A^T A replaced by its mean eigenvalue times the identity.
    scale = (state.penalty / state.level.clamp_min(1e-30)).to(rough.eigenvalues)
    return replace(state, filter=_inverse(cast(Diagonal, Diagonal.identity().plus(rough, scale)), state.x), exact=False)


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
