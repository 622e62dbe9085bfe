"""deepinv's total variation, isotropic and anisotropic, as proximable priors."""

from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from preimage import Proximable, Shape, check_shape
from preimage.errors import BadParameter, ShapeMismatch

from ._deepinv import build, lookup, quiet
from .filters import positive


class TotalVariation(Proximable):
    """R(x) = sum over pixels of sqrt(d^2 + e^2), d and e the differences to the next pixel down and right; each
    channel on its own. The proximal map is deepinv's TVDenoiser, an over-relaxed Chambolle-Pock iteration
    (Condat 2013); the value is that of deepinv's TVPrior.

    - `crit`: the inner iteration stops when it moves the image by less than crit times its norm; > 0, default 1e-8,
      that of deepinv's TVPrior (its TVDenoiser has 1e-5). This is no bound of the error: with the defaults, steps of
      0.01 to 1 and random images, the relative error is up to about 2e-6 in float64.
    - `n_it_max`: at most so many inner steps, >= 1, default 1000. `tau`: primal step size, > 0, default 0.01.
      `rho`: over-relaxation, in (0, 2), default 1.99.

    deepinv's object goes on from the variables of its last call, whatever the image was, and stops for a whole batch
    at once. Here each image is treated alone and starts anew; `prox_from` goes on from the variables that the caller
    hands over, which makes it deepinv's own warm restart within one run of a solver.

    Raises `BadParameter` for another value, `ShapeMismatch` unless images are (C, H, W) or (C, D, H, W).
    """

    denoiser: ClassVar[str] = "models.TVDenoiser"

    def __init__(
        self, in_shape: Shape, *, crit: float = 1e-8, n_it_max: int = 1000, tau: float = 0.01, rho: float = 1.99
    ):
        super().__init__(in_shape)
        positive("crit", crit)
        positive("tau", tau)
        if n_it_max < 1:
            raise BadParameter(f"n_it_max is {n_it_max}", "an integer >= 1")
        if not 0 < rho < 2:
            raise BadParameter(f"rho is {rho}", "a number between 0 and 2, without them")
        if len(in_shape) not in (3, 4):
            wanted = "images (C, H, W) or volumes (C, D, H, W)"
            raise ShapeMismatch(f"{type(self).__name__} got images of shape {tuple(in_shape)}", wanted)
        lookup(self.denoiser)  # a deepinv without it is noticed here, not in the middle of a run
        self.crit, self.n_it_max, self.tau, self.rho = crit, n_it_max, tau, rho

    def energy(self, x: Tensor) -> Tensor:
        return self.lengths(cast(Tensor, lookup(self.denoiser).nabla(x))).flatten(1).sum(1)

    def lengths(self, differences: Tensor) -> Tensor:
        """The length of the differences at each pixel, which are along the last axis."""
        return torch.linalg.vector_norm(differences, dim=-1)

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self.prox_from(x, step, None)[0]

    def prox_from(self, x: Tensor, step: float | Tensor, memory: Any) -> tuple[Tensor, Any]:
        check_shape(x, self.in_shape, f"input of {type(self).__name__}.prox")
        steps = torch.as_tensor(step, dtype=x.dtype, device=x.device).expand(len(x))
        done = [
            self._image(x[i : i + 1], steps[i], None if memory is None else tuple(part[i : i + 1] for part in memory))
            for i in range(len(x))
        ]
        memories = zip(*(m for _, m in done), strict=True)
        return torch.cat([u for u, _ in done]), tuple(torch.cat(parts) for parts in memories)

    def _image(
        self, x: Tensor, step: Tensor, memory: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if float(step) == 0:  # deepinv divides by it
            return x.clone(), (x.clone(), x.new_zeros((*x.shape, x.ndim - 2)))
        solver = build(self.denoiser, crit=self.crit, n_it_max=self.n_it_max, tau=self.tau, rho=self.rho)
        if memory is not None:
            solver.restart = False
            solver.x2, solver.u2 = memory
        with quiet():
            result = solver(x, ths=step)
        return result, (solver.x2, solver.u2)


class AnisotropicTotalVariation(TotalVariation):
    """R(x) = sum over pixels of |d| + |e|, d and e the differences to the next pixel down and right; each channel on
    its own. deepinv's TVL1Denoiser and TVL1Prior; parameters and errors as for `TotalVariation`.
    """

    denoiser: ClassVar[str] = "models.TVL1Denoiser"

    def lengths(self, differences: Tensor) -> Tensor:
        return differences.abs().sum(-1)
