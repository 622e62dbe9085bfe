"""Constraints on the values of pixels, as priors that are zero or infinite."""

from torch import Tensor

from preimage import Constraint, Shape
from preimage.errors import BadParameter


class Box(Constraint):
    """R(x) = 0 if lower <= x <= upper everywhere, infinite otherwise.

    - `lower`, `upper`: finite, lower < upper; default 0 and 1.

    The proximal map is the projection, x clipped to [lower, upper], for every step: exact. The weight plays no part.
    In a sum with other priors the constraint is met too: the proximal map of the sum ends with this projection.
    Values outside by rounding count as inside (`preimage.Constraint`).

    Raises `BadParameter` unless lower < upper, both finite.
    """

    def __init__(self, in_shape: Shape, *, lower: float = 0.0, upper: float = 1.0):
        super().__init__(in_shape)
        if not -float("inf") < lower < upper < float("inf"):
            raise BadParameter(
                f"the box is [{lower}, {upper}]", "finite bounds, lower < upper", 'use "non-negative" for x >= 0 alone'
            )
        self.lower, self.upper = lower, upper

    def feasible(self, x: Tensor) -> Tensor:
        return x.clamp(self.lower, self.upper)


class NonNegative(Constraint):
    """R(x) = 0 if x >= 0 everywhere, infinite otherwise: `Box` without an upper bound.

    The proximal map is the projection max(x, 0), for every step: exact.
    """

    def feasible(self, x: Tensor) -> Tensor:
        return x.clamp_min(0)
