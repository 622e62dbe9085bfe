"""Smoothed total variation on Perona-Malik diffusion: the figures of an independent L-BFGS on 32 crops.

The crops are the 96 x 96 centres of the first 32 images of BSDS500's validation set, which is read from
PREIMAGE_DATA/bsds500/val. The figures are those of independent code with the same weights and epsilon, stopped
after 60 iterations.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_baselines import LBFGS, GaussNewton, GradientDescent, SmoothedTotalVariation

from preimage import GaussianNoise, Problem, solve

ROOT = Path(os.environ.get("PREIMAGE_DATA", "nowhere")) / "bsds500" / "val"
SHAPE = (1, 96, 96)


@pytest.mark.slow
@pytest.mark.skipif(not ROOT.is_dir(), reason="needs PREIMAGE_DATA with bsds500/val")
@pytest.mark.parametrize(
    ("sigma", "weight", "expected"), [(0.01, 0.002, 33.66), (0.025, 0.008, 30.52), (0.05, 0.032, 27.88)]
)
@pytest.mark.parametrize("solver", [LBFGS(), GradientDescent(), GaussNewton()], ids=lambda s: type(s).__name__)
def test_the_32_development_crops(sigma, weight, expected, solver):
    data = pytest.importorskip("preimage_data")
    diffusion = pytest.importorskip("preimage_perona_malik")
    dataset = data.Folder(path=ROOT, size=96, crop="centre", colour="grey", count=32)
    x = torch.stack([dataset[i] for i in range(32)])
    noise = torch.from_numpy(np.stack([np.random.RandomState(100 + i).randn(*SHAPE) for i in range(32)]))
    operator = diffusion.PeronaMalik(SHAPE)
    y = operator(x) + (sigma * noise).float()
    problem = Problem(operator, y, GaussianNoise(sigma=sigma), SmoothedTotalVariation(SHAPE, epsilon=0.03), weight)
    result = solve(problem, solver)
    psnr, ssim = float(data.psnr(result.x, x).mean()), float(data.ssim(result.x, x).mean())
    print(f"noise {sigma}: {type(solver).__name__} {psnr:.3f} dB, SSIM {ssim:.4f}, {max(result.steps)} steps")
    assert psnr == pytest.approx(expected, abs=0.04)
