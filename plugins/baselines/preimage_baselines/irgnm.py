"""The iteratively regularised Gauss-Newton method, stopped by the discrepancy principle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from preimage import (
    Diagonal,
    ForwardOperator,
    Key,
    LeastSquares,
    LinearOperator,
    Noise,
    Prior,
    Problem,
    Quadratic,
    dot,
    per_image,
)
from preimage.errors import BadParameter, Incompatible

from .checks import positive
from .gauss_newton_model import Curvature, GaussNewtonModel, Step, curvature, truncated_conjugate_gradients
from .line_search import Point, lower
from .solved_at_start import solved_at_start
from .stopping import Event, Rule, RuleBased


@dataclass(frozen=True)
class IRGNMState:
    """One iterate per image.

    - `point`: the estimate, and misfit + alpha P and its gradient there. `misfit`: there, (B,). `goal`: what it must
      reach.
    - `origin`: what P pulls to. `strength`: alpha, (B,). `planned`: the next step. `scale`: a typical eigenvalue of
      F'^T F'. `stuck`: the last step could not be made short enough.
    """

    point: Point
    misfit: Tensor
    goal: Tensor
    origin: Tensor
    strength: Tensor
    planned: Step
    scale: Tensor
    stuck: Tensor


@dataclass(frozen=True, kw_only=True)
class IRGNM(RuleBased[IRGNMState]):
    """Solves F(x) = y from noisy y: Gauss-Newton steps whose regularisation falls geometrically, stopped in time.

        x_(k+1) = argmin_x 1/2 ||F'(x_k) (x - x_k) + F(x_k) - y||^2 + alpha_k P(x),    alpha_k = alpha_0 ratio^k

    with P(x) = 1/2 ||x - x_0||^2, x_0 the start, or P = weight R with a quadratic prior R (Bakushinskii 1992, "The
    problem of the convergence of the iteratively regularized Gauss-Newton method"; Kaltenbacher, Neubauer & Scherzer
    2008, "Iterative Regularization Methods for Nonlinear Ill-Posed Problems", section 4.3, eq. 4.62). What regularises
    is that the iteration stops as soon as ||F(x) - y||^2 <= tau^2 E||noise||^2 (discrepancy principle, same book,
    eq. 4.66), for which the noise model must know its level; otherwise after `max_steps`. Without a prior that may be
    at the start already: start from an image that does not fit the data, such as a flat one. With one at least one step
    is made.

    The linear problems are solved by preconditioned conjugate gradients to `forcing`. A step
    that raises misfit + alpha_k P is shortened; one that cannot be made short enough is not taken.

    - `initial`: alpha_0 > 0, or "auto" (default): the ratio of the curvatures of misfit and P along the first
      gradient, so that both weigh the same there.
    - `ratio`: in (0, 1), default 0.5. `tau`: >= 1, default 1.1.
    - `forcing`: in [0, 1), default 0.1; `max_inner_steps`: >= 1, default 50.
    - `max_steps`: default 20.

    Per step one F and one F'^T, and one F' and one F'^T for each inner step. `details` of the reconstruction:
    "strength", alpha when it stopped, (B,). Raises `BadParameter` for parameters outside their ranges.
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = Quadratic
    prior_optional: ClassVar[bool] = True

    max_steps: int = 20
    initial: Literal["auto"] | float = "auto"
    ratio: float = 0.5
    tau: float = 1.1
    forcing: float = 0.1
    max_inner_steps: int = 50

    def __post_init__(self):
        super().__post_init__()
        if self.initial != "auto":
            positive("initial", self.initial, 'leave it out, or write "auto"')
        if not 0 < self.ratio < 1:
            raise BadParameter(f"ratio is {self.ratio}", "a number in (0, 1)", "0.5 suits most problems")
        if not 1 <= self.tau < float("inf"):
            raise BadParameter(f"tau is {self.tau}", "a number >= 1: how far above the noise the residual may stay")
        if not 0 <= self.forcing < 1:
            raise BadParameter(f"forcing is {self.forcing}", "a number in [0, 1)")
        if self.max_inner_steps < 1:
            raise BadParameter(f"max_inner_steps is {self.max_inner_steps}", "an integer >= 1")

    def objections_to_start(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        return solved_at_start(self, operator) if prior is None else []

    def init(self, problem: Problem, keys: Sequence[Key]) -> IRGNMState:
        x = problem.start()
        residual, jacobian = _linearise(problem, x)
        pull = jacobian.adjoint(residual)
        tangent = jacobian(pull)
        bent = _curvature(problem, x).apply(pull)
        above, below, length = dot(tangent, tangent), dot(pull, bent), dot(pull, pull)
        known = (above > 0) & (below > 0)
        scale = torch.where(known, above / torch.where(known, length, 1), 1)
        if self.initial == "auto":
            strength = torch.where(known, above / torch.where(known, below, 1), 1)
        else:
            strength = torch.full_like(scale, float(self.initial))
        # With a prior a start that fits the data may still be rough: noisy data themselves, say.
        goal = self._goal(problem) if problem.prior is None else torch.full_like(scale, -1.0)
        return self._planned(problem, x, (residual, jacobian), x, strength, goal, scale, strength < 0)

    def step(self, problem: Problem, state: IRGNMState) -> IRGNMState:
        trial = state.point.x + state.planned.s
        residual, jacobian = _linearise(problem, trial)

        def functional(index: Tensor, u: Tensor) -> Tensor:
            some = problem.rows(index)
            strength, origin = state.strength[index], state.origin[index]
            return some.misfit(u) + strength * _penalty(some, u, origin)[0]

        value = 0.5 * dot(residual, residual) + state.strength * _penalty(problem, trial, state.origin)[0]
        x, moved = lower(functional, state.point, state.planned.s, value)
        if not torch.equal(x, trial):
            residual, jacobian = _linearise(problem, x)
        strength = self.ratio * state.strength
        goal = self._goal(problem)
        return self._planned(
            problem, x, (residual, jacobian), state.origin, strength, goal, state.planned.scale, ~moved
        )

    def _goal(self, problem: Problem) -> Tensor:
        """The misfit that ends an image, (B,); -1 where the level of the noise is not known."""
        expected = problem.noise.expected_misfit(problem.y)
        return problem.y.new_full((len(problem.y),), -1.0) if expected is None else self.tau**2 * expected

    def _planned(
        self,
        problem: Problem,
        x: Tensor,
        linear: tuple[Tensor, LinearOperator],
        origin: Tensor,
        strength: Tensor,
        goal: Tensor,
        scale: Tensor,
        stuck: Tensor,
    ) -> IRGNMState:
        """The state at x with the step of the linearised problem there; no step where the image is done."""
        residual, jacobian = linear
        misfit, (penalty, slope) = 0.5 * dot(residual, residual), _penalty(problem, x, origin)
        gradient = jacobian.adjoint(residual) + per_image(strength, x) * slope
        model = GaussNewtonModel(jacobian, (_curvature(problem, x), strength), torch.zeros_like(scale), scale)
        goes_on = torch.where(per_image(misfit > goal, x) > 0, gradient, 0)
        forcing = torch.full_like(scale, self.forcing)
        planned = truncated_conjugate_gradients(model, goes_on, forcing, self.max_inner_steps)
        point = Point(x, misfit + strength * penalty, gradient)
        return IRGNMState(point, misfit, goal, origin, strength, planned, scale, stuck)

    def estimate(self, problem: Problem, state: IRGNMState) -> Tensor:
        return state.point.x

    def details(self, problem: Problem, state: IRGNMState) -> Mapping[str, Tensor]:
        return {"strength": state.strength}

    def rules(self, problem: Problem, state: IRGNMState) -> Sequence[Rule | Event]:
        return (
            Rule("the misfit, by the discrepancy principle,", state.misfit, state.goal),
            Event("no step lowers the regularised misfit any more", state.stuck),
        )


def _linearise(problem: Problem, x: Tensor) -> tuple[Tensor, LinearOperator]:
    predicted, jacobian = problem.operator.linearize(x)
    return predicted - problem.y, jacobian


def _curvature(problem: Problem, x: Tensor) -> Curvature:
    """Of P."""
    if problem.prior is None:
        return Curvature(lambda v: v, Diagonal.identity())
    known, weight = curvature(problem.prior, x), problem.weight
    diagonal = None if known.diagonal is None else Diagonal.identity(0.0).plus(known.diagonal, weight)
    return Curvature(lambda v: per_image(weight, v) * known.apply(v), diagonal)


def _penalty(problem: Problem, x: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """P(x), (B,), and its gradient."""
    if problem.prior is None:
        return 0.5 * dot(x - origin, x - origin), x - origin
    prior = cast(Quadratic, problem.prior)
    return problem.weight * prior.energy(x), per_image(problem.weight, x) * prior.grad(x)
