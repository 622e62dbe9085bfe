"""Fitting the data from the network's reconstruction on: what to do where the network alone does not explain them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, Noise, Prior, Problem, Solver, dot, norms, per_image
from preimage.errors import BadParameter, Incompatible
from preimage.trained import LearnedOperator

from .map_inverse import MapInverseState, check_tolerance, inversion_objections, inverted, mismatch_allowed

SUFFICIENT = 1e-4
"""Part of the decrease predicted by the slope that a step must bring (Nocedal & Wright 2006, eq. 3.6a)."""

TRIALS = 30
"""Lengths that are tried in one step."""

SHORT = 0.5
"""Where the shorter of the two step lengths is below this part of the longer one it is taken (Zhou, Gao & Dai 2006)."""


@dataclass(frozen=True)
class RefinementState:
    """One iterate per image.

    - `x`: (B, *in_shape). `value`, `misfit`: of the objective there, (B,). `gradient`: of the objective.
    - `length`: of the next step. `scale`: norm of the gradient at the start. `stuck`: no length lowered the objective.
    - `inverse`: the network's reconstruction, the reference, and what is known of it.
    """

    x: Tensor
    value: Tensor
    misfit: Tensor
    gradient: Tensor
    length: Tensor
    scale: Tensor
    stuck: Tensor
    inverse: MapInverseState


@dataclass(frozen=True, kw_only=True)
class MapRefinement(Solver[RefinementState]):
    """Tikhonov regularisation with the network's reconstruction as reference, from there on:

        min misfit(F(x), y) + weight / 2 ||x - x_net||^2,   x_net = project(phi^-1(lift(y)))

    (Engl, Hanke & Neubauer 1996, "Regularization of inverse problems", Tikhonov regularisation with an initial guess x*
    in place of zero). For where x_net leaves more of the data unexplained than noise does: less noise than the network
    was trained for, an operator that differs a little. At the noise it was trained for there is nothing to gain, and
    the discrepancy principle ends the run where it starts. The network is inverted once; F may be any differentiable
    operator between images of one shape. The smaller the weight, the more the discrepancy principle decides: 0.1 and
    below suits less noise, where weight 1, the default of a problem, stays near x_net.

    x <- x - t (gradient), t the length of Barzilai & Borwein (1988, "Two-point step size gradient methods"): with s and
    q the last changes of x and of the gradient, t1 = s^T s / s^T q or t2 = s^T q / q^T q, the shorter, t2, where
    t2 < 0.5 t1 (Zhou, Gao & Dai 2006, "Gradient methods with adaptive step-sizes"). The first goes to the
    minimum along the gradient for F linearised. t is shortened until the objective falls enough (Armijo), so the
    objective never rises, and the last iterate is the best.

    Stability, for a linear F with least squares, at the minimum: the map y -> x is Lipschitz with constant
    1 / (1 - L) + 1 / (2 sqrt(weight)), since x = (F^T F + weight)^-1 (F^T y + weight x_net), whose parts have the norms
    s / (s^2 + weight) <= 1 / (2 sqrt(weight)) and weight / (s^2 + weight) <= 1, s a singular value of F.

    - `tau`: stop at the first x whose misfit is at most tau^2 times what the noise model expects of the true image
      (Morozov's discrepancy principle; x_net itself, where it is); >= 0, default 1. 0: no such rule, as where the
      level of the noise is unknown or 0.
    - `tolerance`: an image is also done when the norm of its gradient is at most `tolerance` times that at the start;
      >= 0, default 1e-2.
    - `inverse_tolerance`: of x_net, by estimate; in (0, 1), default 1e-3 (`MapInverse`).
    - `allow_mismatch`: an operator or noise that the network was not trained for; the reason in the result then says
      so. Otherwise such a problem is refused.
    - `max_steps`: default 100.

    The start is x_net, or `Problem.x0` where given. Details of the result: `reference`, x_net, (B, *in_shape); its
    certificate, `reference_bound`; `evaluations` and `contraction` as in `MapInverse`, (B,).
    Per step one F and one F'^T, and one F for every time t is shortened; at the start one F, F'^T and F'.
    Raises `BadParameter` for values out of range.
    """

    prior_type: ClassVar[type[Prior] | None] = LearnedOperator

    max_steps: int = 100
    tau: float = 1.0
    tolerance: float = 1e-2
    inverse_tolerance: float = 1e-3
    allow_mismatch: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("tau", "tolerance"):
            if not 0 <= (value := cast(float, getattr(self, name))) < float("inf"):
                raise BadParameter(f"{name} is {value}", "a finite number >= 0")
        check_tolerance(self.inverse_tolerance, "inverse_tolerance")

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        return inversion_objections(self, operator, noise, cast(LearnedOperator, prior), self.allow_mismatch)

    def init(self, problem: Problem, keys: Sequence[Key]) -> RefinementState:
        inverse = inverted(problem, self.inverse_tolerance, "estimated")
        x = inverse.x if problem.x0 is None else problem.x0.to(problem.y)
        value, misfit, gradient_at = _objective(problem, inverse.x, x)
        gradient = gradient_at()
        square, tangent = dot(gradient, gradient), problem.operator.jvp(x, gradient)
        curvature = dot(tangent, tangent) + per_image(problem.weight, square) * square
        length = torch.where(curvature > 0, square / _positive(curvature), 1)
        stuck = torch.zeros_like(value, dtype=torch.bool)
        return RefinementState(x, value, misfit, gradient, length, norms(gradient), stuck, inverse)

    def step(self, problem: Problem, state: RefinementState) -> RefinementState:
        new = state
        pending = torch.arange(len(state.x), device=state.x.device)
        slope, length = -dot(state.gradient, state.gradient), state.length
        for _ in range(TRIALS):
            some = problem if len(pending) == len(state.x) else problem.rows(pending)
            t, start, s = (part[pending] for part in (length, state.value, slope))
            x = state.x[pending] - per_image(t, state.x) * state.gradient[pending]
            value, misfit, gradient_at = _objective(some, state.inverse.x[pending], x)
            # The first condition alone would let the objective rise by rounding once t s is lost in it.
            falls = (value <= start + SUFFICIENT * t * s) & (value < start)
            if bool(falls.any()):
                rows, found = pending[falls], (x, value, misfit, gradient_at())
                x, value, misfit, gradient = (part[falls] for part in found)
                new = replace(
                    new,
                    x=new.x.index_copy(0, rows, x),
                    value=new.value.index_copy(0, rows, value),
                    misfit=new.misfit.index_copy(0, rows, misfit),
                    gradient=new.gradient.index_copy(0, rows, gradient),
                )
            length = length.index_copy(0, pending, torch.where(falls, t, 0.25 * t))
            pending = pending[~falls]
            if not len(pending):
                break
        stuck = torch.zeros_like(state.stuck).index_fill(0, pending, True)
        return replace(new, length=_barzilai_borwein(state, new, length), stuck=stuck)

    def estimate(self, problem: Problem, state: RefinementState) -> Tensor:
        return state.x

    def objective(self, problem: Problem, state: RefinementState) -> Tensor:
        return state.value

    def done(self, problem: Problem, state: RefinementState) -> Tensor:
        fitted, flat = self._met(problem, state)
        return fitted | flat | state.stuck

    def criterion(self, problem: Problem, state: RefinementState) -> Sequence[str]:
        fitted, flat = (cast("list[bool]", met.tolist()) for met in self._met(problem, state))
        mismatch = mismatch_allowed(problem) if self.allow_mismatch else ""
        by_discrepancy = f"the misfit is at most {self.tau**2:.3g} times its expected value (discrepancy principle)"
        by_gradient = f"the norm of the gradient is at most {self.tolerance:.2g} times that at the start"
        by_rounding = "no step along the gradient lowers the objective, which is as low as rounding permits"
        texts = (by_discrepancy if f else by_gradient if g else by_rounding for f, g in zip(fitted, flat, strict=True))
        return [text + mismatch for text in texts]

    def details(self, problem: Problem, state: RefinementState) -> Mapping[str, Tensor]:
        inverse = state.inverse
        return {
            "reference": inverse.x,
            "reference_bound": inverse.certificate,
            "evaluations": inverse.evaluations,
            "contraction": inverse.contraction,
        }

    def reference_problem(self, key: Key) -> Problem:
        from .reference import reference_problem

        return reference_problem(key)

    def _met(self, problem: Problem, state: RefinementState) -> tuple[Tensor, Tensor]:
        """Which images fit the data, and which have a small gradient: bool, (B,)."""
        expected = problem.noise.expected_misfit(problem.y) if self.tau else None
        fitted = torch.zeros_like(state.stuck) if expected is None else state.misfit <= self.tau**2 * expected
        return fitted, norms(state.gradient) <= self.tolerance * state.scale


def _objective(problem: Problem, reference: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    """misfit + weight / 2 ||x - reference||^2 and the misfit, (B,), for one F, and a call that gives the gradient of
    the former, for one F'^T."""
    predicted, pullback = problem.operator.vjp(x)
    misfit, away = problem.noise.misfit(predicted, problem.y), x - reference
    value = misfit + 0.5 * per_image(problem.weight, misfit) * dot(away, away)

    def gradient() -> Tensor:
        return pullback(problem.noise.misfit_grad(predicted, problem.y)) + per_image(problem.weight, away) * away

    return value, misfit, gradient


def _barzilai_borwein(old: RefinementState, new: RefinementState, taken: Tensor) -> Tensor:
    """The length of the next step, (B,); twice the last one where the objective bends down."""
    s, q = new.x - old.x, new.gradient - old.gradient
    product = dot(s, q)
    long, short = dot(s, s) / _positive(product), product / _positive(dot(q, q))
    return torch.where(product > 0, torch.where(short < SHORT * long, short, long), 2 * taken)


def _positive(value: Tensor) -> Tensor:
    """The value, kept from zero."""
    return value.clamp_min(torch.finfo(value.dtype).tiny)
