"""The deep decoder's network."""

from torch import Tensor
from torch.nn.functional import relu

from preimage.errors import BadParameter

from .per_image_layers import Layout, Weight, convolve, enlarge, halvings, normalise
from .untrained_network import ImageNetwork


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
