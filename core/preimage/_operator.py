"""Forward operators F: X -> Y, linear or not, and their linearisations."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from ._diagonal import Diagonal
from ._tensors import Shape, check_shape, directional_derivative


class ForwardOperator(nn.Module, ABC):
    """A differentiable map F: X -> Y between batches of tensors of fixed shape.

    Noise-free (noise is a separate thing, `Noise`) and deterministic; the images of a batch do not influence each
    other. Subclasses implement `forward`; they may replace `jvp` and `vjp` by something faster that is equal
    (`preimage.testing.check_operator` compares it with the default). Tensors an operator needs are buffers, so that
    `.to(device, dtype)` moves all of it.

    - `in_shape`: shape of one element of X, without the batch axis; (C, H, W) for images.
    - `out_shape`: shape of one element of Y.

    Calling an operator with a batch of another shape raises `ShapeMismatch`.
    """

    per_image: ClassVar[bool] = False
    """True if every image has its own operator, drawn from the `key` of its constructor; a pipeline then builds one
    for each image."""

    in_shape: Shape
    out_shape: Shape

    def __init__(self, in_shape: Shape, out_shape: Shape):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """F(x): (B, *in_shape) -> (B, *out_shape), on x's device and in x's dtype."""

    def __call__(self, x: Tensor) -> Tensor:
        check_shape(x, self.in_shape, f"input of {type(self).__name__}")
        return super().__call__(x)

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """F'(x) v: the directional derivative, by forward-mode differentiation unless replaced."""
        return directional_derivative(self, x, v)

    def vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """F(x), and the map w -> F'(x)^T w, by reverse-mode differentiation unless replaced.

        The map may be called many times; by default it keeps the graph of F(x) alive.
        """
        y, pullback = cast("tuple[Tensor, Callable[[Tensor], tuple[Tensor]]]", torch.func.vjp(self, x))
        return y, lambda w: pullback(w)[0]

    def linearize(self, x: Tensor) -> "tuple[Tensor, LinearOperator]":
        """F(x) and the Jacobian F'(x), an operator whose i-th row acts with the derivative at x[i]."""
        from ._algebra import Jacobian  # _algebra builds on this module

        y, pullback = self.vjp(x)
        return y, Jacobian(self, x, pullback)

    def norm_bound(self) -> float | None:
        """A rigorous upper bound of sup_x ||F'(x)|| (spectral norm), or None if none is known."""
        return None

    def rows(self, index: Tensor) -> "ForwardOperator":
        """The operator for the images `index` of a batch; itself, unless the images have operators of their own."""
        return self

    def __matmul__(self, other: "ForwardOperator") -> "ForwardOperator":
        """`F @ G`: first G, then F; linear if both are."""
        from ._algebra import compose

        return compose(self, other)


class LinearOperator(ForwardOperator):
    """A linear map A: X -> Y.

    Subclasses implement `forward`; they may also replace `adjoint` by something faster, and offer a `norm_bound` and
    a closed form for the normal equations: `normal_diagonal`, or `solve_normal` itself.

    `A.T` is the adjoint as an operator, `A @ B` composition, `A + B`, `A - B`, `2 * A` and `-A` the obvious things;
    `preimage.stack` puts measurements one after the other.
    """

    def rows(self, index: Tensor) -> "LinearOperator":
        return self

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y: (B, *out_shape) -> (B, *in_shape), defined by <A x, y> = <x, A^T y>."""
        check_shape(y, self.out_shape, f"input of the adjoint of {type(self).__name__}")
        zero = y.new_zeros((len(y), *self.in_shape))
        return torch.func.vjp(self, zero)[1](y)[0]

    def normal(self, x: Tensor) -> Tensor:
        """A^T A x."""
        return self.adjoint(self(x))

    def normal_diagonal(self) -> Diagonal | None:
        """A^T A in an orthonormal basis that makes it diagonal, or None if no such basis is known."""
        return None

    def solve_normal(self, b: Tensor, shift: float | Tensor) -> Tensor | None:
        """(A^T A + shift I)^-1 b exactly, or None without a closed form (callers then iterate).

        - `b`: (B, *in_shape). `shift`: positive, one number or one per image (B,).
        """
        diagonal = self.normal_diagonal()
        return None if diagonal is None else diagonal.solve(b, shift)

    @property
    def T(self) -> "LinearOperator":  # noqa: N802 (the field's notation)
        from ._algebra import Adjoint

        return Adjoint(self)

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        return self(v)

    def vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return self(x), self.adjoint

    def linearize(self, x: Tensor) -> "tuple[Tensor, LinearOperator]":
        return self(x), self

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        from ._algebra import Sum

        return Sum(self, other)

    def __mul__(self, factor: float) -> "LinearOperator":
        from ._algebra import Scaled

        return Scaled(self, float(factor))

    __rmul__ = __mul__

    def __neg__(self) -> "LinearOperator":
        return self * -1.0

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        return self + -other


class Identity(LinearOperator):
    """F(x) = x: denoising."""

    def __init__(self, in_shape: Shape):
        super().__init__(in_shape, in_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()

    def adjoint(self, y: Tensor) -> Tensor:
        check_shape(y, self.out_shape, "input of the adjoint of Identity")
        return y.clone()

    def norm_bound(self) -> float:
        return 1.0

    def normal_diagonal(self) -> Diagonal:
        return Diagonal.identity()
