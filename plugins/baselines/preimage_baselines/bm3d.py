"""Block matching and 3-D filtering, as a denoiser for images of one or three channels."""

from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from preimage import Denoiser, Shape
from preimage.errors import NotInstalled, ShapeMismatch

_OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0, -1 / 2], [1 / 4, -1 / 2, 1 / 4]])
"""Luminance and two differences of colours, the space of C-BM3D: that of `bm3d.bm3d_rgb`, which knows no stages."""

SMALLEST_SIDE = 12
"""Blocks have 8 x 8 pixels; on an image of a single block the package crashes."""


class BM3D(Denoiser):
    """Non-local filtering of white Gaussian noise: similar blocks are stacked, and stacks shrunk in a 3-D transform.

    Grey images: Dabov, Foi, Katkovnik & Egiazarian 2007, "Image denoising by sparse 3-D transform-domain collaborative
    filtering"; colour: C-BM3D of the same authors (ICIP 2007), blocks matched in the luminance of an opponent colour
    space. The computation is the authors' own, in the package bm3d (extra `bm3d` of preimage-baselines), with the
    profile "np"; **its licence allows non-commercial use only**. On the CPU, one image after the other, in one thread,
    so that it is deterministic, and inside in single precision whatever the dtype. Not differentiable.

    - `stages`: 2 (default), hard thresholding and then Wiener filtering with its result as the pilot; 1, only the
      first.
    - `exact_variances`: True (default): overlapping blocks of a stack have correlated noise, and its variance in the
      transform domain is computed exactly (Makinen, Azzari & Foi 2020, "Collaborative filtering of correlated noise:
      exact transform-domain variance for improved shrinkage and patch matching"). This takes the package most of its
      time, 0.4 s a channel on the smallest image. False: as if blocks were independent, as in the articles of 2007: 20,
      8 and 5 times as fast on colour images of 64, 128 and 256 pixels a side, for 0.05 to 0.1 dB less
      (benchmarks/perf/test_bm3d.py). That suits the many calls of plug-and-play methods.

    `denoise(x, sigma)`: x is not clipped, neither before nor after; sigma 0 gives back x. Published figures often
    clip the noisy image to [0, 1] first (solver `denoise` with clip = true), which makes the noise weaker, and no
    longer Gaussian.

    Raises `NotInstalled` without the package, and `ShapeMismatch` unless images are (1 or 3, H, W) with sides of at
    least 12.
    """

    def __init__(self, in_shape: Shape, *, stages: Literal[1, 2] = 2, exact_variances: bool = True):
        super().__init__(in_shape)
        if len(in_shape) != 3 or in_shape[0] not in (1, 3) or min(in_shape[1:]) < SMALLEST_SIDE:
            raise ShapeMismatch(
                f"bm3d got images of shape {tuple(in_shape)}",
                f"(1, H, W) or (3, H, W) with sides of at least {SMALLEST_SIDE}",
                "treat other channels one by one",
            )
        self.stages: Literal[1, 2] = stages
        self.exact_variances = exact_variances
        package()

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        levels = torch.as_tensor(sigma, dtype=torch.float64).cpu().expand(len(x)).tolist()
        arrays = x.detach().permute(0, 2, 3, 1).double().cpu().numpy()
        done = [self._image(array, level) for array, level in zip(arrays, levels, strict=True)]
        return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).to(x).contiguous()

    def _image(self, image: np.ndarray, sigma: float) -> np.ndarray:
        """(H, W, C) float64 in and out."""
        colours = _OPPONENT if image.shape[2] == 3 else np.ones((1, 1))
        transformed = image @ colours.T
        low = transformed.min((0, 1))
        # The package divides by the range of the values, so a flat channel (or image) needs a range of its own.
        span = transformed.max((0, 1)) - low
        if sigma == 0 or span[0] == 0:
            return image
        span[span == 0] = 1
        levels = sigma * np.sqrt((colours**2).sum(1)) / span
        found = package()
        profile = found.BM3DProfile()
        profile.num_threads = 1  # with more, sums are taken in an order that changes from call to call
        if not self.exact_variances:
            profile.nf = 0  # the size of the transform by which the package computes them; 0: not at all
        stages = found.BM3DStages.ALL_STAGES if self.stages == 2 else found.BM3DStages.HARD_THRESHOLDING
        if image.shape[2] == 1:
            return found.bm3d(image[..., 0], sigma, profile, stages)[..., None]
        denoised = found.bm3d((transformed - low) / span, levels, profile, stages)
        return (denoised * span + low) @ np.linalg.inv(colours).T


def package() -> Any:
    """The module bm3d. Raises `NotInstalled` without it."""
    try:
        return import_module("bm3d")
    except ImportError as error:
        raise NotInstalled(
            f"prior 'bm3d' needs the package bm3d, which cannot be imported: {error}",
            "the package, whose licence allows non-commercial use only",
            'pip install "preimage-baselines[bm3d]"',
        ) from error
