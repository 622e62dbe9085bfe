"""One step of a flow: ActNorm and an invertible 1 x 1 convolution as one affine map, then an affine coupling."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .coupling import CouplingNetwork


class Affine(NamedTuple):
    """u -> weight u + bias at every pixel, and log |det weight|."""

    weight: Tensor
    bias: Tensor
    log_determinant: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        return F.conv2d(u, self.weight[:, :, None, None], self.bias)

    def inverse(self) -> "Affine":
        """The inverse map, computed in float64."""
        weight = torch.linalg.inv(self.weight.double())
        return Affine(weight.to(self.weight), -(weight @ self.bias.double()).to(self.weight), -self.log_determinant)


class FlowStep(nn.Module):
    """v = coupling(W s (u + b)) for u (B, C, h, w) (Kingma & Dhariwal 2018, section 3).

    The coupling leaves the second half of the channels, k, as it is, and makes of the first half a: a exp(l(k)) + t(k),
    with l and t of a `CouplingNetwork`.
    """

    def __init__(self, channels: int, hidden: int, bound: float):
        super().__init__()
        self.changed = channels // 2
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.mixing = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])
        self.network = CouplingNetwork(channels - self.changed, self.changed, hidden, bound)

    def affine(self) -> Affine:
        """ActNorm and mixing in one."""
        weight = self.mixing * self.log_scale.exp()
        log_determinant = self.log_scale.sum() + torch.linalg.slogdet(self.mixing)[1]
        return Affine(weight, weight @ self.shift, log_determinant)

    def encode(self, u: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """v, and log |det dv/du| per image; the network is computed in `dtype`."""
        affine = self.affine()
        a, k = affine(u).split([self.changed, u.shape[1] - self.changed], 1)
        log_scale, shift = self.network(k, dtype)
        pixels = u.shape[2] * u.shape[3]
        v = torch.cat([a * log_scale.exp() + shift, k], 1)
        return v, log_scale.flatten(1).sum(1) + pixels * affine.log_determinant

    def decode(self, v: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """u with encode(u) = v, and log |det du/dv| per image."""
        affine = self.affine().inverse()
        a, k = v.split([self.changed, v.shape[1] - self.changed], 1)
        log_scale, shift = self.network(k, dtype)
        pixels = v.shape[2] * v.shape[3]
        u = affine(torch.cat([(a - shift) * (-log_scale).exp(), k], 1))
        return u, pixels * affine.log_determinant - log_scale.flatten(1).sum(1)

    @torch.no_grad()
    def initialise(self, u: Tensor) -> Tensor:
        """Make channels of mean 0 and deviation 1 of u before they are mixed; returns v."""
        deviation, mean = torch.std_mean(u, (0, 2, 3))
        self.shift.copy_(-mean)
        self.log_scale.copy_(-deviation.clamp_min(1e-6).log())
        mixed = self.affine()(u)
        self.network.initialise(mixed[:, self.changed :])
        return self.encode(u)[0]
