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

CONTRAST = 0.55
"""The threshold weight / penalty, as a fraction of the standard deviation of the starting image."""

CHECK_EVERY = 10
"""Iterations between two evaluations of the duality gap, which costs more than an iteration."""

INNER_STEPS = 100
"""At most so many conjugate gradient steps for one update of x."""


@dataclass(frozen=True)
class LassoState:
    """One iterate per image; `count` iterations so far.

    - `z`: the sparse image, the estimate. `u`: the scaled dual variable. `penalty`: rho, (B,).
    - `gap`: the duality gap of z over ||y||^2 when it was last computed, (B,). `move`: ||x - z||, (B,).
    """

    z: Tensor
    u: Tensor
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
    residual at x and its correlations A^T (y - A x) are by-products.

    - `tolerance`: an image is done when the duality gap, an upper bound of objective(z) - minimum, is at most
      `tolerance` ||y||^2: the convention of scikit-learn; >= 0, default 1e-5. The gap is that of z and of the
      residual at x shrunk into the dual feasible set, t (y - A x) with the largest t <= 1 for which
      |Q A^T t (y - A x)|_k <= weight w_k (Kim et al. 2007, "An interior-point method for large-scale l1-regularized
      least squares", section III.A); it is computed at every tenth iteration. It is the `certificate` too.
    - `penalty`: rho > 0, or "auto" (default): weight / (0.55 s) rounded to a power of four, s the standard deviation of
      the starting image: so images share factorisations. It does not change during the run.
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
        penalty = self._penalty(problem, z)
        unknown = torch.full_like(penalty, float("inf"))
        return LassoState(z, torch.zeros_like(z), penalty, unknown, norms(z), count=0)

    def step(self, problem: Problem, state: LassoState) -> LassoState:
        prior = cast(OrthonormalSparsity, problem.prior)
        fit = _fit(problem, state)
        v = torch.lerp(state.z, fit.x, 1.8).add_(state.u)
        z = prior.prox(v, problem.weight / state.penalty)
        new = replace(state, z=z, u=v.sub_(z), move=norms(fit.x - z), count=state.count + 1)
        return new if new.count % CHECK_EVERY else replace(new, gap=_relative_gap(problem, fit, z))

    def estimate(self, problem: Problem, state: LassoState) -> Tensor:
        return state.z

    def rules(self, problem: Problem, state: LassoState) -> Sequence[Rule]:
        return (Rule("the duality gap over ||y||^2", state.gap, self.tolerance),)

    def objective(self, problem: Problem, state: LassoState) -> Tensor:
        return problem.objective(state.z)

    def certificate(self, problem: Problem, state: LassoState) -> Tensor:
        """objective(z) - minimum is at most this, (B,)."""
        return state.gap * dot(problem.y, problem.y)

    def _penalty(self, problem: Problem, x: Tensor) -> Tensor:
        nothing = x.new_zeros(len(x))
        if self.penalty != "auto":
            return nothing + self.penalty
        spread = x.flatten(1).std(1, correction=0)
        penalty = 4 ** ((problem.weight / (CONTRAST * spread)).log2() / 2).round()
        return torch.where((penalty > 0) & torch.isfinite(penalty), penalty, 1)


class _Fit(NamedTuple):
    """The image that fits the data, y - A x, and A^T (y - A x)."""

    x: Tensor
    residual: Tensor
    slope: Tensor


def _fit(problem: Problem, state: LassoState) -> _Fit:
    """argmin over x of 1/2 ||A x - y||^2 + rho/2 ||x - (z - u)||^2."""
    operator, near = cast(LinearOperator, problem.operator), state.z - state.u
    residual = problem.y - operator(near)
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


def _relative_gap(problem: Problem, fit: _Fit, z: Tensor) -> Tensor:
    """objective(z) minus the dual objective at the shrunk residual of x, over ||y||^2, (B,).

    A sum of terms that are not negative, 1/2 ||(y - A z) - q||^2 + (weight R(z) - <A^T q, z>) with q = t (y - A x), so
    that nothing cancels in single precision.
    """
    prior = cast(OrthonormalSparsity, problem.prior)
    tiny = torch.finfo(z.dtype).tiny
    size = prior.dual_norm(prior.transform()(fit.slope))
    shrink = (problem.weight / size.clamp_min(tiny)).clamp_max(1)
    rest = problem.y - problem.operator(z) - per_image(shrink, fit.residual) * fit.residual
    slack = (problem.weight * prior.energy(z) - shrink * dot(fit.slope, z)).clamp_min(0)
    return (0.5 * dot(rest, rest) + slack) / dot(problem.y, problem.y).clamp_min(tiny)
