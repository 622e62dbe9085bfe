"""Regularisation by denoising (RED): a denoiser as the gradient of a prior, for any operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from preimage import (
    Denoiser,
    Diagonal,
    ForwardOperator,
    Key,
    LinearOperator,
    Noise,
    Prior,
    Problem,
    Proximable,
    dot,
    norms,
    per_image,
)
from preimage.errors import Incompatible

from .checks import not_negative, positive
from .plug_and_play import out_of_hand, progress
from .pnp_data_step import data_step, inverse
from .pnp_denoising import DenoiserOrProximable, denoise, natural_sigma, positive_weight
from .pnp_gradient import Slope, first_slope, keep, known_globally, next_slope
from .stopping import Growth, Rule, RuleBased


@dataclass(frozen=True)
class REDState:
    """One iterate per image, `x`.

    - `sigma`: of the denoiser, and `factor`: lambda, (B,).
    - `slope`: the misfit near x, of the gradient method; None for the fixed-point method, which has `back`, A^T y,
      `kept`, (A^T A + lambda)^-1 if a basis makes it diagonal, and `accuracy`, (B,), of an inexact data step.
    - `residual`: relative fixed-point residual, (B,). `growth`: watches the absolute one.
    - `memory`: of the prior's proximal map, if it has one.
    """

    x: Tensor
    sigma: Tensor
    factor: Tensor
    slope: Slope | None
    back: Tensor | None
    kept: Diagonal | None
    accuracy: Tensor
    residual: Tensor
    growth: Growth | None
    memory: Any


@dataclass(frozen=True, kw_only=True)
class RED(RuleBased[REDState]):
    """Regularisation by denoising (Romano, Elad & Milanfar 2017, "The little engine that could"): finds x with

        F'(x)^T d misfit(F(x), y) + lambda (x - D_sigma(x)) = 0,        lambda = weight / sigma^2,

    where misfit is 1/2 ||F(x) - y||^2 for Gaussian noise.

    - `method`: "gradient" (section 5.1): x <- x - (gradient of the misfit + lambda (x - D(x))) / (L + lambda), L the
      Lipschitz constant of the misfit's gradient; any operator and noise. "fixed-point" (section 5.3): x <-
      argmin 1/2 ||A x - y||^2 + lambda/2 ||x - D(x_old)||^2; linear operators and least squares only, far fewer
      denoisers, and a linear system in each step (closed form where the operator has `solve_normal`, conjugate
      gradients otherwise). "auto" (default): fixed-point where that is possible, else gradient.
    - `sigma`: strength of the denoiser in pixel units, > 0. "weight" (default): sqrt(weight) / ||F'||, so that lambda
      is ||F'||^2 (at the starting image), which balances the two terms. A smaller one is closer to the prior's own
      minimiser, and slower.
    - `step_size`: of the gradient method: 1 / L, > 0. "auto" (default) is 1 / ||F'||^2, with the safeguards of
      `pnp-pgd`; a number is used as it is.
    - `tolerance`: an image is done when ||x' - x|| <= tolerance ||x'||; >= 0, default 1e-4.
    - `max_steps`: default 300. Each costs one denoiser.

    The weight is that of misfit(x) + weight R(x): (x - D_sigma(x)) / sigma^2 is the gradient of the negative logarithm
    of the density of images blurred by Gaussian noise, if D is the minimum mean square error denoiser (Tweedie's
    formula; Reehorst & Schniter 2019, "Regularization by denoising: clarifications and new interpretations", section
    V), and the gradient of the Moreau envelope of R with parameter sigma^2, if D is the proximal map of sigma^2 R. The
    objective of the paper, lambda/2 x^T (x - D(x)), has this gradient only for denoisers that are locally homogeneous
    with a symmetric Jacobian (same article, section III). Both iterations converge for a linear operator if D is
    non-expansive and a solution exists.

    `objective` is known if D is a proximal map: misfit + weight times the Moreau envelope. `details`: "residual" (B,).
    The prior is a `Denoiser` or `Proximable` (used with step sigma^2). Raises `BadParameter` for values out of range
    and, at the start of a run, for a weight of 0. A pipeline with method "fixed-point" is refused if the operator is
    not linear or the noise not least squares.
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    prior_type: ClassVar[type[Prior] | None] = DenoiserOrProximable

    method: Literal["auto", "gradient", "fixed-point"] = "auto"
    sigma: Literal["weight"] | float = "weight"
    step_size: Literal["auto"] | float = "auto"
    tolerance: float = 1e-4
    max_steps: int = 300

    def __post_init__(self):
        super().__post_init__()
        if self.sigma != "weight":
            positive("sigma", self.sigma, 'leave it out, or write "weight"')
        if self.step_size != "auto":
            positive("step_size", self.step_size, 'leave it out, or write "auto"')
        not_negative("tolerance", self.tolerance)

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        """method = "fixed-point" where the misfit is not quadratic."""
        if self.method != "fixed-point" or known_globally(operator, noise):
            return []
        found = f"RED's fixed-point method with {type(operator).__name__} and {type(noise).__name__}"
        expected = "a linear operator and least-squares noise"
        return [Incompatible(found, expected, 'write method = "gradient", or leave it out')]

    def init(self, problem: Problem, keys: Sequence[Key]) -> REDState:
        x, quadratic = problem.start(), known_globally(problem.operator, problem.noise)
        weight = positive_weight(problem)
        sigma = natural_sigma(problem, x) if self.sigma == "weight" else torch.full_like(weight, self.sigma)
        factor, unknown = weight / sigma.square(), torch.full_like(weight, float("inf"))
        if self.method == "gradient" or not quadratic:
            slope = first_slope(problem, x, self.step_size)
            return REDState(x, sigma, factor, slope, None, None, unknown, unknown, None, None)
        operator = cast(LinearOperator, problem.operator)
        back, kept = operator.adjoint(problem.y), inverse(operator, factor, x)
        return REDState(x, sigma, factor, None, back, kept, 0.01 * norms(x), unknown, None, None)

    def step(self, problem: Problem, state: REDState) -> REDState:
        smooth, memory = denoise(problem.prior, state.x, state.sigma, state.memory)
        slope, factor, kept = state.slope, state.factor, None
        if slope is None:
            operator, back = cast(LinearOperator, problem.operator), cast(Tensor, state.back)
            x = data_step(operator, back, smooth, factor, state.x, state.accuracy, state.kept)
        else:
            pull = torch.addcmul(slope.gradient, per_image(factor, smooth), state.x - smooth)
            x = state.x - pull / per_image(slope.lipschitz + factor, pull)
            slope, kept = next_slope(problem, state.x, x, slope, self.step_size)
            x = keep(kept, x, state.x)
        moved = norms(x - state.x)
        residual, growth = progress(state.growth, moved, norms(x), kept)
        return replace(state, x=x, slope=slope, accuracy=0.1 * moved, residual=residual, growth=growth, memory=memory)

    def estimate(self, problem: Problem, state: REDState) -> Tensor:
        return state.x

    def objective(self, problem: Problem, state: REDState) -> Tensor | None:
        if (value := _envelope(problem, state)) is None:
            return None
        return problem.misfit(state.x) + problem.weight * value

    def rules(self, problem: Problem, state: REDState) -> Sequence[Rule]:
        return (Rule("the relative fixed-point residual", state.residual, self.tolerance),)

    def diverged(self, problem: Problem, state: REDState) -> Tensor:
        return out_of_hand(state.growth, state.residual)

    def remedy(self) -> str:
        if self.step_size != "auto":
            return 'use step_size="auto", or one below 1 / ||F\'||^2'
        return "use a smaller weight or a larger sigma, or a denoiser that is not expansive"

    def details(self, problem: Problem, state: REDState) -> Mapping[str, Tensor]:
        return {"residual": state.residual}


def _envelope(problem: Problem, state: REDState) -> Tensor | None:
    """min over u of R(u) + 1/(2 sigma^2) ||u - x||^2, (B,); None if the prior is a denoiser of another kind."""
    prior = problem.prior
    if isinstance(prior, Denoiser) or not isinstance(prior, Proximable):
        return None
    step = state.sigma.square()
    p, _ = prior.prox_from(state.x, step, state.memory)
    return prior.energy(p) + 0.5 * dot(p - state.x, p - state.x) / step
