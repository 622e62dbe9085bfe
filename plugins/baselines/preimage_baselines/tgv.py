"""Total generalised variation of second order: the prior of images made of linear pieces."""

from typing import Any

import torch
from torch import Tensor

from preimage import Proximable, Shape

from .checks import positive
from .gradient import DiscreteGradient
from .symmetrized_gradient import SymmetrizedGradient
from .tgv_prox import Model, minimise


class TotalGeneralizedVariation(Proximable):
    """R(x) = min over w of sum |K x - w| + ratio sum |E w| (Bredies, Kunisch & Pock 2010, "Total generalized
    variation", SIAM J. Imaging Sci. 3, section 3: second order, alpha_1 = 1, alpha_0 = ratio).

    K is the discrete gradient, w a field of gradients (B, 2, C, H, W), E w its symmetrised derivative
    (`SymmetrizedGradient`), |.| the Euclidean or Frobenius length at a pixel. R vanishes on affine images, so that
    slopes are not turned into stairs as by total variation; R <= TV, from w = 0.

    - `ratio`: alpha_0 / alpha_1 > 0, in pixels; default 2, the usual choice.
    - `coupled`: False (default): channels are independent. True: lengths over all channels at a pixel.
    - `tolerance`: R and its proximal map are minimisations without a closed form. Both inner iterations stop for each
      image when the duality gap falls below `tolerance` times the value of the problem, or times step TV(x) / 100 if
      that is larger (step 1 for R); default 1e-4. For the energy this is its accuracy, from above; for the proximal
      map the gap bounds 1/2 ||u - exact||^2.
    - `max_inner_steps`: at most so many inner iterations, default 5000.

    Nothing is kept between calls; `prox_from` takes and returns the variables of the inner iteration, which from there
    goes on until it has halved the gap as well, down to 1e-6 of the value: iterations around it with a tolerance of
    1e-3 and 100 inner iterations then converge, however rough each proximal map is. The energy costs as much as a
    proximal map from nothing. R(x) is not g(K' x) with a simple g, so splitting solvers use the proximal map. Compiled
    by numba, where that is installed. Raises `BadParameter` if ratio or tolerance is not positive or
    max_inner_steps < 1, `ShapeMismatch` unless in_shape is (C, H, W).
    """

    def __init__(
        self,
        in_shape: Shape,
        *,
        ratio: float = 2.0,
        coupled: bool = False,
        tolerance: float = 1e-4,
        max_inner_steps: int = 5000,
    ):
        super().__init__(in_shape)
        positive("ratio", ratio, "2 is usual")
        positive("tolerance", tolerance, "1e-4 is accurate enough for images with noise")
        positive("max_inner_steps", max_inner_steps)
        self.ratio, self.coupled = ratio, coupled
        self.tolerance, self.max_inner_steps = tolerance, max_inner_steps
        group = (1, 2) if coupled else (1,)
        self._model = Model(DiscreteGradient(in_shape), SymmetrizedGradient(in_shape), ratio, group)

    def energy(self, x: Tensor) -> Tensor:
        # A proximal map with a fixed image: u = x.
        one = torch.ones(len(x), dtype=x.dtype, device=x.device)
        return minimise(self._model, x, one, None, self.tolerance, self.max_inner_steps, fixed=True)[2]

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self.prox_from(x, step, None)[0]

    def prox_from(self, x: Tensor, step: float | Tensor, memory: Any) -> tuple[Tensor, Any]:
        steps = torch.as_tensor(step, dtype=x.dtype, device=x.device).expand(len(x))
        return minimise(self._model, x, steps, memory, self.tolerance, self.max_inner_steps, fixed=False)[:2]
