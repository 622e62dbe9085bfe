"""The step sizes of primal-dual splitting, and its three ways to treat the data."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from preimage import Diagonal, LinearOperator, Problem, norms, per_image

from .fast_diagonal import apply_diagonal

DataStep = Literal["prox", "conjugate", "gradient"]


class Steps(NamedTuple):
    """Primal and dual step sizes, (B,); `data` is the dual step of the measurement, of use to "conjugate"."""

    primal: Tensor
    dual: Tensor
    data: Tensor


def step_sizes(
    data_step: DataStep,
    norm: Tensor,
    lipschitz: Tensor,
    ratio: Tensor,
    relaxation: float,
    primal: Tensor | None = None,
    dual: Tensor | None = None,
) -> Steps:
    """The longest steps for which convergence is proven, with sqrt(dual / primal) = ratio unless one is given.

    - `norm`: ||K||. `lipschitz`: ||A||^2. `primal`, `dual`: given steps, then kept as they are. All (B,).

    With tau, sigma the steps: prox tau sigma ||K||^2 = 1 (Chambolle & Pock 2011, theorem 1); conjugate the same with
    half for each of K and A, A having a dual step of its own (Pock & Chambolle 2011); gradient 1 / tau - sigma ||K||^2
    = c ||A||^2 with c = 1 / (2 (2 - relaxation)) (Condat 2013, theorem 3.1), and a ratio for which sigma ||K||^2 is at
    least c ||A||^2.
    """
    share = 0.5 if data_step == "conjugate" else 1.0
    smooth = lipschitz / (2 * (2 - relaxation)) * 1.01 if data_step == "gradient" else torch.zeros_like(lipschitz)
    if primal is not None:
        margin = 1 / primal - smooth
        # A step that is too long leaves no margin; what is then done need not converge.
        bound = share * torch.where(margin > 0, margin, 1 / primal) / norm.square()
        dual = bound if dual is None else dual
    else:
        if dual is None:
            # The primal step of "gradient" is bounded: below this ratio the dual step would shrink for nothing.
            ratio = torch.maximum(ratio, 2**0.5 * smooth / norm)
            # The positive root of sigma^2 ||K||^2 + sigma smooth = share ratio^2.
            root = (smooth.square() + 4 * share * (norm * ratio).square()).sqrt()
            dual = 2 * share * ratio.square() / (smooth + root)
        primal = share / (share * smooth + dual * norm.square())
    return Steps(primal, dual, 0.5 / (primal * lipschitz))


class DataTerm(NamedTuple):
    """What an iteration keeps of the data term; None where the data step does not need it.

    - `predicted`: A x. `dual`: q, of 1/2 ||. - y||^2. `pull`: the gradient A^T (A x - y), or A^T q.
    """

    predicted: Tensor | None
    dual: Tensor | None
    pull: Tensor | None


def first_data_term(problem: Problem, data_step: DataStep, x: Tensor) -> DataTerm:
    """At the starting image; the dual variable starts at the residual."""
    if data_step == "prox":
        return DataTerm(None, None, None)
    operator = cast(LinearOperator, problem.operator)
    predicted = operator(x)
    residual = predicted - problem.y
    return DataTerm(predicted, residual if data_step == "conjugate" else None, operator.adjoint(residual))


def next_data_term(problem: Problem, old: DataTerm, x: Tensor, step: Tensor) -> tuple[DataTerm, Tensor]:
    """The data term after x has become the given one, and the norm of the dual residual, (B,) (zero without q)."""
    nothing = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    if old.predicted is None:
        return old, nothing
    operator = cast(LinearOperator, problem.operator)
    predicted = operator(x)
    if old.dual is None:
        return DataTerm(predicted, None, operator.adjoint(predicted - problem.y)), nothing
    sigma = per_image(step, predicted)
    dual = (old.dual + sigma * (2 * predicted - old.predicted - problem.y)) / (1 + sigma)
    residual = norms((old.dual - dual) / sigma + predicted - old.predicted)
    return DataTerm(predicted, dual, operator.adjoint(dual)), residual


def relaxed_data_term(old: DataTerm, new: DataTerm, relaxation: float) -> DataTerm:
    """old + relaxation (new - old): all of it is affine in x and q."""
    return DataTerm(
        *(None if a is None or b is None else torch.lerp(a, b, relaxation) for a, b in zip(old, new, strict=True))
    )


@dataclass(frozen=True)
class Resolvent:
    """v -> argmin_x 1/2 ||A x - y||^2 + 1 / (2 tau) ||x - v||^2 = (A^T A + I / tau)^-1 (A^T y + v / tau).

    - `back`: A^T y. `shift`: 1 / tau, (B,). `inverse`: of the matrix, where a basis makes it diagonal.
    """

    back: Tensor
    shift: Tensor
    inverse: Diagonal | None

    @classmethod
    def of(cls, problem: Problem, back: Tensor, primal: Tensor) -> "Resolvent":
        """For steps tau = `primal`, (B,)."""
        diagonal = cast(LinearOperator, problem.operator).normal_diagonal()
        shift = 1 / primal
        if diagonal is None:
            return cls(back, shift, None)
        eigenvalues = 1 / (diagonal.eigenvalues.to(back) + per_image(shift, back))
        return cls(back, shift, Diagonal(diagonal.basis, eigenvalues))

    def __call__(self, problem: Problem, v: Tensor) -> Tensor:
        b = torch.addcmul(self.back, per_image(self.shift, v), v)
        if self.inverse is not None:
            return apply_diagonal(self.inverse, b)
        return cast(Tensor, cast(LinearOperator, problem.operator).solve_normal(b, self.shift))
