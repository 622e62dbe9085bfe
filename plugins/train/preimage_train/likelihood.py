"""The objective of flows: the likelihood of images."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from preimage import ForwardModel, Key
from preimage.errors import BadParameter, Incompatible
from preimage.trained import HasDensity

from .objective import Objective


class Likelihood(Objective):
    """Negative log-likelihood per pixel value, -log p(x + u) / n, of images with uniform noise u on [0, 1 / levels).

    The noise makes a density of a distribution over `levels` grey values (Theis, van den Oord & Bethge 2016, section
    3.1). The score is minus the bits per dimension, (-log2 p(x + u) + n log2 levels) / n.

    - `levels`: 256 for 8-bit images; 32 for 5-bit ones (images are quantised to them), as Kingma & Dhariwal (2018) do.

    The network must be a `HasDensity`. Raises `BadParameter` unless levels >= 2.
    """

    def __init__(self, *, levels: int = 256):
        if levels < 2:
            raise BadParameter(f"objective.levels is {levels}", "an integer >= 2")
        self.levels = levels

    def objections(self, network: nn.Module) -> list[Incompatible]:
        if isinstance(network, HasDensity):
            return []
        found = f"network {type(network).__name__} has no density"
        return [Incompatible(found, "a network that is a HasDensity", "choose another model or objective")]

    def prepare(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> tuple[Tensor, ...]:
        noise = torch.stack([key.child(label).uniform(images.shape[1:], like=images) for label in labels])
        return (((images * self.levels).floor().clamp(0, self.levels - 1) + noise) / self.levels,)

    def loss(self, phase: str, network: nn.Module, progress: float, *inputs: Tensor) -> Tensor:
        assert isinstance(network, HasDensity)
        return -network.log_density(inputs[0]).float().mean() / inputs[0][0].numel()

    def scores(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        assert isinstance(network, HasDensity)
        (noisy,) = self.prepare(network, images, labels, key, forward)
        nats = network.log_density(noisy).float() / images[0].numel()
        return {"minus_bits_per_dimension": nats / math.log(2) - math.log2(self.levels)}
