"""Trained networks as solvers: the measurement, made an image, goes through the network once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from preimage import DirectSolver, ForwardOperator, Key, Noise, Prior, Problem
from preimage.errors import Incompatible
from preimage.trained import Trained, mismatches, network_input, restore
from preimage.weights import Weights, WeightsName, load_weights

from .convresnet import ConvResNet
from .diffnet import DiffNet
from .unet import UNet


@dataclass(frozen=True, kw_only=True)
class NetworkSolver(DirectSolver, Trained):
    """x = network(start(y)), start(y) being y itself where it is an image, the scaled adjoint A^T y for a linear
    operator between spaces of different shapes (`Problem.start`).

    A network for grey images is applied to each channel of a colour image.

    - `weights`: "auto" for those that ship for the pipeline's operator and noise (in a pipeline alone), one of their
      names, or a file that `preimage train` exported.
    - `allow_mismatch`: use the weights on an operator or noise that they were not trained for; the reason in the
      result then says so. Otherwise such a pipeline is refused.

    Raises `BadFile` or `Incompatible` if the weights are missing, damaged or of another architecture.
    """

    component: ClassVar[str]

    weights: WeightsName = "auto"
    allow_mismatch: bool = False
    _loaded: tuple[Weights, nn.Module] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        super().__post_init__()
        weights = load_weights(self.weights, self.component)
        object.__setattr__(self, "_loaded", (weights, restore(weights, self.network)))

    def objections(self, operator: ForwardOperator, noise: Noise, prior: Prior | None) -> list[Incompatible]:
        channels = self._loaded[1].image_channels
        if channels not in (1, operator.in_shape[0]):
            found = f"{self.weights} is for images of {channels} channels, not {operator.in_shape[0]}"
            return [Incompatible(found, f"images of {channels} channels", "name weights for these images")]
        return [] if self.allow_mismatch else mismatches(self._loaded[0], operator, noise)

    def invert(self, problem: Problem, keys: Sequence[Key]) -> Tensor:
        start, network = network_input(problem), self._loaded[1]
        images = start.reshape(-1, 1, *start.shape[2:]) if network.image_channels == 1 else start
        tensors = {name: t.to(images) for name, t in network.state_dict().items() if t.is_floating_point()}
        return torch.func.functional_call(network, tensors, images).reshape(start.shape)

    def criterion(self, problem: Problem, state: Tensor) -> str:
        if self.allow_mismatch and (wrong := mismatches(self._loaded[0], problem.operator, problem.noise)):
            return f"it is not iterative; mismatch allowed: {'; '.join(w.found for w in wrong)}"
        return "it is not iterative"


@dataclass(frozen=True, kw_only=True)
class ConvResNetSolver(NetworkSolver):
    """Reconstruction by a trained `ConvResNet`."""

    component = "solver/convresnet"
    network = ConvResNet


@dataclass(frozen=True, kw_only=True)
class UNetSolver(NetworkSolver):
    """Reconstruction by a trained `UNet`."""

    component = "solver/unet"
    network = UNet


@dataclass(frozen=True, kw_only=True)
class DiffNetSolver(NetworkSolver):
    """Reconstruction by a trained `DiffNet`."""

    component = "solver/diffnet"
    network = DiffNet
