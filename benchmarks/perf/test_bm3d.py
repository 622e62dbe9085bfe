"""BM3D with and without the exact variances of overlapping blocks, against the package as it comes.

Colour photographs of scikit-image, noise 0.1. The exact variances are a fixed cost of each call, so small images gain
most from doing without; the note has what it costs in decibels.
"""

import pytest
import torch
from preimage_baselines import BM3D
from preimage_data import Photographs, psnr

from preimage import Key

bm3d = pytest.importorskip("bm3d")
SIGMA = 0.1


@pytest.mark.parametrize(("size", "goal"), [(64, 0.2), (128, 0.35), (256, 0.6)])
def test_a_call(compare, size, goal):
    data = Photographs(names=["astronaut"], colour="colour", size=size)
    x = data[0][None]
    y = x + SIGMA * Key(0).normal(x.shape, x)
    array = y[0].permute(1, 2, 0).double().numpy()
    profile = bm3d.BM3DProfile()
    profile.num_threads = 1

    def package():
        return bm3d.bm3d_rgb(array, SIGMA, profile)

    quick = BM3D((3, size, size), exact_variances=False)
    theirs = torch.from_numpy(package()).permute(2, 0, 1)[None].to(x)
    exact = BM3D((3, size, size)).denoise(y, SIGMA)
    assert torch.allclose(exact, theirs, atol=1e-5)
    values = [float(psnr(image, x)) for image in (quick.denoise(y, SIGMA), exact)]
    assert values[0] > values[1] - 0.15
    compare(
        f"BM3D, colour, {size}², blocks as if independent",
        lambda: quick.denoise(y, SIGMA),
        ("bm3d_rgb of the package, one thread", package),
        goal,
        note=f"{values[0]:.2f} dB against {values[1]:.2f} dB with exact variances",
        rounds=3,
    )
