"""The objective of generative adversarial networks."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from preimage_data import psnr
from torch import Tensor, nn

from preimage import ForwardModel, Key
from preimage.errors import BadParameter, Incompatible
from preimage.trained import Adversaries

from .objective import Objective


class Adversarial(Objective):
    """A generator against a discriminator, with the non-saturating loss (Goodfellow et al. 2014, section 3).

    In every step D descends mean(softplus(-D(x)) + softplus(D(G(z)))), then G descends mean(softplus(-D(G(z)))),
    z ~ N(0, I). The score is how well the generator represents images: the PSNR of G(z) for the z that
    `search` steps of Adam find for each image from z = 0, without noise.

    - `discriminator_rate`: multiplies the learning rate of the discriminator, > 0. `search`: >= 1.

    The network must be `preimage.trained.Adversaries`. Raises `BadParameter` if a number is out of range.
    """

    def __init__(self, *, discriminator_rate: float = 1.0, search: int = 100):
        if not 0 < discriminator_rate < float("inf"):
            raise BadParameter(f"objective.discriminator_rate is {discriminator_rate}", "a finite number > 0")
        if search < 1:
            raise BadParameter(f"objective.search is {search}", "an integer >= 1")
        self.discriminator_rate, self.search = discriminator_rate, search

    def phases(self, network: nn.Module) -> Mapping[str, nn.Module]:
        both = cast(Adversaries, network)
        return {"discriminator": both.discriminator, "generator": both.generator}

    def rate(self, phase: str) -> float:
        return self.discriminator_rate if phase == "discriminator" else 1.0

    def objections(self, network: nn.Module) -> list[Incompatible]:
        if isinstance(network, Adversaries):
            return []
        found = f"network {type(network).__name__} has no generator and discriminator"
        return [Incompatible(found, "a network that is Adversaries", "choose another model or objective")]

    def prepare(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> tuple[Tensor, ...]:
        latent = cast(Adversaries, network).latent
        return images, torch.stack([key.child(label).normal((latent,), like=images) for label in labels])

    def loss(self, phase: str, network: nn.Module, progress: float, *inputs: Tensor) -> Tensor:
        both, (images, z) = cast(Adversaries, network), inputs
        if phase == "generator":
            return F.softplus(-both.discriminator(both.generator(z)).float()).mean()
        with torch.no_grad():
            made = both.generator(z)
        real, false = both.discriminator(images).float(), both.discriminator(made).float()
        return F.softplus(-real).mean() + F.softplus(false).mean()

    def scores(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        return {"representation_psnr": psnr(self._nearest(cast(Adversaries, network), images), images)}

    def pictures(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        both = cast(Adversaries, network)
        z = torch.stack([key.child("picture", label).normal((both.latent,), like=images) for label in labels])
        return {"samples": both.generator(z), "nearest": self._nearest(both, images), "truth": images}

    def _nearest(self, both: Adversaries, images: Tensor) -> Tensor:
        with torch.enable_grad():
            z = images.new_zeros((len(images), both.latent)).requires_grad_()
            optimiser = torch.optim.Adam([z], lr=0.1)
            for _ in range(self.search):
                error = (both.generator(z) - images).square().flatten(1).mean(1).sum()
                (z.grad,) = torch.autograd.grad(error, [z])
                optimiser.step()
        with torch.no_grad():
            return both.generator(z)
