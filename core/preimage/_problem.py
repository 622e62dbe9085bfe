"""An inverse problem, complete: everything a solver may look at, and nothing else (no ground truth)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._noise import Noise
from ._operator import ForwardOperator, LinearOperator
from ._prior import Energy, Prior
from ._tensors import check_finite, check_shape, per_image, take_rows
from .errors import BadParameter, Incompatible, ShapeMismatch


@dataclass(frozen=True)
class Problem:
    """Find x from y ~ noise(F(x)), knowing `prior`.

    - `y`: measurements, (B, *operator.out_shape), finite.
    - `weight`: lambda >= 0, multiplies the prior in misfit(x) + lambda R(x); one for all images, or one for each, (B,).
    - `x0`: where to start, (B, *operator.in_shape); None leaves it to `start`.

    Raises `ShapeMismatch`, `BadData` or `BadParameter` if these do not hold.
    """

    operator: ForwardOperator
    y: Tensor
    noise: Noise
    prior: Prior | None = None
    weight: float | Tensor = 1.0
    x0: Tensor | None = None

    def __post_init__(self):
        check_shape(self.y, self.operator.out_shape, "measurement y")
        check_finite(self.y, "measurement y")
        if self.x0 is not None:
            check_shape(self.x0, self.operator.in_shape, "initial guess x0")
            check_finite(self.x0, "initial guess x0")
        self._check_weight()
        if self.prior is not None and self.prior.in_shape != self.operator.in_shape:
            raise ShapeMismatch(
                f"prior {type(self.prior).__name__} is for images of shape {self.prior.in_shape}",
                f"shape {self.operator.in_shape}, which operator {type(self.operator).__name__} takes",
            )

    def _check_weight(self) -> None:
        if isinstance(self.weight, Tensor):
            if self.weight.shape != (len(self.y),):
                found = f"weight is a tensor of shape {tuple(self.weight.shape)}"
                raise ShapeMismatch(found, f"a number, or one for each of the {len(self.y)} images: ({len(self.y)},)")
            lowest, highest = (float(self.weight.min()), float(self.weight.max())) if len(self.y) else (0.0, 0.0)
        else:
            lowest = highest = float(self.weight)
        if not 0 <= lowest <= highest < float("inf"):
            raise BadParameter(f"weight is {self.weight}", "a finite number >= 0")

    def start(self) -> Tensor:
        """x0 if given; else, deterministically, an image made from y.

        For a linear operator A^T y scaled to fit the measurement, t = ||A^T y||^2 / ||A A^T y||^2 (the first step of
        steepest descent from zero). For a nonlinear one y itself if it is an image of the right shape, zero otherwise.
        """
        if self.x0 is not None:
            return self.x0.clone()
        if isinstance(self.operator, LinearOperator):
            back = self.operator.adjoint(self.y)
            forth = self.operator(back)
            numerator, denominator = back.flatten(1).square().sum(1), forth.flatten(1).square().sum(1)
            scale = numerator / denominator.clamp_min(1e-30)
            return back * scale.reshape(-1, *[1] * (back.ndim - 1))
        if self.operator.in_shape == self.operator.out_shape:
            return self.y.clone()
        return self.y.new_zeros((len(self.y), *self.operator.in_shape))

    def misfit(self, x: Tensor) -> Tensor:
        """Data misfit per image: (B, *in_shape) -> (B,)."""
        return self.noise.misfit(self.operator(x), self.y)

    def misfit_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The misfit (B,) and its gradient F'(x)^T d misfit / dy, from one call of the operator's vjp."""
        predicted, pullback = self.operator.vjp(x)
        return self.noise.misfit(predicted, self.y), pullback(self.noise.misfit_grad(predicted, self.y))

    def objective(self, x: Tensor) -> Tensor:
        """misfit(x) + weight R(x) per image, (B,). Raises `Incompatible` if the prior has no energy."""
        if self.prior is None:
            return self.misfit(x)
        if not isinstance(self.prior, Energy):
            raise Incompatible(
                f"{type(self.prior).__name__} has no energy, so the objective has no value", "an Energy prior"
            )
        # Outside of a constraint the objective is infinite whatever the weight, zero too.
        energy = self.prior.energy(x)
        return self.misfit(x) + torch.where(torch.isinf(energy), energy, per_image(self.weight, energy) * energy)

    def rows(self, index: Tensor) -> "Problem":
        """The problem of some of the images."""
        x0 = None if self.x0 is None else self.x0[index]
        weight = self.weight[index] if isinstance(self.weight, Tensor) else self.weight
        return replace(self, operator=self.operator.rows(index), y=take_rows(self.y, index), weight=weight, x0=x0)
