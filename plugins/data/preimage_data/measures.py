"""How close an estimate is to the truth, per image."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from preimage import dot
from preimage.errors import ShapeMismatch

_WINDOW = 11  # pixels: 2 * int(3.5 * 1.5 + 0.5) + 1, the support of scikit-image's Gaussian of sigma 1.5


def psnr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, float64, (B,).

    PSNR = -10 log10 MSE, with the estimate clipped to [0, 1], peak 1, and the mean over all pixels and channels.
    Infinite where both are equal. Arguments (B, C, H, W), the reference in [0, 1].

    Raises `ShapeMismatch` if the shapes differ or are not those of images.
    """
    _check(estimate, reference, "PSNR")
    error = (estimate.detach().double().clamp(0, 1) - reference.detach().double()).flatten(1)
    return -10 * torch.log10(dot(error, error) / error.shape[1])


def ssim(estimate: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity of each image, float64, (B,), on the CPU.

    The convention of Wang et al. (IEEE Trans. Image Processing 13(4), 2004, section III.B), by scikit-image: Gaussian
    windows of sigma 1.5 (11 x 11 pixels), K1 = 0.01, K2 = 0.03, data range 1, biased covariances, a border of 5 pixels
    left out, the mean over channels. The estimate is clipped to [0, 1]. Arguments (B, C, H, W).

    Raises `ShapeMismatch` if the shapes differ, are not those of images, or are smaller than 11 pixels.
    """
    from skimage.metrics import structural_similarity

    _check(estimate, reference, "SSIM")
    if min(estimate.shape[2:]) < _WINDOW:
        raise ShapeMismatch(
            f"SSIM of images of {estimate.shape[2]} x {estimate.shape[3]} pixels",
            f"at least {_WINDOW} x {_WINDOW} pixels, the window",
            "use PSNR for images this small",
        )

    def one(a: np.ndarray, b: np.ndarray) -> float:
        settings: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        value: Any = structural_similarity(a, b, data_range=1.0, channel_axis=0, **settings)
        return float(value)

    estimates = estimate.detach().double().clamp(0, 1).cpu().numpy()
    references = reference.detach().double().cpu().numpy()
    values = [one(a, b) for a, b in zip(estimates, references, strict=True)]
    return torch.tensor(values, dtype=torch.float64)


class PSNR:
    """Peak signal-to-noise ratio in dB; larger is better. See `psnr`."""

    def __call__(self, estimate: Tensor, reference: Tensor) -> Tensor:
        return psnr(estimate, reference)


class SSIM:
    """Structural similarity, at most 1; larger is better. See `ssim`."""

    def __call__(self, estimate: Tensor, reference: Tensor) -> Tensor:
        return ssim(estimate, reference)


def _check(estimate: Tensor, reference: Tensor, what: str) -> None:
    if estimate.shape != reference.shape or estimate.ndim != 4:
        raise ShapeMismatch(
            f"{what} of shapes {tuple(estimate.shape)} and {tuple(reference.shape)}",
            "two batches of images of one shape, (B, C, H, W)",
            "add the batch axis with x[None], or compare images of one size",
        )
