"""A small problem on which solvers with a learned operator must run: for `preimage.testing`, not for use."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage import GaussianNoise, Identity, Key, Problem, Shape, norms, per_image
from preimage.trained import Inversion, LearnedOperator
from preimage.weights import Weights

FORWARD = {"operator": [{"name": "identity"}], "noise": {"name": "gaussian", "sigma": 0.05}, "seed": 0}
"""What the reference map is said to be trained for."""


class ReferenceMap(LearnedOperator):
    """phi(u) = u - f(u) on two copies of an image (C, h, w), f(u) = 1/4 tanh(mean of three columns of u + 1/10), the
    columns circular: Lip(f) <= 1/4. Its inverse is the limit of u <- z + f(u).

    By default the weights are said to be trained for denoising, sigma = 0.05.
    """

    network = nn.Identity
    lipschitz = 0.25

    def __init__(self, in_shape: Shape, forward_model: object = FORWARD):
        super().__init__(in_shape)
        channels, height, width = in_shape
        self.latent_shape = (2 * channels, height, width)
        self.inverse_lipschitz = 1 / (1 - self.lipschitz)
        facts = {} if forward_model is None else {"forward_model": forward_model}
        self.trained = Weights(Path("reference"), "prior/reference", {}, facts, {}, "")

    def lift(self, x: Tensor) -> Tensor:
        return torch.cat((x, x), 1)

    def project(self, u: Tensor) -> Tensor:
        return u.unflatten(1, (2, -1)).mean(1)

    def encode(self, u: Tensor) -> Tensor:
        return u - self._residual(u)

    def decode(self, z: Tensor) -> Tensor:
        return self.invert(z, 2 * torch.finfo(z.dtype).eps, False).x

    def invert(self, z: Tensor, tolerance: float, certified: bool) -> Inversion:
        """The bound is ||z - phi(u)|| / (1 - 1/4) for the u that is returned, and 16 roundings of its values."""
        u, evaluations = z, torch.zeros_like(norms(z))
        last, contraction = torch.full_like(evaluations, float("nan")), torch.zeros_like(evaluations)
        open_ = torch.ones_like(evaluations, dtype=torch.bool)
        for _ in range(40):
            moved = torch.where(per_image(open_, u) > 0, z + self._residual(u), u)
            step = norms(moved - u)
            contraction = torch.where(open_ & (step < last), torch.maximum(contraction, step / last), contraction)
            evaluations, u, last = evaluations + open_.to(z), moved, step
            # Distance to the limit <= q / (1 - q) step, q = 1/4.
            open_ = open_ & (step / 3 > tolerance * norms(u))
            if not bool(open_.any()):
                break
        rest = norms(z - self.encode(u)) + 16 * torch.finfo(z.dtype).eps * norms(u)
        return Inversion(u, rest * self.inverse_lipschitz, evaluations, contraction)

    def _residual(self, u: Tensor) -> Tensor:
        columns = F.avg_pool2d(F.pad(u, (1, 1, 0, 0), mode="circular"), (1, 3), stride=1)
        return self.lipschitz * torch.tanh(columns + 0.1)


def reference_problem(key: Key, shape: Shape = (1, 8, 8)) -> Problem:
    """Three 8 x 8 images with noise, in float64, and the reference map for a prior."""
    noise = GaussianNoise(sigma=0.05)
    x = key.child("image").uniform((3, *shape), like=torch.zeros((), dtype=torch.float64))
    return Problem(Identity(shape), noise.sample(x, key.child("noise")), noise, ReferenceMap(shape), weight=0.05)
