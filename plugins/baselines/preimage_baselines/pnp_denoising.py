"""Any prior that can denoise, as plug-and-play methods and RED see it."""

from abc import ABC
from typing import Any, cast

import torch
from torch import Tensor

from preimage import Denoiser, Prior, Problem, Proximable
from preimage.errors import BadParameter

from .proximal_gradient import first_lipschitz


class DenoiserOrProximable(Prior, ABC):
    """A capability that every `Denoiser` and every `Proximable` prior has: it can remove noise of a given strength.

    The proximal map of a regulariser R with step sigma^2 is the denoiser argmin_u R(u) + 1/(2 sigma^2) ||u - x||^2,
    the maximum a posteriori estimate for Gaussian noise of standard deviation sigma under the density exp(-R).
    A prior with both capabilities is used as a `Denoiser`. Nothing inherits from this class.
    """


DenoiserOrProximable.register(Denoiser)
DenoiserOrProximable.register(Proximable)


def denoise(prior: Prior | None, x: Tensor, sigma: float | Tensor, memory: Any) -> tuple[Tensor, Any]:
    """The denoised images, and what makes the next proximal map on nearby images quicker (`Proximable.prox_from`).

    - `sigma`: standard deviation of the noise in pixel units, one number or one per image (B,).
    - `memory`: None at first.
    """
    if isinstance(prior, Denoiser):
        return prior.denoise(x, sigma), None
    return cast(Proximable, prior).prox_from(x, sigma**2, memory)


def true_objective(problem: Problem, x: Tensor) -> Tensor | None:
    """misfit(x) + weight R(x), (B,), if the denoiser is the proximal map of R; None for any other denoiser."""
    return None if isinstance(problem.prior, Denoiser) else problem.objective(x)


def natural_sigma(problem: Problem, x: Tensor) -> Tensor:
    """sqrt(weight) / ||F'(x)||, (B,): the strength of the denoiser in proximal gradient steps of length 1 / ||F'||^2.

    Raises `BadParameter` for a weight of zero.
    """
    return (positive_weight(problem) / first_lipschitz(problem, x)).sqrt()


def positive_weight(problem: Problem) -> Tensor:
    """The weight of each image, (B,). Raises `BadParameter` for a weight of zero."""
    y = problem.y
    weight = torch.as_tensor(problem.weight, dtype=y.dtype, device=y.device).expand(len(y))
    if bool((weight <= 0).any()):
        raise BadParameter(
            "the weight of the prior is 0",
            "a weight > 0, the penalty times the square of the denoiser's sigma",
            "use landweber, lsqr or conjugate-gradients for a problem without a prior",
        )
    return weight
