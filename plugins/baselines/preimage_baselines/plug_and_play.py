"""Plug-and-play proximal gradient descent: any denoiser as the prior of any operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, Prior, Problem, dot, norms, per_image

from .checks import not_negative, positive
from .pnp_convergence import ProvedRule, forward_backward
from .pnp_denoising import DenoiserOrProximable, denoise, positive_weight, true_objective
from .pnp_gradient import Slope, first_slope, keep, next_slope
from .stopping import Growth, Rule, RuleBased, ratio

QUIET = 0.01
"""A first fixed-point residual below this fraction of the image is no measure of what growth is."""


@dataclass(frozen=True)
class PnPState:
    """One iterate per image: `x`; `v`, where the next gradient is taken, and the misfit near it, `slope`.

    - `t`: momentum parameter, (B,).
    - `residual`: relative fixed-point residual of the last step, (B,). `growth`: watches the absolute one.
    - `memory`: of the prior's proximal map, if it has one.
    """

    x: Tensor
    v: Tensor
    t: Tensor
    slope: Slope
    residual: Tensor
    growth: Growth | None
    memory: Any


@dataclass(frozen=True, kw_only=True)
class PnPProximalGradient(RuleBased[PnPState]):
    """x <- D_sigma(x - t F'(x)^T d misfit): proximal gradient descent with a denoiser in place of the proximal map
    (Venkatakrishnan et al. 2013; Kamilov, Mansour & Wohlberg 2017, "A plug-and-play priors approach for solving
    nonlinear imaging inverse problems", algorithm 1). Any operator, linear or not, and any noise.

    - `acceleration`: True (default): the step starts from x + (q - 1) / q' (x - x_old) with the momentum of FISTA
      (same article), dropped when the last step and the momentum point apart (O'Donoghue & Candes 2015, eq. 13). It
      takes far fewer denoisers where A is ill-conditioned. False: plain steps, for which there is more theory.
    - `sigma`: strength of the denoiser in pixel units, > 0. "weight" (default): sigma = sqrt(t weight), which makes the
      denoiser the proximal map of t weight R if it is the maximum a posteriori denoiser of exp(-R). The weight is then
      that of misfit(x) + weight R(x), as for every other solver; with Gaussian noise of standard deviation s and R the
      negative logarithm of the density of images, it is s^2. A number takes the place of the weight.
    - `step_size`: t > 0, or "auto" (default): 1 / ||F'||^2, a bound where the operator has one, else by power
      iteration, at the starting image if F is not linear (times the misfit's curvature if it is not least squares).
      Where that does not hold globally, a step after which the misfit lies above its quadratic model is taken back,
      and t is halved. A number is used as it is.
    - `tolerance`: an image is done when a step moves it by ||x' - x|| <= tolerance ||x'||, the fixed-point residual
      (x with the momentum, if there is one); >= 0, default 1e-4.
    - `max_steps`: default 200. Each costs one denoiser, one F and one F'^T.

    What is known of the limit. D a proximal map: the minimiser of misfit + weight R if that is convex (the iteration
    is ISTA, or FISTA), a stationary point for a nonlinear operator. Without acceleration, too: D averaged (an
    `AveragedDenoiser`): a fixed point, if there is one and t < 2 / ||A||^2 (linear operator, least squares;
    `pnp_convergence.forward_backward`), which the reason of an image that is done then says, with these numbers; D - I
    a contraction: convergence if the misfit is strongly convex (Ryu et al. 2019, "Plug-and-play methods provably
    converge with properly trained denoisers"). Any other denoiser, BM3D among them: nothing; the run ends as
    diverged when the residual grows out of hand.

    The prior is a `Denoiser` or `Proximable` (used with step sigma^2). `details`: "residual" (B,), at the end.
    Raises `BadParameter` for a sigma or step_size that is not positive or a negative tolerance, and at the start of
    a run for a weight of 0 (which has no effect if sigma is a number).
    """

    operator_type: ClassVar[type[ForwardOperator]] = ForwardOperator
    prior_type: ClassVar[type[Prior] | None] = DenoiserOrProximable

    acceleration: bool = True
    sigma: Literal["weight"] | float = "weight"
    step_size: Literal["auto"] | float = "auto"
    tolerance: float = 1e-4
    max_steps: int = 200

    def __post_init__(self):
        super().__post_init__()
        if self.sigma != "weight":
            positive("sigma", self.sigma, 'leave it out, or write "weight"')
        if self.step_size != "auto":
            positive("step_size", self.step_size, 'leave it out, or write "auto"')
        not_negative("tolerance", self.tolerance)

    def init(self, problem: Problem, keys: Sequence[Key]) -> PnPState:
        if self.sigma == "weight":
            positive_weight(problem)
        x = problem.start()
        slope = first_slope(problem, x, self.step_size)
        one, unknown = torch.ones_like(slope.value), torch.full_like(slope.value, float("inf"))
        return PnPState(x, x, one, slope, unknown, None, None)

    def step(self, problem: Problem, state: PnPState) -> PnPState:
        lipschitz = state.slope.lipschitz
        sigma = (positive_weight(problem) / lipschitz).sqrt() if self.sigma == "weight" else self.sigma
        target = state.v - state.slope.gradient / per_image(lipschitz, state.v)
        x, memory = denoise(problem.prior, target, sigma, state.memory)
        v, t = self._ahead(state, x) if self.acceleration else (x, state.t)
        slope, kept = next_slope(problem, state.v, v, state.slope, self.step_size)
        x = keep(kept, x, state.x)
        residual, growth = progress(state.growth, norms(x - state.v), norms(x), kept)
        return PnPState(x, keep(kept, v, state.v), keep(kept, t, state.t), slope, residual, growth, memory)

    def _ahead(self, state: PnPState, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where the next step starts, and its momentum parameter."""
        restart = dot(state.v - x, x - state.x) > 0
        t = torch.where(restart, 1, 0.5 + (0.25 + state.t.square()).sqrt())
        momentum = torch.where(restart, 0, (state.t - 1) / t)
        return x + per_image(momentum, x) * (x - state.x), t

    def estimate(self, problem: Problem, state: PnPState) -> Tensor:
        return state.x

    def objective(self, problem: Problem, state: PnPState) -> Tensor | None:
        return true_objective(problem, state.x)

    def rules(self, problem: Problem, state: PnPState) -> Sequence[Rule]:
        def theorem() -> Sequence[str]:
            return [""] * len(state.x) if self.acceleration else forward_backward(problem, state.slope.lipschitz)

        return (ProvedRule("the relative fixed-point residual", state.residual, self.tolerance, theorem),)

    def diverged(self, problem: Problem, state: PnPState) -> Tensor:
        return out_of_hand(state.growth, state.residual)

    def remedy(self) -> str:
        if self.step_size != "auto":
            return 'use step_size="auto", or one below 1 / ||F\'||^2'
        return "use acceleration=False, or a denoiser that is not expansive"

    def details(self, problem: Problem, state: PnPState) -> Mapping[str, Tensor]:
        return {"residual": state.residual}


def progress(growth: Growth | None, moved: Tensor, size: Tensor, kept: Tensor | None) -> tuple[Tensor, Growth]:
    """The relative fixed-point residual and its watch after a step; a step taken back says nothing of either."""
    if kept is None:
        return ratio(moved, size), watch(growth, moved, size)
    unknown, nothing = torch.full_like(moved, float("inf")), torch.zeros_like(moved)
    return keep(kept, ratio(moved, size), unknown), watch(growth, keep(kept, moved, nothing), size)


def watch(growth: Growth | None, residual: Tensor, size: Tensor) -> Growth:
    """One step later: the first absolute residual is the start, at least a hundredth of the size of the image."""
    return Growth.of(residual, QUIET * size) if growth is None else growth.then(residual)


def out_of_hand(growth: Growth | None, like: Tensor) -> Tensor:
    """Which images diverge: bool, (B,)."""
    return torch.zeros_like(like, dtype=torch.bool) if growth is None else growth.out_of_hand
