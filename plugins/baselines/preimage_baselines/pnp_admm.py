"""Plug-and-play ADMM: any denoiser as the prior of a linear operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from preimage import Diagonal, ForwardOperator, Key, LeastSquares, LinearOperator, Noise, Prior, Problem, norms
from preimage.errors import BadParameter

from .checks import not_negative, positive
from .plug_and_play import out_of_hand, watch
from .pnp_convergence import ProvedRule, douglas_rachford, has_closed_form
from .pnp_data_step import data_step, inverse
from .pnp_denoising import DenoiserOrProximable, denoise, natural_sigma, positive_weight, true_objective
from .stopping import Growth, Rule, RuleBased, ratio

SHARE = 0.1
"""rho / ||A||^2. Of 1, 1/4, 1/16 and 1/64, between the second and third were the best for blur, inpainting and
compressive sensing of photographs."""


@dataclass(frozen=True)
class PnPADMMState:
    """One iterate per image: `x` after the data step, `z` after the denoiser, `u` the scaled dual variable.

    - `back`: A^T y. `penalty`: rho, and `sigma`: of the denoiser, of the next step, (B,).
    - `kept`: (A^T A + rho)^-1, if a basis makes it diagonal and rho stays as it is. `accuracy`: of an inexact data
      step, (B,).
    - `residual`: relative fixed-point residual, (B,). `growth`: watches the absolute one.
    - `memory`: of the prior's proximal map, if it has one.
    """

    x: Tensor
    z: Tensor
    u: Tensor
    back: Tensor
    penalty: Tensor
    sigma: Tensor
    kept: Diagonal | None
    accuracy: Tensor
    residual: Tensor
    growth: Growth | None
    memory: Any


@dataclass(frozen=True, kw_only=True)
class PnPADMM(RuleBased[PnPADMMState]):
    """The alternating direction method of multipliers with a denoiser in place of a proximal map (Venkatakrishnan,
    Bouman & Wohlberg 2013, "Plug-and-play priors for model based reconstruction"; Chan, Wang & Elgendy 2017,
    "Plug-and-play ADMM for image restoration", algorithm 1):

        x <- argmin 1/2 ||A x - y||^2 + rho/2 ||x - (z - u)||^2
        z <- D_sigma(x + u)
        u <- u + x - z

    with rho = weight / sigma^2, so that D_sigma is the proximal map of (weight / rho) R if it is the maximum a
    posteriori denoiser of exp(-R): the weight is that of 1/2 ||A x - y||^2 + weight R(x), as for every other solver.

    The update of x is exact where the operator has a closed form (`solve_normal`); else conjugate gradients go on from
    the last x until they are within a tenth of the last fixed-point residual.

    - `sigma`: strength of the denoiser in pixel units, > 0. "weight" (default): sqrt(10 weight) / ||A||, so that
      rho is ||A||^2 / 10. For a proximal map it changes the speed and not the limit; for any other denoiser, the
      limit too.
    - `growth`: rho is multiplied, and sigma^2 divided, by it after every step; >= 1, default 1. Above 1 the iteration
      comes to rest for every denoiser with ||D_sigma(x) - x|| <= sigma C sqrt(n) and images in [0, 1] (Chan et
      al.), where it would else have to be averaged; 1.05, say.
    - `tolerance`: an image is done when ||x' - z|| and ||x' - z'|| are at most tolerance ||z'||; >= 0, default 1e-3.
      The first is the change of x' + u, whose fixed point is sought (ADMM is Douglas-Rachford splitting: Eckstein &
      Bertsekas 1992), the second that of u.
    - `max_steps`: default 200.

    What is known of the limit (growth 1). D a proximal map: the minimiser of the objective. D firmly non-expansive (an
    `AveragedDenoiser` with averaged <= 1/2): a fixed point if there is one (`pnp_convergence.douglas_rachford`), which
    the reason of an image that is done then says. Otherwise the run may fail to settle, or end as diverged.

    The estimate is z. Needs a linear operator, least-squares noise, and a prior that is a `Denoiser` or `Proximable`
    (used with step sigma^2). `details`: "residual" (B,), at the end. Raises `BadParameter` for a sigma that is not
    positive, a growth below 1 or a negative tolerance, and at the start of a run for a weight of 0.
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = DenoiserOrProximable

    sigma: Literal["weight"] | float = "weight"
    growth: float = 1.0
    tolerance: float = 1e-3
    max_steps: int = 200

    def __post_init__(self):
        super().__post_init__()
        if self.sigma != "weight":
            positive("sigma", self.sigma, 'leave it out, or write "weight"')
        if not 1 <= self.growth < float("inf"):
            raise BadParameter(
                f"growth is {self.growth}", "a finite number >= 1", "use 1, or 1.05 to force convergence"
            )
        not_negative("tolerance", self.tolerance)

    def init(self, problem: Problem, keys: Sequence[Key]) -> PnPADMMState:
        x, weight = problem.start(), positive_weight(problem)
        sigma = (
            SHARE**-0.5 * natural_sigma(problem, x) if self.sigma == "weight" else torch.full_like(weight, self.sigma)
        )
        back = cast(LinearOperator, problem.operator).adjoint(problem.y)
        accuracy = 0.01 * norms(x)
        unknown, u, penalty = torch.full_like(sigma, float("inf")), torch.zeros_like(x), weight / sigma.square()
        kept = inverse(cast(LinearOperator, problem.operator), penalty, x) if self.growth == 1 else None
        return PnPADMMState(x, x, u, back, penalty, sigma, kept, accuracy, unknown, None, None)

    def step(self, problem: Problem, state: PnPADMMState) -> PnPADMMState:
        operator = cast(LinearOperator, problem.operator)
        x = data_step(operator, state.back, state.z - state.u, state.penalty, state.x, state.accuracy, state.kept)
        s = x + state.u
        z, memory = denoise(problem.prior, s, state.sigma, state.memory)
        moved, size = torch.maximum(norms(x - state.z), norms(x - z)), norms(z)
        return PnPADMMState(
            x=x,
            z=z,
            u=s - z,
            back=state.back,
            penalty=state.penalty if self.growth == 1 else state.penalty * self.growth,
            sigma=state.sigma if self.growth == 1 else state.sigma / self.growth**0.5,
            kept=state.kept,
            accuracy=state.accuracy if state.kept is not None else 0.1 * moved,
            residual=ratio(moved, size),
            growth=watch(state.growth, moved, size),
            memory=memory,
        )

    def estimate(self, problem: Problem, state: PnPADMMState) -> Tensor:
        return state.z

    def objective(self, problem: Problem, state: PnPADMMState) -> Tensor | None:
        return true_objective(problem, state.z)

    def rules(self, problem: Problem, state: PnPADMMState) -> Sequence[Rule]:
        def theorem() -> Sequence[str]:
            # A penalty that grows, and data steps that are not exact, are not what the theorem is about.
            steady = self.growth == 1 and (state.kept is not None or has_closed_form(problem, state.back))
            return douglas_rachford(problem, state.penalty) if steady else [""] * len(state.x)

        return (ProvedRule("the relative fixed-point residual", state.residual, self.tolerance, theorem),)

    def diverged(self, problem: Problem, state: PnPADMMState) -> Tensor:
        return out_of_hand(state.growth, state.residual)

    def remedy(self) -> str:
        return "use growth=1.05, which forces the iteration to rest, or a denoiser that is not expansive"

    def details(self, problem: Problem, state: PnPADMMState) -> Mapping[str, Tensor]:
        return {"residual": state.residual}
