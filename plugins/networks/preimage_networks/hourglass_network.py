"""The deep image prior's network."""

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from preimage.errors import BadParameter

from .per_image_layers import Layout, Weight, convolve, enlarge, halvings, normalise
from .untrained_network import ImageNetwork


class HourglassNetwork(ImageNetwork):
    """An encoder and decoder with skip connections: Ulyanov, Vedaldi & Lempitsky 2018, "Deep image prior" (CVPR),
    supplementary material, figure 21 and section 1.

    Scale by scale, "conv" standing for a convolution, channel normalisation and leaky rectifier (slope 0.2):
    down: 3x3 conv with stride 2, 3x3 conv; skip: 1x1 conv of the scale's input; up: bilinear upsampling of what the
    scale below gives, joined with the skip, normalised, 3x3 conv, 1x1 conv. At the end a 1x1 convolution with bias
    and a sigmoid. Borders are reflected. Weights that the next normalisation would cancel or the next convolution
    absorb are left out (biases of convolutions, scale and shift of the joined channels): their gradients would be
    nothing but rounding, which Adam takes for full steps.

    - `out_shape`: (C, H, W), any size with sides >= 4. `channels`: of encoder and decoder, >= 1. `skip_channels`: >= 0;
      0 for no skips. `scales`: >= 1; fewer where a side would fall below 4 pixels.
    - `input_channels`: of the input, which has the image's size, >= 1.

    Raises `BadParameter`.
    """

    def __init__(
        self,
        out_shape: tuple[int, int, int],
        *,
        channels: int,
        skip_channels: int = 4,
        scales: int = 4,
        input_channels: int = 32,
    ):
        for name, value, least in (
            ("channels", channels, 1),
            ("skip_channels", skip_channels, 0),
            ("scales", scales, 1),
            ("input_channels", input_channels, 1),
        ):
            if value < least:
                raise BadParameter(f"{name} is {value}", f"an integer >= {least}")
        self.out_shape, self.input_shape = out_shape, (input_channels, *out_shape[1:])
        self.skip_channels = skip_channels
        self.scales = max(1, len(halvings(out_shape[1:], scales)) - 1)
        """How many are used."""
        weights = list[Weight]()
        for scale in range(self.scales):
            entering = channels if scale else input_channels
            if skip_channels:
                weights += _layer(skip_channels, entering, 1)
            weights += _layer(channels, entering, 3) + _layer(channels, channels, 3)
        for _ in range(self.scales):
            joined = channels + skip_channels
            weights += _layer(channels, joined, 3) + _layer(channels, channels, 1)
        self.layout = Layout((*weights, Weight((out_shape[0], channels, 1, 1)), Weight((out_shape[0],), 0)))

    def forward(self, weights: list[Tensor], inputs: Tensor) -> Tensor:
        queue = iter(weights)

        def layer(x: Tensor, stride: int = 1) -> Tensor:
            return leaky_relu(normalise(convolve(x, next(queue), stride), next(queue), next(queue)), 0.2)

        x, skips = inputs, list[Tensor]()
        sizes = list[tuple[int, ...]]()
        for _ in range(self.scales):
            sizes.append(tuple(x.shape[2:]))
            if self.skip_channels:
                skips.append(layer(x))
            x = layer(layer(x, stride=2))
        for size in reversed(sizes):
            x = enlarge(x, size)
            if self.skip_channels:
                x = torch.cat((skips.pop(), x), 1)
            x = layer(layer(normalise(x)))
        return convolve(x, next(queue)) + next(queue)[:, :, None, None]


def _layer(outputs: int, inputs: int, size: int) -> list[Weight]:
    return [Weight((outputs, inputs, size, size)), Weight((outputs,), 1), Weight((outputs,), 0)]
