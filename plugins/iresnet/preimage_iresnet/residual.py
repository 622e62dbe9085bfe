"""One residual of the network, f(x) = W2 shrink(W1 x + b1) + b2, with its derivatives written out."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .convolution import convolve

KERNEL = 5
"""Side of the kernel of W1 in pixels."""


class Residual(NamedTuple):
    """f(x) = W2 s(W1 * x + b1) + b2, M channels to M, with H features between them, images of any size (..., M, h, w).

    W1 is a 5 x 5 convolution with zero padding, s(u) = sign(u) max(|u| - t, 0) the soft shrinkage, W2 a convolution of
    one pixel (the architecture of Arndt & Nickel 2024). s is 1-Lipschitz, so Lip(f) <= ||W1|| ||W2||.

    - `wide`: (H, M, 5, 5), `wide_bias`: (H,), `threshold`: t >= 0, `narrow`: (M, H, 1, 1), `narrow_bias`: (M,).
    """

    wide: Tensor
    wide_bias: Tensor
    threshold: Tensor
    narrow: Tensor
    narrow_bias: Tensor

    def to(self, like: torch.dtype | Tensor) -> "Residual":
        """The same in another dtype, or the dtype and on the device of a tensor."""
        return Residual(*(tensor.to(like) for tensor in self))

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(self.features(x), self.narrow, self.narrow_bias)

    def features(self, x: Tensor) -> Tensor:
        """s(W1 * x + b1): what W2 is applied to, (B, H, h, w)."""
        return _shrink(convolve(x, self.wide, self.wide_bias), self.threshold)

    def jvp(self, features: Tensor, direction: Tensor) -> Tensor:
        """f'(x) v at the x with these features."""
        return F.conv2d(_where_active(features, convolve(direction, self.wide)), self.narrow)

    def features_vjp(self, features: Tensor, cotangent: Tensor) -> Tensor:
        """The cotangent of W1 * x + b1 for one of f(x)."""
        back = F.conv2d(cotangent, self.narrow.transpose(0, 1))
        return _where_active(features, back)

    def vjp(self, features: Tensor, cotangent: Tensor) -> Tensor:
        """f'(x)^T w at the x with these features."""
        return F.conv_transpose2d(self.features_vjp(features, cotangent), self.wide, padding=KERNEL // 2)

    def weights_vjp(self, x: Tensor, features: Tensor, cotangent: Tensor) -> "Residual":
        """The derivative of <f(x), w> in each tensor of the residual, for the x that has these features."""
        back = self.features_vjp(features, cotangent)
        wide, wide_bias = _convolution_vjp(back, x, self.wide)
        narrow, narrow_bias = _convolution_vjp(cotangent, features, self.narrow)
        threshold = -(back * features.sign()).sum(dtype=torch.float32 if back.dtype == torch.bfloat16 else None)
        return Residual(wide, wide_bias, threshold.to(self.threshold), narrow, narrow_bias)


def _shrink(u: Tensor, threshold: Tensor) -> Tensor:
    """sign(u) max(|u| - t, 0)."""
    if u.is_cuda or (torch.is_grad_enabled() and threshold.requires_grad):
        return u - torch.clamp(u, -threshold, threshold)
    return F.softshrink(u, float(threshold))  # twice as fast on a CPU; elsewhere reading the number would wait for it


def _where_active(features: Tensor, values: Tensor) -> Tensor:
    """The values where the feature is not zero: the derivative of the shrinkage, applied."""
    return torch.ops.aten.softshrink_backward(values, features, 0.0)


def _convolution_vjp(cotangent: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of a convolution that keeps the size of its images, in its weight and its bias."""
    padding = weight.shape[-1] // 2
    _, kernel, bias = torch.ops.aten.convolution_backward(
        cotangent, x, weight, [weight.shape[0]], [1, 1], [padding, padding], [1, 1], False, [0, 0], 1,
        [False, True, True],
    )  # fmt: skip
    return kernel, bias
