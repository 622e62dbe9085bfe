import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from preimage_baselines import BM3D, Denoise, GaussianSpectrum
from preimage_baselines.fit_images import folder_images

from preimage import GaussianNoise, Identity, Key, Problem, solve
from preimage.errors import Incompatible, NotInstalled, ShapeMismatch
from preimage.testing import check_prior, check_solver

bm3d = pytest.importorskip("bm3d", reason="the package bm3d is an extra")
DOUBLE = torch.zeros((), dtype=torch.float64)


def noisy(shape, sigma=0.1, count=1):
    height, width = shape[-2:]
    ramp = torch.linspace(0, 1, width, dtype=torch.float64).expand(count, *shape).clone()
    ramp[..., height // 4 : height // 2, width // 4 : width // 2] = 0.9
    return ramp, ramp + sigma * Key(0).normal(ramp.shape, DOUBLE)


@pytest.mark.parametrize("shape", [(1, 24, 31), (3, 24, 31)])
def test_it_gives_what_the_package_gives(shape):
    _, y = noisy(shape)
    array = y[0].permute(1, 2, 0).numpy()
    expected = bm3d.bm3d_rgb(array, 0.1) if shape[0] == 3 else bm3d.bm3d(array[..., 0], 0.1)[..., None]
    assert np.allclose(BM3D(shape).denoise(y, 0.1)[0].permute(1, 2, 0), expected, atol=2e-6)


def test_grey_keeps_the_laws_of_priors():
    check_prior(BM3D((1, 12, 12), stages=1))


def test_two_stages_are_better_than_one_and_one_better_than_none():
    x, y = noisy((1, 48, 48))
    errors = [float((BM3D((1, 48, 48), stages=n).denoise(y, 0.1) - x).square().mean()) for n in (2, 1)]
    assert errors[0] < errors[1] < 0.3 * float((y - x).square().mean())


def test_blocks_taken_as_independent_are_nearly_as_good_for_a_fraction_of_the_time():
    x, y = noisy((1, 48, 48))
    errors, seconds = [], []
    for exact in (True, False):
        prior, started = BM3D((1, 48, 48), exact_variances=exact), time.process_time()
        errors.append(float((prior.denoise(y, 0.1) - x).square().mean()))
        seconds.append(time.process_time() - started)
    assert errors[0] != errors[1] < 1.1 * errors[0]
    assert seconds[1] < 0.5 * seconds[0]


def test_every_image_has_its_own_noise_level():
    _, y = noisy((1, 24, 24), count=2)
    prior, levels = BM3D((1, 24, 24)), torch.tensor([0.05, 0.2])
    both = prior.denoise(y, levels)
    for index, level in enumerate((0.05, 0.2)):
        assert torch.allclose(both[index : index + 1], prior.denoise(y[index : index + 1], level), atol=1e-6)


def test_no_noise_and_flat_images_are_given_back():
    prior, (_, y) = BM3D((3, 16, 16)), noisy((3, 16, 16))
    assert torch.equal(prior.denoise(y, 0.0), y)
    flat = torch.full((1, 3, 16, 16), 0.3)
    assert torch.equal(prior.denoise(flat, 0.1), flat)


def test_grey_in_colour_is_denoised_as_grey():
    x, y = noisy((1, 32, 32))
    result = BM3D((3, 32, 32)).denoise(y.expand(1, 3, 32, 32), 0.1)
    assert bool(torch.isfinite(result).all())
    assert torch.allclose(result, result[:, :1].expand_as(result), atol=1e-5)
    # In all channels alike, the noise does not average out in the luminance as the denoiser believes.
    assert float((result[:, :1] - x).square().mean()) < 0.6 * float((y - x).square().mean())


def test_the_dtype_is_kept():
    _, y = noisy((1, 24, 24))
    assert BM3D((1, 24, 24)).denoise(y.float(), 0.1).dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 24, 24), (1, 8, 64), (24, 24)])
def test_images_that_do_not_fit_are_refused(shape):
    with pytest.raises(ShapeMismatch, match="bm3d"):
        BM3D(shape)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(NotInstalled, match=r"preimage-baselines\[bm3d\]"):
        BM3D((1, 24, 24))


# Denoising in one step


def problem(prior, sigma=0.3, weight=1.0, count=3):
    noise = GaussianNoise(sigma=sigma)
    x = Key(1).uniform((count, *prior.in_shape), DOUBLE)
    return Problem(Identity(prior.in_shape), noise.sample(x, Key(2)), noise, prior, weight)


def test_denoise_is_the_denoiser():
    given = problem(GaussianSpectrum((1, 16, 16)), weight=4.0)
    result = solve(given, Denoise())
    assert torch.allclose(result.x, given.prior.denoise(given.y, 0.6))
    clipped = solve(given, Denoise(clip=True)).x
    assert torch.allclose(clipped, given.prior.denoise(given.y.clamp(0, 1), 0.6))
    assert not torch.allclose(clipped, result.x)


@pytest.mark.parametrize("clip", [True, False])
def test_denoise_keeps_the_laws_of_solvers(clip):
    check_solver(Denoise(clip=clip), problem=problem(GaussianSpectrum((1, 16, 16))))


def test_denoise_is_for_denoising():
    given = problem(GaussianSpectrum((1, 16, 16)))
    with pytest.raises(Incompatible, match="Identity"):
        solve(Problem(2.0 * Identity((1, 16, 16)), given.y, given.noise, given.prior), Denoise())


PUBLISHED = {0.05: 34.06, 0.1: 30.08, 0.2: 25.35}


@pytest.mark.slow
@pytest.mark.skipif("PREIMAGE_DATA" not in os.environ, reason="PREIMAGE_DATA, the root of the faces, is not set")
@pytest.mark.parametrize("sigma", PUBLISHED)
def test_faces_of_the_published_table(sigma, capsys):
    """Colour BM3D of 12 faces, 64 x 64, the noisy image clipped first: reference figures of the package, +-0.15 dB."""
    x, _ = folder_images(Path("faces/celeba_test12"), size=64, channels=3, crop="resize")
    noise = GaussianNoise(sigma=sigma)
    y = noise.sample(x, Key(0))
    started = time.process_time()
    result = solve(Problem(Identity((3, 64, 64)), y, noise, BM3D((3, 64, 64))), Denoise(clip=True)).x
    found = float((-10 * (result.clamp(0, 1) - x).square().mean((1, 2, 3)).log10()).mean())
    with capsys.disabled():
        cpu = time.process_time() - started
        print(f"\nbm3d, sigma {sigma}: {found:.2f} dB (reference {PUBLISHED[sigma]}), {cpu:.0f} s CPU")
    assert found == pytest.approx(PUBLISHED[sigma], abs=0.15)
