"""Operators made of operators."""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ._diagonal import Diagonal
from ._operator import ForwardOperator, LinearOperator
from ._tensors import check_shape
from .errors import ShapeMismatch


class Jacobian(LinearOperator):
    """F'(x) at a fixed batch x; row i acts with the derivative at x[i]."""

    def __init__(self, operator: ForwardOperator, x: Tensor, pullback: Callable[[Tensor], Tensor]):
        super().__init__(operator.in_shape, operator.out_shape)
        self.operator, self.x, self.pullback = operator, x, pullback

    def forward(self, x: Tensor) -> Tensor:
        self._check_batch(x)
        return self.operator.jvp(self.x, x)

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of a Jacobian")
        self._check_batch(y)
        return self.pullback(y)

    def norm_bound(self) -> float | None:
        return self.operator.norm_bound()

    def rows(self, index: Tensor) -> LinearOperator:
        return self.operator.rows(index).linearize(self.x[index])[1]

    def _check_batch(self, given: Tensor) -> None:
        if len(given) != len(self.x):
            found = f"a batch of {len(given)} for the Jacobian at {len(self.x)} images"
            raise ShapeMismatch(found, f"a batch of {len(self.x)}", "linearise at the images you mean")


class Adjoint(LinearOperator):
    """A^T, sharing A's tensors."""

    def __init__(self, operator: LinearOperator):
        super().__init__(operator.out_shape, operator.in_shape)
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator(y)

    def norm_bound(self) -> float | None:
        return self.operator.norm_bound()

    def rows(self, index: Tensor) -> "Adjoint":
        return Adjoint(self.operator.rows(index))

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self.operator


class Chain(ForwardOperator):
    """Operators one after the other, the first one first; at least one of them is not linear."""

    def __init__(self, operators: Sequence[ForwardOperator]):
        super().__init__(operators[0].in_shape, operators[-1].out_shape)
        self.operators = nn.ModuleList(operators)

    def parts(self) -> list[ForwardOperator]:
        """The operators, the one applied first first."""
        return [cast(ForwardOperator, part) for part in self.operators]

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts():
            x = part(x)
        return x

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        for part in self.parts():
            x, v = part(x), part.jvp(x, v)
        return v

    def vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        pullbacks: list[Callable[[Tensor], Tensor]] = []
        for part in self.parts():
            x, pullback = part.vjp(x)
            pullbacks.append(pullback)

        def whole(w: Tensor) -> Tensor:
            for pullback in reversed(pullbacks):
                w = pullback(w)
            return w

        return x, whole

    def norm_bound(self) -> float | None:
        return _product(part.norm_bound() for part in self.parts())

    def rows(self, index: Tensor) -> "Chain":
        return Chain([part.rows(index) for part in self.parts()])


class Composed(LinearOperator):
    """A B: first B, then A."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator):
        super().__init__(inner.in_shape, outer.out_shape)
        self.outer, self.inner = outer, inner

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def norm_bound(self) -> float | None:
        return _product((self.outer.norm_bound(), self.inner.norm_bound()))

    def rows(self, index: Tensor) -> "Composed":
        return Composed(self.outer.rows(index), self.inner.rows(index))


class Sum(LinearOperator):
    """A + B."""

    def __init__(self, first: LinearOperator, second: LinearOperator):
        if (first.in_shape, first.out_shape) != (second.in_shape, second.out_shape):
            raise _misfit("add", "+", first, second, "two operators between the same shapes")
        super().__init__(first.in_shape, first.out_shape)
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.first.adjoint(y) + self.second.adjoint(y)

    def norm_bound(self) -> float | None:
        first, second = self.first.norm_bound(), self.second.norm_bound()
        return None if first is None or second is None else first + second

    def rows(self, index: Tensor) -> "Sum":
        return Sum(self.first.rows(index), self.second.rows(index))


class Scaled(LinearOperator):
    """factor * A."""

    def __init__(self, operator: LinearOperator, factor: float):
        super().__init__(operator.in_shape, operator.out_shape)
        self.operator, self.factor = operator, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.operator(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.factor * self.operator.adjoint(y)

    def norm_bound(self) -> float | None:
        return _product((abs(self.factor), self.operator.norm_bound()))

    def normal_diagonal(self) -> Diagonal | None:
        inner = self.operator.normal_diagonal()
        return None if inner is None else Diagonal(inner.basis, inner.eigenvalues * self.factor**2)

    def rows(self, index: Tensor) -> "Scaled":
        return Scaled(self.operator.rows(index), self.factor)


class Stack(LinearOperator):
    """x -> (A_1 x, A_2 x, ...), each measurement flattened, one after the other: out_shape (m_1 + m_2 + ...,)."""

    def __init__(self, operators: Sequence[LinearOperator]):
        if len({part.in_shape for part in operators}) != 1:
            shapes = ", ".join(str(part.in_shape) for part in operators) or "none"
            raise ShapeMismatch(f"cannot stack operators on {shapes}", "one or more operators on images of one shape")
        self.sizes = [math.prod(part.out_shape) for part in operators]
        super().__init__(operators[0].in_shape, (sum(self.sizes),))
        self.operators = nn.ModuleList(operators)

    def parts(self) -> list[LinearOperator]:
        """The operators, in order."""
        return [cast(LinearOperator, part) for part in self.operators]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x).flatten(1) for part in self.parts()], 1)

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of a Stack")
        pieces = zip(self.parts(), cast("tuple[Tensor, ...]", y.split(self.sizes, 1)), strict=True)
        adjoints = [part.adjoint(piece.reshape(-1, *part.out_shape)) for part, piece in pieces]
        return torch.stack(adjoints).sum(0)

    def norm_bound(self) -> float | None:
        bounds = [part.norm_bound() for part in self.parts()]
        return None if None in bounds else math.hypot(*cast(list[float], bounds))

    def normal_diagonal(self) -> Diagonal | None:
        total: Diagonal | None = None
        for diagonal in (part.normal_diagonal() for part in self.parts()):
            total = diagonal if total is None or diagonal is None else total.plus(diagonal)
            if total is None:
                return None
        return total

    def rows(self, index: Tensor) -> "Stack":
        return Stack([part.rows(index) for part in self.parts()])


class PerImage(ForwardOperator):
    """Row i of a batch goes through its own operator; the batch has exactly as many images as there are operators."""

    def __init__(self, operators: Sequence[ForwardOperator]):
        super().__init__(operators[0].in_shape, operators[0].out_shape)
        self.operators = nn.ModuleList(operators)

    def parts(self) -> list[ForwardOperator]:
        """The operators, in the order of the images."""
        return [cast(ForwardOperator, part) for part in self.operators]

    def _each(self, *batches: Tensor) -> "list[tuple[ForwardOperator, tuple[Tensor, ...]]]":
        if len(batches[0]) != len(self.operators):
            raise ShapeMismatch(
                f"a batch of {len(batches[0])} images for {len(self.operators)} operators, one per image",
                f"a batch of {len(self.operators)} images",
            )
        return [(part, tuple(b[i : i + 1] for b in batches)) for i, part in enumerate(self.parts())]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(row) for part, (row,) in self._each(x)])

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.cat([part.jvp(row, direction) for part, (row, direction) in self._each(x, v)])

    def vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        pairs = [part.vjp(row) for part, (row,) in self._each(x)]
        values, pullbacks = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return torch.cat(values), lambda w: torch.cat([back(w[i : i + 1]) for i, back in enumerate(pullbacks)])

    def norm_bound(self) -> float | None:
        # One number for all images, or a step size would depend on batch mates.
        bounds = {part.norm_bound() for part in self.parts()}
        return bounds.pop() if len(bounds) == 1 else None

    def rows(self, index: Tensor) -> "PerImage":
        chosen = cast("list[int]", torch.arange(len(self.operators))[index.cpu()].tolist())
        return PerImage([self.parts()[i] for i in chosen])


class LinearPerImage(PerImage, LinearOperator):
    """`PerImage` of linear operators."""

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([cast(LinearOperator, part).adjoint(row) for part, (row,) in self._each(y)])

    def solve_normal(self, b: Tensor, shift: float | Tensor) -> Tensor | None:
        shifts = shift.expand(len(b)) if isinstance(shift, Tensor) else torch.full((len(b),), shift)
        solved = [
            cast(LinearOperator, part).solve_normal(row, shifts[i : i + 1])
            for i, (part, (row,)) in enumerate(self._each(b))
        ]
        return None if any(s is None for s in solved) else torch.cat(cast(list[Tensor], solved))

    def rows(self, index: Tensor) -> "LinearPerImage":
        return LinearPerImage(super().rows(index).parts())


def per_image_operator(operators: Sequence[ForwardOperator]) -> PerImage:
    """One operator for each image of a batch; linear if all are."""
    linear = all(isinstance(operator, LinearOperator) for operator in operators)
    return LinearPerImage(operators) if linear else PerImage(operators)


def compose(outer: ForwardOperator, inner: ForwardOperator) -> ForwardOperator:
    """`outer @ inner`: a `LinearOperator` if both are."""
    if outer.in_shape != inner.out_shape:
        raise _misfit("compose", "@", outer, inner, "the first to take what the second gives")
    if isinstance(outer, LinearOperator) and isinstance(inner, LinearOperator):
        return Composed(outer, inner)
    first = inner.parts() if isinstance(inner, Chain) else [inner]
    return Chain([*first, *(outer.parts() if isinstance(outer, Chain) else [outer])])


def stack(*operators: LinearOperator) -> Stack:
    """Measure one image several times: x -> (A_1 x, A_2 x, ...), flattened one after the other."""
    return Stack(operators)


def _product(bounds: "Sequence[float | None] | object") -> float | None:
    factors = list(cast("Sequence[float | None]", bounds))
    return None if None in factors else math.prod(cast(list[float], factors))


def _misfit(verb: str, sign: str, a: ForwardOperator, b: ForwardOperator, expected: str) -> ShapeMismatch:
    def text(operator: ForwardOperator) -> str:
        return f"{type(operator).__name__} {operator.in_shape} -> {operator.out_shape}"

    return ShapeMismatch(f"cannot {verb} {text(a)} {sign} {text(b)}", expected)
