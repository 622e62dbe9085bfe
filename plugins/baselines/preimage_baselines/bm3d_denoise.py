"""Denoising in one step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from preimage import Denoiser, DirectSolver, ForwardOperator, GaussianNoise, Identity, Key, Noise, Prior, Problem


@dataclass(frozen=True, kw_only=True)
class Denoise(DirectSolver):
    """x = denoiser(y, sigma): the prior's own estimate from a noisy image, y = x + sigma n.

    sigma is the noise model's, times the square root of the problem's weight: a weight of 1, the default, believes the
    noise model; a larger one smooths more. (For a Gaussian prior this is the minimiser of misfit + sigma^2 weight R.)

    - `clip`: the noisy image is clipped to [0, 1] before it is denoised, as many published tables do. It removes part
      of the noise, and biases what is nearly black or white.
    """

    operator_type: ClassVar[type[ForwardOperator]] = Identity
    noise_type: ClassVar[type[Noise]] = GaussianNoise
    prior_type: ClassVar[type[Prior] | None] = Denoiser

    clip: bool = False

    def uses_start(self) -> bool:
        return False

    def invert(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        y = problem.y.clamp(0, 1) if self.clip else problem.y
        sigma = cast(GaussianNoise, problem.noise).sigma * torch.as_tensor(problem.weight).to(y).sqrt()
        return cast(Denoiser, problem.prior).denoise(y, sigma)
