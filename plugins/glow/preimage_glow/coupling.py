"""The network of an affine coupling: what it does to one half of the channels, told by the other half."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(NamedTuple):
    """A convolution as it is applied, its scales multiplied in."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)

    def transpose(self, g: Tensor) -> Tensor:
        """The gradient in x from that in the result."""
        _, inputs, kernel, _ = self.weight.shape
        if kernel == 1:
            return F.conv_transpose2d(g, self.weight)
        # What autograd calls: a third of the time of conv_transpose2d for few outputs and many inputs.
        size, layout = (len(g), inputs, *g.shape[2:]), torch.channels_last
        x = torch.empty(size, dtype=g.dtype, device=g.device, memory_format=layout)
        half = [kernel // 2] * 2
        only_x = [True, False, False]
        return torch.ops.aten.convolution_backward(
            g, x, self.weight, None, [1, 1], half, [1, 1], False, [0, 0], 1, only_x
        )[0]


class ScaledConvolution(nn.Module):
    """Weights (O, I, k, k) with a gain exp(sharpness * log_scale) and a bias for each output, zero-padded.

    The gain is a parameter of its own because it is fitted to data before training (ActNorm) and learns at another
    pace than the weights (Kingma & Dhariwal 2018, section 3.1 and their code).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, deviation: float = 0.05, sharpness: float = 1.0):
        super().__init__()
        self.sharpness = sharpness
        self.weight = nn.Parameter(deviation * torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.log_scale = nn.Parameter(torch.zeros(outputs))

    def layer(self) -> Layer:
        """gain * (weight conv x + bias)."""
        gain = (self.sharpness * self.log_scale).exp()
        return Layer(self.weight * gain[:, None, None, None], self.bias * gain)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Make the outputs for x of mean 0 and deviation 1 in every channel; returns them."""
        out = self.layer()(x)
        deviation, mean = torch.std_mean(out, (0, 2, 3))
        self.bias -= mean
        self.log_scale -= deviation.clamp_min(1e-6).log() / self.sharpness
        return self.layer()(x)


class CouplingNetwork(nn.Module):
    """(B, known, h, w) -> log-scales and shifts, (B, changed, h, w) each: 3 x 3, ReLU, 1 x 1, ReLU, 3 x 3 convolutions.

    The last one starts at zero, so that a new coupling is the identity. Log-scales are bound * tanh(./bound), in
    (-bound, bound): neither direction of the coupling can overflow.
    """

    def __init__(self, known: int, changed: int, hidden: int, bound: float):
        super().__init__()
        self.bound = bound
        self.first = ScaledConvolution(known, hidden, 3)
        self.second = ScaledConvolution(hidden, hidden, 1)
        self.last = ScaledConvolution(hidden, 2 * changed, 3, deviation=0.0, sharpness=3.0)

    def layers(self) -> tuple[Layer, Layer, Layer]:
        """The convolutions, in order."""
        return self.first.layer(), self.second.layer(), self.last.layer()

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Log-scales and shifts in the dtype of x; the convolutions are computed in `dtype`."""
        return run(self.layers(), x, self.bound, dtype)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Fit the gains and biases of the hidden layers to inputs x."""
        self.second.initialise(F.relu(self.first.initialise(x)))


def run(
    layers: tuple[Layer, Layer, Layer], x: Tensor, bound: float, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Log-scales and shifts for these layers, which are brought to `dtype` first if it is given."""
    if dtype is not None and dtype != x.dtype:
        layers = tuple(Layer(w.to(dtype), b.to(dtype)) for w, b in layers)  # pyright: ignore[reportAssignmentType]
    first, second, last = layers
    out = last(F.relu(second(F.relu(first(x.to(first.weight.dtype)))))).to(x.dtype)
    raw, shift = out.chunk(2, 1)
    return bound * torch.tanh(raw / bound), shift
