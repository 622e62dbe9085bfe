"""Least squares by LSQR: Golub-Kahan bidiagonalisation, with its own stopping rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, LeastSquares, LinearOperator, Noise, Prior, Problem, norms, per_image
from preimage.errors import Incompatible

from .checks import not_negative, positive
from .landweber import discrepancy
from .solved_at_start import solved_at_start
from .stopping import Rule, RuleBased, ratio


@dataclass(frozen=True)
class LSQRState:
    """One iterate per image; the letters are those of the paper, all (B,) but x, u, v and w.

    - `x`: the estimate. `u`, `v`: the last vectors of the bidiagonalisation. `w`: direction of the next step.
    - `alpha`, `rho_bar`, `phi_bar`: what is left to be rotated. `b_norm`: ||y||.
    - `damped`: squared part of the residual that comes from the damping.
    - `a_square`: ||A||^2 + damping^2, a Frobenius norm as far as seen. `d_square`: of the condition number.
    - `cs`, `sn`, `z`, `x_square`: of the estimate of ||x - x0||. `x_norm`: that estimate.
    - `residual`: || (A x - y, damping (x - x0)) ||. `misfit`: 1/2 ||A x - y||^2. `gradient`: || A^T (A x - y) + ... ||.
    """

    x: Tensor
    u: Tensor
    v: Tensor
    w: Tensor
    alpha: Tensor
    rho_bar: Tensor
    phi_bar: Tensor
    b_norm: Tensor
    damped: Tensor
    a_square: Tensor
    d_square: Tensor
    cs: Tensor
    sn: Tensor
    z: Tensor
    x_square: Tensor
    x_norm: Tensor
    residual: Tensor
    misfit: Tensor
    gradient: Tensor


@dataclass(frozen=True, kw_only=True)
class LSQR(RuleBased[LSQRState]):
    """Minimises ||A x - y||^2 + damping^2 ||x - x0||^2 by LSQR (Paige & Saunders 1982, "LSQR: an algorithm for sparse
    linear equations and sparse least squares", sections 3 to 5), x0 = 0 unless the problem has one.

    The iterates are those of conjugate gradients on the normal equations, computed in a way that is more reliable if A
    is ill-conditioned. One A and one A^T per step. Noise enters with the number of steps, so without damping stopping
    early is what regularises, and the discrepancy principle is on by default.

    - `damping`: >= 0, default 0, in units of A.
    - `tau`: stop at the first x with 1/2 ||A x - y||^2 <= tau^2 times what the noise model expects of the true image
      (see `landweber`); >= 0, default 1.02; 0: no such rule.
    - `atol`, `btol`: relative accuracies of A and of y, >= 0, default 1e-6: stop when the residual
      r = (y - A x, -damping (x - x0)) has ||r|| <= btol ||y|| + atol ||A|| ||x|| (compatible systems), or
      ||A^T r|| <= atol ||A|| ||r|| (least squares), A with the damping as further rows, its Frobenius norm as the
      iteration sees it.
    - `conlim`: stop when the estimated condition number of A exceeds it, > 0, default 1e8.

    Values of atol and btol below rounding error act like rounding error. Needs a linear operator and least-squares
    noise; takes no prior. Raises `BadParameter` for values out of range.
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares

    damping: float = 0.0
    tau: float = 1.02
    atol: float = 1e-6
    btol: float = 1e-6
    conlim: float = 1e8

    def __post_init__(self):
        super().__post_init__()
        not_negative("damping", self.damping)
        not_negative("tau", self.tau)
        not_negative("atol", self.atol)
        not_negative("btol", self.btol)
        positive("conlim", self.conlim, "use 1e8")

    def objections_to_start(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        return solved_at_start(self, operator)

    def init(self, problem: Problem, keys: Sequence[Key]) -> LSQRState:
        operator, y = cast(LinearOperator, problem.operator), problem.y
        b_norm = norms(y)
        if problem.x0 is None:
            x, u = y.new_zeros((len(y), *operator.in_shape)), y
        else:
            x, u = problem.x0.clone(), y - operator(problem.x0)
        u, beta = _unit(u)
        v, alpha = _unit(operator.adjoint(u))
        zero = torch.zeros_like(beta)
        return LSQRState(
            x=x,
            u=u,
            v=v,
            w=v,
            alpha=alpha,
            rho_bar=alpha,
            phi_bar=beta,
            b_norm=b_norm,
            damped=zero,
            a_square=zero,
            d_square=zero,
            cs=zero - 1,
            sn=zero,
            z=zero,
            x_square=zero,
            x_norm=zero,
            residual=beta,
            misfit=0.5 * beta.square(),
            gradient=alpha * beta,
        )

    def step(self, problem: Problem, state: LSQRState) -> LSQRState:
        operator = cast(LinearOperator, problem.operator)
        u, beta = _unit(operator(state.v) - per_image(state.alpha, state.u) * state.u)
        a_square = state.a_square + state.alpha.square() + beta.square() + self.damping**2
        v, alpha = _unit(operator.adjoint(u) - per_image(beta, state.v) * state.v)

        damped_rho = torch.hypot(state.rho_bar, torch.full_like(beta, self.damping))
        psi = ratio(torch.full_like(beta, self.damping), damped_rho) * state.phi_bar
        phi_bar = _divide(state.rho_bar, damped_rho) * state.phi_bar

        rho = torch.hypot(damped_rho, beta)
        c, s = _divide(damped_rho, rho), _divide(beta, rho)
        theta, rho_bar = s * alpha, -c * alpha
        phi, phi_bar = c * phi_bar, s * phi_bar

        x = state.x + per_image(_divide(phi, rho), state.x) * state.w
        w = v - per_image(_divide(theta, rho), v) * state.w
        d_square = state.d_square + _divide(norms(state.w), rho).square()

        # ||x - x0||, by a rotation from the right (section 5.2).
        delta, gamma_bar = state.sn * rho, -state.cs * rho
        rest = phi - delta * state.z
        x_norm = torch.hypot(state.x_square.sqrt(), _divide(rest, gamma_bar))
        gamma = torch.hypot(gamma_bar, theta)
        z = _divide(rest, gamma)

        damped = state.damped + psi.square()
        x_square = state.x_square + z.square()
        square = phi_bar.square() + damped
        return LSQRState(
            x=x,
            u=u,
            v=v,
            w=w,
            alpha=alpha,
            rho_bar=rho_bar,
            phi_bar=phi_bar,
            b_norm=state.b_norm,
            damped=damped,
            a_square=a_square,
            d_square=d_square,
            cs=_divide(gamma_bar, gamma),
            sn=_divide(theta, gamma),
            z=z,
            x_square=x_square,
            x_norm=x_norm,
            residual=square.sqrt(),
            misfit=0.5 * (square - self.damping**2 * x_norm.square()).clamp_min(0),
            gradient=alpha * (s * phi).abs(),
        )

    def estimate(self, problem: Problem, state: LSQRState) -> Tensor:
        return state.x

    def objective(self, problem: Problem, state: LSQRState) -> Tensor:
        """1/2 ||A x - y||^2 + damping^2 / 2 ||x - x0||^2."""
        return 0.5 * state.residual.square()

    def rules(self, problem: Problem, state: LSQRState) -> Sequence[Rule]:
        eps, a_norm = torch.finfo(state.x.dtype).eps, state.a_square.sqrt()
        atol, btol = max(self.atol, eps), max(self.btol, eps)
        condition = a_norm * state.d_square.sqrt()
        # Before the first step nothing is known of A, and a gradient of zero is all that can end the run.
        slope = ratio(state.gradient, torch.where(a_norm > 0, a_norm * state.residual, 1))
        return (
            *discrepancy(problem, state.misfit, self.tau),
            Rule("the residual over ||y||", ratio(state.residual, state.b_norm), btol + atol * self._size(state)),
            Rule("the gradient over ||A|| times the residual", slope, torch.where(a_norm > 0, atol, 0.0).to(slope)),
            Rule("1 / condition number", 1 / condition, max(1 / self.conlim, eps)),
        )

    def _size(self, state: LSQRState) -> Tensor:
        return ratio(state.a_square.sqrt() * state.x_norm, state.b_norm)

    def remedy(self) -> str:
        return "use damping, or a smaller conlim"


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """x / ||x|| and ||x||; zero stays zero."""
    size = norms(x)
    return x / per_image(torch.where(size > 0, size, 1), x), size


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and zero where b is."""
    return torch.where(b == 0, 0, a / torch.where(b == 0, 1, b))
