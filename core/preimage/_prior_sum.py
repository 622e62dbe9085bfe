"""Weighted sums of priors, R(x) = w_1 R_1(x) + w_2 R_2(x) + ..., with every capability that all parts share."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ._algebra import stack
from ._operator import LinearOperator
from ._prior import Constraint, Differentiable, Energy, Prior, Proximable, Quadratic, Splittable
from ._tensors import norms
from .errors import BadParameter, Incompatible, ShapeMismatch

SWEEPS = 500
"""Most sweeps over the parts in one proximal map of a sum."""


def sum_of_priors(priors: Sequence[Prior], weights: Sequence[float]) -> Energy:
    """w_1 R_1 + w_2 R_2 + ...; constraints come last, so that what a proximal map gives is feasible.

    Raises `Incompatible` if a part has no energy, `ShapeMismatch` if the parts are for different images, and
    `BadParameter` for a weight that is negative or not finite.
    """
    cls = sum_class([type(prior) for prior in priors])
    if len({prior.in_shape for prior in priors}) != 1:
        shapes = ", ".join(f"{type(p).__name__} {p.in_shape}" for p in priors)
        raise ShapeMismatch(f"a sum of priors for different images: {shapes}", "priors for images of one shape")
    for prior, weight in zip(priors, weights, strict=True):
        if not 0 <= weight < float("inf"):
            raise BadParameter(f"the weight of {type(prior).__name__} is {weight}", "a finite number >= 0")
    ordered = sorted(zip(priors, weights, strict=True), key=lambda part: isinstance(part[0], Constraint))
    return cls([cast(Energy, prior) for prior, _ in ordered], [float(weight) for _, weight in ordered])


def sum_class(classes: Sequence[type]) -> "type[PriorSum]":
    """The class of a sum of such priors: the first of `_SUMS` whose capabilities all parts have."""
    without = [cls.__name__ for cls in classes if not issubclass(cls, Energy)]
    if without or not classes:
        found = f"a sum of priors with {', '.join(without)}, which has no energy" if without else "a sum of no priors"
        raise Incompatible(found, "priors with an energy R(x)", "use that prior alone")
    return next(s for s in _SUMS if all(issubclass(cls, needed) for needed in s.needed for cls in classes))


class PriorSum(Energy):
    """A sum that has a value, and no more."""

    needed: tuple[type[Energy], ...] = (Energy,)

    def __init__(self, parts: Sequence[Energy], weights: Sequence[float]):
        super().__init__(parts[0].in_shape)
        self.parts = nn.ModuleList(parts)
        self.weights = tuple(weights)

    def weighted(self) -> list[tuple[float, Any]]:
        """The weights and parts, in order."""
        return list(zip(self.weights, self.parts, strict=True))

    def energy(self, x: Tensor) -> Tensor:
        # Zero times an infinite energy is zero: a constraint of weight 0 is none, of any other weight it is whole.
        terms = [weight * part.energy(x) for weight, part in self.weighted() if weight > 0]
        return torch.stack(terms).sum(0) if terms else x.new_zeros(len(x))

    def feasible(self, x: Tensor) -> Tensor:
        for weight, part in self.weighted():
            x = part.feasible(x) if weight > 0 else x
        return x


class DifferentiableSum(PriorSum, Differentiable):
    """The gradient is the sum of the gradients."""

    needed = (Differentiable,)

    def grad(self, x: Tensor) -> Tensor:
        return torch.stack([weight * part.grad(x) for weight, part in self.weighted()]).sum(0)


class SplittableSum(PriorSum, Splittable):
    """K x = (K_1 x, K_2 x, ...), flattened one after the other; g is the sum of the g_i, each of its own piece."""

    needed = (Splittable,)

    def analysis(self) -> LinearOperator:
        return stack(*[part.analysis() for _, part in self.weighted()])

    def prox_coefficients(self, coefficients: Tensor, step: float | Tensor) -> Tensor:
        shapes = [part.analysis().out_shape for _, part in self.weighted()]
        sizes = [torch.Size(shape).numel() for shape in shapes]
        pieces = cast("tuple[Tensor, ...]", coefficients.split(sizes, 1))
        mapped = [
            part.prox_coefficients(piece.reshape(-1, *shape), weight * step) if weight > 0 else piece
            for (weight, part), piece, shape in zip(self.weighted(), pieces, shapes, strict=True)
        ]
        return torch.cat([piece.flatten(1) for piece in mapped], 1)


class SmoothSplittableSum(DifferentiableSum, SplittableSum):
    """Splittable, with a gradient."""

    needed = (Splittable, Differentiable)


class Memory(NamedTuple):
    """Of the proximal map of a sum: what each part subtracted last, and the memory of its own proximal map."""

    subtracted: list[Tensor]
    inner: list[Any]


class ProximableSum(SplittableSum, Proximable):
    """The proximal map by Dykstra's cyclic algorithm: block coordinate ascent on the dual problem.

        u = x - sum_i p_i;   for each i in turn:  v = u + p_i,  u = prox of (step w_i R_i) at v,  p_i = v - u

    (Bauschke & Combettes 2008, "A Dykstra-like algorithm for two monotone operators"; for several functions Tseng
    1993, "Dual coordinate ascent methods for non-strictly convex minimization"). An image is done when a whole sweep
    moves it by less than 10 units in the last place of its norm in float32 (1e-10 in float64), or after 500 sweeps.
    """

    needed = (Proximable,)

    def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self.prox_from(x, step, None)[0]

    def prox_from(self, x: Tensor, step: float | Tensor, memory: Any) -> tuple[Tensor, Any]:
        parts = [(weight, part) for weight, part in self.weighted() if weight > 0]
        if not parts:
            return x.clone(), None
        if len(parts) == 1:
            (weight, part), inner = parts[0], None if memory is None else memory.inner[0]
            u, inner = part.prox_from(x, weight * step, inner)
            return u, Memory([], [inner])
        subtracted = [torch.zeros_like(x) for _ in parts] if memory is None else list(memory.subtracted)
        inner = [None] * len(parts) if memory is None else list(memory.inner)
        u = x - torch.stack(subtracted).sum(0)
        tolerance = max(10 * torch.finfo(x.dtype).eps, 1e-10)
        active = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for _ in range(SWEEPS):
            before, keep = u, active.reshape(-1, *[1] * (x.ndim - 1))
            for index, (weight, part) in enumerate(parts):
                v = u + subtracted[index]
                w, inner[index] = part.prox_from(v, weight * step, inner[index])
                u = torch.where(keep, w, u)
                subtracted[index] = torch.where(keep, v - w, subtracted[index])
            active = active & (norms(u - before) > tolerance * norms(u))
            if not bool(active.any()):
                break
        return u, Memory(subtracted, inner)


class SmoothProximableSum(DifferentiableSum, ProximableSum):
    """Proximable, with a gradient."""

    needed = (Proximable, Differentiable)


class QuadraticSum(PriorSum, Quadratic):
    """K x = (sqrt(w_1) K_1 x, sqrt(w_2) K_2 x, ...), c likewise."""

    needed = (Quadratic,)

    def analysis(self) -> LinearOperator:
        return stack(*[weight**0.5 * part.analysis() for weight, part in self.weighted()])

    def target(self) -> Tensor | None:
        targets = [part.target() for _, part in self.weighted()]
        like = next((target for target in targets if target is not None), None)
        if like is None:
            return None
        sizes = [torch.Size(part.analysis().out_shape).numel() for _, part in self.weighted()]
        return torch.cat(
            [
                like.new_zeros(size) if target is None else weight**0.5 * target.flatten()
                for weight, target, size in zip(self.weights, targets, sizes, strict=True)
            ]
        )


_SUMS: tuple[type[PriorSum], ...] = (
    QuadraticSum,
    SmoothProximableSum,
    ProximableSum,
    SmoothSplittableSum,
    SplittableSum,
    DifferentiableSum,
    PriorSum,
)
