"""The inverse with a fixed number of terms, forward and backward: what training differentiates."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from preimage.errors import BadParameter

from .residual import Residual


class Terms(NamedTuple):
    """How far the inverse of a block, and its derivative, are taken.

    - `forward`: evaluations of f in x_{k+1} = z + f(x_k); >= 1.
    - `backward`: terms added to w = g in w <- g + f'(x)^T w; 0 ignores f' altogether.

    With contraction q the errors are of the order q^forward and q^(backward + 1).
    """

    forward: int
    backward: int

    def checked(self, what: str = "terms") -> "Terms":
        """Itself. Raises `BadParameter` if a number is too small."""
        if self.forward < 1 or self.backward < 0:
            raise BadParameter(f"{what} is {list(self)}", "[forward >= 1, backward >= 0]", "use [3, 2]")
        return self


def invert_block(z: Tensor, residual: Residual, terms: Terms, dtype: torch.dtype, start: Tensor) -> Tensor:
    """The x with x - f(x) = z, up to the terms from x_0 = `start` on, differentiable in z and in those of the residual.

    Its derivative is that of the exact inverse at the last iterate, by the implicit function theorem, summed up to
    `terms.backward`: memory does not depend on the terms. Convolutions are computed in `dtype`, sums in that of z.
    """
    return _Inverse.apply(z, *residual, terms, dtype, start)  # pyright: ignore[reportReturnType]


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, *arguments: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        *tensors, terms, dtype, x = arguments
        residual = Residual(*tensors).to(dtype)
        with torch.autocast(z.device.type, enabled=False):
            for _ in range(terms.forward - 1):
                x = z + residual(x.to(dtype))
            x = x.to(dtype)
            features = residual.features(x)
            out = z + torch.nn.functional.conv2d(features, residual.narrow, residual.narrow_bias)
        ctx.save_for_backward(x, features, *tensors)
        ctx.terms, ctx.dtype = terms, dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, features, *tensors = ctx.saved_tensors
        own, dtype = Residual(*tensors), ctx.dtype
        residual = own.to(dtype)
        with torch.autocast(g.device.type, enabled=False):
            w = g = g.contiguous(memory_format=torch.channels_last)
            for _ in range(ctx.terms.backward):
                w = g + residual.vjp(features, w.to(dtype))
            weights = residual.weights_vjp(x, features, w.to(dtype))
        return w, *(gradient.to(tensor) for gradient, tensor in zip(weights, own, strict=True)), None, None, None
