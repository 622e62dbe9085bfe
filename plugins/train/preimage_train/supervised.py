"""Objectives that compare a network's output with a known image: reconstruction, approximation of an operator."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch.nn.functional as F
from preimage_data import psnr
from torch import Tensor, nn

from preimage import ForwardModel, Key, Problem
from preimage.trained import network_input

from .objective import Objective

Distance = Literal["squared", "absolute"]


class _Compared(Objective):
    needs_forward_model = True

    def __init__(self, *, distance: Distance = "squared"):
        self.distance: Distance = distance

    def loss(self, phase: str, network: nn.Module, progress: float, *inputs: Tensor) -> Tensor:
        given, wanted = inputs
        output = network(given).float()
        return F.mse_loss(output, wanted) if self.distance == "squared" else F.l1_loss(output, wanted)


class Reconstruction(_Compared):
    """Supervised reconstruction: the mean of |network(start(y)) - x|^2 over pixels, y = F(x) + noise drawn anew.

    start(y) is y where it is an image, and the scaled adjoint otherwise (`preimage.trained.network_input`). With the
    squared distance the best network is the posterior mean (Arndt & Nickel 2024, section 3.2). The score is the PSNR.

    - `distance`: "squared", or "absolute" for the mean of absolute differences.
    """

    def prepare(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> tuple[Tensor, ...]:
        return _start(images, labels, forward), images

    def scores(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        return {"psnr": psnr(network(_start(images, labels, forward)), images)}

    def pictures(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        start = _start(images, labels, forward)
        return {"given": start, "reconstruction": network(start), "truth": images}


class Approximation(_Compared):
    """Approximation of an operator: the mean of |network(x) - F(x)|^2 over pixels, images and measurements of one shape
    (Arndt & Nickel 2024, section 3.1, approximation training; with `noise` the target is F(x) + noise).

    The score is the PSNR of network(x) as an estimate of F(x).

    - `distance`: "squared" or "absolute". `noise`: whether the target has noise.
    """

    def __init__(self, *, distance: Distance = "squared", noise: bool = False):
        super().__init__(distance=distance)
        self.noise = noise

    def prepare(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> tuple[Tensor, ...]:
        assert forward is not None
        measured = forward.simulate(images, labels) if self.noise else forward.operator_for(labels)(images)
        return images, measured

    def scores(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        assert forward is not None
        return {"psnr": psnr(network(images), forward.operator_for(labels)(images))}

    def pictures(
        self, network: nn.Module, images: Tensor, labels: Sequence[str], key: Key, forward: ForwardModel | None
    ) -> Mapping[str, Tensor]:
        assert forward is not None
        return {"image": images, "network": network(images), "operator": forward.operator_for(labels)(images)}


def _start(images: Tensor, labels: Sequence[str], forward: ForwardModel | None) -> Tensor:
    assert forward is not None
    return network_input(Problem(forward.operator_for(labels), forward.simulate(images, labels), forward.noise))
