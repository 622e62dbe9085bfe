"""A small flow with known derivatives and no weights, on which the latent solvers are held to the laws of solvers."""

import torch
from torch import Tensor

from preimage import GaussianNoise, Identity, Key, NormalizingFlow, Problem, Shape, check_shape


class ReferenceFlow(NormalizingFlow):
    """x = a z + mixing in couplings: with z = (u, v) in halves, u' = u exp(s tanh(v)) + sin(v), v' = v + 1/2 cos(u').

    x = 1/2 + 1/5 (u', v'), in the shape of images, of an even number of values; log |det| = sum s tanh(v) + n log 1/5.
    """

    scale, strength = 0.2, 0.5

    def __init__(self, in_shape: Shape):
        super().__init__(in_shape)
        self.latent_shape = (torch.Size(in_shape).numel(),)

    def decode_with_log_determinant(self, z: Tensor) -> tuple[Tensor, Tensor]:
        check_shape(z, self.latent_shape, "latent z")
        u, v = z.chunk(2, 1)
        log_scale = self.strength * v.tanh()
        u = u * log_scale.exp() + v.sin()
        v = v + 0.5 * u.cos()
        constant = z.shape[1] * torch.tensor(self.scale, dtype=z.dtype, device=z.device).log()
        x = 0.5 + self.scale * torch.cat([u, v], 1)
        return x.reshape(-1, *self.in_shape), log_scale.sum(1) + constant

    def encode_with_log_determinant(self, u: Tensor) -> tuple[Tensor, Tensor]:
        check_shape(u, self.in_shape, "image")
        first, v = ((u.flatten(1) - 0.5) / self.scale).chunk(2, 1)
        v = v - 0.5 * first.cos()
        log_scale = self.strength * v.tanh()
        z = torch.cat([(first - v.sin()) * (-log_scale).exp(), v], 1)
        constant = z.shape[1] * torch.tensor(self.scale, dtype=z.dtype, device=z.device).log()
        return z, -log_scale.sum(1) - constant


def reference_problem(key: Key) -> Problem:
    """Three images of 4 x 4 pixels with noise, in float64, the prior a `ReferenceFlow`."""
    shape, noise = (1, 4, 4), GaussianNoise(sigma=0.05)
    prior, operator = ReferenceFlow(shape), Identity(shape)
    x = prior.sample(3, key.child("image"), like=torch.zeros((), dtype=torch.float64))
    return Problem(operator, noise.sample(operator(x), key.child("noise")), noise, prior, weight=0.05**2)
