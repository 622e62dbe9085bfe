"""A linear first layer of a flow: the stationary Gaussian that is fitted to the images it will learn."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from preimage.errors import BadData
from preimage.transforms import dct2, idct2

SMALLEST_VARIANCE = 0.25 / 255**2
"""Added to every fitted variance: that of an error of half a grey level of 8-bit images."""


class GaussianLayer(nn.Module):
    """x = mean + Q^T (R_f) Q w: an image (B, C, H, W) from one of unit variance and no correlation, and back.

    Q is the orthonormal DCT-II of each channel, R_f the symmetric root of the covariance of the C channels at frequency
    f: the root of the covariance matrix nearest to the identity, so that w keeps the places of edges. Nothing of it is
    trained; it starts as the identity.
    """

    mean: Tensor
    root: Tensor

    def __init__(self, channels: int, height: int, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, height, width))
        self.register_buffer("root", torch.eye(channels).repeat(height, width, 1, 1))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the mean image and the covariances C_f + SMALLEST_VARIANCE I of images, (N, C, H, W).

        Raises `BadData` for fewer than two.
        """
        if len(images) < 2:
            raise BadData(f"a Gaussian is fitted to {len(images)} images", "2 or more, better hundreds", "give more")
        mean = images.double().mean(0)
        c = dct2(images.double() - mean)
        covariance = torch.einsum("nihw,njhw->hwij", c, c) / (len(images) - 1)
        variances, axes = torch.linalg.eigh(covariance)
        deviations = (variances.clamp_min(0) + SMALLEST_VARIANCE).sqrt()
        self.mean.copy_(mean)
        root = (axes * deviations[..., None, :]) @ axes.mT
        self.root.copy_((root + root.mT) / 2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """w, and log |det dw/dx|, ()."""
        inverse, log_determinant = inverse_of(self.root)
        return filtered(inverse, x - self.mean), log_determinant

    def decode(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """x, and log |det dx/dw|, ()."""
        return self.mean + filtered(self.root, w), -inverse_of(self.root)[1]


class FoldedGaussianLayer(nn.Module):
    """A `GaussianLayer` whose inverse and determinant are at hand, in whatever dtype the module is moved to."""

    mean: Tensor
    root: Tensor
    inverse_root: Tensor
    log_determinant: Tensor

    def __init__(self, layer: GaussianLayer):
        super().__init__()
        self.register_buffer("mean", layer.mean.clone(), persistent=False)
        self.register_buffer("root", layer.root.clone(), persistent=False)
        self._derive()

    def _derive(self) -> None:
        inverse, log_determinant = inverse_of(self.root)
        self.register_buffer("inverse_root", inverse, persistent=False)
        self.register_buffer("log_determinant", log_determinant, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved = super()._apply(fn, recurse)
        self._derive()
        return moved

    def encode(self, x: Tensor) -> Tensor:
        """w."""
        return filtered(self.inverse_root, x - self.mean)

    def decode(self, w: Tensor) -> Tensor:
        """x."""
        return self.mean + filtered(self.root, w)

    def encode_transpose(self, g: Tensor) -> Tensor:
        """The gradient in x from that in w: both maps are symmetric but for the mean."""
        return filtered(self.inverse_root, g)

    def decode_transpose(self, g: Tensor) -> Tensor:
        """The gradient in w from that in x."""
        return filtered(self.root, g)


def inverse_of(root: Tensor) -> tuple[Tensor, Tensor]:
    """All R_f^-1, computed in float64, and log |det dw/dx|."""
    inverse, _ = torch.linalg.inv_ex(root.double())
    return inverse.to(root), -torch.linalg.slogdet(root.double())[1].sum().to(root)


def filtered(matrices: Tensor, x: Tensor) -> Tensor:
    """Q^T M_f Q x for symmetric M_f (H, W, C, C): a symmetric map."""
    return idct2(torch.einsum("hwij,njhw->nihw", matrices, dct2(x)))
