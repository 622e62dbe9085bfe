"""Half quadratic splitting with a denoiser of decreasing strength: DPIR."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from preimage import ForwardOperator, Key, LeastSquares, LinearOperator, Noise, Prior, Problem, Solver, norms
from preimage.errors import BadParameter, Incompatible

from .checks import positive
from .pnp_data_step import data_step
from .pnp_denoising import DenoiserOrProximable, denoise, positive_weight

LEAST_SIGMA = 0.255 / 255
"""The noise level that the published code assumes of measurements with less noise or none."""

ACCURACY = 1e-3
"""Of an inexact data step, relative to the image."""


@dataclass(frozen=True)
class HQSState:
    """One iterate per image: `z` after the denoiser; `count` steps so far.

    - `x`: after the data step. `back`: A^T y. `sigmas`: the schedule, (B, levels). `strength`: penalty times sigma^2,
      (B,). `memory`: of the prior's proximal map, if it has one.
    """

    x: Tensor
    z: Tensor
    back: Tensor
    sigmas: Tensor
    strength: Tensor
    memory: Any
    count: int


@dataclass(frozen=True, kw_only=True)
class HalfQuadraticSplitting(Solver[HQSState]):
    """Half quadratic splitting with a denoiser whose strength falls from step to step (Zhang et al. 2021,
    "Plug-and-play image restoration with deep denoiser prior" (DPIR), section 3.1, eqs. 6 and 7, and 4.2):

        x_k = argmin 1/2 ||A x - y||^2 + alpha_k/2 ||x - z_(k-1)||^2,        z_k = D_(sigma_k)(x_k),

    sigma_1 > ... > sigma_K equally spaced on a logarithmic scale, alpha_k = weight / sigma_k^2. The data step is exact
    where the operator has a closed form (`solve_normal`); else by conjugate gradients to 1e-3 of the image. The number
    of steps is fixed: this is an annealing, not an iteration that converges.

    - `levels`: K >= 1, default 8, which is what the paper takes for deblurring; 24 to 40 for hard problems.
    - `sigma_first`: sigma_1 in pixel units, > 0, default 49/255, the paper's.
    - `sigma_last`: sigma_K in pixel units, > 0 and <= sigma_first. "noise" (default): the standard deviation of the
      noise, the paper's choice, sensible for operators that keep the scale of the image; at least 0.255/255, at
      most sigma_first.
    - `regularisation`: "weight" (default): alpha_k as above, the weight being that of 1/2 ||A x - y||^2 + weight R(x).
      A number lambda > 0: alpha_k = lambda s^2 / sigma_k^2, s the standard deviation of the noise (at least
      0.255/255); the paper's is 0.23. It takes the place of the weight.

    The estimate is z. Needs a linear operator, least-squares noise, and a prior that is a `Denoiser` or `Proximable`
    (used with step sigma^2; the result is then not the minimiser of the objective, since the schedule ends).

    Raises `BadParameter` for values out of range, at the start of a run for a weight of 0, and `Incompatible` there
    if the level of the noise is needed and not known.
    """

    operator_type: ClassVar[type[ForwardOperator]] = LinearOperator
    noise_type: ClassVar[type[Noise]] = LeastSquares
    prior_type: ClassVar[type[Prior] | None] = DenoiserOrProximable

    levels: int = 8
    sigma_first: float = 49 / 255
    sigma_last: Literal["noise"] | float = "noise"
    regularisation: Literal["weight"] | float = "weight"

    def __post_init__(self):
        super().__post_init__()
        if self.levels < 1:
            raise BadParameter(f"levels is {self.levels}", "an integer >= 1", "use 8")
        positive("sigma_first", self.sigma_first, "use 49/255, in units of pixel values")
        if self.sigma_last != "noise":
            positive("sigma_last", self.sigma_last, 'leave it out, or write "noise"')
            if self.sigma_last > self.sigma_first:
                raise BadParameter(
                    f"sigma_last is {self.sigma_last}", f"at most sigma_first, {self.sigma_first:g}", "exchange them"
                )
        if self.regularisation != "weight":
            positive("regularisation", self.regularisation, 'leave it out, or write "weight", or 0.23')

    def init(self, problem: Problem, keys: Sequence[Key]) -> HQSState:
        y = problem.y
        x = problem.start()
        last = noise_level(problem) if self.sigma_last == "noise" else y.new_full((len(y),), self.sigma_last)
        sigmas = decreasing(self.sigma_first, last, self.levels)
        if self.regularisation == "weight":
            strength = positive_weight(problem)
        else:
            strength = self.regularisation * noise_level(problem).square()
        back = cast(LinearOperator, problem.operator).adjoint(y)
        return HQSState(x, x, back, sigmas, strength, None, count=0)

    def step(self, problem: Problem, state: HQSState) -> HQSState:
        sigma = state.sigmas[:, state.count]
        operator, penalty = cast(LinearOperator, problem.operator), state.strength / sigma.square()
        x = data_step(operator, state.back, state.z, penalty, state.x, ACCURACY * norms(state.x))
        z, memory = denoise(problem.prior, x, sigma, state.memory)
        return HQSState(x, z, state.back, state.sigmas, state.strength, memory, state.count + 1)

    def estimate(self, problem: Problem, state: HQSState) -> Tensor:
        return state.z

    def done(self, problem: Problem, state: HQSState) -> Tensor:
        return torch.full((len(state.z),), state.count >= self.levels, device=state.z.device)

    def criterion(self, problem: Problem, state: HQSState) -> str:
        return f"the schedule of {self.levels} denoiser strengths is complete"

    def remedy(self) -> str:
        return "use a larger weight, or fewer levels"


def decreasing(first: float, last: Tensor, levels: int) -> Tensor:
    """Denoiser strengths from `first` to `last` (B,), equally spaced on a logarithmic scale: (B, levels).

    A `last` above `first` counts as `first`; a single level is `last`.
    """
    last = last.clamp_max(first)
    if levels == 1:
        return last[:, None]
    fraction = torch.linspace(0, 1, levels, dtype=last.dtype, device=last.device)
    return first * (last[:, None] / first) ** fraction


def noise_level(problem: Problem) -> Tensor:
    """The standard deviation of the noise of least-squares data, (B,), at least 0.255/255.

    Raises `Incompatible` if the noise model does not know it.
    """
    expected = problem.noise.expected_misfit(problem.y)
    if expected is None:
        raise Incompatible(
            f"{type(problem.noise).__name__} does not know the level of the noise",
            "noise of a known standard deviation",
            'give sigma_last as a number, and regularisation = "weight"',
        )
    return (2 * expected / problem.y[0].numel()).sqrt().clamp_min(LEAST_SIGMA)
