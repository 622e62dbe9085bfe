"""The deep decoder's network."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import relu

from preimage.errors import BadParameter

from .per_image_layers import Layout, Weight, convolve, enlarge, halvings, normalise
from .pixel_layers import enlarge_pixels, mix_normalised, products
from .untrained_network import ImageNetwork

_Mixed = Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
_Layer = tuple[Callable[[Tensor], Tensor] | None, Tensor, _Mixed]


class DecoderNetwork(ImageNetwork):
    """B_(i+1) = cn(relu(U_i B_i C_i)), x = sigmoid(B_d C_d): Heckel & Hand 2019, "Deep decoder: concise image
    representations from untrained non-convolutional networks" (ICLR), section 2.

    C_i mixes the k channels of each pixel (a 1x1 convolution without bias), U_i is bilinear upsampling, and cn
    normalises each channel to a mean and a deviation that are weights too. As in the authors' program the last
    layer before the output does not upsample. Mixing and upsampling commute, so mixing comes first: a quarter of the
    work.

    - `out_shape`: (C, H, W), any size >= 2. `channels`: k >= 1. `layers`: upsampling layers, >= 0; fewer where the
      input would have a side below 4 pixels. The input is of size (H, W) halved that often, rounded up.

    With d upsampling layers there are (d + 1) (k^2 + 2 k) + C k weights (`layout.count`). Raises `BadParameter`.
    """

    def __init__(self, out_shape: tuple[int, int, int], *, channels: int, layers: int):
        if channels < 1:
            raise BadParameter(f"channels is {channels}", "an integer >= 1", "write channels = 32")
        if layers < 0:
            raise BadParameter(f"layers is {layers}", "an integer >= 0", "write layers = 4")
        self.out_shape = out_shape
        small_first = halvings(out_shape[1:], layers)[::-1]
        self.sizes = (*small_first[1:], small_first[-1])
        """(H, W) that each layer ends with."""
        self.input_shape = (channels, *small_first[0])
        layer = (Weight((channels, channels, 1, 1)), Weight((channels,), 1), Weight((channels,), 0))
        self.layout = Layout((*layer * len(self.sizes), Weight((out_shape[0], channels, 1, 1))))

    def forward(self, weights: list[Tensor], inputs: Tensor) -> Tensor:
        x = inputs
        for index, size in enumerate(self.sizes):
            mixing, scale, shift = weights[3 * index : 3 * index + 3]
            x = normalise(relu(enlarge(convolve(x, mixing), size)), scale, shift)
        return convolve(x, weights[-1])

    def rows_at_once(self, like: Tensor) -> int:
        """On a CPU four images, which share the starting of operations and leave its cache no more than one does.

        One image, where rounding would depend on the batch: libraries round by how memory is aligned, and the last
        numbers of a tensor in another way than full vectors of them. With these sizes each image's part of every
        tensor is aligned to 64 bytes and filled with full vectors.
        """
        aligned = self.input_shape[0] % 16 == 0 and math.prod(self.out_shape) % 64 == 0
        return super().rows_at_once(like) if like.device.type != "cpu" else 4 if aligned else 1

    def linearise(self, weights: Tensor, inputs: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """As `ImageNetwork.linearise` says; the same function by `pixel_layers`, each layer's normalisation together
        with the mixing that follows it."""
        parts, size = self.layout.split(weights), (inputs.shape[2], inputs.shape[3])
        mixings = [mixing.flatten(2) for mixing in parts[::3]]
        pixels = inputs.flatten(2).mT.contiguous()
        x, layers = products(pixels, mixings[0].mT), list[_Layer]()
        for index, larger in enumerate(self.sizes):
            enlarged = None
            if larger != size:
                x, enlarged = enlarge_pixels(x, size, larger)
            rectified, size, last = x.relu_(), larger, index == len(self.sizes) - 1
            scale, shift = parts[3 * index + 1 : 3 * index + 3]
            x, mixed = mix_normalised(rectified, mixings[index + 1], scale, shift, planar=last)
            layers.append((enlarged, rectified, mixed))
        image = x.sigmoid_().unflatten(2, size)

        def pullback(slope: Tensor) -> Tensor:
            slope = torch.ops.aten.sigmoid_backward(slope, image).flatten(2)
            gradients = list[Tensor]()
            for enlarged, rectified, mixed in reversed(layers):
                slope, *in_weights = mixed(slope)
                gradients += [part.flatten(1) for part in (in_weights[0], in_weights[2], in_weights[1])]
                torch.ops.aten.threshold_backward.grad_input(slope, rectified, 0, grad_input=slope)
                slope = (slope if enlarged is None else enlarged(slope)).mT
            gradients.append(products(slope, pixels).flatten(1))
            return torch.cat(gradients[::-1], 1)

        return image, pullback
