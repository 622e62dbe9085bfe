"""Priors of preimage as denoisers and priors of deepinv."""

from abc import ABC
from typing import Any, cast

import torch
from torch import Tensor

from preimage import Denoiser, Differentiable, Energy, Prior, Proximable, check_shape
from preimage.errors import Incompatible

from ._deepinv import lookup

DeepinvDenoiser: Any = lookup("models.Denoiser")
DeepinvPrior: Any = lookup("optim.Prior")


class ProximableOrDenoiser(Prior, ABC):
    """A capability of every `Proximable` and every `Denoiser` prior: deepinv's splitting algorithms can use it.
    Nothing inherits from this class."""


ProximableOrDenoiser.register(Denoiser)
ProximableOrDenoiser.register(Proximable)


def as_denoiser(prior: Prior) -> "PriorDenoiser":
    """A prior of preimage as a denoiser of deepinv, called as denoiser(x, sigma).

    A `Denoiser` is what it is. Of a `Proximable` prior R it is the maximum a posteriori denoiser under exp(-R),
    argmin_u R(u) + 1/(2 sigma^2) ||u - x||^2. Raises `Incompatible` for any other prior.
    """
    return PriorDenoiser(prior)


class PriorDenoiser(DeepinvDenoiser):
    """deepinv's denoiser(x, sigma) by a prior of preimage; x (B, *in_shape), sigma a number or (B,). Keeps nothing
    between calls. Raises `ShapeMismatch` for images of another shape."""

    def __init__(self, prior: Prior):
        if not isinstance(prior, ProximableOrDenoiser):
            raise Incompatible(f"{type(prior).__name__} cannot denoise", "a prior that is a Denoiser or Proximable")
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        check_shape(x, self.prior.in_shape, f"input of {type(self.prior).__name__}")
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1).expand(len(x))
        if isinstance(self.prior, Denoiser):
            return self.prior.denoise(x, level)
        return cast(Proximable, self.prior).prox(x, level.square())


def as_prior(prior: Prior) -> "PriorTerm":
    """A prior of preimage as a prior of deepinv: `fn` its energy, `grad` its gradient, `prox` its proximal map; for a
    `Denoiser`, `prox(x, sigma)` is denoise(x, sigma) whatever gamma is, as in deepinv's PnP."""
    return PriorTerm(prior)


class PriorTerm(DeepinvPrior):
    """R(x) for deepinv's algorithms; see `as_prior`.

    - `warm`: each proximal map starts from the variables of the last one (deepinv's TVPrior always does). The object
      then belongs to one run on one batch of images. Default: False, and nothing is kept.

    Raises `Incompatible` for what the prior cannot do, when it is asked for.
    """

    def __init__(self, prior: Prior, *, warm: bool = False):
        super().__init__()
        self.prior, self.warm = prior, warm
        self.explicit_prior = isinstance(prior, Energy) and not isinstance(prior, Denoiser)
        self._memory: Any = None

    def fn(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._as(Energy, "energy").energy(x)

    def grad(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._as(Differentiable, "gradient").grad(x)

    def prox(self, x: Tensor, sigma: Any = None, *args: Any, gamma: float | Tensor = 1.0, **kwargs: Any) -> Tensor:
        if isinstance(self.prior, Denoiser):
            return as_denoiser(self.prior)(x, sigma)
        prior = self._as(Proximable, "proximal map")
        step = torch.as_tensor(gamma, dtype=x.dtype, device=x.device).reshape(-1).expand(len(x))
        found, memory = prior.prox_from(x, step, self._memory)
        self._memory = memory if self.warm else None
        return found

    def _as(self, capability: type, what: str) -> Any:
        if not isinstance(self.prior, capability):
            found = f"{type(self.prior).__name__} has no {what}, which this algorithm of deepinv asks for"
            raise Incompatible(found, f"a prior that is {capability.__name__}")
        return self.prior
