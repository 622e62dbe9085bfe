"""The linear start of each block's inverse: a small convolution that guesses x - z, fitted to examples."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .fixed_point import iterate
from .network import InvertibleResNet, ResidualBlock
from .residual import Residual

_RIDGE = 1e-6
_ACCURACY = 1e-6
_SIDE = 3


@torch.no_grad()
def fit(network: InvertibleResNet, examples: Tensor) -> None:
    """Set `start` A and `start_bias` a of each block, in place, so that z + A * z + a is near phi_i^-1(z) for the
    examples, measurements (B, C, h, w).

    A is a 3 x 3 convolution with zero padding: ridge regression of x - z on z, sum over pixels and images
    ||x - z - A * z - a||^2 + ridge ||A||^2, in float64, for the states z that come to the block when the examples are
    inverted. Fitted to weights as they are: it is to be fitted again when they change. What it is has no influence on
    what the inverse converges to, only on how soon.
    """
    training = network.training
    residuals = network.eval().residuals()
    network.train(training)
    z = network.lift(examples).contiguous(memory_format=torch.channels_last)
    for block, bound, residual in zip(network.blocks, network.bounds, residuals, strict=True):
        x = _inverse(z, residual, bound)
        kernel, bias = _regression(z, x - z)
        own = cast(ResidualBlock, block)
        own.start.copy_(kernel)
        own.start_bias.copy_(bias)
        z = x


def _inverse(z: Tensor, residual: Residual, bound: float) -> Tensor:
    own = residual.to(z)

    def advance(x: Tensor, rows: Tensor | None) -> Tensor:
        return (z if rows is None else z[rows]) + own(x)

    def enough(rows: Tensor, step: Tensor, pace: Tensor, size: Tensor) -> Tensor:
        return pace / (1 - pace) * step <= _ACCURACY * size

    return iterate(z, advance, bound, enough).x


def _regression(z: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Kernel (M, M, 3, 3) and bias (M,) of the convolution of z nearest to what is wanted, both (B, M, h, w)."""
    channels = z.shape[1]
    inputs = channels * _SIDE**2
    moments = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64, device=z.device)
    products = torch.zeros(inputs + 1, channels, dtype=torch.float64, device=z.device)
    for state, difference in zip(z.split(1), wanted.split(1), strict=True):
        windows = F.unfold(state.double(), _SIDE, padding=_SIDE // 2)[0]
        rows = torch.cat([windows, torch.ones_like(windows[:1])])
        moments += rows @ rows.mT
        products += rows @ difference.double().flatten(2)[0].mT
    ridge = moments.diagonal()[:-1].mean() * _RIDGE
    moments.diagonal()[:-1] += ridge
    solution = torch.linalg.solve(moments, products).mT
    return solution[:, :-1].unflatten(1, (channels, _SIDE, _SIDE)), solution[:, -1]
