"""DiffNet: nonlinear diffusion with learned stencils (Arridge & Hauptmann 2020)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from preimage.errors import BadParameter

Preset = Literal["paper", "small"]
Variant = Literal["divergence", "symmetric", "free"]

_PRESETS: dict[Preset, tuple[int, int]] = {"paper": (5, 32), "small": (5, 32)}


def neighbours(u: Tensor) -> Tensor:
    """The pixels above, below, left and right of each: (B, C, H, W) -> (B, 4, C, H, W), edge pixels continued."""
    padded = F.pad(u, (1, 1, 1, 1), mode="replicate")
    return torch.stack(
        [padded[..., :-2, 1:-1], padded[..., 2:, 1:-1], padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]], dim=1
    )


def diffusion_step(u: Tensor, stencil: Tensor, step: Tensor | float, variant: Variant = "divergence") -> Tensor:
    """One explicit step u + step L u with a 5-point stencil at each pixel (Arridge & Hauptmann 2020, section 3).

    - `u`: (B, C, H, W). `stencil`: (B, 5, H, W), s_1 to s_4 for the pixels above, below, left and right, s_5 for the
      pixel itself.
    - "divergence": (L u)(p) = sum_n s_n(p) (u(p_n) - u(p)) + s_5(p) u(p), a discretised divergence, free of mean, and a
      reaction term.
    - "symmetric": the same with s_n(p) replaced by its mean with the opposite coefficient of the neighbour p_n, so that
      what leaves a pixel arrives at the next: L without the reaction term is symmetric and keeps the mean of u.
    - "free": (L u)(p) = sum_n s_n(p) u(p_n) + s_5(p) u(p).

    With s = (1, 1, 1, 1, 0) the first two are an explicit step of the heat equation with reflecting boundary.
    """
    sides, own = stencil[:, :4].unsqueeze(2), stencil[:, 4:]
    around = neighbours(u)
    if variant == "symmetric":
        beyond = neighbours(stencil[:, :4])  # beyond[:, n, k]: the coefficient k of the neighbour n
        facing = torch.stack([beyond[:, n, opposite] for n, opposite in enumerate((1, 0, 3, 2))], dim=1)
        sides = 0.5 * (sides + facing.unsqueeze(2))
    difference = around if variant == "free" else around - u.unsqueeze(1)
    return u + step * ((sides * difference).sum(1) + own * u)


class _Layer(nn.Module):
    def __init__(self, image_channels: int, features: int, variant: Variant):
        super().__init__()
        self.variant: Variant = variant
        self.stencil = nn.Sequential(
            nn.Conv2d(image_channels, features, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, 5, 3, padding=1),
        )
        self.step = nn.Parameter(torch.tensor(0.1))

    def forward(self, u: Tensor) -> Tensor:
        return diffusion_step(u, self.stencil(u), self.step, self.variant)


class DiffNet(nn.Module):
    """Explicit steps of a diffusion, each with a stencil per pixel that a small network estimates, and a learned size.

    u_{k+1} = u_k + h_k L(s_k(u_k)) u_k, s_k of 3 x 3 convolutions C-32-32-32-5 (zero padding) with ReLU between them;
    see `diffusion_step`. Images (B, image_channels, H, W) of any size; the channels share a stencil.

    - `preset`: both are the paper's, 5 steps of 32 features: 101,310 parameters on grey images (Arndt & Nickel 2024,
      table 1). `steps` and `features` replace its values. `variant`: of the stencil.

    Raises `BadParameter` if a number is not positive.
    """

    def __init__(
        self,
        preset: Preset = "small",
        image_channels: int = 1,
        steps: int | None = None,
        features: int | None = None,
        variant: Variant = "divergence",
    ):
        super().__init__()
        steps, features = (
            own if own is not None else p for own, p in zip((steps, features), _PRESETS[preset], strict=True)
        )
        for name, value in {"image_channels": image_channels, "steps": steps, "features": features}.items():
            if value < 1:
                raise BadParameter(f"{name} is {value}", "an integer >= 1")
        self.image_channels = image_channels
        self.layers = nn.Sequential(*(_Layer(image_channels, features, variant) for _ in range(steps)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
