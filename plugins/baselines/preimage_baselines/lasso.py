"""The exact Lasso: least squares and a weighted l1 norm in an orthonormal basis, to a stated duality gap."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple, cast

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
    dot,
    norms,
    per_image,
)

from .checks import not_negative, positive
from .cosines import CosineSparsity
from .krylov import conjugate_gradients
from .sparsity import OrthonormalSparsity
from .stopping import Rule, RuleBased

CONTRASTS = (1.5, 0.1, 0.5)
"""The threshold weight / penalty, as a fraction of the standard deviation of the starting image: at first, after a
descent, and then for good. The descent takes two thirds of the steps to the objective of a photograph that any constant
takes; the last is best for many digits."""

DESCENT = 50
"""Steps in which the threshold falls."""

INNER_STEPS = 100
"""At most so many conjugate gradient steps for one update of x."""


@dataclass(frozen=True)
class LassoState:
    """One iterate per image; `count` iterations so far.

    - `z`: the sparse image, the estimate. `u`: the scaled dual variable. `seen_z`, `seen_u`: A z and A u.
    - `scale`: s, (B,). `penalty`: rho, (B,).
    - `gap`: the duality gap of z over ||y||^2, (B,). `move`: ||x - z||, (B,).
    """

    z: Tensor
    u: Tensor
    seen_z: Tensor
    seen_u: Tensor
    scale: Tensor
    penalty: Tensor
    gap: Tensor
    move: Tensor
    count: int


@dataclass(frozen=True, kw_only=True)
class Lasso(RuleBased[LassoState]):
    """Minimises 1/2 ||A x - y||^2 + weight sum_k w_k |(Q x)_k|, Q orthonormal (Tibshirani 1996), until the duality gap
    certifies it. The iteration is ADMM (Boyd et al. 2011, section 6.4):

        x <- z - u + A^T (A A^T + rho I)^-1 (y - A (z - u))
        v <- 1.8 x - 0.8 z + u;    z <- Q^T soft(Q v, weight w / rho);    u <- v - z

    The update of x is exact where the operator solves with A A^T or A^T A (`solve_normal` of `A.T` or of A: matrices,
    masks, convolutions in their own boundary condition); else conjugate gradients. With A A^T nothing cancels, and the
    residual at x and its correlations A^T (y - A x) are by-products; A u follows from A x and A z, so that a step takes
    one A and one A^T, the duality gap included.

    - `tolerance`: an image is done when the duality gap, an upper bound of objective(z) - minimum, is at most
      `tolerance` ||y||^2: the convention of scikit-learn; >= 0, default 1e-5. The gap is that of z and of the
      residual at x shrunk into the dual feasible set, t (y - A x) with the largest t <= 1 for which
      |Q A^T t (y - A x)|_k <= weight w_k (Kim et al. 2007, "An interior-point method for large-scale l1-regularized
      least squares", section III.A). It is the `certificate` too.
    - `penalty`: rho > 0, or "auto" (default): the threshold weight / rho falls from 1.5 s to 0.1 s in the first 50
      steps, by equal factors, and is 0.5 s from then on (it has to come to rest: Boyd et al., section 3.4.1), s the
      standard deviation of the starting image.
    - `max_steps`: default 1000.

    The estimate is z, which is exactly sparse. Coefficients with w_k = 0 admit only residuals orthogonal to them, so
    that the gap is then reached late or not at all; `fista` and `admm` have other rules.
    Needs a linear operator, least-squares noise and a prior that is an `OrthonormalSparsity` (dct-l1, wavelet-l1).
    Raises `BadParameter` for a penalty that is not positive or a negative tolerance.
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = OrthonormalSparsity

    tolerance: float = 1e-5
    penalty: Literal["auto"] | float = "auto"

    def __post_init__(self):
        super().__post_init__()
        not_negative("tolerance", self.tolerance)
        if self.penalty != "auto":
            positive("penalty", self.penalty, 'leave it out, or write "auto"')

    def reference_problem(self, key: Key) -> Problem:
        """The usual one, with an l1 norm of cosine coefficients as the prior."""
        usual = super().reference_problem(key)
        return replace(usual, prior=CosineSparsity(usual.operator.in_shape))

    def init(self, problem: Problem, keys: Sequence[Key]) -> LassoState:
        z = problem.start()
        scale = z.flatten(1).std(1, correction=0)
        unknown, nothing = torch.full_like(scale, float("inf")), torch.zeros_like(problem.y)
        seen, penalty = problem.operator(z), self._penalty(problem, scale, 0)
        return LassoState(z, torch.zeros_like(z), seen, nothing, scale, penalty, unknown, norms(z), count=0)

    def step(self, problem: Problem, state: LassoState) -> LassoState:
        prior = cast(OrthonormalSparsity, problem.prior)
        fit = _fit(problem, state)
        v = torch.lerp(state.z, fit.x, 1.8).add_(state.u)
        z = prior.prox(v, problem.weight / state.penalty)
        seen_v = torch.lerp(state.seen_z, problem.y - fit.residual, 1.8).add_(state.seen_u)
        seen_z = problem.operator(z)
        penalty = self._penalty(problem, state.scale, state.count + 1)
        # The dual variable is rho u, whatever rho is.
        change = state.penalty / penalty
        return LassoState(
            z=z,
            u=v.sub_(z).mul_(per_image(change, z)),
            seen_z=seen_z,
            seen_u=seen_v.sub_(seen_z).mul_(per_image(change, seen_z)),
            scale=state.scale,
            penalty=penalty,
            gap=_relative_gap(problem, fit, z, seen_z),
            move=norms(fit.x - z),
            count=state.count + 1,
        )

    def estimate(self, problem: Problem, state: LassoState) -> Tensor:
        return state.z

    def rules(self, problem: Problem, state: LassoState) -> Sequence[Rule]:
        return (Rule("the duality gap over ||y||^2", state.gap, self.tolerance),)

    def objective(self, problem: Problem, state: LassoState) -> Tensor:
        return problem.objective(state.z)

    def certificate(self, problem: Problem, state: LassoState) -> Tensor:
        """objective(z) - minimum is at most this, (B,)."""
        return state.gap * dot(problem.y, problem.y)

    def _penalty(self, problem: Problem, scale: Tensor, count: int) -> Tensor:
        if self.penalty != "auto":
            return torch.full_like(scale, self.penalty)
        first, least, last = CONTRASTS
        contrast = last if count > DESCENT else first * (least / first) ** (count / DESCENT)
        penalty = problem.weight / (contrast * scale)
        return torch.where((penalty > 0) & torch.isfinite(penalty), penalty, 1)


class _Fit(NamedTuple):
    """The image that fits the data, y - A x, and A^T (y - A x)."""

    x: Tensor
    residual: Tensor
    slope: Tensor


def _fit(problem: Problem, state: LassoState) -> _Fit:
    """argmin over x of 1/2 ||A x - y||^2 + rho/2 ||x - (z - u)||^2."""
    operator, near = cast(LinearOperator, problem.operator), state.z - state.u
    residual = problem.y - state.seen_z + state.seen_u
    rho, rho_y = per_image(state.penalty, near), per_image(state.penalty, residual)
    if (dual := operator.T.solve_normal(residual, state.penalty)) is not None:
        # y - A x = rho (A A^T + rho I)^-1 (y - A (z - u)).
        correction = operator.adjoint(dual)
        return _Fit(near + correction, rho_y * dual, rho * correction)
    back = operator.adjoint(residual)
    correction = operator.solve_normal(back, state.penalty)
    x = near + (_iterate(operator, back, state) if correction is None else correction)
    left = problem.y - operator(x)
    return _Fit(x, left, operator.adjoint(left))


def _iterate(operator: LinearOperator, b: Tensor, state: LassoState) -> Tensor:
    """(A^T A + rho I)^-1 b to a tenth of the distance that is left between x and z, and not below rounding."""

    def apply(v: Tensor) -> Tensor:
        return operator.normal(v) + per_image(state.penalty, v) * v

    tolerance = torch.maximum(0.1 * state.penalty * state.move, 4 * torch.finfo(b.dtype).eps * norms(b))
    return conjugate_gradients(apply, b, torch.zeros_like(b), tolerance, INNER_STEPS, lambda v: v)


def _relative_gap(problem: Problem, fit: _Fit, z: Tensor, seen_z: Tensor) -> Tensor:
    """objective(z) minus the dual objective at the shrunk residual of x, over ||y||^2, (B,).

    A sum of terms that are not negative, 1/2 ||(y - A z) - q||^2 + (weight R(z) - <A^T q, z>) with q = t (y - A x), so
    that nothing cancels in single precision. `seen_z`: A z.
    """
    prior = cast(OrthonormalSparsity, problem.prior)
    tiny = torch.finfo(z.dtype).tiny
    size = prior.dual_norm(prior.transform()(fit.slope))
    shrink = (problem.weight / size.clamp_min(tiny)).clamp_max(1)
    rest = problem.y - seen_z - per_image(shrink, fit.residual) * fit.residual
    slack = (problem.weight * prior.energy(z) - shrink * dot(fit.slope, z)).clamp_min(0)
    return (0.5 * dot(rest, rest) + slack) / dot(problem.y, problem.y).clamp_min(tiny)
