"""A learned operator whose every number is known in closed form: u -> scale u + offset (+1, -1) on two copies."""

import torch
from torch import Tensor, nn

from preimage.trained import Inversion, LearnedOperator, restore
from preimage.weights import WeightsName, load_weights


class ScaledNetwork(nn.Module):
    def __init__(self, *, lipschitz: float):
        super().__init__()
        self.lipschitz = lipschitz
        self.scale, self.offset = nn.Parameter(torch.tensor(1 - lipschitz)), nn.Parameter(torch.zeros(()))


class Scaled(LearnedOperator):
    network = ScaledNetwork

    def __init__(self, in_shape: tuple[int, ...], *, weights: WeightsName):
        super().__init__(in_shape)
        self.trained = load_weights(weights, "prior/scaled")
        phi = restore(self.trained, ScaledNetwork)
        self.scale, self.offset = float(phi.scale), float(phi.offset)
        self.latent_shape = (2 * in_shape[0], *in_shape[1:])
        self.inverse_lipschitz = 1 / (1 - phi.lipschitz)

    def lift(self, x: Tensor) -> Tensor:
        return x.repeat(1, 2, 1, 1)

    def project(self, u: Tensor) -> Tensor:
        return u.unflatten(1, (2, -1)).mean(1)

    def _offsets(self, like: Tensor) -> Tensor:
        half = torch.full((1, like.shape[1] // 2, 1, 1), self.offset).to(like)
        return torch.cat([half, -half], 1)

    def encode(self, u: Tensor) -> Tensor:
        return self.scale * u + self._offsets(u)

    def decode(self, z: Tensor) -> Tensor:
        return (z - self._offsets(z)) / self.scale

    def invert(self, z: Tensor, tolerance: float, certified: bool) -> Inversion:
        zeros = z.new_zeros(len(z))
        return Inversion(self.decode(z), zeros, zeros + 3, zeros)
