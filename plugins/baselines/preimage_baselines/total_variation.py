"""Total variation: the prior of images made of flat pieces."""

from typing import Any, Literal

import torch
from torch import Tensor

from preimage import LinearOperator, Proximable, Shape, per_image

from .checks import positive
from .gradient import DiscreteGradient
from .total_variation_prox import dual_prox, lengths


class TotalVariation(Proximable):
    """R(x) = sum over pixels of |(K x)(pixel)|, K the discrete gradient (Rudin, Osher & Fatemi 1992).

    - `variant`: what |.| is of the two differences (d, e) at a pixel. "isotropic" (default): sqrt(d^2 + e^2).
      "anisotropic": |d| + |e|, which favours edges along the axes.
    - `coupled`: False: channels are independent, R is the sum over channels. True: the differences of all channels at
      a pixel form one vector, whose length is taken (vectorial total variation, Bresson & Chan 2008, eq. 3;
      anisotropic: one vector per direction), so that channels prefer to have their edges at the same place.
    - `tolerance`: of the proximal map, which has no closed form: the inner iteration stops for each image when the
      duality gap falls below `tolerance` times the value of the problem it solves, step R(u) + 1/2 ||u - x||^2. The
      gap bounds 1/2 ||u - exact||^2. Default 1e-6; in single precision not much below 1e-7 can be reached.
    - `max_inner_steps`: at most so many inner iterations, default 10000.

    The proximal map keeps nothing between calls; `prox_from` takes and returns the dual variable.
    Raises `BadParameter` if tolerance is not positive or max_inner_steps < 1, `ShapeMismatch` unless in_shape is
    (C, H, W).
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        variant: Literal["isotropic", "anisotropic"] = "isotropic",
        coupled: bool = False,
        tolerance: float = 1e-6,
        max_inner_steps: int = 10000,
    ):
        super().__init__(in_shape)
        positive("tolerance", tolerance, "1e-6 is accurate enough for every solver here")
        positive("max_inner_steps", max_inner_steps)
        self.variant, self.coupled = variant, coupled
        self.tolerance, self.max_inner_steps = tolerance, max_inner_steps
        self._gradient = DiscreteGradient(in_shape)

    @property
    def group(self) -> tuple[int, ...]:
        """The axes of the coefficients (B, 2, C, H, W) over which the Euclidean length is taken; may be empty."""
        return ((1,) if self.variant == "isotropic" else ()) + ((2,) if self.coupled else ())

    def energy(self, x: Tensor) -> Tensor:
        return lengths(self._gradient(x), self.group).flatten(1).sum(1)

    def analysis(self) -> LinearOperator:
        return self._gradient

    def prox_coefficients(self, coefficients: Tensor, step: float | Tensor) -> Tensor:
        norms = lengths(coefficients, self.group)
        kept = (norms - per_image(step, coefficients)).clamp_min_(0)
        return coefficients * kept.div_(norms.clamp_min(torch.finfo(norms.dtype).tiny))

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self.prox_from(x, step, None)[0]

    def prox_from(self, x: Tensor, step: float | Tensor, memory: Any) -> tuple[Tensor, Any]:
        steps = torch.as_tensor(step, dtype=x.dtype, device=x.device).expand(len(x))
        return dual_prox(self._gradient, self.group, x, steps, memory, self.tolerance, self.max_inner_steps)
