"""Denoising as an objective: Gaussian noise of a range of strengths, for networks that are told the strength."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from preimage_data import psnr
from preimage_train import Objective
from torch import Tensor, nn

from preimage import ForwardModel, Key, per_image
from preimage.errors import BadParameter, Incompatible

from .averaged_network import AveragedNetwork

JUDGED = (0.02, 0.05, 0.1)
"""Strengths of the noise at which a network is judged, those within its range."""


class AveragedDenoising(Objective):
    """The mean over pixels and images of |D_sigma(x + sigma n) - x|^2 / sigma, n standard normal and sigma drawn anew.

    log sigma is uniform on the range. The division by sigma makes strong and weak noise count about alike, as the least
    mean squared error of photographs grows a little faster than sigma.

    Scores: the PSNR, the mean over noise of standard deviation 0.02, 0.05 and 0.1 (those in the range; else its ends),
    then that of each. Raises `BadParameter` for a range that is none.
    """

    def __init__(self, *, sigma: tuple[float, float] = (0.01, 0.15)):
        least, largest = sigma
        if not 0 < least <= largest < math.inf:
            raise BadParameter(f"sigma is {list(sigma)}", "two numbers, 0 < least <= largest", "use [0.01, 0.15]")
        self.sigma = (least, largest)

    def objections(self, network: nn.Module) -> list[Incompatible]:
        if isinstance(network, AveragedNetwork):
            return []
        return [Incompatible(f"{type(network).__name__} is no averaged network", "prior/iresnet-denoiser")]

    def prepare(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> tuple[Tensor, ...]:
        keys = [key.child(label) for label in labels]
        least, largest = self.sigma
        share = torch.cat([k.child("sigma").uniform((1,), images) for k in keys])
        sigma = least * (largest / least) ** share
        noise = torch.stack([k.child("noise").normal(images.shape[1:], images) for k in keys])
        return images + per_image(sigma, images) * noise, images, sigma

    def loss(self, phase: str, network: nn.Module, progress: float, *inputs: Tensor) -> Tensor:
        noisy, images, sigma = inputs
        denoiser = cast(AveragedNetwork, network)
        return ((denoiser(noisy, sigma) - images).square().flatten(1).mean(1) / sigma).mean()

    def scores(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        noise = torch.stack([key.child(label).child("noise").normal(images.shape[1:], images) for label in labels])
        least, largest = self.sigma
        levels = [sigma for sigma in JUDGED if least <= sigma <= largest] or sorted({least, largest})
        found = {f"psnr_{sigma:g}": psnr(network(images + sigma * noise, sigma), images) for sigma in levels}
        return {"psnr": torch.stack(list(found.values())).mean(0), **found}

    def pictures(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        noise = torch.stack([key.child(label).child("noise").normal(images.shape[1:], images) for label in labels])
        sigma = self.sigma[1]
        noisy = images + sigma * noise
        return {"noisy": noisy, "denoised": network(noisy, sigma), "image": images}
