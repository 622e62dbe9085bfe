"""The gradient of the misfit, and a step for it that is safe for operators that are not linear."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from preimage import ForwardOperator, LeastSquares, LinearOperator, Noise, Problem, dot

from .proximal_gradient import first_lipschitz


@dataclass(frozen=True)
class Slope:
    """The misfit near an image: its `value` (B,), its `gradient`, and the `lipschitz` constant assumed of it, (B,)."""

    value: Tensor
    gradient: Tensor
    lipschitz: Tensor


def first_slope(problem: Problem, x: Tensor, step_size: Literal["auto"] | float) -> Slope:
    """At the start; 1 / step_size, or an estimate, as the Lipschitz constant."""
    value, gradient = problem.misfit_and_grad(x)
    if step_size != "auto":
        return Slope(value, gradient, torch.full_like(value, 1 / step_size))
    return Slope(value, gradient, first_lipschitz(problem, x))


def next_slope(
    problem: Problem, x: Tensor, new: Tensor, slope: Slope, step_size: Literal["auto"] | float
) -> tuple[Slope, Tensor | None]:
    """At the image that a step has led to, and which images keep that step, bool (B,); None: all.

    Where no global Lipschitz constant is known (nonlinear operator, or noise that is not least squares), a step is
    taken back if the misfit rose above its quadratic model on the way from x, and the assumed constant is doubled. It
    never falls, so the step settles.
    """
    value, gradient = problem.misfit_and_grad(new)
    if step_size != "auto" or known_globally(problem.operator, problem.noise):
        return Slope(value, gradient, slope.lipschitz), None
    move = new - x
    linear, bound = dot(slope.gradient, move), 0.5 * slope.lipschitz * dot(move, move)
    rounding = 16 * torch.finfo(x.dtype).eps * (value.abs() + slope.value.abs() + linear.abs())
    # NaN compares as false: a step into nowhere is not kept.
    kept = value - slope.value - linear <= bound + rounding
    lipschitz = torch.where(kept, slope.lipschitz, 2 * slope.lipschitz)
    return Slope(keep(kept, value, slope.value), keep(kept, gradient, slope.gradient), lipschitz), kept


def keep(kept: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """`new` for the images that keep their step, `old` for the others; batch first."""
    return new if kept is None else torch.where(kept.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def known_globally(operator: ForwardOperator, noise: Noise) -> bool:
    """Whether one Lipschitz constant of the misfit's gradient, the squared norm of A, holds for all images."""
    return isinstance(operator, LinearOperator) and isinstance(noise, LeastSquares)
