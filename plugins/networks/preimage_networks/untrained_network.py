"""What the networks that are fitted to a single image have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from preimage import Key

from .per_image_layers import Layout


class ImageNetwork(ABC):
    """A map from weights and an input to an image: a plain function, with no weights of its own.

    Calling it is differentiable in both arguments, and works for one set of weights per image. Used with the same
    weights for all images it is the decoder of a generative prior, z -> network(weights, z).

    - `out_shape`: (C, H, W) of the image. `input_shape`: of the input, likewise. `layout`: of the weights.
    """

    out_shape: tuple[int, int, int]
    input_shape: tuple[int, int, int]
    layout: Layout
    input_scale: ClassVar[float] = 0.1

    @abstractmethod
    def forward(self, weights: list[Tensor], inputs: Tensor) -> Tensor:
        """The image before the sigmoid, (B, *out_shape), from weights as `layout.split` gives them."""

    def __call__(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """weights (B, layout.count), inputs (B, *input_shape) -> images (B, *out_shape) with values in (0, 1)."""
        if len(inputs) == 1:  # oneDNN's convolutions and torch's interpolation are twice as fast in this order
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return torch.sigmoid(self.forward(self.layout.split(weights), inputs)).contiguous()

    def draw_weights(self, key: Key, like: Tensor) -> Tensor:
        """Weights to start from for one image, (layout.count,)."""
        return self.layout.draw(key, like)

    def draw_input(self, key: Key, like: Tensor) -> Tensor:
        """A fixed input for one image, *input_shape, uniform in [0, 0.1) (both papers)."""
        return self.input_scale * key.uniform(self.input_shape, like=like)

    def linearise(self, weights: Tensor, inputs: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The images, and the map from a gradient in them to that in the weights, (B, *out_shape) -> (B, weights).

        Equal to what automatic differentiation of the network gives, up to rounding; may be faster.
        """
        with torch.enable_grad():
            weights = weights.detach().requires_grad_()
            images = self(weights, inputs)
        return images.detach(), lambda slope: torch.autograd.grad(images, weights, slope)[0]

    def rows_at_once(self, like: Tensor) -> int:
        """How many images go through the network together: all on a GPU, one on a CPU.

        Their weights differ, so a CPU has no work to share between them, and a batch does not fit its cache. One at a
        time, rounding does not depend on the batch.
        """
        return 1 if like.device.type == "cpu" else 2**31
